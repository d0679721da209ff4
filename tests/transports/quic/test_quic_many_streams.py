"""What a message costs does not depend on how many streams are open beside it."""

from __future__ import annotations

import pytest
import trio

from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from tests.counting import counting
from tests.transports.quic.test_quic_streams import CoreName, both, connected

LINE = Quality(latency=0.001)
MANY = 240
ROUNDS = 10
MESSAGE = bytes(32)


async def answer(stream: MuxedStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def ask(stream: MuxedStream, times: int) -> None:
    for _ in range(times):
        await stream.send_all(MESSAGE)
        await read_exactly(stream, len(MESSAGE))


@both
@pytest.mark.parametrize("who_ended", ["nobody", "opener", "acceptor"])
async def test_an_echo_costs_the_same_however_many_streams_are_open(
    who_ended: str, core: CoreName, world: World
) -> None:
    """It took five times the calls of Python functions, and twice with the fast core."""
    costs = []
    kept = []
    async with connected(world, QUIC(core=core), LINE) as ends, trio.open_nursery() as nursery:
        ours, theirs = await stream_between(*ends)
        nursery.start_soon(answer, theirs)
        for streams in (0, MANY):
            for _ in range(streams):
                one, two = await stream_between(*ends)
                kept += [one, two]
                if who_ended != "nobody":
                    await (one if who_ended == "opener" else two).send_eof()
            await trio.sleep(1)
            await ask(ours, 3)
            with counting() as calls:
                await ask(ours, ROUNDS)
            costs.append(calls[0])
        nursery.cancel_scope.cancel()
    assert costs[1] <= costs[0] * 1.2
