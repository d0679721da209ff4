"""Carries the bytes of one circuit, both ways, within its limits. Rules: specs/relay.md.

One chunk is in memory per direction, never more: it is sent before the next is read, so a slow
receiver slows its sender down, through the windows of the muxers (R21). Those are bounded here: a
receiver that was fast, and then reads no more, would leave all that they have grown to with us.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import PeerLeft, StreamReset, describe
from p2pnet.interfaces import CircuitLimit, Stream
from p2pnet.protocols.relay.rates import Pace
from p2pnet.protocols.relay.tally import Tally

ENDED_WELL = "both sides finished"
FINISHED = "finished"
RESET = "reset"
BROKEN = "broken"
UNWANTED = (StreamReset, PeerLeft)
"""How a stream says that its remote reads no more."""


@dataclass(slots=True)
class Direction:
    """One way of a circuit, and how much went it."""

    origin: Stream
    sink: Stream
    name: str
    pace: Pace
    carried: int = 0
    has_ended: bool = False
    """True once its origin has said that this is all."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a circuit may use: memory, and speed. All circuits share ``pace`` and ``tally``."""

    buffer_bytes: int
    window_bytes: int
    bytes_per_second: int | None = None
    """In each direction."""
    pace: Pace = field(default_factory=lambda: Pace(None))
    tally: Tally = field(default_factory=Tally)


class Splice:
    """Two streams that are one for those at their far ends."""

    def __init__(
        self, source: Stream, target: Stream, *, limit: CircuitLimit, means: Means
    ) -> None:
        self._streams = (source, target)
        self._limit = limit
        self._means = means
        self.reason = ""
        """Why it is over; empty until it is."""
        self.cause = FINISHED
        """The same for counting: this, ``reset``, ``broken``, or the name of a limit."""
        self._scope = trio.CancelScope()
        rate = means.bytes_per_second
        # R32: in small pieces, if slowly.
        self._chunk = min(means.buffer_bytes, rate or means.buffer_bytes)
        self.forward = Direction(source, target, "forward", Pace(rate))
        self.backward = Direction(target, source, "backward", Pace(rate))

    async def run(self) -> None:
        """Carry until both directions ended or a limit is reached; ``reason`` says which.

        An end in good order leaves the streams to be closed; in every other case, and when
        cancelled, both are reset.
        """
        for stream in self._streams:
            stream.bound_unread(self._means.window_bytes)
        try:
            with trio.move_on_after(self._limit.seconds or math.inf) as time:
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._carry, self.forward)
                        nursery.start_soon(self._carry, self.backward)
            if time.cancelled_caught:  # R23
                self._abort(f"time limit of {self._limit.seconds:g} s", "circuit_seconds")
        except BaseException:
            # With the connection of its source; one that said its last on it only left early.
            cause = FINISHED if self.forward.has_ended else BROKEN
            self._abort("cut off with the connection of its source", cause)
            raise
        self.reason = self.reason or ENDED_WELL

    async def _carry(self, direction: Direction) -> None:
        try:
            while chunk := await direction.origin.receive_some(self._chunk):
                if not await self._forward(direction, chunk):
                    return
                await self._pause(direction, len(chunk))
            direction.has_ended = True
            with suppress(*UNWANTED):  # Nothing is lost; who was reset, says so the other way.
                await direction.sink.send_eof()  # R21: the other direction goes on
        except EXPECTED as error:
            self._abort(f"{direction.name}: {describe(error)}", cause_of(error))

    async def _forward(self, direction: Direction, chunk: bytes | bytearray) -> bool:
        room = math.inf
        if self._limit.data_bytes:
            room = self._limit.data_bytes - direction.carried
        allowed = chunk if len(chunk) <= room else chunk[: int(room)]
        try:
            if allowed:
                await self._send(direction, allowed)
        except UNWANTED:
            back = self.backward if direction is self.forward else self.forward
            if not back.has_ended:
                raise
            return False  # R45: who has said its last need hear no more.
        if len(chunk) > room:  # R23
            self._abort(
                f"{direction.name}: limit of {self._limit.data_bytes} bytes", "circuit_bytes"
            )
            return False
        return True

    async def _send(self, direction: Direction, data: bytes | bytearray) -> None:
        tally = self._means.tally
        tally.hold(len(data))
        try:
            await direction.sink.send_all(data)
        finally:
            tally.release(len(data))
        direction.carried += len(data)
        if direction is self.forward:
            tally.bytes_forward += len(data)
        else:
            tally.bytes_backward += len(data)

    async def _pause(self, direction: Direction, count: int) -> None:
        """Let nothing more come before its time; what is not read, slows its sender (R32)."""
        now = trio.current_time()
        pause = max(direction.pace.spend(count, now), self._means.pace.spend(count, now))
        if pause:
            await trio.sleep(pause)

    def _abort(self, reason: str, cause: str = BROKEN) -> None:
        if not self.reason:
            self.reason, self.cause = reason, cause
        for stream in self._streams:
            stream.reset()
        self._scope.cancel()


def cause_of(error: Exception) -> str:
    """Tell an end that left, or ended the circuit, from one that was lost (R45)."""
    if isinstance(error, PeerLeft):
        return FINISHED
    return RESET if isinstance(error, StreamReset) else BROKEN
