"""A yamux session: frames in, events out, and the streams between. Rules: specs/yamux.md.

Theory of operation
===================

Either side opens streams, the dialer with odd ids and the listener with even ones. A stream is
two halves, each with a window of credit: whoever receives grants it, as its application reads.

    opener                                 acceptor
      | -- WindowUpdate SYN, Data ------->    |     opened without waiting for an answer
      | <------------ WindowUpdate ACK ---    |
      | <------------------------ Data ---    |
      | -- WindowUpdate FIN ------------->    |     this half is done, the other goes on
      | <------------ WindowUpdate FIN ---    |

The life of a stream in here::

    open() / SYN --> in use --- close() ----------> lingering ---- FIN, RST -----> forgotten
                       |         half of the remote     |
                       |         is still open          +-- data for nobody: RST -----^
                       |                                                              |
                       +---- reset(), or close() after both FINs or a failure --------+

Frames about streams that are forgotten are drained: they were sent before the remote knew.
A remote that breaks a rule is told so by GoAway, and everything ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnet.errors import ConnectionLost, LimitExceeded, PeerLeft, ProtocolError
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.messages import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    INTERNAL_ERROR,
    MAX_UINT32,
    PING,
    PROTOCOL_ID,
    PROTOCOL_VIOLATION,
    RESOURCE_LIMIT,
    RST,
    SYN,
    WINDOW_UPDATE,
    Header,
    decode_untrusted,
)
from p2pnet.muxers.yamux.outgoing import Outgoing
from p2pnet.muxers.yamux.pulse import Pulse
from p2pnet.muxers.yamux.stream_state import Chunk, Shared, StreamState
from p2pnet.muxers.yamux.windows import Budget

MAX_LINGERING = 256
"""Streams closed here of which the remote has not yet ended its half; more are reset."""
VIEW_BYTES = 4096
"""Less is copied at once, which costs less than a view of it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The remote opened a stream."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Readable:
    """Data, the end or a failure can be read from a stream."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Writable:
    """There is credit to write to a stream again, or it failed."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The remote knows of a stream we opened; another may be opened."""


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The remote ended the session; ``code`` is its reason."""

    code: int


StreamEvent = Opened | Readable | Writable | Acknowledged
Event = StreamEvent | GoneAway


def part_of(data: bytes | bytearray, start: int, stop: int) -> Chunk:
    """Return ``data[start:stop]``; uncopied, if not more than twice of it stays in memory."""
    size = stop - start
    if size == len(data):
        return data
    if size < VIEW_BYTES or 2 * size < len(data):
        return data[start:stop]
    return memoryview(data)[start:stop]


class Session:
    """Both directions of one connection."""

    def __init__(self, limits: Limits, *, is_dialer: bool, now: float) -> None:
        self._limits = limits
        self._outgoing = Outgoing(max_unsent=limits.max_unsent, max_control=limits.max_control)
        self._pulse = Pulse(self._outgoing, limits, is_dialer=is_dialer, now=now)
        self._shared = Shared(
            self._outgoing,
            self._pulse,
            Budget(limits.max_connection_window),
            limits.max_stream_window,
            limits.max_frame,
        )
        self._next_id = 1 if is_dialer else 2
        self._streams: dict[int, StreamState] = {}
        self._inbound = 0
        self._unacknowledged: set[int] = set()
        self._lingering: dict[int, None] = {}
        self._head = bytearray()
        self._remaining = 0
        self._recipient = 0
        self._fin_follows = False
        self._over: ConnectionLost | None = None
        self._is_deaf = False
        self.frames = 0
        """Frames received so far."""
        self.was_pinged = False
        """Set by a ping or the answer to one: the deadline is another. Whoever looks unsets it."""

    # ---- receiving -----------------------------------------------------------------------

    def progressed(self, now: float) -> None:
        """Note that the remote took some of what was waiting to be sent: it lives (Y12).

        Behind much data on a slow line a ping, and so its answer, may take minutes.
        """
        self._pulse.heard(now)

    def receive(self, data: bytes | bytearray, now: float) -> list[Event]:
        """Take bytes from the remote.

        Raises:
            ProtocolError: if they break a rule; a GoAway is ready to be sent.
        """
        events: list[Event] = []
        self._pulse.heard(now)
        try:
            self._parse(data, now, events)
            if self._outgoing.is_overflowing:  # Y14
                raise ProtocolError(PROTOCOL_ID, "it causes answers which it does not read")
        except ProtocolError as error:
            self._is_deaf = True
            self.go_away(PROTOCOL_VIOLATION, reason=str(error))
            raise
        return events

    def _parse(self, data: bytes | bytearray, now: float, events: list[Event]) -> None:
        offset, end = 0, len(data)
        while offset < end and not self._is_deaf:
            if self._remaining:
                stop = min(end, offset + self._remaining)
                self._receive_payload(part_of(data, offset, stop), events)
                offset = stop
            elif not self._head and end - offset >= HEADER_BYTES:
                self._receive_header(decode_untrusted(data, offset), now, events)
                offset += HEADER_BYTES
            else:
                stop = min(end, offset + HEADER_BYTES - len(self._head))
                self._head += data[offset:stop]
                offset = stop
                if len(self._head) == HEADER_BYTES:
                    header = decode_untrusted(self._head)
                    self._head.clear()
                    self._receive_header(header, now, events)

    def _receive_header(self, header: Header, now: float, events: list[Event]) -> None:
        self.frames += 1
        if header.kind == GO_AWAY:  # Y15
            self._is_deaf = True
            is_loss = header.length in (PROTOCOL_VIOLATION, INTERNAL_ERROR)
            kind = ConnectionLost if is_loss else PeerLeft
            self._lose(kind(f"the remote went away (code {header.length:#x})"))
            events.append(GoneAway(header.length))
        elif self._over is not None:
            self._expect_payload(header, 0)
        elif header.kind == PING:
            self.was_pinged = True
            self._pulse.receive(header.flags, header.length, now)
        else:
            if header.flags & SYN:
                self._admit(header.stream_id, now, events)
            elif header.stream_id in self._unacknowledged:
                self._unacknowledged.discard(header.stream_id)
                events.append(Acknowledged())
            stream = self._streams.get(header.stream_id)
            if stream is None or stream.has_failed:
                self._receive_stray(header)
            else:
                self._receive_frame(stream, header, events)

    def _receive_frame(self, stream: StreamState, header: Header, events: list[Event]) -> None:
        if header.flags & RST:
            # Y6: the length of such a WindowUpdate is an error code and no credit.
            stream.fail(header.length if header.kind == WINDOW_UPDATE else 0)
            events += (Readable(stream), Writable(stream))
            self._expect_payload(header, 0)
            return
        if header.kind == DATA:
            stream.expect(header.length)
            self._expect_payload(header, stream.id)
        elif header.length:
            stream.add_credit(header.length)
            events.append(Writable(stream))
        if header.flags & FIN and not self._remaining:
            stream.end()
            events.append(Readable(stream))

    def _receive_stray(self, header: Header) -> None:
        """Drain a frame about a stream that is not there, or no longer (Y7)."""
        if header.kind == DATA and header.length > self._limits.max_stream_window:  # Y7
            raise ProtocolError(PROTOCOL_ID, f"{header.length} bytes for an unknown stream")
        self._expect_payload(header, 0)
        if header.stream_id not in self._lingering:
            return
        if header.flags & (RST | FIN):
            del self._lingering[header.stream_id]
        elif header.kind == DATA and header.length:
            # Y16: nobody will read that, and the remote should not wait until somebody does.
            self._reset_lingering(header.stream_id)

    def _expect_payload(self, header: Header, recipient: int) -> None:
        if header.kind == DATA:
            self._remaining = header.length
            self._recipient = recipient
            self._fin_follows = bool(header.flags & FIN)

    def _receive_payload(self, chunk: Chunk, events: list[Event]) -> None:
        self._remaining -= len(chunk)
        stream = self._streams.get(self._recipient)
        ended = self._fin_follows and not self._remaining
        if stream is not None:
            stream.deliver(chunk)
            if ended:
                stream.end()
            events.append(Readable(stream))
        elif ended:
            # It was closed here while its last frame was coming in.
            self._lingering.pop(self._recipient, None)

    def _admit(self, stream_id: int, now: float, events: list[Event]) -> None:
        if stream_id % 2 == self._next_id % 2:  # Y4
            raise ProtocolError(PROTOCOL_ID, f"the remote may not open stream {stream_id}")
        if stream_id in self._streams or stream_id in self._lingering:  # Y4
            raise ProtocolError(PROTOCOL_ID, f"stream {stream_id} is open already")
        if self._inbound >= self._limits.max_streams:  # Y5
            self._outgoing.control(WINDOW_UPDATE, RST, stream_id, RESOURCE_LIMIT)
            return
        self._inbound += 1
        stream = StreamState(stream_id, self._shared, now)
        self._streams[stream_id] = stream
        # Y17: the answer to the first request can carry this along.
        self._outgoing.control(WINDOW_UPDATE, ACK, stream_id, 0, urgent=False)
        events.append(Opened(stream))

    # ---- the streams ---------------------------------------------------------------------

    @property
    def may_be_cut(self) -> bool:
        """True if nothing is lost when the remote hangs up now."""
        mid_frame = bool(self._head or self._remaining)
        return not mid_frame and all(stream.is_over for stream in self._streams.values())

    @property
    def may_open(self) -> bool:
        """False while ``open`` has to wait for acknowledgements, or for room to send."""
        return self._over is not None or (self.has_room and not self.awaits_acknowledgement)

    @property
    def awaits_acknowledgement(self) -> bool:
        """True while the remote has yet to acknowledge too many streams."""
        return len(self._unacknowledged) >= self._limits.max_unacknowledged

    def open(self, now: float) -> StreamState:
        """Open a stream. Its SYN need not be sent before something else is.

        Raises:
            LimitExceeded: if too many are open.
            ConnectionLost: if the session is over.
        """
        if self._over is not None:
            raise type(self._over)(*self._over.args)
        maximum = self._limits.max_outbound_streams
        if len(self._streams) >= maximum:
            raise LimitExceeded("max_outbound_streams", maximum)
        if len(self._streams) + len(self._lingering) >= maximum:  # Y16
            self._reset_lingering(next(iter(self._lingering)))
        stream_id = self._next_id
        if stream_id > MAX_UINT32:
            raise LimitExceeded("streams of one connection", MAX_UINT32 // 2)
        self._next_id += 2
        stream = StreamState(stream_id, self._shared, now)
        self._streams[stream_id] = stream
        self._unacknowledged.add(stream_id)
        self._outgoing.control(WINDOW_UPDATE, SYN, stream_id, 0, urgent=False)
        return stream

    def close(self, stream: StreamState) -> None:
        """Be done with a stream: FIN, and whatever still comes is not read."""
        if not self._forget(stream) or stream.has_failed:
            return
        stream.finish()
        if stream.has_ended:
            return
        self._lingering[stream.id] = None
        if not stream.window.credit:
            # Y16: the remote may be waiting for credit, which it will never get.
            self._reset_lingering(stream.id)
        elif len(self._lingering) > MAX_LINGERING:  # Y16
            self._reset_lingering(next(iter(self._lingering)))

    def reset(self, stream: StreamState, code: int) -> None:
        """End both halves of a stream at once, and tell the remote why."""
        if stream.id in self._lingering:
            self._reset_lingering(stream.id, code)
        elif self._forget(stream) and not stream.is_over:
            self._unacknowledged.discard(stream.id)
            self._outgoing.control(WINDOW_UPDATE, RST, stream.id, code)

    def _forget(self, stream: StreamState) -> bool:
        if self._streams.pop(stream.id, None) is None:
            return False
        if stream.id % 2 != self._next_id % 2:
            self._inbound -= 1
        stream.discard()
        return True

    def _reset_lingering(self, stream_id: int, code: int = 0) -> None:
        del self._lingering[stream_id]
        self._unacknowledged.discard(stream_id)
        self._outgoing.control(WINDOW_UPDATE, RST, stream_id, code)

    # ---- sending and ending --------------------------------------------------------------

    @property
    def wants_flush(self) -> bool:
        """True if what is ready should be sent now, and not along with later frames."""
        return self._outgoing.is_urgent

    @property
    def has_data_to_send(self) -> bool:
        return not self._outgoing.is_empty

    @property
    def bytes_to_send(self) -> int:
        return len(self._outgoing)

    @property
    def has_room(self) -> bool:
        """False while so much is ready to be sent that not even a new stream may add to it."""
        return self._outgoing.has_room

    def data_to_send(self, most: int | None = None) -> bytearray:
        """Take all that is ready to be sent, or about ``most`` bytes of it, by turns (Y20)."""
        return self._outgoing.take(most)

    def set_turn(self, most: int) -> None:
        """Set how many bytes a stream may send before it is another's turn."""
        self._outgoing.turn = most

    def deadline(self) -> float:
        """Return when to call ``on_deadline``."""
        return self._pulse.deadline()

    def stay_alert(self, silence: float | None) -> None:
        """Ask for a sign of life more often, or no more."""
        self._pulse.stay_alert(silence)

    def prove_alive(self, now: float, patience: float) -> None:
        """Ask for a sign of life now, and wait no longer than that for it."""
        self._pulse.prove_alive(now, patience)

    def on_deadline(self, now: float) -> None:
        """Ask for a sign of life.

        Raises:
            ConnectionLost: if the remote gave none since it was asked.
        """
        self._pulse.on_deadline(now)

    def go_away(self, code: int, *, reason: str) -> None:
        """Say goodbye, and end all streams. Only the goodbye of the remote is still heard."""
        if self._over is None:
            self._outgoing.control(GO_AWAY, 0, 0, code)
            self.lose(reason)

    def lose(self, reason: str) -> None:
        """End all streams, as the connection is no more. What came can still be read."""
        self._lose(ConnectionLost(reason))

    def _lose(self, how: ConnectionLost) -> None:
        if self._over is None:
            self._over = how
            self._recipient = 0
            for stream in self._streams.values():
                stream.fail(how)
