"""One yamux stream: what has come, what may go, and how each half ended. No I/O.

           inbound half                          outbound half

    open --- FIN comes ---> ended         open --- finish() ---> finished
      |                       |             |
      +-- RST, loss --> failed, with the    +-- RST, loss --> failed
                        error it raises

The end of a half that had ended before is not undone: after FIN a RST takes nothing back that
was received, and bytes that came before the connection was lost can still be read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from p2pnet.errors import ConnectionLost, ProtocolError, StreamReset
from p2pnet.muxers.yamux.messages import (
    FIN,
    INITIAL_WINDOW,
    MAX_UINT32,
    PROTOCOL_ID,
    WINDOW_UPDATE,
)
from p2pnet.muxers.yamux.outgoing import Outgoing
from p2pnet.muxers.yamux.pulse import Pulse
from p2pnet.muxers.yamux.windows import Budget, ReceiveWindow

SMALL_CHUNK = 512
"""Bytes; smaller chunks that wait to be read are joined, since each costs memory of its own."""
JOINED_CHUNK = 8192
JOINED_READ = 262_144
"""Bytes; a reader that sets no limit is given chunks joined to this size."""


Chunk = bytes | bytearray | memoryview
"""Payload as it came; a view of what else came with it if copying is not worth it."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the streams of a connection have in common."""

    outgoing: Outgoing
    pulse: Pulse
    budget: Budget
    max_window: int
    max_frame: int


