"""No mapping is lost by a connection that nobody uses. Rules KA1 to KA10."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed
from p2pnet.errors import PeerSilent
from p2pnet.events import ReservationLost
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Connection, Part, Service
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.hold import Hold
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.relay import RelayClient
from p2pnet.swarm.connection import LiveConnection
from p2pnet.testing.kinds import KINDS, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY, IPV6
from p2pnet.testing.trace import Hop, Trace
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC

NEAR = Quality(latency=0.02)
LISTEN = ["/ip4/0.0.0.0/udp/4001/quic-v1"]
LISTEN_IPV6 = ["/ip6/::/udp/4001/quic-v1"]
HOMES = ("here", "there")
SECONDS = 1800.0
TRIALS = 400.0
"""In which all is learned that can be."""
FIXED_INTERVAL = 5.0
LEAST_SAVED = 0.6
ASKING = Hold(max_served=0)
"""As in the preset: who cannot be dialled has no use as a server."""


@dataclass
class Between:
    """Counts what arrives at one home from the other, by its endpoints, and what does not."""

    homes: frozenset[str] = frozenset()
    """Their public addresses, once it matters."""
    flows: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: int = 0

    def see(self, hop: Hop) -> None:
        source, destination = hop.packet.source, hop.packet.destination
        if {source.host, destination.host} != self.homes:
            return
        if hop.fate:
            self.dropped += 1
        elif hop.receiver in HOMES:
            self.flows[str(source), str(destination)] += 1


def config(quic: QUIC, *relays: str, hold: Hold | None = None) -> HostConfig:
    services: list[Part[Service]] = [Identify(), Ping(), DCUtR(), RelayClient(relays=relays)]
    if hold is not None:
        services.append(hold)
    edge = presets.minimal(listen=LISTEN, transports=[quic])
    return replace(edge, services=services)


async def put_relay(world: World, hold: Hold | None = None) -> Machine:
    relay = presets.relay(listen=LISTEN, transports=[QUIC()])
    if hold is not None:
        others = [part for part in relay.services if not isinstance(part, Hold)]
        relay = replace(relay, services=[*others, hold])
    return await world.host(relay, "relay", link=NEAR, families=IPV4_ONLY)


async def put_home(world: World, name: str, lifetime: float, config: HostConfig) -> Machine:
    nat = replace(KINDS["port-restricted-random"].nats[0], udp_seconds=lifetime)
    home = world.home(Kind(name, (nat,)), name, link=NEAR)
    return await world.host(config, f"host {name}", at=home, link=NEAR, families=IPV4_ONLY)


async def put_two(
    world: World,
    lifetime: float,
    *,
    here: QUIC | None = None,
    there: QUIC | None = None,
    hold: Hold | None = None,
) -> tuple[Machine, Machine, Connection]:
    """Give two hosts behind NATs, and the punched connection of the first to the other."""
    relay = await put_relay(world)
    one, two = [
        await put_home(world, name, lifetime, config(quic or QUIC(), relay.address, hold=hold))
        for name, quic in zip(HOMES, (here, there), strict=True)
    ]
    await two.host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
    return one, two, await join(one, two)


async def join(one: Machine, two: Machine) -> Connection:
    with trio.fail_after(60):
        await one.host.connect(two.host.peer_id)
        direct = await one.host.wait_direct(two.host.peer_id)
    await trio.sleep(60)  # What follows a hole punch is over.
    return direct


def known(machine: Machine) -> float | None:
    return machine.host.service(Hold).silence()


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Looks on; to be had before the world, whose links hold on to what they tell."""
    between = Between()
    record = Trace.record

    def see(trace: Trace, hop: Hop) -> None:
        between.see(hop)
        record(trace, hop)

    monkeypatch.setattr(Trace, "record", see)
    return between


def watch(world: World, between: Between) -> None:
    between.homes = frozenset(world.routers[name].outside_addresses[0] for name in HOMES)


def check_kept(between: Between, here: Machine, there: Machine, direct: Connection) -> float:
    """See that nothing was lost; give the part of the packets that was saved."""
    assert here.host.connections(there.host.peer_id) == (direct,)
    assert not there.host.connections(here.host.peer_id)[0].is_relayed
    # The same outside ports all the time, and nothing came where it was not expected any more.
    assert len(between.flows) == 2, between.flows
    assert between.dropped == 0
    packets = sum(between.flows.values())
    fixed = 2 * SECONDS / FIXED_INTERVAL  # A ping each 5 s, and its acknowledgement.
    assert packets > 0
    return 1 - packets / fixed


@pytest.mark.parametrize("lifetime", [20.0, 30.0, 60.0, 120.0, 300.0])
async def test_no_mapping_is_lost_and_three_fifths_of_the_packets_are_saved(
    between: Between, world: World, lifetime: float
) -> None:
    """KA1 KA2: before anything is learned."""
    here, there, direct = await put_two(world, lifetime)
    watch(world, between)
    await trio.sleep(SECONDS)
    assert check_kept(between, here, there, direct) >= LEAST_SAVED


