"""Muxers that break one rule each: yamux, with one thing in it gone wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2pnet.errors import ConnectionLost, ProtocolError, SecurityError
from p2pnet.interfaces import Kit, MuxedStream, Part, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.driver import YamuxConnection, YamuxMuxer
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.machine import Event, Opened, Readable, Session, StreamEvent
from p2pnet.muxers.yamux.stream import YamuxStream
from p2pnet.muxers.yamux.stream_state import StreamState


class Stream(YamuxStream):
    """A stream of a saboteur, which knows its connection."""

    connection: Connection

    @property
    def number(self) -> int:
        return self._state.id


class Connection(YamuxConnection):
    """A connection of a saboteur, which makes streams of its own kind."""

    stream_type: type[Stream] = Stream

    def _adopt(self, state: StreamState) -> Stream:
        stream = self.stream_type(state, self._session, self._writer, self._forget)
        stream.connection = self
        self._streams[state.id] = stream
        return stream

    @property
    def is_dialer(self) -> bool:
        return self._session._next_id % 2 == 1


@dataclass(frozen=True)
class Sabotaged:
    """A part whose connections, streams or sessions are of other types than they should be."""

    connection: type[Connection] = Connection
    stream: type[Stream] | None = None
    session: type[Session] = Session
    muxer: type[YamuxMuxer] = YamuxMuxer
    limits: Limits = Limits()  # noqa: RUF009

    def build(self, kit: Kit) -> YamuxMuxer:
        sabotaged = self

        class Muxer(self.muxer):  # type: ignore[name-defined, misc]
            def start(self, stream: trio.abc.Stream, role: Role) -> YamuxConnection:
                limits, now = sabotaged.limits, trio.current_time()
                session = sabotaged.session(limits, is_dialer=role is Role.DIALER, now=now)
                connection = sabotaged.connection(session, stream, limits)
                if sabotaged.stream is not None:
                    connection.stream_type = sabotaged.stream
                return connection

        return Muxer(self.limits)


# ---- streams -----------------------------------------------------------------------------


class Misspells(Stream):
    """The fourth thing that an end says on the first stream comes out wrong."""

    said = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.said += 1
        if data == b"are you there?" and self.number == 1 and self.said == 4:
            data = b"are you theee?"
        await super().send_all(data)


class NoCreditAfterFin(Session):
    """Whoever has said FIN grants no more credit."""

    def open(self, now: float) -> StreamState:
        return stingy(super().open(now))

    def receive(self, data: bytes | bytearray, now: float) -> list[Event]:
        events = super().receive(data, now)
        for event in events:
            if isinstance(event, Opened):
                stingy(event.stream)
        return events


class Stingy(StreamState):
    __slots__ = ()

    def grant_credit(self, now: float) -> None:
        if not self.has_finished:
            super().grant_credit(now)


def stingy(state: StreamState) -> StreamState:
    state.__class__ = Stingy
    return state


class TakesZero(Stream):
    """Asked for nothing, it gives something."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await super().receive_some(max_bytes or None)


class ResetIsAnEnd(Stream):
    """After a reset here, reading finds a clean end."""

    was_reset = False

    def reset(self, code: int = 0) -> None:
        self.was_reset = True
        super().reset(code)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.was_reset:
            await trio.lowlevel.checkpoint()
            return b""
        return await super().receive_some(max_bytes)


class ResetWakesNobody(Stream):
    """Who waits on a stream that is reset here waits on."""

    def reset(self, code: int = 0) -> None:
        self._session.reset(self._state, code)
        self._is_closed = True
        self._on_leave(self._state.id)
        self._writer.kick()


class MixesUp(Stream):
    """From the fiftieth stream on, longer writes go out in two halves, the second one first."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.number > 100 and len(data) == 777:
            data = bytes(data[400:]) + bytes(data[:400])
        await super().send_all(data)


class LosesTheLastByte(Stream):
    """Of more than four MiB at once, the last byte is lost."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(data[:-1] if len(data) > 4 << 20 else data)


class NoWindows(Session):
    """Nobody waits for credit."""

    def open(self, now: float) -> StreamState:
        return unlimited(super().open(now))

    def _admit(self, stream_id: int, now: float, events: list[Event]) -> None:
        super()._admit(stream_id, now, events)
        if stream_id in self._streams:
            unlimited(self._streams[stream_id])


def unlimited(state: StreamState) -> StreamState:
    state._credit = state.window.credit = state.window.size = 1 << 30
    return state


class OneAtATime(Connection):
    """While one stream sends, the others wait."""

    def _adopt(self, state: StreamState) -> Stream:
        stream = super()._adopt(state)
        assert isinstance(stream, Queueing)
        if not self._streams or "turns" not in self.__dict__:
            self.turns = trio.Semaphore(1)
        return stream

    turns: trio.Semaphore


