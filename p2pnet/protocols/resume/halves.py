"""The two halves of a resumable stream, whatever carries it. No I/O. Rules: specs/resume.md.

::

    Sending:    0 ......... base ......... sent ......... end          limit
                  received  |   kept until   |   to be sent |  what the other side takes
                            '------- at most one window ----'

    Receiving:  0 ......... consumed ...... received           limit = consumed + window
                  read      |   to be read     |   to come       |

The FIN counts as one more byte behind the end, in what is acknowledged and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from p2pnet.errors import ProtocolError
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Data

SMALL_PIECE = 16_384
"""What is written in pieces smaller than this is put together."""
Grow: TypeAlias = Callable[[int], int]
"""Tells by how much a window of so many bytes may grow."""
GROWTH_WINDOWS = 2
"""A reader that has kept up with so many windows is given a larger one."""


class Kept:
    """A queue of bytes in pieces, so that neither end of it costs what is in it."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()
        self._first = 0
        """Bytes of the first piece that are gone already."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, data: Data, start: int, stop: int) -> None:
        """Add ``data[start:stop]``: a copy, unless it is all of an object that never changes."""
        self._size += stop - start
        if stop - start < SMALL_PIECE:
            # Many small pieces would take many times their own size.
            with memoryview(data) as view:
                self._growing().extend(view[start:stop])
        elif isinstance(data, bytes):
            self._pieces.append(data[start:stop])
        else:
            with memoryview(data) as view:
                self._pieces.append(bytes(view[start:stop]))

    def _growing(self) -> bytearray:
        """Return the last piece if something may be added to it, or a new one."""
        last = self._pieces[-1] if self._pieces else b""
        if isinstance(last, bytes) or len(last) >= SMALL_PIECE:
            last = bytearray()
            self._pieces.append(last)
        return last

    def parts(self, start: int, most: int) -> list[Data]:
        """Return what is here from ``start`` on, ``most`` bytes or a little less; never none.

        The parts never change any more. Large ones are no copies, and are cut only if need be.
        """
        found: list[Data] = []
        at = start + self._first
        for piece in self._pieces:
            if at >= len(piece):
                at -= len(piece)
                continue
            left = len(piece) - at
            if left > most and found:
                break
            part = memoryview(piece)[at : at + most] if at or left > most else piece
            found.append(part if isinstance(piece, bytes) else bytes(part))
            most -= left
            at = 0
            if most <= 0:
                break
        return found

    def drop(self, count: int) -> None:
        """Forget the first ``count`` bytes."""
        self._size -= count
        self._first += count
        while self._pieces and self._first >= len(self._pieces[0]):
            self._first -= len(self._pieces.popleft())

    def cut(self, size: int) -> None:
        """Keep the first ``size`` bytes alone."""
        kept: list[Data] = []
        while (at := sum(map(len, kept))) < size:
            kept += self.parts(at, size - at)
        self.clear()
        for part in kept:
            self.add(part, 0, len(part))

    def clear(self) -> None:
        self._pieces.clear()
        self._first = self._size = 0


class Sending:
    """What the application wrote, kept until the other side has it."""

    def __init__(self, window: int, limit: int, grow: Grow) -> None:
        self.window = window
        self._grow = grow
        self._kept = Kept()
        self.base = 0
        self.sent = 0
        """How far was ever sent."""
        self.resent = 0
        """Bytes that were sent once more, as their carrier was lost before they had come."""
        self.limit = limit
        self.is_finished = False
        self.is_fin_sent = False
        self.is_done = False
        """The other side has everything, the FIN included."""
        self.is_stopped = False
        """The other side reads no more."""

    @property
    def end(self) -> int:
        return self.base + len(self._kept)

    @property
    def room(self) -> int:
        return self.window - len(self._kept)

    def write(self, data: Data, start: int) -> int:
        """Take ``data`` from ``start`` as far as there is room; return how far that was."""
        if len(data) - start > self.room and 2 * (self.sent - self.base) >= self.window:
            # Most of it is on its way, and what is under way should not slow the writer down.
            self.window += self._grow(self.window)
        stop = min(len(data), start + self.room)
        if stop > start:
            self._kept.add(data, start, stop)
        return stop

    def take(self, start: int, stop: int) -> list[Data]:
        """Return what is to be sent from ``start`` on, up to ``stop`` or a little less far."""
        parts = self._kept.parts(start - self.base, stop - start)
        stop = start + sum(map(len, parts))
        self.resent += min(stop, self.sent) - start
        self.sent = max(self.sent, stop)
        return parts

    def acknowledge(self, received: int) -> None:
        """Forget what the other side has; old news change nothing.

        Raises:
            ProtocolError: if it claims to have what was never sent.
        """
        if received > self.sent + self.is_fin_sent:  # RS6
            raise ProtocolError(PROTOCOL_ID, "acknowledges what was never sent")
        self.is_done = self.is_done or (self.is_fin_sent and received == self.end + 1)
        count = min(received, self.end) - self.base
        if count > 0:
            self._kept.drop(count)
            self.base += count

    def allow(self, limit: int) -> None:
        self.limit = max(self.limit, limit)

    def stop(self) -> None:
        """End with what was sent, as nobody will read more."""
        self.is_stopped = True
        if not self.is_finished:
            self._kept.cut(self.sent - self.base)
            self.is_finished = True

    def clear(self) -> None:
        self._kept.clear()


class Receiving:
    """What has come in its order, and waits to be read."""

    def __init__(self, window: int, grow: Grow) -> None:
        self.window = window
        self._grow = grow
        self._grows_at = GROWTH_WINDOWS * window
        self._inbox = bytearray()
        self._consumed = 0
        self._told_limit = window
        self._is_owing = False
        self._mark: int | None = None
        self.received = 0
        self.final: int | None = None
        """Where the data ends, once that is known."""
        self.is_discarding = False

    @property
    def has_ended(self) -> bool:
        return self.received == self.final

    @property
    def waiting(self) -> int:
        return len(self._inbox)

    @property
    def told_limit(self) -> int:
        return self._told_limit

    def read(self, max_bytes: int | None) -> bytes | bytearray | None:
        """Return what has come, ``b""`` at the end, None if nothing is there yet."""
        if not self._inbox:
            return b"" if self.has_ended else None
        if max_bytes is None or max_bytes >= len(self._inbox):
            data, self._inbox = self._inbox, bytearray()
        else:
            data = self._inbox[:max_bytes]
            del self._inbox[:max_bytes]
        self._consumed += len(data)
        if self._consumed == self.received >= self._grows_at:
            self.window += self._grow(self.window)
            self._grows_at = self.received + GROWTH_WINDOWS * self.window
        return data

    def check(self, position: int) -> None:
        """See that data may go as far as ``position``.

        Raises:
            ProtocolError: if it goes beyond the limit or the end.
        """
        if position > self.told_limit:  # RS7
            raise ProtocolError(PROTOCOL_ID, "data beyond the limit")
        if self.final is not None and position > self.final:  # RS8
            raise ProtocolError(PROTOCOL_ID, "data beyond the end")

    def check_held(self, size: int) -> None:
        """See that what is kept ahead of its time has its place within the limit.

        Raises:
            ProtocolError: if some of it must be there twice.
        """
        if size > self.told_limit - self.received:  # RS11
            raise ProtocolError(PROTOCOL_ID, "more ahead of its time than has a place")

    def deliver(self, data: bytes | bytearray | memoryview) -> None:
        self.received += len(data)
        self._is_owing = self._is_owing or self.has_ended
        if self.is_discarding:
            self._consumed = self.received
        elif not self._inbox and isinstance(data, bytearray):
            self._inbox = data  # Nobody else has it: that saves a copy.
        else:
            self._inbox += data

    def end_at(self, offset: int) -> None:
        """Learn where the data ends.

        Raises:
            ProtocolError: if that was elsewhere before, or more has come already.
        """
        if offset < self.received or self.final not in (None, offset):  # RS8
            raise ProtocolError(PROTOCOL_ID, "the end is not where it was")
        self.final = offset
        self._is_owing = self._is_owing or self.has_ended

    def discard(self) -> None:
        """Read no more."""
        self.is_discarding = True
        self._inbox.clear()
        self._consumed = self.received

    def mark(self, offset: int) -> None:
        """Learn up to where the other side waits to hear what has come.

        Raises:
            ProtocolError: if that is beyond the limit or the end.
        """
        self.check(offset)
        self._mark = offset

    # ---- what the other side is told -----------------------------------------------------

    @property
    def owes_ack(self) -> bool:
        """Tell if the other side should hear now what has come, and how much more may."""
        return (
            self._is_owing
            or (self._mark is not None and self.received >= self._mark)
            or self._consumed + self.window - self._told_limit >= self.window // 4
        )

    def owe_ack(self) -> None:
        """Tell it anew, as what was told may be lost."""
        self._is_owing = True

    def take_ack(self) -> tuple[int, int]:
        """Return how much has come (the FIN counts as one), and up to where more may."""
        self._is_owing = False
        if self._mark is not None and self.received >= self._mark:
            self._mark = None
        self._told_limit = max(self._told_limit, self._consumed + self.window)
        return self.received + self.has_ended, self._told_limit

    @property
    def is_done(self) -> bool:
        """Tell if the end has come, and the other side was told so."""
        return self.has_ended and not self._is_owing
