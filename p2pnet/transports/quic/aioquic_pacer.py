"""aioquic's pacer, taught that Python's timers are coarse and its packets slow to make.

The library lets 16 packets leave in a row, and the next when as much time has passed as one
takes at the rate of the window. Where the way is short that is less than a timer can tell, and
less than making the packet takes: so packets went in small bursts, with a turn of the loop and a
timer for as few as one, and connections whose windows grew less took twice the processor's time.
"""

from __future__ import annotations

from aioquic.quic.recovery import QuicPacketPacer

BURST = 32
"""So many packets are made before they are sent, in a millisecond or so."""
PACE = 1.25
"""Windows that may leave in a round trip (RFC 9002, 7.7): by one, a late timer is never made up."""
BURST_SECONDS = 0.002
"""Of the rate, what may leave at once: a timer tells milliseconds, and may be one late."""


class Pacer(QuicPacketPacer):
    """Lets as much leave at once as timers need, though no more than ``BURST`` in one go."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._left = BURST

    def begin(self, max_datagram_size: int) -> None:
        """Begin a burst, of datagrams of such a size at most."""
        self._max_datagram_size = max_datagram_size
        self._left = BURST

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        saved = self.bucket_time
        super().update_rate(round(congestion_window * PACE), smoothed_rtt)
        self.bucket_max = max(self.bucket_max, BURST_SECONDS)
        self.bucket_time = min(saved, self.bucket_max)

    def update_after_send(self, now: float) -> None:
        self._left -= 1
        super().update_after_send(now)

    def next_send_time(self, now: float) -> float:
        return super().next_send_time(now) if self._left > 0 else now

    @property
    def is_cut(self) -> bool:
        """True if all that a burst may have is gone."""
        return self._left <= 0
