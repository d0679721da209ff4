"""What the doubles of raw streams have in common."""

from __future__ import annotations

import trio


class PassingOn(trio.abc.HalfCloseableStream):
    """A stream that passes everything on to the one below, and tells whether it was closed."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.is_closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.is_closed = True
        await self._stream.aclose()