class Queueing(Stream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        assert isinstance(self.connection, OneAtATime)
        async with self.connection.turns:
            await super().send_all(data)


class LosesOne(Connection):
    """Who has opened ten streams takes the eleventh of the remote twice."""

    def _dispatch(self, event: StreamEvent, accept: Callable[[MuxedStream], None]) -> None:
        super()._dispatch(event, accept)
        if (
            isinstance(event, Opened)
            and self._session._next_id > 20
            and event.stream.id in (21, 22)
        ):
            accept(self._streams[event.stream.id])


class AwaitsAcknowledgement(Connection):
    """A stream is open once the remote has acknowledged it."""

    async def open_stream(self) -> YamuxStream:
        stream = await super().open_stream()
        self._writer.kick()
        while stream._state.id in self._session._unacknowledged:  # noqa: ASYNC110
            await trio.sleep(0.1)
        return stream

    def _dispatch(self, event: StreamEvent, accept: Callable[[MuxedStream], None]) -> None:
        super()._dispatch(event, accept)
        self._writer.kick()


class AcceptsTwice(Connection):
    """The only stream, if its first data comes later, is announced once more then."""

    silent: StreamState | None = None

    async def open_stream(self) -> YamuxStream:
        stream = await super().open_stream()
        self._writer.kick()
        return stream

    def _dispatch(self, event: StreamEvent, accept: Callable[[MuxedStream], None]) -> None:
        super()._dispatch(event, accept)
        if isinstance(event, Opened) and not event.stream._inbox and not self._session._remaining:
            self.silent = event.stream
        elif isinstance(event, Readable) and event.stream is self.silent:
            self.silent = None
            if list(self._streams) == [event.stream.id]:
                accept(self._streams[event.stream.id])


class Spiteful(Stream):
    """A sender that is cancelled takes it out on the others."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await super().send_all(data)
        except trio.Cancelled:
            for other in self.connection._streams.values():
                if other is not self and other._state._credit:
                    other._state.write(b"junk", 0)
            raise


class TakesTooEarly(Stream):
    """Takes the bytes first, and then notices that it is cancelled."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._state._inbox and max_bytes == 7:
            data = self._read(max_bytes) or b""
            await trio.lowlevel.checkpoint()
            return data
        return await super().receive_some(max_bytes)


# ---- endings -----------------------------------------------------------------------------


class Nameless(YamuxMuxer):
    protocol_id = "yamux"


class LeavesItOpen(Connection):
    """After the goodbye of the remote the raw stream stays open."""

    async def _finish(self) -> None:
        if self._is_remote_gone and self._failure is None:
            self._end_streams("the remote is gone", say_goodbye=False)
            self._writer.stop()
            await trio.lowlevel.checkpoint()
        else:
            await super()._finish()


class ClosesOnce(Connection):
    """Closing again is an error."""

    async def aclose(self) -> None:
        if self._ended.is_set() and self._is_closing:
            raise trio.ClosedResourceError("closed already")
        await super().aclose()


class ClosesIfNotCancelled(Connection):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        await super().aclose()


class LeavesUnused(Connection):
    """A connection that never ran is not closed."""

    async def _close_unused(self) -> None:
        self._ended.set()
        await trio.lowlevel.checkpoint()


class LeavesWhenCancelled(Connection):
    """A cancelled run just leaves."""

    async def _finish(self) -> None:
        try:
            await trio.lowlevel.checkpoint()
            await super()._finish()
        finally:
            self._writer.stop()


class WaitsForEver(Connection):
    """A stream that is opened after the end waits for a connection that never comes."""

    async def open_stream(self) -> YamuxStream:
        if self._ended.is_set():
            await trio.sleep_forever()
        return await super().open_stream()


class RawErrors(Connection):
    """Shows the error of the stream below as it is."""

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if "the cable is cut" in str(error):
            self._failure = error  # type: ignore[assignment]


class HidesTampering(Connection):
    """Takes tampering for a loss like any other."""

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if isinstance(error, SecurityError):
            self._failure = ConnectionLost(str(error))


class HidesGarbage(Connection):
    """Takes garbage for a loss."""

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if isinstance(error, ProtocolError):
            self._failure = ConnectionLost(str(error))


class Crashes(Session):
    """Falls over a frame of unknown kind."""

    def receive(self, data: bytes | bytearray, now: float) -> list[Event]:
        try:
            return super().receive(data, now)
        except ProtocolError as error:
            if "unknown kind" in str(error):
                raise IndexError("tuple index out of range") from None
            raise


UNLIMITED = Limits(max_streams=2**32 - 1)
SABOTEURS: dict[str, Part[YamuxMuxer]] = {
    "protocol-id": Sabotaged(muxer=Nameless),
    "both-ways": Sabotaged(stream=Misspells),
    "half-close": Sabotaged(session=NoCreditAfterFin),
    "trio-stream": Sabotaged(stream=TakesZero),
    "reset": Sabotaged(stream=ResetIsAnEnd),
    "reset-wakes": Sabotaged(stream=ResetWakesNobody),
    "many-streams": Sabotaged(stream=MixesUp),
    "big-data": Sabotaged(stream=LosesTheLastByte),
    "back-pressure": Sabotaged(session=NoWindows),
    "independence": Sabotaged(connection=OneAtATime, stream=Queueing),
    "simultaneous-open": Sabotaged(connection=LosesOne),
    "open-at-once": Sabotaged(connection=AwaitsAcknowledgement),
    "silent-open": Sabotaged(connection=AcceptsTwice),
    "cancelled-sender": Sabotaged(stream=Spiteful),
    "cancelled-receiver": Sabotaged(stream=TakesTooEarly),
    "good-order": Sabotaged(connection=LeavesItOpen),
    "close-twice": Sabotaged(connection=ClosesOnce),
    "close-cancelled": Sabotaged(connection=ClosesIfNotCancelled),
    "close-unused": Sabotaged(connection=LeavesUnused),
    "cancelled-run": Sabotaged(connection=LeavesWhenCancelled),
    "after-the-end": Sabotaged(connection=WaitsForEver),
    "broken-below": Sabotaged(connection=RawErrors),
    "tampered-below": Sabotaged(connection=HidesTampering),
    "garbage": Sabotaged(connection=HidesGarbage),
    "damage": Sabotaged(session=Crashes),
    "inbound-limit": Sabotaged(limits=UNLIMITED),
}
GREEDY = Yamux(max_outbound_streams=100_000, max_unacknowledged=100_000)
