"""A stream moves from a relayed to a direct connection over QUIC as it does over TCP: RS10."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.events import PunchAttemptFailed, StreamMoved
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.resuming import BULK, PAUSE, Arrival, send_until_direct
from tests.network.scene import NEAR, call

MIB = 1 << 20
ROUND_TRIP = 0.16
"""Seconds over the relay: four times 20 ms of a home or the relay, there and back."""
LINE = replace(NEAR, bandwidth=5_000_000)
"""5 Mbit/s each way, which a transfer that does not pause has full all the time."""


async def put_two(world: World, link: Quality) -> tuple[Machine, Machine]:
    limits = RelayServer(circuit_bytes=64 * MIB)
    config = speaking("quic", presets.relay(limits=limits))
    relay = await world.host(config, "relay", link=NEAR, families=IPV4_ONLY)
    at = [str(each) for each in relay.host.addresses.value if "/udp/" in str(each)]
    edge = speaking("quic", presets.edge(relays=at, port_mapping=False))
    alice, bob = [
        await world.host(
            edge,
            name,
            at=world.home(ALL_KINDS["port-restricted"], f"home of {name}", link=link),
            link=Quality(latency=0.0),
            families=IPV4_ONLY,
        )
        for name in ("alice", "bob")
    ]
    return alice, bob


@pytest.mark.parametrize(("link", "pause"), [(NEAR, PAUSE), (LINE, 0.0)], ids=["paced", "full"])
async def test_a_transfer_stands_still_for_less_than_a_round_trip_and_50_ms_when_it_moves(
    world: World, link: Quality, pause: float
) -> None:
    """RS10."""
    alice, bob = await put_two(world, link)
    arrival = Arrival()
    bob.host.handle(BULK, arrival.receive)
    await trio.sleep(1)
    await call(alice, bob)
    with alice.host.subscribe(StreamMoved) as moves:
        stream: Stream = await alice.host.open_stream(bob.host.peer_id, BULK, limited="allow")
        assert stream.connection.is_relayed
        with alice.host.subscribe(PunchAttemptFailed) as failures:
            data = await send_until_direct(stream, pause=pause)
        # A full line has a longer queue with each second, and what moves waits behind that.
        assert pause or not failures.take_waiting(), "to begin with, the first punch has to work"
        await arrival.complete(data, within=60)
        (moved,) = moves.take_waiting()
    assert not stream.connection.is_relayed
    assert "/quic-v1" in str(stream.connection.remote_address)
    assert moved.before.is_relayed
    assert arrival.longest_stall() < ROUND_TRIP + 0.05
    await stream.aclose()
