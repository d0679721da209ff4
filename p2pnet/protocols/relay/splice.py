"""Carries the bytes of one circuit, both ways, within its limits. Rules: specs/relay.md.

One chunk is in memory per direction, never more: it is sent before the next is read, so a slow
receiver slows its sender down, through the windows of the muxers (R21).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import trio

from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import describe
from p2pnet.interfaces import CircuitLimit, Stream

ENDED_WELL = "both sides finished"


@dataclass(slots=True)
class Direction:
    """One way of a circuit, and how much went it."""

    origin: Stream
    sink: Stream
    name: str
    carried: int = 0


class Splice:
    """Two streams that are one for those at their far ends."""

    def __init__(
        self, source: Stream, target: Stream, *, limit: CircuitLimit, buffer_bytes: int
    ) -> None:
        self._streams = (source, target)
        self._limit = limit
        self._buffer_bytes = buffer_bytes
        self.reason = ""
        """Why it is over; empty until it is."""
        self._scope = trio.CancelScope()
        self.forward = Direction(source, target, "forward")
        self.backward = Direction(target, source, "backward")

    async def run(self) -> None:
        """Carry until both directions ended or a limit is reached; ``reason`` says which.

        An end in good order leaves the streams to be closed; in every other case, and when
        cancelled, both are reset.
        """
        try:
            with trio.move_on_after(self._limit.seconds or math.inf) as time:
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._carry, self.forward)
                        nursery.start_soon(self._carry, self.backward)
            if time.cancelled_caught:  # R23
                self._abort(f"time limit of {self._limit.seconds:g} s")
        except BaseException:
            self._abort("cut off with the connection of its source")
            raise
        self.reason = self.reason or ENDED_WELL

    async def _carry(self, direction: Direction) -> None:
        try:
            while chunk := await direction.origin.receive_some(self._buffer_bytes):
                if not await self._forward(direction, chunk):
                    return
            await direction.sink.send_eof()  # R21: the other direction goes on
        except EXPECTED as error:
            self._abort(f"{direction.name}: {describe(error)}")

    async def _forward(self, direction: Direction, chunk: bytes | bytearray) -> bool:
        room = math.inf
        if self._limit.data_bytes:
            room = self._limit.data_bytes - direction.carried
        allowed = chunk if len(chunk) <= room else chunk[: int(room)]
        if allowed:
            await direction.sink.send_all(allowed)
            direction.carried += len(allowed)
        if len(chunk) > room:  # R23
            self._abort(f"{direction.name}: limit of {self._limit.data_bytes} bytes")
            return False
        return True

    def _abort(self, reason: str) -> None:
        self.reason = self.reason or reason
        for stream in self._streams:
            stream.reset()
        self._scope.cancel()