@pytest.mark.parametrize(
    ("lifetime", "silence", "saved"),
    [
        (20.0, 15.0, 0.60),
        (30.0, 15.0, 0.60),
        (60.0, 30.0, 0.80),
        (120.0, 60.0, 0.90),
        (300.0, 60.0, 0.90),
    ],
)
async def test_it_is_learned_how_long_the_nat_lets_a_connection_be_silent(
    between: Between, world: World, lifetime: float, silence: float, saved: float
) -> None:
    """KA5 KA6 KA8: no mapping is lost while it is learned, nor when it is known."""
    here, there, direct = await put_two(world, lifetime, hold=ASKING)
    watch(world, between)
    await trio.sleep(TRIALS)
    assert (known(here), known(there)) == (silence, silence)
    assert between.dropped == 0
    assert len(between.flows) == 2
    between.flows.clear()
    await trio.sleep(SECONDS)
    assert check_kept(between, here, there, direct) >= saved


async def test_a_nat_that_keeps_nothing_for_long_is_pinged_more_often(
    between: Between, world: World
) -> None:
    """KA6: mappings that were lost before are held once that is known."""
    here, there, first = await put_two(world, 10.0, hold=ASKING)
    watch(world, between)
    await trio.sleep(TRIALS)
    assert (known(here), known(there)) == (7.5, 7.5)
    # Who pings too late loses packets; or all of it, most often before anybody looks.
    assert isinstance(first, LiveConnection)
    assert between.dropped or isinstance(first.failure, PeerSilent)
    direct = await join(here, there)
    between.dropped = 0
    between.flows.clear()
    await trio.sleep(SECONDS)
    check_kept(between, here, there, direct)


async def test_who_waits_for_longer_than_the_mapping_lives_loses_it(
    between: Between, world: World
) -> None:
    """KA1: so the tests above can fail."""
    patient = QUIC(idle_timeout=120.0, keep_alive=25.0)
    await put_two(world, 20.0, here=patient, there=QUIC(idle_timeout=120.0, keep_alive=60.0))
    watch(world, between)
    await trio.sleep(600)
    assert between.dropped > 0


async def test_what_was_learned_is_forgotten_with_the_network(world: World) -> None:
    """KA10."""
    relay = await put_relay(world)
    host = await put_home(world, "here", 300.0, config(QUIC(), relay.address, hold=ASKING))
    await trio.sleep(TRIALS)
    assert known(host) == 60.0
    nat = replace(KINDS["port-restricted"].nats[0], udp_seconds=60.0)
    there = world.home(Kind("there", (nat,)), "there", link=NEAR)
    world.machine("another", at=there)  # So that the host gets another address than before.
    host.move(there)
    await trio.sleep(30)
    assert known(host) is None
    await trio.sleep(TRIALS)
    assert known(host) == 30.0


async def test_what_is_known_of_one_family_does_not_put_the_other_off(world: World) -> None:
    """KA10: a peer that can tell of IPv6 comes when that of IPv4 has told all."""
    four = presets.relay(listen=LISTEN, transports=[QUIC()])
    six = presets.relay(listen=LISTEN_IPV6, transports=[QUIC()])
    minimal = presets.minimal(listen=LISTEN + LISTEN_IPV6, transports=[QUIC()])
    here = await world.host(
        replace(minimal, services=[*minimal.services, ASKING]), link=NEAR, families=DUAL_STACK
    )
    await here.host.connect((await world.host(four, link=NEAR, families=IPV4_ONLY)).address)
    await trio.sleep(TRIALS)
    learned = here.host.service(Hold)
    assert learned.silence() == 60.0
    assert learned.silence(is_ipv6=True) is None
    await here.host.connect((await world.host(six, link=NEAR, families=IPV6)).address)
    await trio.sleep(TRIALS)
    assert learned.silence(is_ipv6=True) == 60.0


async def test_a_relay_that_is_gone_is_noticed_as_soon_as_ever(world: World) -> None:
    """KA11: what was learned does not count where a reservation is held."""
    relay = await put_relay(world)
    host = await put_home(world, "here", 300.0, config(QUIC(), relay.address, hold=ASKING))
    await trio.sleep(TRIALS)
    assert known(host) == 60.0
    with host.host.subscribe(ReservationLost) as events:
        await relay.power_off()
        with trio.fail_after(8 + 15 + 1):
            await anext(events)


async def test_one_who_is_told_to_come_later_comes_later(world: World) -> None:
    """KA9: of two, who want something of a server for one, each has its turn."""
    relay = await put_relay(world, Hold(max_served=1))
    hurried = Hold(settle_seconds=1.0)
    hosts = [
        await put_home(world, name, 300.0, config(QUIC(), relay.address, hold=hurried))
        for name in HOMES
    ]
    await trio.sleep(60)
    assert sorted(known(host) is None for host in hosts) == [False, True]
    await trio.sleep(600)
    assert [known(host) for host in hosts] == [60.0, 60.0]
