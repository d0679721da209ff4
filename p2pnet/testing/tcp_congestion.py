"""How long a TCP sender waits before it repeats, and how much it may have in flight.

The timeout is RFC 6298 with one figure of Linux: it exceeds the smoothed round trip by at least
the shortest timeout. Where simulated round trips are all alike their variation decays to nothing,
and by the letter of the RFC the timer would then race with the acknowledgement.

The congestion window is RFC 5681 (slow start, congestion avoidance) with the recovery of RFC 6582
(NewReno). Sizes are in bytes.
"""

from __future__ import annotations

from p2pnet.testing.tcp_config import LARGEST_BUFFER, TcpConfig

AFTER_A_LOST_SYN = 3.0
"""RFC 6298, rule 5.7: the timeout that data begins with if the SYN had to be repeated."""


class RetransmissionTimeout:
    """RFC 6298: from measured round trips to the patience of the retransmission timer."""

    def __init__(self, config: TcpConfig) -> None:
        self._shortest = config.shortest_retransmission
        self._longest = config.longest_retransmission
        self._smoothed: float | None = None
        self._variation = 0.0
        self.seconds = config.first_retransmission

    def sample(self, round_trip: float) -> None:
        if self._smoothed is None:
            self._smoothed = round_trip
            self._variation = round_trip / 2
        else:
            self._variation += (abs(self._smoothed - round_trip) - self._variation) / 4
            self._smoothed += (round_trip - self._smoothed) / 8
        wanted = self._smoothed + max(self._shortest, 4 * self._variation)
        self.seconds = min(wanted, self._longest)

    def back_off(self) -> None:
        self.seconds = min(2 * self.seconds, self._longest)

    def after_handshake(self, *, repeated: bool) -> None:
        if repeated:
            self.seconds = min(AFTER_A_LOST_SYN, self._longest)


class CongestionWindow:
    """RFC 5681: how much may be in flight."""

    def __init__(self, config: TcpConfig, max_segment: int) -> None:
        self._initial_segments = config.initial_window_segments
        self._threshold = LARGEST_BUFFER
        self._avoidance = 0  # bytes acknowledged since the last growth by one segment
        self._segment = max_segment
        self.size = self._initial_segments * max_segment

    def set_segment(self, max_segment: int, *, repeated: bool) -> None:
        """Begin with what the handshake found; after a lost SYN with one segment."""
        self._segment = max_segment
        self.size = max_segment * (1 if repeated else self._initial_segments)

    def grow(self, acknowledged: int, in_flight: int) -> None:
        """Take account of an acknowledgement of new data, ``in_flight`` being those before it."""
        segment = self._segment
        if self.size < self._threshold:
            if self.size < 2 * in_flight:  # else the window was not what held the sender back
                self.size = min(self.size + min(acknowledged, segment), LARGEST_BUFFER)
        elif in_flight + segment > self.size:
            self._avoidance += acknowledged
            if self._avoidance >= self.size:
                self._avoidance -= self.size
                self.size = min(self.size + segment, LARGEST_BUFFER)

    def restart(self) -> None:
        """Forget what is known of the path after a pause (RFC 5681, section 4.1)."""
        self.size = min(self.size, self._initial_segments * self._segment)

    def enter_recovery(self, in_flight: int) -> None:
        """Halve: three duplicate acknowledgements say that one segment was lost."""
        self._halve(in_flight)
        self.size = self._threshold + 3 * self._segment

    def duplicate(self) -> None:
        """Let another segment out: one has left the network."""
        self.size = min(self.size + self._segment, LARGEST_BUFFER)

    def partial(self, acknowledged: int) -> None:
        """Take account of an acknowledgement that does not yet end the recovery."""
        self.size = max(self.size - acknowledged, self._segment)
        if acknowledged >= self._segment:
            self.size += self._segment

    def leave_recovery(self, in_flight: int) -> None:
        self.size = min(self._threshold, max(in_flight, self._segment) + self._segment)
        self._avoidance = 0

    def collapse(self, in_flight: int, *, again: bool) -> None:
        """Begin anew after a timeout; ``again``: of a segment that was repeated before."""
        if not again:
            self._halve(in_flight)
        self.size = self._segment

    def _halve(self, in_flight: int) -> None:
        self._threshold = max(in_flight // 2, 2 * self._segment)
        self._avoidance = 0
