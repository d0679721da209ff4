"""The probes in simulated worlds: they find each kind of home, and punch as theory says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations_with_replacement

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.kinds import ALL_KINDS, KINDS, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat_kind import Dependence, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing import (
    Classification,
    Plan,
    PunchResult,
    classify,
    punch,
    serve_observer,
    serve_rendezvous,
)
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY, Site
from p2pnet.testing.theory import can_punch
from p2pnet.testing.world import World

NEAR, FAR = Quality(latency=0.0), Quality(latency=0.02)
INDEPENDENT, ADDRESS = Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS
PORT = Dependence.ADDRESS_AND_PORT
PRESERVING, SEQUENTIAL = PortChoice.PRESERVING, PortChoice.SEQUENTIAL
RANDOM = PortChoice.RANDOM

FOUND: dict[str, tuple[Dependence, Dependence, PortChoice]] = {
    "open": (INDEPENDENT, INDEPENDENT, PRESERVING),
    "firewall": (INDEPENDENT, PORT, PRESERVING),
    "full-cone": (INDEPENDENT, INDEPENDENT, PRESERVING),
    "address-restricted": (INDEPENDENT, ADDRESS, PRESERVING),
    "port-restricted": (INDEPENDENT, PORT, PRESERVING),
    "port-restricted-reset": (INDEPENDENT, PORT, PRESERVING),
    "port-restricted-random": (INDEPENDENT, PORT, RANDOM),
    "address-symmetric": (ADDRESS, PORT, RANDOM),
    "symmetric": (PORT, PORT, RANDOM),
    "symmetric-sequential": (PORT, PORT, SEQUENTIAL),
    "carrier": (INDEPENDENT, PORT, SEQUENTIAL),
    "carrier-symmetric": (PORT, PORT, RANDOM),
    "udp-blocked": (INDEPENDENT, PORT, PRESERVING),
    "no-simultaneous-open": (INDEPENDENT, PORT, PRESERVING),
    "hairpinning": (INDEPENDENT, PORT, PRESERVING),
    "symmetric-reset": (PORT, PORT, RANDOM),
    "port-restricted-sequential": (INDEPENDENT, PORT, SEQUENTIAL),
    "double-nat": (INDEPENDENT, PORT, PRESERVING),
}
"""What must be found from inside, over TCP."""


def public(world: World, name: str) -> Machine:
    return world.machine(name, link=FAR, families=IPV4_ONLY)


def at_home(world: World, name: str, site: Site) -> Machine:
    """Put a machine at a site; it is the way to the internet that takes its time."""
    link = FAR if site is world.internet else NEAR
    return world.machine(name, at=site, link=link, families=IPV4_ONLY)


async def classified(
    transport: TransportName, kind: Kind, *, seed: int = 0
) -> tuple[Classification, str]:
    """Classify a home in a world of its own, and return the hash over its packets, too."""
    async with World(seed) as world:
        observers = [public(world, "one"), public(world, "other")]
        host = at_home(world, "host", world.home(kind, link=FAR))
        hosts = [machine.addresses[0] for machine in observers]
        endpoints: list[Endpoint] = []
        async with trio.open_nursery() as nursery:
            for machine, own, other in zip(observers, hosts, reversed(hosts), strict=True):
                partner = Endpoint(other, 7001)
                serve = partial(serve_observer, machine.env.network, [own], partner=partner)
                endpoints += (await nursery.start(serve)).of(transport)
            env = host.env
            found = await classify(env.network, transport, tuple(endpoints), jitter=env.jitter)
            nursery.cancel_scope.cancel()
    return found, world.trace.sha256


async def punched(
    transport: TransportName,
    world: World,
    sites: Sequence[Site],
    *,
    skews: Sequence[float] = (0, 0),
    patience: float = 5.0,
) -> list[PunchResult]:
    """Let a machine at each of two sites meet the other."""
    server = public(world, "rendezvous")
    at = Endpoint(server.addresses[0], 7000)
    machines = [at_home(world, name, site) for name, site in zip("ab", sites, strict=True)]
    results: dict[str, PunchResult] = {}

    async def go(machine: Machine, peer: str, skew: float) -> None:
        plan = Plan(name=machine.name, peer=peer, skew=skew, patience=patience)
        env = machine.env
        results[machine.name] = await punch(
            env.network, transport, at, plan=plan, jitter=env.jitter
        )

    async with trio.open_nursery() as server_nursery:
        await server_nursery.start(serve_rendezvous, server.env.network, at)
        async with trio.open_nursery() as nursery:
            for machine, peer, skew in zip(machines, "ba", skews, strict=True):
                nursery.start_soon(go, machine, peer, skew)
        server_nursery.cancel_scope.cancel()
    return [results["a"], results["b"]]


# ---- classifying --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=lambda kind: kind.name)
def test_each_kind_of_home_is_found_by_tcp(kind: Kind) -> None:
    found, _ = run(partial(classified, "tcp", kind))
    assert (found.mapping, found.filtering, found.ports) == FOUND[kind.name]
    assert found.translated == (kind.name not in ("open", "firewall"))
    assert found.hairpins == (kind.name == "hairpinning")
    answers = kind.name in ("open", "port-restricted-reset", "symmetric-reset")
    assert found.unsolicited == ("answered" if answers else "dropped")
    assert found.port_step == (1 if found.ports is SEQUENTIAL else None)


@pytest.mark.parametrize("kind", ALL_KINDS.values(), ids=lambda kind: kind.name)
def test_each_kind_of_home_is_found_by_udp(kind: Kind) -> None:
    found, _ = run(partial(classified, "udp", kind))
    if kind.name == "udp-blocked":
        assert found == Classification(transport="udp", blocked=True)
    else:
        assert (found.mapping, found.filtering, found.ports) == FOUND[kind.name]
        assert found.hairpins == (kind.name == "hairpinning")
        assert found.unsolicited is None


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_same_seed_gives_the_same_packets(transport: TransportName) -> None:
    once, again, otherwise = (
        run(partial(classified, transport, KINDS["symmetric"], seed=seed)) for seed in (3, 3, 4)
    )
    assert once == again
    assert once[1] != otherwise[1]


# ---- punching -----------------------------------------------------------------------------


async def punched_at_homes(transport: TransportName, a: Kind, b: Kind) -> list[PunchResult]:
    async with World() as world:
        homes = [world.home(a, "home of a", link=FAR), world.home(b, "home of b", link=FAR)]
        return await punched(transport, world, homes)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", ALL_KINDS)
def test_a_hole_punch_works_where_theory_says_so(transport: TransportName, name: str) -> None:
    for a, b in combinations_with_replacement(ALL_KINDS, 2):
        if a != name:
            continue
        kinds = ALL_KINDS[a], ALL_KINDS[b]
        results = run(partial(punched_at_homes, transport, *kinds))
        verdict = can_punch(*kinds, transport)
        assert [result.direct for result in results] == [verdict.direct] * 2, (b, verdict, results)


def test_a_hole_punch_takes_the_round_trips_it_needs() -> None:
    kind = KINDS["port-restricted"]
    needed: list[tuple[TransportName, float]] = [("udp", 1.0), ("tcp", 1.5)]
    for transport, round_trips in needed:
        for result in run(partial(punched_at_homes, transport, kind, kind)):
            assert result.seconds == pytest.approx(round_trips * 0.08, abs=0.04)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("seed", range(5))
async def test_a_hole_punch_gets_over_loss(
    autojump_clock: trio.testing.MockClock, transport: TransportName, seed: int
) -> None:
    lossy = Quality(latency=0.02, loss=0.1)
    async with World(seed) as world:
        homes = [world.home("port-restricted", f"home of {who}", link=lossy) for who in "ab"]
        # A SYN is sent again after 1, 3 and 7 seconds.
        results = await punched(transport, world, homes, patience=15)
    assert all(result.direct for result in results)


@pytest.mark.parametrize("name", ["port-restricted", "port-restricted-reset"])
@pytest.mark.parametrize("skew", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
async def test_a_side_that_comes_late_is_met_all_the_same(
    autojump_clock: trio.testing.MockClock, name: str, skew: float, seed: int
) -> None:
    async with World(seed) as world:
        homes = [world.home(name, f"home of {who}", link=FAR) for who in "ab"]
        results = await punched("tcp", world, homes, skews=(0, skew))
    assert all(result.direct for result in results)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", ["port-restricted", "hairpinning"])
async def test_neighbours_meet_by_outside_endpoints_only_with_hairpinning(
    autojump_clock: trio.testing.MockClock, transport: TransportName, name: str
) -> None:
    async with World() as world:
        home = world.home(ALL_KINDS[name], link=FAR)
        results = await punched(transport, world, [home, home])
    assert [result.direct for result in results] == [name == "hairpinning"] * 2
