"""Q25: streams of a connection share a slow line by turns, whatever one of them has to send.

Counted is what arrives of the greedy streams between the moment a small one sends and the moment
it is heard. What is on its way by then is nobody's to share: the queue before the line, and what
the line itself holds. All else is the connection's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio

from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from tests.transports.quic.quic_scene import End
from tests.transports.quic.test_quic_streams import CoreName, both, connected

RATE = 500_000
"""Bytes a second."""
LATENCY = 0.01
QUEUE = 32_768
LINE = Quality(latency=LATENCY, bandwidth=8 * RATE, queue_bytes=QUEUE)
ON_ITS_WAY = QUEUE + int(RATE * 4 * LATENCY)
PACKET = 1232
SMALL = 50
WORDS = bytes(200)
ROUNDS = 3


@dataclass
class Tally:
    """What arrived, and how much of the greedy ones' went ahead of each small word."""

    greedy: int = 0
    ahead: list[int] = field(default_factory=list)

    async def drain(self, stream: MuxedStream) -> None:
        while data := await stream.receive_some():
            self.greedy += len(data)


async def pour(stream: MuxedStream) -> None:
    while True:
        await stream.send_all(bytes(1_000_000))


async def talk(pair: tuple[MuxedStream, MuxedStream], tally: Tally) -> None:
    ours, theirs = pair
    for _ in range(ROUNDS):
        before = tally.greedy
        await ours.send_all(WORDS)
        await read_exactly(theirs, len(WORDS))
        tally.ahead.append(tally.greedy - before)


async def beside(greedy: int, dialled: End, accepted: End) -> Tally:
    """Have 50 streams talk while others send without end."""
    tally = Tally()
    async with trio.open_nursery() as nursery:
        pairs = [await stream_between(dialled, accepted) for _ in range(SMALL)]
        for _ in range(greedy):
            ours, theirs = await stream_between(dialled, accepted)
            nursery.start_soon(pour, ours)
            nursery.start_soon(tally.drain, theirs)
        await trio.sleep(1)
        with trio.fail_after(60):
            async with trio.open_nursery() as talking:
                for pair in pairs:
                    talking.start_soon(talk, pair, tally)
        nursery.cancel_scope.cancel()
    return tally


@pytest.mark.parametrize("greedy", [1, 8])
@both
async def test_fifty_small_streams_have_their_share_beside_greedy_ones(
    core: CoreName, greedy: int, world: World
) -> None:
    """A turn is a packet of each stream, greedy or small; it is waited for twice."""
    async with connected(world, QUIC(core=core), LINE) as ends:
        tally = await beside(greedy, *ends)
    turn = (greedy + SMALL) * PACKET
    assert len(tally.ahead) == SMALL * ROUNDS
    assert max(tally.ahead) < ON_ITS_WAY + 2 * turn


@both
async def test_who_sends_little_never_waits_for_those_who_always_have_more(
    core: CoreName, world: World
) -> None:
    """Q22 Q25: what a stream may keep unsent is its own, and no more than 16 KiB."""
    crawling = Quality(latency=LATENCY, bandwidth=8_000)
    async with connected(world, QUIC(core=core, max_unsent_bytes=65_536), crawling) as ends:
        pairs = [await stream_between(*ends) for _ in range(10)]
        small, _ = pairs.pop()
        async with trio.open_nursery() as nursery:
            for greedy, _ in pairs:
                nursery.start_soon(pour, greedy)
            await trio.sleep(1)
            with trio.move_on_after(0.2) as waiting:
                await small.send_all(bytes(8_192))
            assert not waiting.cancelled_caught
            with trio.move_on_after(0.2) as waiting:
                await small.send_all(bytes(65_536))
            assert waiting.cancelled_caught
            nursery.cancel_scope.cancel()
