"""The yamux muxer: moves the bytes of a session, and hands out its streams."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

import trio

from p2pnet.core.tasks import bare_exceptions
from p2pnet.core.waiter import Waiter
from p2pnet.errors import ConnectionLost, P2PError, PeerSilent, ProtocolError, SecurityError
from p2pnet.interfaces import Kit, MuxedStream, Role
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.machine import (
    Acknowledged,
    GoneAway,
    Opened,
    Readable,
    Session,
    StreamEvent,
    Writable,
)
from p2pnet.muxers.yamux.messages import (
    GOOD_ORDER,
    INTERNAL_ERROR,
    PROTOCOL_ID,
    PROTOCOL_VIOLATION,
)
from p2pnet.muxers.yamux.stream import YamuxStream
from p2pnet.muxers.yamux.stream_state import StreamState
from p2pnet.muxers.yamux.writer import BROKEN, Writer

FRAMES_PER_CHECKPOINT = 256
"""After so many frames the reader lets other tasks run, however many more are there."""
OPENED_PER_CHECKPOINT = 16
"""Who opens one stream after the other lets other tasks run after so many."""
DISCARD_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Yamux(Limits):
    """The yamux muxer, ``/yamux/1.0.0``."""

    def build(self, kit: Kit) -> YamuxMuxer:
        return YamuxMuxer(self)


class YamuxMuxer:
    """Makes yamux connections."""

    protocol_id = PROTOCOL_ID

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def start(self, stream: trio.abc.Stream, role: Role) -> YamuxConnection:
        session = Session(self._limits, is_dialer=role is Role.DIALER, now=trio.current_time())
        return YamuxConnection(session, stream, self._limits)


class YamuxConnection:
    """Many streams over one. Owns the stream below it."""

    def __init__(self, session: Session, stream: trio.abc.Stream, limits: Limits) -> None:
        self._session = session
        self._stream = stream
        self._grace = limits.grace
        self._writer = Writer(session, stream)
        self._streams: dict[int, YamuxStream] = {}
        self._openers = trio.lowlevel.ParkingLot()
        self._opened = 0
        self._reading = trio.CancelScope()
        self._lingering = trio.CancelScope()
        self._is_running = False
        self._is_closing = False
        self._is_remote_gone = False
        self._ended = trio.Event()
        self._failure: P2PError | None = None

    # ---- running -------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return (
            self._is_closing
            or self._is_remote_gone
            or self._failure is not None
            or self._ended.is_set()
        )

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        if self._is_running:
            raise trio.BusyResourceError("this connection runs already")
        if self._is_closing:
            await trio.lowlevel.checkpoint()
            return
        self._is_running = True
        try:
            with bare_exceptions():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_alive)
                    try:
                        await self._receive(accept)
                    finally:
                        await self._finish()
                        nursery.cancel_scope.cancel()
        finally:
            self._ended.set()
        if self._failure is not None and not self._is_closing:
            raise self._failure

    async def _receive(self, accept: Callable[[MuxedStream], None]) -> None:
        """Read until there is nothing more to read, and note why that is."""
        try:
            with self._reading:
                await self._read(accept)
        except ProtocolError as error:
            self._fail(error)
        except BROKEN as error:
            self._is_remote_gone = True
            self._fail(error)
        if self._failure is None and self._reading.cancelled_caught and self._writer.error:
            self._fail(self._writer.error)

    def _fail(self, error: Exception) -> None:
        # Tampering is told as what it is, though for those who use the streams all is just lost.
        if isinstance(error, ProtocolError | SecurityError | PeerSilent):
            self._failure = error
        else:
            self._failure = ConnectionLost(str(error) or "the stream below broke")
            self._failure.__cause__ = error

    async def _read(self, accept: Callable[[MuxedStream], None]) -> None:
        session = self._session
        breathed = 0
        # No variable holds what came: while idle, that would keep the last stream in memory.
        while self._take_in(await self._stream.receive_some(), accept):
            if session.frames - breathed >= FRAMES_PER_CHECKPOINT:
                breathed = session.frames
                await trio.lowlevel.checkpoint()

    def _take_in(self, data: bytes | bytearray, accept: Callable[[MuxedStream], None]) -> bool:
        """Take what came from the remote; False once nothing more will."""
        if not data:
            self._receive_end()
            return False
        events = self._session.receive(data, trio.current_time())
        self._writer.heard(len(events))
        if self._session.was_pinged:  # So the next is due later, and nobody need wake before.
            self._session.was_pinged = False
            self._writer.nap_on(self._session.deadline())
        for event in events:
            if isinstance(event, GoneAway):
                self._receive_goodbye(event.code)
                return False
            self._dispatch(event, accept)
        if self._session.wants_flush:
            self._writer.kick()
        return True

    def _receive_end(self) -> None:
        self._is_remote_gone = True
        if not self._session.may_be_cut:  # Y15
            self._fail(trio.BrokenResourceError("the remote hung up without a goodbye"))

    def _receive_goodbye(self, code: int) -> None:
        self._is_remote_gone = True
        if code in (PROTOCOL_VIOLATION, INTERNAL_ERROR):
            self._fail(trio.BrokenResourceError(f"the remote complained and left (code {code})"))

    def _dispatch(self, event: StreamEvent, accept: Callable[[MuxedStream], None]) -> None:
        match event:
            case Readable(state):
                stream = self._streams.get(state.id)
                if stream is not None:
                    stream.wake_receiver()
            case Writable(state):
                stream = self._streams.get(state.id)
                if stream is not None:
                    stream.wake_sender()
            case Opened(state):
                stream = self._adopt(state)
                stream.is_new = True
                accept(stream)
            case Acknowledged():
                self._wake_opener()
            case _:
                assert_never(event)

    async def _write(self) -> None:
        await self._writer.run()
        # The last words of the remote may still be there to read, but not for long.
        self._reading.deadline = trio.current_time() + self._grace
        self._lingering.cancel()

    async def _keep_alive(self) -> None:
        while True:
            await self._writer.nap(self._session.deadline())
            try:
                self._session.on_deadline(trio.current_time())
            except ConnectionLost as error:
                self._is_remote_gone = True
                self._fail(error)
                self._reading.cancel()
                return
            self._writer.kick()

    def stay_alert(self, silence: float | None) -> None:
        """See Watchful.stay_alert."""
        self._session.stay_alert(silence)
        self._writer.nap_on(self._session.deadline())

    def prove_alive(self, patience: float) -> None:
        """See Watchful.prove_alive."""
        self._session.prove_alive(trio.current_time(), patience)
        self._writer.nap_on(self._session.deadline())
        self._writer.kick()

    # ---- streams -------------------------------------------------------------------------

    async def open_stream(self) -> YamuxStream:
        session = self._session
        self._opened += 1
        if self._opened % OPENED_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not session.may_open:
            if session.awaits_acknowledgement:
                await self._openers.park()
            else:
                await self._writer.wait_for_room(Waiter())
        try:
            return self._adopt(session.open(trio.current_time()))
        finally:
            self._wake_opener()

    def _adopt(self, state: StreamState) -> YamuxStream:
        stream = YamuxStream(state, self._session, self._writer, self._forget)
        self._streams[state.id] = stream
        return stream

    def _forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        self._wake_opener()

    def _wake_opener(self) -> None:
        if self._openers and not self._session.awaits_acknowledgement:
            self._openers.unpark()

    # ---- ending --------------------------------------------------------------------------

    async def aclose(self) -> None:
        self._is_closing = True
        self._end_streams("the connection was closed here", say_goodbye=True)
        if self._ended.is_set():
            await trio.lowlevel.checkpoint()
        elif self._is_running:
            self._reading.cancel()
            await self._wait_ended()
        else:
            await self._close_unused()

    async def _wait_ended(self) -> None:
        try:
            await self._ended.wait()
        finally:
            # Whoever was cancelled in here is in a hurry: don't wait for the remote to close.
            self._lingering.cancel()

    async def _close_unused(self) -> None:
        """Close a connection that ``run`` was never called for."""
        self._ended.set()
        try:
            with trio.move_on_after(self._grace), suppress(*BROKEN):
                await self._stream.send_all(self._session.data_to_send())
        finally:
            await trio.aclose_forcefully(self._stream)

    def _end_streams(self, reason: str, *, say_goodbye: bool) -> None:
        if say_goodbye:
            self._session.go_away(GOOD_ORDER, reason=reason)
        else:
            self._session.lose(reason)
        for stream in self._streams.values():
            stream.wake_receiver()
            stream.wake_sender()
        self._writer.wake_senders()
        self._openers.unpark_all()

    async def _finish(self) -> None:
        """Part from the remote, politely if it is there, and close the stream below."""
        reason = str(self._failure) if self._failure else "the connection ended"
        self._end_streams(reason, say_goodbye=not self._is_remote_gone)
        if not self._is_remote_gone:
            with trio.move_on_after(self._grace, shield=True):
                await self._say_goodbye()
        self._writer.stop()
        with trio.move_on_after(self._grace, shield=True):
            await self._stream.aclose()

    async def _say_goodbye(self) -> None:
        self._writer.kick()
        # Y19: a socket that is closed while bytes arrive takes back what it has not sent yet.
        # So the remote closes first, as it does on a goodbye, unless it says one itself.
        with self._lingering, suppress(*BROKEN):
            while data := await self._stream.receive_some(DISCARD_BYTES):
                if self._session.receive(data, trio.current_time()):
                    break
        await self._writer.flushed()
