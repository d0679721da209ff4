"""What a message costs does not depend on how many streams are open beside it."""

from __future__ import annotations

import trio

from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.wires import read_exactly
from tests.counting import counting
from tests.muxers.yamux.ends import running_pair, stream_pair

MANY = 240
ROUNDS = 10
MESSAGE = bytes(32)


async def answer(stream: MuxedStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def test_an_echo_costs_the_same_however_many_streams_are_open() -> None:
    costs = []
    async with running_pair() as ends, trio.open_nursery() as nursery:
        ours, theirs = await stream_pair(*ends)
        nursery.start_soon(answer, theirs)
        for streams in (0, MANY):
            kept = [await stream_pair(*ends) for _ in range(streams)]
            with counting() as calls:
                for _ in range(ROUNDS):
                    await ours.send_all(MESSAGE)
                    await read_exactly(ours, len(MESSAGE))
            costs.append(calls[0])
        assert len(kept) == MANY
        nursery.cancel_scope.cancel()
    assert costs[1] <= costs[0] * 1.05