class StreamState:
    """Both halves of a stream. Made, ended and forgotten by its ``Session``."""

    __slots__ = (
        "_credit",
        "_failure",
        "_inbox",
        "_joined",
        "_shared",
        "_start",
        "has_ended",
        "has_finished",
        "id",
        "owes_credit",
        "window",
    )

    def __init__(self, stream_id: int, shared: Shared, now: float) -> None:
        self.id = stream_id
        self.has_ended = False
        """True once the remote sent FIN."""
        self.has_finished = False
        """True once FIN was sent to the remote."""
        self.owes_credit = False
        """True if ``grant_credit`` is to be called."""
        self.window = ReceiveWindow(shared.budget, shared.max_window, now)
        self._shared = shared
        self._credit = INITIAL_WINDOW
        self._inbox: deque[Chunk] = deque()
        self._start = 0
        self._joined: bytearray | None = None
        self._failure: int | ConnectionLost | None = None

    # ---- for the application -------------------------------------------------------------

    def read(self, max_bytes: int | None) -> bytes | bytearray | None:
        """Return what has come: ``b""`` at the end of the stream, None if nothing is there yet.

        Raises:
            StreamReset, ConnectionLost: if the remote ended the stream without FIN.
        """
        if not self._inbox:
            if self.has_ended:
                return b""
            if self._failure is not None:
                raise self._error()
            return None
        data = self._take(max_bytes)
        self.owes_credit = self.window.consume(len(data))
        return data

    def grant_credit(self, now: float) -> None:
        """Let the remote send more; to be called when reading left the stream owing credit."""
        self.owes_credit = False
        if self.has_ended or self._failure is not None:
            return
        pulse = self._shared.pulse
        delta = self.window.grant(now, pulse.round_trip)
        self._shared.outgoing.control(WINDOW_UPDATE, 0, self.id, delta)
        pulse.measure(now)

    def _take(self, max_bytes: int | None) -> bytes | bytearray:
        chunk, start = self._inbox[0], self._start
        if max_bytes is not None and len(chunk) - start > max_bytes:
            self._start += max_bytes
            return bytes(chunk[start : self._start])
        self._inbox.popleft()
        self._start = 0
        return self._join(chunk[start:] if start else chunk, max_bytes or JOINED_READ)

    def _join(self, chunk: Chunk, most: int) -> bytes | bytearray:
        """Return a chunk and as many more whole ones as fit into ``most`` bytes.

        Copying costs less than another turn of the application's task.
        """
        chunks, room = [chunk], most - len(chunk)
        while self._inbox and len(self._inbox[0]) <= room:
            chunks.append(self._inbox.popleft())
            room -= len(chunks[-1])
        if len(chunks) == 1 and not isinstance(chunk, memoryview):
            return chunk
        return b"".join(chunks)

    def write(self, data: bytes | bytearray | memoryview, start: int) -> int:
        """Send ``data`` from ``start`` as far as credit and buffer go; return how far that was.

        Raises:
            StreamReset, ConnectionLost: if the remote takes no more.
        """
        if self._failure is not None:
            raise self._error()
        end = len(data)
        outgoing = self._shared.outgoing
        while start < end and self._credit and outgoing.has_room_for(self.id):
            largest = min(self._shared.max_frame, outgoing.turn)
            stop = min(end, start + min(self._credit, largest))
            outgoing.data(self.id, data, start, stop)
            self._credit -= stop - start
            start = stop
        return start

    def write_along(self, data: bytes) -> bool:
        """Send a few bytes when something else is sent, too; False if they are too many now."""
        outgoing, size = self._shared.outgoing, len(data)
        most = min(self._credit, self._shared.max_frame, outgoing.turn)
        if self._failure is not None or size > most or not outgoing.has_room_for(self.id):
            return False
        outgoing.data(self.id, data, 0, size, urgent=False)
        self._credit -= size
        return True

    @property
    def has_unread(self) -> bool:
        """True if there are bytes to be read."""
        return bool(self._inbox)

    @property
    def has_credit(self) -> bool:
        return self._credit > 0

    @property
    def has_room(self) -> bool:
        """False while so much is ready to be sent that this stream must not add to it."""
        return self._shared.outgoing.has_room_for(self.id)

    def finish(self) -> None:
        """Send FIN, once.

        Raises:
            StreamReset, ConnectionLost: if the remote takes no more.
        """
        if self._failure is not None:
            raise self._error()
        if not self.has_finished:
            self.has_finished = True
            self._shared.outgoing.control(WINDOW_UPDATE, FIN, self.id, 0)

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    @property
    def is_over(self) -> bool:
        """True if neither side has anything more to say."""
        return self._failure is not None or (self.has_ended and self.has_finished)

    def _error(self) -> StreamReset | ConnectionLost:
        failure = self._failure
        if isinstance(failure, ConnectionLost):
            return type(failure)(*failure.args)  # One that is raised twice grows a traceback.
        return StreamReset(f"the remote reset the stream (code {failure:#x})")

    # ---- for the session -----------------------------------------------------------------

    def expect(self, amount: int) -> None:
        """Make room for the payload of a frame.

        Raises:
            ProtocolError: if the remote may not send it.
        """
        if self.has_ended and amount:  # Y7
            raise ProtocolError(PROTOCOL_ID, "data after FIN")
        self.window.spend(amount)

    def deliver(self, chunk: Chunk) -> None:
        """Take payload, in pieces of any size."""
        if len(chunk) >= SMALL_CHUNK or not self._inbox:
            self._inbox.append(chunk)
        elif self._inbox[-1] is self._joined and len(self._joined) < JOINED_CHUNK:
            self._joined += chunk
        else:
            self._joined = bytearray(chunk)
            self._inbox.append(self._joined)

    def add_credit(self, delta: int) -> None:
        """Let more be sent.

        Raises:
            ProtocolError: if that is more than any window can be.
        """
        self._credit += delta
        if self._credit > MAX_UINT32:  # Y8
            raise ProtocolError(PROTOCOL_ID, "credit beyond 32 bits")

    def end(self) -> None:
        """Take FIN."""
        self.has_ended = True

    def fail(self, failure: int | ConnectionLost) -> None:
        """Take the code of a RST, or how the connection ended."""
        if self._failure is None:
            self._failure = failure
        if isinstance(failure, int) and not self.has_ended:  # Y18
            self.discard()

    def discard(self) -> None:
        """Drop what nobody will read."""
        self._inbox.clear()
        self._joined = None
        self._start = 0
        self.window.release()
