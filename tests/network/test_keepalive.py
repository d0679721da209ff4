"""No mapping is lost by a connection that nobody uses. Rules KA1 to KA4."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Connection, Part, Service
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.relay import RelayClient
from p2pnet.testing.kinds import KINDS, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.trace import Hop, Trace
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC

NEAR = Quality(latency=0.02)
LISTEN = ["/ip4/0.0.0.0/udp/4001/quic-v1"]
HOMES = ("here", "there")
SECONDS = 1800.0
FIXED_INTERVAL = 5.0
LEAST_SAVED = 0.6


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


def config(quic: QUIC, *relays: str) -> HostConfig:
    services: list[Part[Service]] = [Identify(), Ping(), DCUtR(), RelayClient(relays=relays)]
    edge = presets.minimal(listen=LISTEN, transports=[quic])
    return replace(edge, services=services)


async def put_two(
    world: World, lifetime: float, *, here: QUIC | None = None, there: QUIC | None = None
) -> tuple[Machine, Machine, Connection]:
    """Give two hosts behind NATs, and the punched connection of the first to the other."""
    between = await world.host(
        presets.relay(listen=LISTEN, transports=[QUIC()]), "relay", link=NEAR, families=IPV4_ONLY
    )
    nat = replace(KINDS["port-restricted-random"].nats[0], udp_seconds=lifetime)
    one, two = [
        await world.host(
            config(quic or QUIC(), between.address),
            f"host {name}",
            at=world.home(Kind(name, (nat,)), name, link=NEAR),
            link=NEAR,
            families=IPV4_ONLY,
        )
        for name, quic in zip(HOMES, (here, there), strict=True)
    ]
    await two.host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
    with trio.fail_after(60):
        await one.host.connect(two.host.peer_id)
        direct = await one.host.wait_direct(two.host.peer_id)
    await trio.sleep(60)  # What follows a hole punch is over.
    return one, two, direct


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


@pytest.mark.parametrize("lifetime", [20.0, 30.0, 60.0, 120.0, 300.0])
async def test_no_mapping_is_lost_and_three_fifths_of_the_packets_are_saved(
    between: Between, world: World, lifetime: float
) -> None:
    """KA1 KA2 KA4."""
    here, there, direct = await put_two(world, lifetime)
    between.homes = frozenset(world.routers[name].outside_addresses[0] for name in HOMES)
    await trio.sleep(SECONDS)
    assert here.host.connections(there.host.peer_id) == (direct,)
    assert not there.host.connections(here.host.peer_id)[0].is_relayed
    # The same outside ports all the time, and nothing came where it was not expected any more.
    assert len(between.flows) == 2, between.flows
    assert between.dropped == 0
    packets = sum(between.flows.values())
    fixed = 2 * SECONDS / FIXED_INTERVAL  # A ping each 5 s, and its acknowledgement.
    assert 0 < packets <= (1 - LEAST_SAVED) * fixed, packets


async def test_who_waits_for_longer_than_the_mapping_lives_loses_it(
    between: Between, world: World
) -> None:
    """KA1: so the test above can fail."""
    patient = QUIC(idle_timeout=120.0, keep_alive=25.0)
    await put_two(world, 20.0, here=patient, there=QUIC(idle_timeout=120.0, keep_alive=60.0))
    between.homes = frozenset(world.routers[name].outside_addresses[0] for name in HOMES)
    await trio.sleep(600)
    assert between.dropped > 0
