"""Punching where a NAT gives each destination the next port: which one can be told in advance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint
from p2pnet.events import HolePunched, PunchGivenUp, PunchStarted
from p2pnet.host.config import HostConfig
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import NEAR, call, direct

GUESSABLE = "symmetric-sequential"
SETTLED = 15.0
TAKEN = 8
PAIRS = [
    (GUESSABLE, "port-restricted", "tcp"),
    (GUESSABLE, "firewall", "quic"),
    ("port-restricted-reset", GUESSABLE, "tcp"),
    ("carrier", GUESSABLE, "quic"),
    (GUESSABLE, GUESSABLE, "tcp"),
    (GUESSABLE, GUESSABLE, "quic"),
]
"""The matrix has all pairs; these are each sort once."""


async def put_relays(world: World, transport: str) -> list[str]:
    """Put two relays: one alone cannot tell that a port moves."""
    config = speaking("tcp" if transport == "tcp" else "quic", presets.relay())
    relays = [
        await world.host(config, name, link=NEAR, families=IPV4_ONLY)
        for name in ("relay", "other relay")
    ]
    return [
        str(address)
        for relay in relays
        for address in relay.host.addresses.value
        if ("/udp/" in str(address)) == (transport == "quic")
    ]


async def put(
    world: World, name: str, kind: str, config: HostConfig, *, link: Quality = NEAR
) -> Machine:
    home = world.home(ALL_KINDS[kind], f"home of {name}", link=link)
    return await world.host(config, name, at=home, link=Quality(latency=0.0), families=IPV4_ONLY)


async def put_all(world: World, *kinds: str, transport: str, dcutr: DCUtR) -> list[Machine]:
    relays = await put_relays(world, transport)
    config = speaking("tcp" if transport == "tcp" else "quic", presets.edge(relays=relays))
    services = [dcutr if isinstance(part, DCUtR) else part for part in config.services]
    config = replace(config, services=services)
    named = zip(("alice", "bob", "carol"), kinds, strict=False)
    return [await put(world, name, kind, config) for name, kind in named]


async def put_two(world: World, a: str, b: str, transport: str, dcutr: DCUtR) -> list[Machine]:
    return await put_all(world, a, b, transport=transport, dcutr=dcutr)


async def know_their_nats(*machines: Machine) -> None:
    """Wait until peers have told, and no host opens ports any more to learn about its NAT."""
    await trio.sleep(SETTLED)
    assert any(machine.host.nat.value.is_symmetric for machine in machines)


@pytest.mark.parametrize(("a", "b", "transport"), PAIRS)
async def test_a_port_that_comes_next_is_punched_at(
    world: World, a: str, b: str, transport: str
) -> None:
    """D16 D17 D18."""
    alice, bob = await put_two(world, a, b, transport, DCUtR())
    await know_their_nats(alice, bob)
    with bob.host.subscribe(HolePunched) as punched:
        await call(alice, bob)
        await direct(alice, bob, within=2.0)
        assert (await anext(punched)).attempt == 1


async def test_without_prediction_there_is_no_way_through(world: World) -> None:
    """D16."""
    config = DCUtR(predicted_ports=0)
    alice, bob = await put_two(world, GUESSABLE, "port-restricted", "tcp", config)
    await know_their_nats(alice, bob)
    with bob.host.subscribe(PunchGivenUp) as given_up:
        await call(alice, bob)
        reasons = (await anext(given_up)).reasons
    assert all("no answer" in reason for reason in reasons)
    assert alice.host.connections(bob.host.peer_id)[0].is_relayed


async def test_ports_that_others_took_meanwhile_are_left_behind_by_the_next_attempt(
    world: World,
) -> None:
    """D17."""
    alice, bob = await put_two(world, GUESSABLE, "port-restricted", "tcp", DCUtR())
    await know_their_nats(alice, bob)
    near = Quality(latency=0.0)
    neighbour = world.machine("neighbour", at=alice.site, link=near, families=IPV4_ONLY)
    with alice.host.subscribe(PunchStarted, HolePunched) as events:
        await call(alice, bob)
        # Alice has looked before she called, and dials when Bob has heard what she foresaw.
        for number in range(TAKEN):
            with trio.move_on_after(0.001):
                await neighbour.env.network.dial_tcp(Endpoint("11.1.0.1", 5000 + number))
        assert isinstance(await anext(events), PunchStarted)
        await direct(alice, bob, within=30.0)
        assert isinstance(await anext(events), PunchStarted)
        punched = await anext(events)
        assert isinstance(punched, HolePunched)
        assert punched.attempt == 2


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize("is_called", [False, True], ids=["calls", "is called"])
async def test_ports_that_a_punch_just_took_are_not_foreseen_for_the_next_peer(
    world: World, transport: str, is_called: bool
) -> None:
    """D16: Within a second this host does not look again, and it has dialled eight places."""
    kinds = (GUESSABLE, "port-restricted", GUESSABLE)
    alice, bob, carol = await put_all(world, *kinds, transport=transport, dcutr=DCUtR())
    await know_their_nats(alice, bob, carol)
    await call(alice, carol)
    await direct(alice, carol, within=2.0)
    with bob.host.subscribe(HolePunched) as punched:
        await (call(bob, alice) if is_called else call(alice, bob))
        await direct(alice, bob, within=2.0)
        assert (await anext(punched)).attempt == 1


@pytest.mark.parametrize("taken", [1, 2])
async def test_where_both_foresee_the_next_attempt_finds_what_was_taken_meanwhile(
    world: World, taken: int
) -> None:
    """D17: The ports of both count, so whoever is mistaken is so in each attempt."""
    alice, bob = await put_two(world, GUESSABLE, GUESSABLE, "tcp", DCUtR())
    await know_their_nats(alice, bob)
    near = Quality(latency=0.0)
    neighbour = world.machine("neighbour", at=alice.site, link=near, families=IPV4_ONLY)
    with bob.host.subscribe(HolePunched) as punched:
        await call(alice, bob)
        for number in range(taken):
            with trio.move_on_after(0.001):
                await neighbour.env.network.dial_tcp(Endpoint("11.1.0.1", 5000 + number))
        await direct(alice, bob, within=30.0)
        assert (await anext(punched)).attempt == 2
