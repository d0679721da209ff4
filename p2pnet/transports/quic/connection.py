"""A connection of QUIC: what drives its core, and what the host sees of it.

    socket --> receive --> core --> events --> streams
                            |
    whoever waits --> drive: transmit, wait for the timer or a kick, again

Rules: specs/quic.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_address
from p2pnet.core.keepalive import DRAWN_BY_DIALER, DRAWN_BY_LISTENER, Hush, Pulse
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import answered
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.interfaces import CircuitLimit, MuxedStream
from p2pnet.transports.quic import backlog
from p2pnet.transports.quic.along import Along
from p2pnet.transports.quic.core import (
    Cause,
    Challenged,
    Core,
    Ended,
    Event,
    HandshakeDone,
    IdIssued,
    IdRetired,
    Moved,
    StreamData,
    StreamStopped,
    in_rows,
)
from p2pnet.transports.quic.core import StreamReset as ResetEvent
from p2pnet.transports.quic.endings import (
    CONNECTION_REFUSED,
    GOODBYE_SECONDS,
    GOODBYES,
    NO_ERROR,
    OUT_OF_RESOURCES,
    QUIC_V1,
    TLS_1,
    Refused,
    end_of_streams,
    failed_connection,
    failed_handshake,
    identified,
)
from p2pnet.transports.quic.path_news import PathNews
from p2pnet.transports.quic.stream import QuicStream
from p2pnet.transports.quic.terms import Terms, Way

MAX_KNOCKS = 2
"""How often a dial is begun again because the remote knocks: one of them may be lost."""
TICK = 1e-6
"""Seconds by which timers fire late: on the dot, rounding may have it that nothing is due yet."""


class QuicConnection:
    """Authenticated by TLS, and multiplexed by QUIC itself."""

    security = TLS_1
    muxer = QUIC_V1
    limit: CircuitLimit | None = None

    def __init__(self, core: Core, way: Way, terms: Terms, *, expected: PeerId | None) -> None:
        self.remote = way.remote
        self.local_address: Multiaddr = quic_address(way.local)
        self.remote_address: Multiaddr = quic_address(way.remote)
        self._core = core
        self._socket = way.socket
        self._way = way
        self._terms = terms
        self._expected = expected
        self._peer_id: PeerId | None = None
        self._ids = {core.id, *way.ids}
        self._streams: dict[int, QuicStream] = {}
        self._waiting = backlog.Waiting()
        self.wait = self._waiting.add
        self._early: list[MuxedStream] = []
        self._accept: Callable[[MuxedStream], None] = self._early.append
        self._unread = self._drivers = self._knocks = 0
        self._is_kicked = True  # The first packet of all waits to be sent.
        self._along = Along()
        self.hold = self._along.add
        self._is_over = self._is_buried = self._has_refused = False
        self._began_at = trio.current_time()
        self._error: Exception | None = None
        self._kicked = trio.lowlevel.ParkingLot()
        self._changed = trio.lowlevel.ParkingLot()
        drawn = terms.env.jitter(*(DRAWN_BY_DIALER if way.is_dialed else DRAWN_BY_LISTENER))
        self._pulse = Pulse(terms.habits, is_ipv6=way.remote.is_ipv6, drawn=drawn)
        self.on_settled: Callable[[], None] = lambda: None  # The handshake is over, either way.
        self._haste = trio.CancelScope()
        self.on_path_changed: Callable[[bool], None] = lambda is_ours: None  # See Roaming.
        self._path_news = PathNews()
        way.socket.enter(self, self._ids)

    @property
    def peer_id(self) -> PeerId:
        if self._peer_id is None:
            raise RuntimeError("the handshake is not over")
        return self._peer_id

    @property
    def is_established(self) -> bool:
        return self._peer_id is not None

    @property
    def is_begun(self) -> bool:
        return self._core.is_begun

    @property
    def is_over(self) -> bool:
        return self._is_over

    # ---- what comes ----------------------------------------------------------------------

    def receive(self, datagrams: Sequence[bytes], remote: Endpoint, now: float) -> None:
        """Take datagrams that came in a row from one place."""
        if self._is_over:
            return
        self._core.receive(datagrams, remote, now)
        self._take_events()
        self._pulse.heard(now)
        self.kick()

    def knocked(self, now: float) -> None:
        """Hear that the remote's NAT is open: what was dialled before may be lost there (Q32)."""
        is_unanswered = self._core.is_owed and not self._core.is_begun
        if is_unanswered and not self._is_over and self._knocks < MAX_KNOCKS:
            self._knocks += 1
            self._core.resend(now)
            self.kick()

    def is_disowned_by(self, token: bytes) -> bool:
        """Return True, and be over, if the remote knows nothing of this connection (Q17)."""
        if self._is_over or token not in self._core.reset_tokens:
            return False
        self._end(ConnectionLost("the remote knows nothing of this connection any more"))
        return True

    def _take_events(self) -> None:
        rows: dict[int, list[StreamData]] = {}  # What came of one stream is handed on at once.
        while not self._is_over and (event := self._core.next_event()) is not None:
            if isinstance(event, StreamData):
                rows.setdefault(event.stream, []).append(event)
                continue
            self._feed_all(rows)
            self._take(event)
        self._feed_all(rows)

    def _feed_all(self, rows: dict[int, list[StreamData]]) -> None:
        for row in rows.values():
            self._feed(row)
        rows.clear()

    def _take(self, event: Event) -> None:
        match event:
            case ResetEvent():
                self._reset_by_remote(event)
            case StreamStopped():
                self._stopped_by_remote(event)
            case IdIssued():
                self._ids.add(event.id)
                self._socket.add(event.id, self)
            case IdRetired():
                self._ids.discard(event.id)
                self._socket.remove(event.id)
            case HandshakeDone():
                self._judge()
            case Moved(remote):  # Q29
                self._socket.move(self, remote)
                self.remote, self.remote_address = remote, quic_address(remote)
                self._path_news.add(is_ours=False)
            case Challenged():
                self._path_news.add(is_ours=True)
            case Ended():
                known = self.is_established
                self._end(failed_connection(event) if known else failed_handshake(event))

    def _judge(self) -> None:
        """Look who it is: before that nothing that came is handed on (Q4, Q5)."""
        now = self._terms.env.wall_clock()
        try:
            self._peer_id = identified(self._core.certificates, expected=self._expected, now=now)
        except Refused as refused:
            self._core.close(refused.code, "", is_application=False)
            self._has_refused = True
            self._end(refused.error)
            return
        # Q20: the remote may use it from now on, so what is left of the handshake is not cancelled.
        self._haste.shield = True
        self.on_settled()

    def _feed(self, row: Sequence[StreamData]) -> None:
        number, is_last = row[0].stream, row[-1].is_last
        data = row[0].data if len(row) == 1 else b"".join([event.data for event in row])
        stream = self._streams.get(number)
        if stream is None:
            if not self._is_remotes(number):
                self._core.consume(number, len(data), trio.current_time())
                return
            stream = self._streams[number] = QuicStream(number, self)
            unread = stream.feed(data, is_last=is_last)
            self._accept(stream)
        else:
            unread = stream.feed(data, is_last=is_last)
        self._unread += len(data)
        if unread:
            self.consume(number, unread)
        elif self._unread > self._terms.max_unread_bytes:
            self._overflow(stream)
        self._drop_if_over(stream)

    def _overflow(self, stream: QuicStream) -> None:
        """End a stream: its remote kept to no credit, since the library asks for none (Q13)."""
        error = StreamReset("nobody reads, and the remote sends on: out of room")
        self.consume(stream.number, stream.fail_incoming(error, is_done=False))
        stream.fail_outgoing(error)
        self.reset(stream.number, OUT_OF_RESOURCES)
        self.stop(stream.number, OUT_OF_RESOURCES)

    def _is_remotes(self, number: int) -> bool:
        """Return True if the remote began the stream: whoever dialled has the even ones."""
        return number % 2 == (1 if self._way.is_dialed else 0)

    def _reset_by_remote(self, event: ResetEvent) -> None:
        stream = self._streams.get(event.stream)
        if stream is None:
            if self._is_remotes(event.stream):
                self._core.reset(event.stream, event.code)
            return
        error = StreamReset(f"the remote reset the stream with code {event.code:#x}")
        self.consume(event.stream, stream.fail_incoming(error, is_done=True))
        self._drop_if_over(stream)

    def _stopped_by_remote(self, event: StreamStopped) -> None:
        stream = self._streams.get(event.stream)
        if stream is not None:
            reason = f"the remote reads no more of the stream, with code {event.code:#x}"
            stream.fail_outgoing(StreamReset(reason))
            self._drop_if_over(stream)

    def _drop_if_over(self, stream: QuicStream) -> None:
        if stream.is_over:
            self.forget(stream.number)

    # ---- what goes: asked by the streams -----------------------------------------------------

    def room(self, stream: int) -> int:
        return backlog.room(self._core, stream, self._terms.max_unsent_bytes)

    def write(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        if not self._is_over:
            self._core.write(stream, data, is_last=is_last)
            self.kick()

    def consume(self, stream: int, count: int) -> None:
        self._unread -= count
        if not self._is_over and self._core.consume(stream, count, trio.current_time()):
            self.kick()

    def bound(self, stream: int, max_bytes: int) -> None:
        self._core.bound(stream, max_bytes)

    def reset(self, stream: int, code: int) -> None:
        if not self._is_over:
            self._core.reset(stream, code)
            self.kick()

    def stop(self, stream: int, code: int) -> None:
        if not self._is_over:
            self._core.stop(stream, code)
            self.kick()

    def forget(self, stream: int) -> None:
        self._streams.pop(stream, None)

    # ---- driving -------------------------------------------------------------------------

    def kick(self) -> None:
        """There may be something to send."""
        self._is_kicked = True
        self._kicked.unpark_all()

    async def _drive(self, is_done: Callable[[], bool]) -> None:
        """Send what is due, and wait, until ``is_done`` or all is over."""
        self._drivers += 1
        try:
            while not self._is_over:
                if self._core.is_begun:
                    answered()  # DI10: to whoever dials in this task; it may now send more
                if self._is_kicked:
                    await self._send()
                if is_done():
                    return
                await self._wait()
        finally:
            self._drivers -= 1

    async def _send(self) -> None:
        core, now = self._core, trio.current_time()
        self._along.let_go(now)
        for is_ours in self._path_news.take(now):
            self.on_path_changed(is_ours)
        timer = core.timer()
        if timer is not None and timer + TICK <= now:
            core.on_timer(now)
        if now >= self._pulse.lost_at:  # Q10
            self._take(Ended(Cause.SILENCE, 0, ""))
        elif now >= self._ping_at:
            core.ping()
            self._pulse.pinged(now)
        datagrams = core.transmit(now)
        self._pulse.sent(now, is_any=bool(datagrams), is_owed=core.is_owed)
        self._is_kicked = core.has_more
        self._take_events()
        self._changed.unpark_all()
        self._waiting.wake(core, self._terms.max_unsent_bytes)
        send = self._socket.send if core.is_begun else self._socket.try_to_send
        for batch, remote in in_rows(datagrams):
            await send(batch, remote, self._way.local.host)

    async def _wait(self) -> None:
        timer = self._core.timer()
        look_at = self._pulse.wake_at(self._ping_at, trio.current_time())
        deadline = min(look_at, self._path_news.due, math.inf if timer is None else timer + TICK)
        if self._is_kicked or self._is_over:
            await trio.lowlevel.checkpoint()
            return
        with self._along.nap(deadline):
            await self._kicked.park()
        self._is_kicked = True

    @property
    def _ping_at(self) -> float:
        return self._pulse.ping_at(self._core.idle_timeout, is_in_use=bool(self._streams))  # Q11

    # ---- life ----------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Look at what the first datagram brought."""
        self._pulse.heard(now)
        self._take_events()

    async def refuse(self) -> None:
        """Send the remote away."""
        await self._leave(CONNECTION_REFUSED, is_application=False)

    async def handshake(self) -> None:
        """Shake hands; the connection is over on any error, which is raised."""
        try:
            await self.settle()
        except BaseException:
            await self.refuse()
            raise

    async def settle(self) -> None:
        """Shake hands; if cancelled, the connection is left as it is, for whoever goes on."""
        with trio.CancelScope(shield=self.is_established) as self._haste:
            await self._attended(lambda: self.is_established)
        if self._error is not None:
            raise self._error
        if not self.is_established:  # Who is in may have left already, as AutoNAT v1 does.
            raise ConnectionLost("the connection was closed in the handshake")

    async def _attended(self, is_done: Callable[[], bool]) -> None:
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._socket.attend)
                await self._drive(is_done)
                nursery.cancel_scope.cancel()

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        """See MuxedConnection.run."""
        self._accept = accept
        early, self._early = self._early, []
        for stream in early:
            accept(stream)
        try:
            await self._attended(lambda: False)
        finally:
            await self._leave(NO_ERROR)
        if self._error is not None:
            raise self._error

    async def open_stream(self) -> MuxedStream:
        """See MuxedConnection.open_stream."""
        await trio.lowlevel.checkpoint()
        while not self._is_over:
            if (number := self._core.open_stream()) is not None:
                stream = self._streams[number] = QuicStream(number, self)
                return stream
            await self._changed.park()
        raise ConnectionLost("the connection is closed")

    async def aclose(self) -> None:
        """See MuxedConnection.aclose. Waits a little for what was sent to arrive (Q15)."""
        try:
            if self.is_established and self._drivers:
                with trio.move_on_after(self._terms.linger):
                    # Kicked: what was asked for last is not on its way yet, as the end of a stream.
                    while not self._is_over and (self._is_kicked or not self._core.is_settled):
                        await self._changed.park()
        finally:
            await self._leave(NO_ERROR)
        await trio.lowlevel.checkpoint()

    def hush(self, seconds: float) -> Hush | None:
        """See Pulsing.hush."""
        lives = not self._is_over and seconds < self._core.idle_timeout
        return self._pulse.hush(trio.current_time(), seconds) if lives else None

    def stay_alert(self, silence: float | None) -> None:
        """See Watchful.stay_alert."""
        self._pulse.alert = silence
        self.kick()

    def prove_alive(self, patience: float) -> None:
        self._pulse.prove_alive(trio.current_time(), patience)
        self.kick()

    # ---- the end -------------------------------------------------------------------------

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        self.on_settled()
        why = end_of_streams(error, is_ours=self._has_refused)
        for stream in list(self._streams.values()):
            stream.lose(why)
        self._streams.clear()
        self._changed.unpark_all()
        self.kick()

    async def _leave(self, code: int, *, is_application: bool = True) -> None:
        """Say goodbye, if nobody has, and let go of the socket. Cancelled or not."""
        if not self._is_over:
            self._core.close(code, "", is_application=is_application)
            self._has_refused = True
            self._end(None)
        if self._is_buried:
            return
        self._is_buried = True
        now = trio.current_time()
        is_in_vain = not self._core.is_begun and now > self._began_at + GOODBYE_SECONDS  # Q15
        datagrams = [] if is_in_vain else [data for data, _ in self._core.transmit(now)]
        last_words = datagrams[-1] if datagrams and self._has_refused else b""
        self._socket.bury(self, self._ids, last_words)
        with trio.move_on_after(GOODBYE_SECONDS, shield=True):
            if datagrams:
                datagrams += [last_words] * (GOODBYES - 1) if last_words else []
                await self._socket.send(datagrams, self.remote, self._way.local.host)
        await self._socket.release()
