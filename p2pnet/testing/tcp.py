"""A TCP connection of the simulated internet: segments in, segments out, no clock of its own.

It follows RFC 9293 and, where that leaves a choice, Linux; `tcp_states` shows the states. Ports and
addresses are the kernel's business: a connection knows only the segments of its remote.

The caller hands in what happens (a segment, written data, time), then takes `segments_to_send`
and looks at `deadline`. Inside, positions count from the SYN of a side and do not wrap; only this
module turns them into sequence numbers modulo 2**32. `tcp_sending` decides about our bytes and
their repetition, `tcp_buffers` puts the remote's in order.

Every segment with data is acknowledged at once: with a delayed acknowledgement no simulation would
be still before the timer ran out. What is missing compared with Linux: options
(selective acknowledgements, timestamps, window scaling, for windows are plain numbers here), urgent
data, Nagle's algorithm, data on a SYN.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from p2pnet.testing.packet import Flags, Segment
from p2pnet.testing.tcp_buffers import FIRST_BYTE, ReceiveBuffer
from p2pnet.testing.tcp_config import TcpConfig
from p2pnet.testing.tcp_sending import Sender
from p2pnet.testing.tcp_states import (
    AFTER_BOTH_FINS,
    AFTER_FIN,
    AFTER_FIN_ACKNOWLEDGED,
    AFTER_SHUTDOWN,
    HANDSHAKE,
    TAKES_DATA,
    State,
    answer_without_connection,
)

__all__ = ["State", "TcpConfig", "TcpConnection", "answer_without_connection"]

_MASK = 2**32 - 1
_HALF = 2**31

CHALLENGE_PAUSE = 0.5
"""Seconds between two answers to implausible segments without data: two confused ends must not
answer each other for ever (RFC 5961, section 7; the figure is Linux's)."""

# Looking up a member of an enumeration is slow, and this is done for every segment.
_ACK: Final[Flags] = Flags.ACK
_SYN_ACK: Final[Flags] = Flags.SYN | Flags.ACK
_FIN_ACK: Final[Flags] = Flags.FIN | Flags.ACK
_RST_ACK: Final[Flags] = Flags.RST | Flags.ACK


class TcpConnection:
    """One end of a connection. Begin with `connect` or `accept`.

    After each call, send what `segments_to_send` returns and wait for `deadline`.
    """

    def __init__(self, config: TcpConfig, *, initial_sequence: int, max_segment: int) -> None:
        self._config = config
        self._own_start = initial_sequence & _MASK
        self._remote_start = 0
        self._max_segment = max_segment
        self._sender = Sender(config, max_segment)
        self._receiver = ReceiveBuffer(config.receive_bytes)
        self._announced = FIRST_BYTE + config.receive_bytes  # the edge the remote knows of
        self._worth_announcing = max(min(config.receive_bytes // 2, max_segment), 1)
        self._segments: list[Segment] = []
        self._acknowledge_now = False
        self._is_orphan = False  # close() was called: nobody will read any more
        self._linger_until: float | None = None
        self._next_answer = float("-inf")
        self._has_begun = False
        self.state = State.CLOSED
        self.error: int | None = None
        """Why the connection ended, if not as both sides wished: an ``errno``."""

    # ---- what the application sees ---------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and the connection has not ended yet."""
        return self.state not in HANDSHAKE

    @property
    def is_over(self) -> bool:
        """Whether it can be forgotten. What has arrived may still be read."""
        return self._has_begun and self.state is State.CLOSED

    @property
    def readable(self) -> int:
        """How many bytes `read` could return."""
        return self._receiver.readable

    @property
    def at_end(self) -> bool:
        """Whether the remote has sent its FIN and all before it was read."""
        return self._receiver.finished and not self._receiver.readable

    @property
    def unanswered(self) -> int:
        """How often in a row something was repeated to which the remote gave no answer."""
        return self._sender.retries

    def send_room(self) -> int:
        """Return how much `write` would take; 0 after `shutdown` and when over."""
        if self._sender.fin_wanted or self.is_over:
            return 0
        return self._sender.buffer.room

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Take data to send, and return how many bytes: never more than `send_room`."""
        if self._sender.fin_wanted or self.is_over:
            return 0
        taken = self._sender.buffer.append(data)
        self._flush(now)
        return taken

    def read(self, max_bytes: int, now: float) -> bytes:
        """Return up to ``max_bytes`` that have arrived; b"" if there is nothing."""
        data = self._receiver.read(max_bytes)
        if data and self.state in TAKES_DATA:
            # Tell the remote only when the window has at least doubled: others learn it from the
            # acknowledgements of what they send.
            left = self._announced - self._receiver.next
            room = self._receiver.edge - self._receiver.next
            if room >= 2 * left and room - left >= self._worth_announcing:
                self._acknowledge_now = True
                self._flush(now)
        return data

    # ---- beginning and end -----------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Dial: the SYN is ready to be sent."""
        self._begin(State.SYN_SENT, now)

    def accept(self, syn: Segment, now: float) -> None:
        """Begin as a listener's child, with the SYN that came to it."""
        self._take_syn(syn)
        self._begin(State.SYN_RECEIVED, now)

    def shutdown(self, now: float) -> None:
        """Send a FIN after what was written. Reading goes on."""
        if self.state is State.SYN_SENT:
            self._finish()
        elif self.state is not State.CLOSED and not self._sender.fin_wanted:
            self._sender.fin_wanted = True
            self.state = AFTER_SHUTDOWN.get(self.state, self.state)
            self._flush(now)  # in SYN_RECEIVED the FIN waits for the handshake

    def close(self, now: float) -> None:
        """Let the connection finish by itself, as the system call of that name does.

        Data nobody has read makes it a RST, so that the remote learns of the loss (RFC 2525,
        section 2.17).
        """
        if self._is_orphan or self.state is State.CLOSED:
            return
        self._is_orphan = True
        if self.readable and self.state is not State.TIME_WAIT:
            self._reset()
        else:
            self.shutdown(now)
            if self.state is State.FIN_WAIT_2:
                self._linger_until = now + self._config.fin_wait
        self._receiver.clear()

    def abort(self, now: float) -> None:
        """End at once, with a RST if the remote may still believe in the connection."""
        if self.state is State.SYN_SENT or self.state in AFTER_BOTH_FINS:
            self._finish()
        elif self.state is not State.CLOSED:
            self._reset()

    # ---- time ------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when `timeout` is to be called; None if no timer runs."""
        sender, linger = self._sender.deadline, self._linger_until
        if sender is None or linger is None:
            return linger if sender is None else sender
        return min(sender, linger)

    def timeout(self, now: float) -> None:
        """Do what is due by ``now``; nothing if it is too early."""
        if self._linger_until is not None and now >= self._linger_until:
            self._finish()
        if self._sender.deadline is None or now < self._sender.deadline:
            return
        if self.state in HANDSHAKE:
            going_on = self._sender.repeat_syn(now)
            if going_on:
                self._send_syn()
        elif self._sender.probing:
            going_on = self._probe_window(now)
        else:
            going_on = self._sender.expire(now)
        if not going_on:
            self._finish(errno.ETIMEDOUT)
        self._flush(now)

    # ---- segments --------------------------------------------------------------------------

    def segments_to_send(self) -> list[Segment]:
        """Take what is to be sent, in order."""
        segments, self._segments = self._segments, []
        return segments

    def receive(self, segment: Segment, now: float) -> None:
        """Take a segment of the remote, whatever is in it."""
        if self.state is State.CLOSED:
            return
        if self.state is State.SYN_SENT:
            self._receive_in_syn_sent(segment, now)
        else:
            self._receive_after_syn(segment, now)
        self._flush(now)

    def is_replaceable_by(self, segment: Segment) -> bool:
        """Tell whether a SYN may begin a new connection in place of this one.

        It may in TIME_WAIT if it cannot be an old duplicate (RFC 9293, section 3.6.1).
        """
        if self.state is not State.TIME_WAIT or segment.flags is not Flags.SYN:
            return False
        return self._position(segment.sequence) > self._receiver.next

    # ---- receiving -------------------------------------------------------------------------

    def _position(self, sequence: int) -> int:
        """Turn a sequence number of the remote into a position: the one near what we expect."""
        expected = self._receiver.next
        return expected + ((sequence - self._remote_start - expected + _HALF) & _MASK) - _HALF

    def _own_position(self, acknowledgement: int) -> int:
        known = self._sender.unacknowledged
        return known + ((acknowledgement - self._own_start - known + _HALF) & _MASK) - _HALF

    def _receive_in_syn_sent(self, segment: Segment, now: float) -> None:
        """RFC 9293, section 3.10.7.3."""
        flags = segment.flags
        if Flags.ACK in flags and self._own_position(segment.acknowledgement) != FIRST_BYTE:
            self._refuse(segment)
        elif Flags.RST in flags:
            if Flags.ACK in flags:
                self._finish(errno.ECONNREFUSED)
        elif Flags.SYN in flags:
            self._take_syn(segment)
            if Flags.ACK in flags:
                self._establish(segment, now)
                self._acknowledge_now = True
            else:  # the remote dials at the same time
                self.state = State.SYN_RECEIVED
                self._send_syn()

    def _receive_after_syn(self, segment: Segment, now: float) -> None:
        """RFC 9293, section 3.10.7.4."""
        position = self._position(segment.sequence)
        data = segment.data
        fin = False
        if segment.flags is not _ACK:
            if Flags.RST in segment.flags:
                self._on_reset(position, now)
                return
            if Flags.SYN in segment.flags:
                self._on_syn(segment, position, now)
                return
            if Flags.ACK not in segment.flags:
                return
            fin = Flags.FIN in segment.flags
        end = position + len(data) + fin
        if not self._is_acceptable(position, end):
            if fin and self.state is State.TIME_WAIT:
                self._linger_until = now + self._config.time_wait
            self._answer(now, always=end > position)
        elif self._on_acknowledgement(segment, position, now) and end > position:
            self._on_data(segment, position, fin=fin)
            if self._receiver.finished:
                self._enter(AFTER_FIN, now)

    def _is_acceptable(self, position: int, end: int) -> bool:
        """Test the sequence numbers (RFC 9293, section 3.10.7.4, first).

        As in Linux, a segment without data may stand at the edge of the window: the remote has
        filled the window, a segment was lost, and its acknowledgements must get through.
        """
        if end == position:
            return self._receiver.next <= position <= self._receiver.edge
        return end > self._receiver.next and position < self._receiver.edge

    def _on_reset(self, position: int, now: float) -> None:
        """Believe a RST only with the very number expected (RFC 5961, section 3.2)."""
        if position == self._receiver.next:
            self._finish(None if self.state is State.TIME_WAIT else errno.ECONNRESET)
        elif self._receiver.next < position < self._receiver.edge:
            self._answer(now, always=False)

    def _on_syn(self, segment: Segment, position: int, now: float) -> None:
        if self.state is not State.SYN_RECEIVED or position != 0:
            # RFC 5961, section 4.2. A remote that has begun anew will answer with a RST.
            self._answer(now, always=False)
        elif Flags.ACK not in segment.flags:
            self._send_syn()  # ours was lost
        elif self._own_position(segment.acknowledgement) == FIRST_BYTE:
            self._establish(segment, now)
        else:
            self._refuse(segment)

    def _on_acknowledgement(self, segment: Segment, position: int, now: float) -> bool:
        """Take what the remote has got; False if the rest of the segment is not to be believed."""
        sender = self._sender
        acknowledged = self._own_position(segment.acknowledgement)
        if self.state is State.SYN_RECEIVED:
            if acknowledged != FIRST_BYTE:
                self._refuse(segment)
                return False
            self._establish(segment, now)
        elif not sender.is_plausible(acknowledged):
            self._answer(now, always=False)
            return False
        sender.answered()
        if acknowledged < sender.unacknowledged:
            return True
        is_new_window = sender.set_window(segment.window, position, acknowledged)
        if acknowledged > sender.unacknowledged:
            sender.acknowledge(acknowledged, now)
            if sender.fin_acknowledged:
                self._enter(AFTER_FIN_ACKNOWLEDGED, now)
        elif not segment.data and not is_new_window and segment.flags is _ACK:
            sender.duplicate()
        return self.state is not State.CLOSED

    def _on_data(self, segment: Segment, position: int, *, fin: bool) -> None:
        if self.state not in TAKES_DATA:
            return  # the remote's FIN was before: it has nothing more to say
        if self._is_orphan and position + len(segment.data) > self._receiver.next:
            self._refuse(segment)
            self._finish()
            return
        self._receiver.insert(position, segment.data, fin=fin)
        self._acknowledge_now = True

    # ---- steps -----------------------------------------------------------------------------

    def _begin(self, state: State, now: float) -> None:
        self._has_begun = True
        self.state = state
        self._sender.send_syn(now)
        self._send_syn()

    def _take_syn(self, syn: Segment) -> None:
        self._remote_start = syn.sequence & _MASK
        self._sender.agree(syn.max_segment)
        self._sender.set_window(syn.window, 0, 0)

    def _establish(self, segment: Segment, now: float) -> None:
        self.state = State.FIN_WAIT_1 if self._sender.fin_wanted else State.ESTABLISHED
        self._sender.established(now)
        self._sender.set_window(segment.window, self._position(segment.sequence), FIRST_BYTE)

    def _enter(self, transitions: Mapping[State, State], now: float) -> None:
        before, self.state = self.state, transitions.get(self.state, self.state)
        if self.state is before:
            return
        if self.state is State.CLOSED:
            self._finish()
        elif self.state is State.TIME_WAIT:
            self._sender.stop()
            self._linger_until = now + self._config.time_wait
        elif self.state is State.FIN_WAIT_2 and self._is_orphan:
            self._linger_until = now + self._config.fin_wait

    def _finish(self, error: int | None = None) -> None:
        """End. What was to be sent before still goes out, nothing after it."""
        self.state = State.CLOSED
        self.error = error
        self._linger_until = None
        self._acknowledge_now = False
        self._sender.stop()

    def _probe_window(self, now: float) -> bool:
        """Ask for the window with a segment that is old, and so has to be answered, as Linux."""
        if not self._sender.probe(now):
            return False
        if self._is_orphan and self._sender.probes > self._config.max_retries:
            self._reset()  # nobody is left here who would wait for a remote that does not read
        else:
            self._segments.append(self._segment(_ACK, self._sender.unacknowledged - 1))
        return True

    # ---- segments going out ----------------------------------------------------------------

    def _segment(self, flags: Flags, position: int, data: bytes = b"") -> Segment:
        receiver = self._receiver
        if receiver.edge - self._announced >= self._worth_announcing:
            self._announced = receiver.edge
        return Segment(
            flags,
            (self._own_start + position) & _MASK,
            (self._remote_start + receiver.next) & _MASK,
            max(self._announced - receiver.next, 0),
            data,
        )

    def _send_syn(self) -> None:
        answers = self.state is State.SYN_RECEIVED
        self._segments.append(
            Segment(
                _SYN_ACK if answers else Flags.SYN,
                self._own_start,
                (self._remote_start + FIRST_BYTE) & _MASK if answers else 0,
                self._config.receive_bytes,
                max_segment=self._max_segment,
            )
        )

    def _reset(self) -> None:
        self._segments.append(self._segment(_RST_ACK, self._sender.highest))
        self._finish()

    def _refuse(self, segment: Segment) -> None:
        answer = answer_without_connection(segment)
        if answer is not None:
            self._segments.append(answer)

    def _answer(self, now: float, *, always: bool) -> None:
        """Tell the remote what we expect; ``always``: however recently we did."""
        if always:
            self._acknowledge_now = True
        elif now >= self._next_answer:
            self._next_answer = now + CHALLENGE_PAUSE
            self._acknowledge_now = True

    def _flush(self, now: float) -> None:
        """Turn into segments what may go out now."""
        if self.state not in HANDSHAKE:
            for position, data, fin in self._sender.due(now):
                self._segments.append(self._segment(_FIN_ACK if fin else _ACK, position, data))
                self._acknowledge_now = False
        if self._acknowledge_now:
            self._acknowledge_now = False
            self._segments.append(self._segment(_ACK, self._sender.highest))
