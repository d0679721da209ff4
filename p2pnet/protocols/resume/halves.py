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

from p2pnet.errors import ProtocolError
from p2pnet.protocols.resume.messages import PROTOCOL_ID


class Sending:
    """What the application wrote, kept until the other side has it."""

    def __init__(self, window: int, limit: int) -> None:
        self._window = window
        self._kept = bytearray()
        self.base = 0
        self.sent = 0
        """How far was ever sent."""
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
        return self._window - len(self._kept)

    def write(self, data: bytes | bytearray | memoryview, start: int) -> int:
        """Take ``data`` from ``start`` as far as there is room; return how far that was."""
        stop = min(len(data), start + self.room)
        if start == 0 and stop == len(data):
            self._kept += data
        else:
            with memoryview(data) as view:
                self._kept += view[start:stop]
        return stop

    def add_to(self, out: bytearray, start: int, stop: int) -> None:
        with memoryview(self._kept) as view:
            out += view[start - self.base : stop - self.base]
        self.sent = max(self.sent, stop)

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
            del self._kept[:count]
            self.base += count

    def allow(self, limit: int) -> None:
        self.limit = max(self.limit, limit)

    def stop(self) -> None:
        """End with what was sent, as nobody will read more."""
        self.is_stopped = True
        if not self.is_finished:
            del self._kept[self.sent - self.base :]
            self.is_finished = True

    def clear(self) -> None:
        self._kept.clear()


class Receiving:
    """What has come in its order, and waits to be read."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._inbox = bytearray()
        self._consumed = 0
        self._told = (0, window)
        self._is_owing = False
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
        return self._told[1]

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

    def deliver(self, data: bytes | bytearray | memoryview) -> None:
        self.received += len(data)
        self._is_owing = self._is_owing or self.has_ended
        if self.is_discarding:
            self._consumed = self.received
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

    # ---- what the other side is told -----------------------------------------------------

    @property
    def owes_ack(self) -> bool:
        """Tell if the other side should hear now what has come, and how much more may."""
        received, limit = self._told
        quarter = self._window // 4
        return (
            self._is_owing
            or self.received - received >= quarter
            or self._consumed + self._window - limit >= quarter
        )

    def owe_ack(self) -> None:
        """Tell it anew, as what was told may be lost."""
        self._is_owing = True

    def take_ack(self) -> tuple[int, int]:
        """Return how much has come (the FIN counts as one), and up to where more may."""
        self._is_owing = False
        self._told = (self.received, max(self.told_limit, self._consumed + self._window))
        return self.received + self.has_ended, self.told_limit

    @property
    def is_done(self) -> bool:
        """Tell if the end has come, and the other side was told so."""
        return self.has_ended and not self._is_owing
