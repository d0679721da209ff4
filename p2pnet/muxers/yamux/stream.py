"""The trio face of one yamux stream."""

from __future__ import annotations

import operator
from collections.abc import Callable

import trio

from p2pnet.core.waiter import Waiter
from p2pnet.interfaces import MuxedStream
from p2pnet.muxers.yamux.machine import Session
from p2pnet.muxers.yamux.messages import MAX_UINT32
from p2pnet.muxers.yamux.stream_state import StreamState
from p2pnet.muxers.yamux.writer import Writer


class YamuxStream(MuxedStream):
    """One stream. ``aclose`` says FIN; what the remote sends after it is refused by RST.

    Who has asked, was answered and closes has nobody wait for that: the FIN goes with what this
    end sends next, on whichever stream, or soon (Y22).

    ``send_all`` returns when the bytes are on their way out, not when they have arrived; it
    waits while the remote grants no credit or the connection is busy. Who has waited for data,
    or has begun with it, and answers at once does not let others run in between once more.
    """

    def __init__(
        self,
        state: StreamState,
        session: Session,
        writer: Writer,
        on_leave: Callable[[int], None],
    ) -> None:
        self._state = state
        self._session = session
        self._writer = writer
        self._on_leave = on_leave
        self._readable = Waiter()
        self._writable = Waiter()
        self._is_receiving = False
        self._is_sending = False
        self._is_closed = False
        self.is_new = False
        """Set if the remote opened it, until somebody here uses it."""
        self._has_waited = False
        """True if somebody waited for data after the last was sent."""
        self._has_asked = False
        self._is_answered = False
        """True if data was read after the last that was written, and something was."""

    def wake_receiver(self) -> None:
        self._readable.wake()

    def wake_sender(self) -> None:
        self._writable.wake()

    # ---- receiving -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._read(max_bytes)
        is_new, self.is_new = self.is_new, False
        if data is not None:
            if is_new:
                self._has_waited = True  # Whoever handles the stream has only just begun.
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        # What could wait for company (SYN, ACK) waits no longer: the remote has the word.
        self._writer.kick()
        self._is_receiving = True
        try:
            while data is None:
                await self._readable.wait()
                data = self._read(max_bytes)
        finally:
            self._is_receiving = False
        self._has_waited = True
        return data

    def bound_unread(self, max_bytes: int) -> None:
        self._state.window.bound(max_bytes)

    def receive_nowait(self, max_bytes: int) -> bytes | bytearray | None:
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        return self._read(max_bytes)

    def _read(self, max_bytes: int | None) -> bytes | bytearray | None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        data = self._state.read(max_bytes)
        if data and self._has_asked:
            self._is_answered = True
        if self._state.owes_credit:
            self._state.grant_credit(trio.current_time())
            self._writer.kick()
        return data

    # ---- sending -------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(data, memoryview):
            data = data.cast("B")
        sent = self._write(data, 0)
        if sent == len(data):
            if self._has_waited:
                self._has_waited = False  # Others have had their turn since the last bytes.
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._is_sending = True
        try:
            while sent < len(data):
                await self._wait_writable()
                sent = self._write(data, sent)
        finally:
            self._is_sending = False

    def _write(self, data: bytes | bytearray | memoryview, start: int) -> int:
        self._check_open()
        self._has_asked, self._is_answered = True, False
        self.is_new = False
        sent = self._state.write(data, start)
        self._writer.kick()
        return sent

    def send_along(self, data: bytes) -> bool:
        self._check_sender()
        self._check_open()
        is_written = self._state.write_along(data)
        if is_written and self._state.has_unread:
            self._writer.kick_in_time()
        elif is_written:
            self._writer.kick_soon()  # The remote may be waiting for just that.
        return is_written

    async def _wait_writable(self) -> None:
        if self._state.has_credit:
            await self._writer.wait_for_room(self._writable)
        else:
            await self._writable.wait()

    async def wait_send_all_might_not_block(self) -> None:
        self._check_sender()
        self._is_sending = True
        try:
            self._writer.kick()
            await trio.lowlevel.checkpoint()
            self._check_open()
            while not self._state.has_failed and not self._might_send():
                await self._wait_writable()
                self._check_open()
        finally:
            self._is_sending = False

    def _might_send(self) -> bool:
        return self._state.has_credit and self._state.has_room

    async def send_eof(self) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        self._state.finish()
        self._writer.kick()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_sender(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._state.has_finished:
            raise trio.ClosedResourceError("the end was sent already")

    # ---- closing -------------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._is_closed:
            ready = self._session.bytes_to_send
            self._session.close(self._state)
            self._leave()
            has_more_to_send = self._session.bytes_to_send > ready
            if has_more_to_send and self._is_answered:
                self._writer.kick_in_time()
            elif has_more_to_send:  # If not, what others have ready may wait for more of theirs.
                self._writer.kick()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        if not 0 <= code <= MAX_UINT32:
            raise ValueError("the code of a reset has 32 bits")
        self._session.reset(self._state, code)
        self._leave()
        self._writer.kick()

    def _leave(self) -> None:
        self._is_closed = True
        self._on_leave(self._state.id)
        self._readable.wake()
        self._writable.wake()
