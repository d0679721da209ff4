"""One direction of a stream in memory, with latency on virtual time."""

from __future__ import annotations

from collections import deque

import trio

from p2pnet.errors import StreamReset


class Pipe:
    """One direction: what is put in comes out later. An empty chunk is the end."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.is_reset = False
        self.ended = False
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._changed = trio.Event()

    def put(self, data: bytes) -> None:
        if self.is_reset:
            raise StreamReset("reset")
        self._chunks.append((trio.current_time() + self.latency, data))
        self._wake()

    def reset(self) -> None:
        self.is_reset = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def take(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_reset:
                raise StreamReset("reset")
            if self.ended:
                return b""
            if not self._chunks:
                await self._changed.wait()
                continue
            arrives, data = self._chunks[0]
            if arrives > trio.current_time():
                with trio.move_on_at(arrives):
                    await self._changed.wait()
                continue
            self._chunks.popleft()
            if not data:
                self.ended = True
                return b""
            taken = data[: max_bytes or len(data)]
            if len(taken) < len(data):
                self._chunks.appendleft((arrives, data[len(taken) :]))
            return taken
