"""The sending half of a TCP connection: what goes out next, and what has to go out again.

Positions count from the SYN (0); data begins at 1 and the FIN stands after the last byte::

    0 ........ unacknowledged ........ next ........ highest ........ end of the buffer
      acknowledged           in flight      to repeat        not sent

``next`` is below ``highest`` only after a timeout, when everything is sent again from the oldest
byte on. One timer runs at a time: either for the oldest segment in flight, or, when a closed
window holds everything back, for the next window probe.
"""

from __future__ import annotations

from typing import NamedTuple

from p2pnet.testing.tcp_buffers import SendBuffer
from p2pnet.testing.tcp_config import LARGEST_BUFFER, TcpConfig
from p2pnet.testing.tcp_congestion import CongestionWindow, RetransmissionTimeout

SMALLEST_SEGMENT = 48
"""What a remote may ask for as its largest segment, at least: a smaller figure is an attack."""
DEFAULT_SEGMENT = 536
"""RFC 9293, section 3.7.1: if the remote says nothing."""
DUPLICATES = 3
"""RFC 5681: so many duplicate acknowledgements in a row mean a loss."""


class Piece(NamedTuple):
    """A part of the stream that goes into a segment."""

    position: int
    data: bytes
    fin: bool


class Sender:
    """Everything about our own bytes. The connection gives acknowledgements in, takes pieces."""

    def __init__(self, config: TcpConfig, max_segment: int) -> None:
        self._config = config
        self._segment = max_segment
        self._timeout = RetransmissionTimeout(config)
        self._congestion = CongestionWindow(config, max_segment)
        self.buffer = SendBuffer(config.send_bytes)
        self.unacknowledged = 0
        self.next = 0
        self.highest = 0
        self.fin_wanted = False
        self.deadline: float | None = None
        self.probing = False
        self.probes = 0  # since the window closed
        self._probe_pause = 0.0
        self.retries = 0  # of one and the same thing, without an answer
        self._window = 0
        self._largest_window = 0
        self._window_from = (0, 0)  # the segment the window came with: its sequence, its ack
        self._timed: tuple[int, float] | None = None  # position to be acknowledged, sent when
        self._last_sent = 0.0
        self._duplicates = 0
        self._recover = 0
        self._recovering = False
        self._partial = False  # a partial acknowledgement came in this recovery
        self._resend_first = False

    @property
    def fin_acknowledged(self) -> bool:
        return self.fin_wanted and self.unacknowledged > self.buffer.end

    # ---- handshake ---------------------------------------------------------------------

    def send_syn(self, now: float) -> None:
        """Start the timer of a SYN or SYN-ACK that is sent now for the first time."""
        self.next = self.highest = 1
        self.deadline = now + self._timeout.seconds
        self._timed = (1, now)

    def repeat_syn(self, now: float) -> bool:
        """Start the timer anew as the SYN is repeated; False if that was often enough."""
        self._timed = None
        self.retries += 1
        if self.retries > self._config.max_syn_retries:
            return False
        self._timeout.back_off()
        self.deadline = now + self._timeout.seconds
        return True

    def agree(self, max_segment: int) -> None:
        """Take the largest segment from the remote's SYN."""
        wanted = max(max_segment, SMALLEST_SEGMENT) if max_segment else DEFAULT_SEGMENT
        self._segment = min(self._segment, wanted)

    def established(self, now: float) -> None:
        """Our SYN was acknowledged: data may go."""
        repeated = self.retries > 0
        if self._timed is not None:
            self._timeout.sample(now - self._timed[1])
        self._timeout.after_handshake(repeated=repeated)
        self._congestion.set_segment(self._segment, repeated=repeated)
        self.retries = 0
        self._timed = None
        self.deadline = None
        self.unacknowledged = 1
        self._last_sent = now

    # ---- acknowledgements --------------------------------------------------------------

    def is_plausible(self, acknowledgement: int) -> bool:
        """Tell whether an acknowledgement is neither ahead of us nor absurdly old (RFC 5961)."""
        oldest = self.unacknowledged - self._largest_window
        return oldest <= acknowledgement <= self.highest

    def set_window(self, window: int, sequence: int, acknowledgement: int) -> bool:
        """Take the window of a segment unless an older one than the last; tell if it changed."""
        source = (sequence, acknowledgement)
        if source < self._window_from:
            return False
        self._window_from = source
        if window == self._window:
            return False
        self._window = min(max(window, 0), LARGEST_BUFFER)
        self._largest_window = max(self._window, self._largest_window)
        return True

    def acknowledge(self, acknowledgement: int, now: float) -> None:
        """Take account of an acknowledgement of something new."""
        in_flight = self.highest - self.unacknowledged
        count = acknowledgement - self.unacknowledged
        if self._timed is not None and acknowledgement >= self._timed[0]:
            self._timeout.sample(now - self._timed[1])
            self._timed = None
        self.buffer.release(acknowledgement)
        self.unacknowledged = acknowledgement
        self.next = max(self.next, acknowledgement)
        self.retries = 0
        self._duplicates = 0
        if self._recovering and acknowledgement < self._recover:
            # Another segment of the same flight was lost. Only the first of these restarts the
            # timer: a flight with many losses is sooner repeated by a timeout (RFC 6582, 4).
            self._congestion.partial(count)
            self._resend_first = True
            if self._partial:
                return
            self._partial = True
        elif self._recovering:
            self._congestion.leave_recovery(in_flight - count)
            self._recovering = False
        else:
            self._congestion.grow(count, in_flight)
        self._stop_timer()

    def duplicate(self) -> None:
        """Take account of an acknowledgement that says the same as the last one."""
        if self._recovering:
            self._congestion.duplicate()
        elif self.highest > self.unacknowledged > self._recover:
            # What was repeated after a timeout brings duplicates too, which mean nothing.
            self._duplicates += 1
            if self._duplicates == DUPLICATES:
                self._congestion.enter_recovery(self.highest - self.unacknowledged)
                self._recover = self.highest
                self._recovering = True
                self._duplicates = 0
                self._partial = False
                self._resend_first = True
                self._timed = None  # Karn: what was repeated is not measured

    # ---- timer -------------------------------------------------------------------------

    def expire(self, now: float) -> bool:
        """Prepare to repeat the oldest segment; False if that was done often enough."""
        self.retries += 1
        if self.retries > self._config.max_retries:
            return False
        self._timeout.back_off()
        in_flight = self.highest - self.unacknowledged
        self._congestion.collapse(in_flight, again=self.retries > 1)
        self.next = self.unacknowledged
        self._recover = self.highest
        self._recovering = self._resend_first = False
        self._duplicates = 0
        self._timed = None
        self._last_sent = now
        self._stop_timer()
        return True

    def probe(self, now: float) -> bool:
        """Count a window probe that is sent now; False if enough went without an answer."""
        self.retries += 1
        if self.retries > self._config.max_retries:
            return False
        self.probes += 1
        self._probe_pause = min(2 * self._probe_pause, self._config.longest_retransmission)
        self.deadline = now + self._probe_pause
        return True

    def answered(self) -> None:
        """Take note that the remote is alive: its silence counts anew."""
        if self.probing:
            self.retries = 0

    def stop(self) -> None:
        """Send nothing any more."""
        self._stop_timer()
        self.buffer.clear()

    # ---- what goes out -----------------------------------------------------------------

    def due(self, now: float) -> list[Piece]:
        """Take what may go out now, and keep the timer."""
        pieces: list[Piece] = []
        if self.deadline is None and self.unacknowledged == self.buffer.end + self.fin_wanted:
            return pieces  # everything was sent and has arrived: so it is for who only receives
        if self._resend_first:
            self._resend_first = False
            self._take_first(pieces)
        if self.next < self.buffer.end + self.fin_wanted:
            self._take_next(pieces, now)
        if pieces:
            self._last_sent = now
        self._set_timer(now)
        return pieces

    def _take_first(self, pieces: list[Piece]) -> None:
        start = self.unacknowledged
        length = max(min(self._segment, self.buffer.end - start, self.highest - start), 0)
        fin = self.fin_wanted and start + length == self.buffer.end < self.highest
        if length or fin:
            pieces.append(Piece(start, self.buffer.copy(start, length), fin))

    def _take_next(self, pieces: list[Piece], now: float) -> None:
        if self.next == self.unacknowledged and now - self._last_sent > self._timeout.seconds:
            self._congestion.restart()
        end = self.buffer.end
        # RFC 3042: the first two duplicates let a new segment out each.
        allowed = self._congestion.size + self._segment * min(self._duplicates, DUPLICATES - 1)
        edge = self.unacknowledged + self._window
        limit = min(edge, self.unacknowledged + allowed)
        while True:
            start = self.next
            length = max(min(self._segment, end - start, limit - start), 0)
            if length < self._segment and length < end - start and not self._may_be_small(length):
                break
            fin = self.fin_wanted and start + length == end < edge
            if not length and not fin:
                break
            pieces.append(Piece(start, self.buffer.copy(start, length), fin))
            self.next = start + length + fin
            if self.next > self.highest:
                if self._timed is None and start == self.highest:
                    self._timed = (self.next, now)
                self.highest = self.next

    def _may_be_small(self, length: int) -> bool:
        """Avoid the silly window (RFC 9293, section 3.8.6.2.1): no crumbs while bytes fly."""
        return self.next == self.unacknowledged or 2 * length >= self._largest_window > 0

    def _set_timer(self, now: float) -> None:
        if self.next > self.unacknowledged:
            if self.deadline is None or self.probing:
                self.probing = False
                self.deadline = now + self._timeout.seconds
        elif self.next < self.buffer.end + self.fin_wanted:  # all waits for the window
            if not self.probing:
                self.probing = True
                self.probes = 0
                self.retries = 0
                self._probe_pause = self._timeout.seconds
                self.deadline = now + self._probe_pause
        else:
            self._stop_timer()

    def _stop_timer(self) -> None:
        self.probing = False
        self.deadline = None
