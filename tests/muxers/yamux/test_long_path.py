"""Y10: the window fills a line of 1 Gbit/s and 200 ms, once it had time to grow."""

from __future__ import annotations

from collections import deque

import trio
from trio.testing import MockClock

from p2pnet.interfaces import MuxedStream, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.driver import YamuxConnection, YamuxMuxer

RATE = 125e6
"""Bytes a second."""
ROUND_TRIP = 0.2
BLOCK = bytes(1024 * 1024)


class Line:
    """One direction: so many bytes a second, and each takes half of a round trip."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.arriving: deque[tuple[float, bytes]] = deque()
        self.news = trio.Event()

    async def carry(self, data: bytes) -> None:
        now = trio.current_time()
        self.free_at = max(self.free_at, now) + len(data) / RATE
        self.arriving.append((self.free_at + ROUND_TRIP / 2, data))
        self.news.set()
        await trio.sleep_until(self.free_at)

    async def next(self) -> bytes:
        while not self.arriving:
            self.news = trio.Event()
            await self.news.wait()
        at, data = self.arriving.popleft()
        await trio.sleep_until(at)
        return data


class End(trio.abc.Stream):
    """What a muxer holds of two lines."""

    def __init__(self, out: Line, back: Line) -> None:
        self._out, self._back = out, back

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._out.carry(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._back.next()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def ends() -> tuple[YamuxConnection, YamuxConnection]:
    there, back = Line(), Line()
    muxer = YamuxMuxer(Yamux())
    return (
        muxer.start(End(there, back), Role.DIALER),
        muxer.start(End(back, there), Role.LISTENER),
    )


async def test_y10_one_stream_fills_a_line_of_one_gbit_and_200_ms(
    autojump_clock: MockClock,
) -> None:
    dialer, listener = ends()
    arrived: list[tuple[float, int]] = [(0.0, 0)]

    async def drain(stream: MuxedStream) -> None:
        while data := await stream.receive_some():
            arrived.append((trio.current_time(), arrived[-1][1] + len(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run, lambda stream: stream.reset())
        nursery.start_soon(listener.run, lambda stream: nursery.start_soon(drain, stream))
        stream = await dialer.open_stream()
        while trio.current_time() < 6.0:
            await stream.send_all(BLOCK)
        nursery.cancel_scope.cancel()

    late = [entry for entry in arrived if entry[0] > 4.0]
    (first, before), (last, after) = late[0], late[-1]
    assert (after - before) / (last - first) > 0.95 * RATE
