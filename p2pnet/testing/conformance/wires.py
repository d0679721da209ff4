"""Raw streams in memory that show what went over them, and can be meddled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio
import trio.testing

from p2pnet.interfaces import Role
from p2pnet.testing.conformance.judging import Broken


class Wire(trio.abc.HalfCloseableStream):
    """One end of a raw stream; what it receives can be changed, cut, slowed or broken.

    As long as nobody meddles with it, it is a plain stream that keeps books.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.sent = bytearray()
        self.received = 0
        self.is_closed = False
        self.held: list[bytes] | None = None
        """If a list: what is sent goes there, and not to the remote."""
        self.most: int | None = None
        """Most bytes that are received at once."""
        self.is_slow = False
        """True if it receives only when nobody else has anything to do."""
        self.cut: int | None = None
        """After so many bytes received there is the end."""
        self.flips: Callable[[int], int] | None = None
        """Which bits to flip of the byte received at some place."""
        self._failure: Exception | None = None
        self._receiving = trio.CancelScope()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        if self.held is None:
            await self._stream.send_all(data)
        else:
            self.held.append(bytes(data))
            await trio.lowlevel.checkpoint()

    async def inject(self, data: bytes) -> None:
        """Send bytes that nobody above has sent."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def fail(self, error: Exception) -> None:
        """Make receiving raise this: now, if somebody receives, and for ever."""
        self._failure = error
        self._receiving.cancel()
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._failure is None:
            self._receiving = trio.CancelScope()
            with self._receiving:
                return await self._receive(max_bytes)
        await trio.lowlevel.checkpoint()
        raise self._error()

    def _error(self) -> Exception:
        return self._failure or trio.BrokenResourceError("this wire is cut")

    async def _receive(self, max_bytes: int | None) -> bytes:
        if self.cut is not None:
            left = self.cut - self.received
            if not left:
                await trio.lowlevel.checkpoint()
                return b""
            max_bytes = min(left, max_bytes or left)
        if self.most is not None:
            max_bytes = min(self.most, max_bytes or self.most)
        if self.is_slow:
            await trio.testing.wait_all_tasks_blocked()
        data = bytes(await self._stream.receive_some(max_bytes))
        if self.flips is not None:
            first = self.received
            data = bytes(byte ^ self.flips(first + at) for at, byte in enumerate(data))
        self.received += len(data)
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.is_closed = True
        await self._stream.aclose()


def wire_pair(*, unbuffered: bool = False) -> dict[Role, Wire]:
    """Return both ends: with any amount of room between them, or with none at all."""
    make = trio.testing.lockstep_stream_pair if unbuffered else trio.testing.memory_stream_pair
    one, other = make()
    return {Role.DIALER: Wire(one), Role.LISTENER: Wire(other)}


async def cut_when_stuck(wires: Mapping[Role, Wire]) -> None:
    """Wait until nobody moves any more, and then end the stream for both."""
    await trio.testing.wait_all_tasks_blocked()
    for wire in wires.values():
        await end(wire)


async def end(wire: Wire) -> None:
    """Send the end, if anybody is there."""
    try:
        await wire.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.lowlevel.checkpoint()


async def read_exactly(
    stream: trio.abc.ReceiveStream, count: int, most: int | None = None
) -> bytes:
    """Read ``count`` bytes, at most ``most`` at once.

    Raises:
        Broken: if the end comes before.
    """
    data = bytearray()
    while len(data) < count:
        left = count - len(data)
        chunk = await stream.receive_some(left if most is None else min(most, left))
        if not chunk:
            raise Broken(f"the end came after {len(data)} of {count} bytes")
        data += chunk
    return bytes(data)


async def read_to_end(stream: trio.abc.ReceiveStream, most: int | None = None) -> bytes:
    data = bytearray()
    while chunk := await stream.receive_some(most):
        data += chunk
    return bytes(data)
