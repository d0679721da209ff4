"""Streams in memory: with latency, on virtual time, and with windows that hold a sender up."""

from __future__ import annotations

from collections import deque

import trio

from p2pnet.errors import NegotiationFailed, StreamReset
from p2pnet.interfaces import Connection, Stream

WINDOW = 65_536


class Pipe:
    """One direction: what is sent comes out later. An empty chunk is the end."""

    def __init__(self, latency: float, window: int) -> None:
        self.latency = latency
        self.window = window
        self.is_reset = False
        self.has_end = False
        self.most = 0
        """The most bytes that were ever on the way."""
        self._on_the_way = 0
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._changed = trio.Event()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while data:
            if self.is_reset:
                raise StreamReset("reset")
            if self.has_end:
                raise trio.ClosedResourceError("closed")
            chunk = data[: self.window - self._on_the_way]
            if not chunk:
                await self._changed.wait()
                continue
            data = data[len(chunk) :]
            self._on_the_way += len(chunk)
            self.most = max(self.most, self._on_the_way)
            self._put(chunk)

    def end(self) -> None:
        if not self.has_end and not self.is_reset:
            self.has_end = True
            self._put(b"")

    def reset(self) -> None:
        self.is_reset = True
        self._wake()

    def _put(self, chunk: bytes) -> None:
        self._chunks.append((trio.current_time() + self.latency, chunk))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def take(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_reset:
                raise StreamReset("reset")
            if not self._chunks:
                await self._changed.wait()
                continue
            arrives, chunk = self._chunks[0]
            if arrives > trio.current_time():
                with trio.move_on_at(arrives):
                    await self._changed.wait()
                continue
            if not chunk:
                return b""
            taken = chunk[: max_bytes or len(chunk)]
            self._chunks.popleft()
            if len(taken) < len(chunk):
                self._chunks.appendleft((arrives, chunk[len(taken) :]))
            self._on_the_way -= len(taken)
            self._wake()
            return taken


class MemoryStream(Stream):
    """One end of a stream."""

    def __init__(self, outward: Pipe, inward: Pipe, connection: Connection, name: str) -> None:
        self.outward = outward
        self.inward = inward
        self.is_closed = False
        self.was_reset = False
        self._connection = connection
        self._name = name

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def protocol_id(self) -> str:
        return self._name

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closed or self.outward.has_end:
            raise trio.ClosedResourceError("closed")
        await self.outward.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.is_closed:
            raise trio.ClosedResourceError("closed")
        return await self.inward.take(max_bytes)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.outward.is_reset:
            raise StreamReset("reset")
        self.outward.end()

    async def aclose(self) -> None:
        self.is_closed = True
        self.outward.end()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        self.was_reset = True
        self.is_closed = True
        self.outward.reset()
        self.inward.reset()


class RefusedStream(MemoryStream):
    """A lazy stream of a protocol that the remote does not speak."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep(2 * self.outward.latency)
        raise NegotiationFailed([self.protocol_id])


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Receive so many bytes. Raises StreamReset if the stream ends before."""
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        if not chunk:
            raise StreamReset("the stream ended")
        data += chunk
    return data
