"""A stream that fills its line goes from circuit to circuit: specs/resume.md (RS21, RS22)."""

from __future__ import annotations

import pytest
import trio

from p2pnet.events import StreamMoved
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.resume.stream import MIN_TURN
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from tests.network.resuming import BULK, Arrival, bulk, put_resuming
from tests.network.scene import call, put_relay

MIB = 1 << 20
BITS_PER_SECOND = 10e6
LINE = Quality(latency=0.01, bandwidth=BITS_PER_SECOND, queue_bytes=4 * MIB)
"""Nothing is lost on it: what is sent again would hide what is looked for."""
ROUND_TRIP = 0.04
TWO_PIECES = 2 * MIN_TURN * 8 / BITS_PER_SECOND
"""Seconds; also where nothing moves, two turns of the sender may come at once."""


@pytest.mark.parametrize("caller", ["alice", "bob"])
@pytest.mark.parametrize("sender", ["alice", "bob"])
async def test_a_stream_that_fills_its_line_does_not_stand_still_between_circuits(
    world: World, sender: str, caller: str
) -> None:
    """Alice has opened the stream; the one who called dials the next circuits."""
    limits = RelayServer(circuit_bytes=2 * MIB)
    relay = await put_relay(world, link=Quality(latency=0.0), limits=limits)
    alice = await put_resuming(world, "alice", relay.address, at="symmetric", link=LINE)
    bob = await put_resuming(world, "bob", relay.address, at="symmetric", link=LINE)
    arrival, data = Arrival(), bulk(8 * MIB)

    async def send(stream: Stream) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    bob.host.handle(BULK, arrival.receive if sender == "alice" else send)
    await (call(alice, bob) if caller == "alice" else call(bob, alice))
    await trio.sleep(1)
    with alice.host.subscribe(StreamMoved) as moves:
        stream = await alice.host.open_stream(bob.host.peer_id, BULK, limited="allow")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send if sender == "alice" else arrival.receive, stream)
        await arrival.complete(data, within=60)
        assert len(moves.take_waiting()) >= 4
    assert arrival.longest_stall() < ROUND_TRIP + 0.05 + TWO_PIECES
    await stream.aclose()
