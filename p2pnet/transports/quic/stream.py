"""The trio face of one stream of QUIC."""

from __future__ import annotations

import operator
from collections import deque
from typing import Protocol

import trio

from p2pnet.errors import StreamReset
from p2pnet.interfaces import MuxedStream

MAX_CODE = 2**62 - 1
MAX_CHUNK_BYTES = 262_144
"""Most bytes handed over to the connection at once."""


class Link(Protocol):
    """What a stream asks of its connection."""

    def room(self, stream: int) -> int:
        """Return how many bytes may be written now."""
        ...

    def wait(self, stream: QuicStream) -> None:
        """Have ``wake_sender`` called once more may be written."""
        ...

    def write(self, stream: int, data: bytes, *, is_last: bool = False) -> None: ...

    def hold(self, stream: QuicStream) -> None:
        """Have ``let_go`` called in a few milliseconds."""
        ...

    def consume(self, stream: int, count: int) -> None: ...

    def bound(self, stream: int, max_bytes: int) -> None: ...

    def reset(self, stream: int, code: int) -> None: ...

    def stop(self, stream: int, code: int) -> None: ...

    def forget(self, stream: int) -> None:
        """Both directions are over, as far as this end goes."""
        ...


class QuicStream(MuxedStream):
    """One stream. ``aclose`` ends our direction, and asks the remote to end its own.

    ``send_all`` returns when the bytes are on their way out, not when they have arrived; it
    waits while the remote grants no credit or the connection has too much to send.
    """

    def __init__(self, number: int, link: Link) -> None:
        self.number = number
        self._link = link
        self._chunks: deque[bytes] = deque()
        self._held = b""
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        self._is_receiving = False
        self._is_sending = False
        self._is_closed = False
        self._has_end = False
        self._remote_is_done = False
        self._has_finished = False
        self._incoming_error: Exception | None = None
        self._outgoing_error: Exception | None = None

    # ---- what the connection tells -----------------------------------------------------------

    @property
    def wants_to_send(self) -> bool:
        return bool(self._writable)

    @property
    def is_over(self) -> bool:
        """True if nothing more can happen on it."""
        return self._remote_is_done and (self._has_finished or self._outgoing_error is not None)

    def feed(self, data: bytes, *, is_last: bool) -> int:
        """Take what came; return how much of it will never be read."""
        if is_last:
            self._has_end = self._remote_is_done = True
        self._readable.unpark_all()
        if self._is_closed or self._incoming_error is not None:
            return len(data)
        if data:
            self._chunks.append(data)
        return 0

    def fail_incoming(self, error: Exception, *, is_done: bool) -> int:
        """Note that nothing more will be read; return how many bytes were not.

        ``is_done`` tells that nothing more comes, either.
        """
        self._remote_is_done = self._remote_is_done or is_done
        unread = sum(map(len, self._chunks))
        self._chunks.clear()
        self._incoming_error = self._incoming_error or error
        self._readable.unpark_all()
        return unread

    def fail_outgoing(self, error: Exception) -> None:
        self._outgoing_error = self._outgoing_error or error
        self._writable.unpark_all()

    def lose(self, error: Exception) -> None:
        """Note that the connection is over. What came before can still be read."""
        self.fail_outgoing(error)
        if not self._has_end:
            self._incoming_error = self._incoming_error or error
        self._readable.unpark_all()

    def wake_sender(self) -> None:
        self._writable.unpark_all()

    # ---- receiving -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._read(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        self.let_go()
        self._is_receiving = True
        try:
            while data is None:
                await self._readable.park()
                data = self._read(max_bytes)
        finally:
            self._is_receiving = False
        return data

    def bound_unread(self, max_bytes: int) -> None:
        self._link.bound(self.number, max_bytes)

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        return self._read(max_bytes)

    def _read(self, max_bytes: int | None) -> bytes | None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._chunks:
            data = self._take(max_bytes)
            self._link.consume(self.number, len(data))
            return data
        if self._incoming_error is not None:
            raise again(self._incoming_error)
        return b"" if self._has_end else None

    def _take(self, max_bytes: int | None) -> bytes:
        if max_bytes is None or len(self._chunks) == 1:
            data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            if max_bytes is None:
                self._chunks.clear()
        else:
            data = self._chunks.popleft()
            while self._chunks and len(data) + len(self._chunks[0]) <= max_bytes:
                data += self._chunks.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        return data

    # ---- sending -------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as whole, whole.cast("B") as view:
            sent = self._write(view, 0)
            if sent == len(view):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self._is_sending = True
            try:
                while sent < len(view):
                    await self._wait_for_room()
                    sent = self._write(view, sent)
            finally:
                self._is_sending = False

    def send_along(self, data: bytes) -> bool:
        self._check_sender()
        self._check_open()
        if self._held or self._link.room(self.number) < len(data):
            return False
        self._held = data
        if self._chunks:
            self._link.hold(self)
        else:
            self.let_go()  # The remote may be waiting for just that.
        return True

    def let_go(self) -> None:
        held, self._held = self._held, b""
        if held and not self._has_finished and self._outgoing_error is None:
            self._link.write(self.number, held)

    def _write(self, view: memoryview, start: int) -> int:
        self._check_open()
        self.let_go()
        while start < len(view):
            room = min(self._link.room(self.number), MAX_CHUNK_BYTES)
            if room <= 0:
                break
            self._link.write(self.number, bytes(view[start : start + room]))
            start = min(start + room, len(view))
        return start

    async def wait_send_all_might_not_block(self) -> None:
        self._check_sender()
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._is_closed and self._outgoing_error is None:
                self._check_open()
                if self._link.room(self.number) > 0:
                    return
                await self._wait_for_room()
            if self._is_closed:
                raise trio.ClosedResourceError("this stream is closed")
        finally:
            self._is_sending = False

    async def _wait_for_room(self) -> None:
        self._link.wait(self)
        await self._writable.park()

    async def send_eof(self) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if not self._has_finished:
            if self._outgoing_error is not None:
                raise again(self._outgoing_error)
            self._finish()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _finish(self) -> None:
        self.let_go()
        self._has_finished = True
        self._link.write(self.number, b"", is_last=True)
        self._leave_if_over()

    def _check_sender(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._has_finished:
            raise trio.ClosedResourceError("the end was sent already")
        if self._outgoing_error is not None:
            raise again(self._outgoing_error)

    # ---- closing -------------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            if not self._has_finished and self._outgoing_error is None:
                self._finish()
            self._stop_incoming(0)
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        if not 0 <= code <= MAX_CODE:
            raise ValueError("the code of a reset has 62 bits")
        self._is_closed = True
        if self._outgoing_error is None:
            self._outgoing_error = StreamReset("this stream was reset here")
            self._link.reset(self.number, code)
        self._stop_incoming(code)

    def _stop_incoming(self, code: int) -> None:
        if not self._has_end and self._incoming_error is None:
            self._link.stop(self.number, code)
        unread = sum(map(len, self._chunks))
        self._chunks.clear()
        if unread:
            self._link.consume(self.number, unread)
        self._readable.unpark_all()
        self._writable.unpark_all()
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        if self.is_over:
            self._link.forget(self.number)


def again(error: Exception) -> Exception:
    """Make an error anew: one that is raised twice grows a traceback each time."""
    return type(error)(*error.args)
