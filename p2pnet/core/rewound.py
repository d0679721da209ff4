"""Streams whose first bytes were received already, and are received again."""

from __future__ import annotations

import trio

from p2pnet.core.prompt import Prompt, SendNow, prompt_sender


class RewoundStream(trio.abc.HalfCloseableStream, Prompt):
    """A stream of which some bytes were received already, and are received again."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, heard: bytes | bytearray) -> None:
        self._stream = stream
        self._heard = bytes(heard)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    def prompt_sender(self) -> SendNow | None:
        return prompt_sender(self._stream)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._heard:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self._heard) if max_bytes is None else max_bytes
        taken, self._heard = self._heard[:size], self._heard[size:]
        return taken

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
