"""How large a datagram may be on a path: probes for more, and what falls back (specs/quic.md).

A machine without clock and packets; after RFC 8899, over QUIC as RFC 9000 section 14.3 has it.

                  probe ---> acknowledged: this size from now on
    base size --+                                                +--> too close to go on: rest
                  probe ---> lost three times: the next is lower

What is larger than the base, and lost again and again with nothing of that size arriving after
it, has fallen into a black hole: back to the base, and another search after a while.
"""

from __future__ import annotations

import math

NEAR = 16
"""Bytes; sizes closer to one another than this are not told apart."""
PROBES_PER_SIZE = 3
TIMEOUTS_PER_PROBE = 3
RAISE_AFTER = 600.0
"""Seconds until a path that did not carry the most is searched again."""
FIRST_PAUSE = 10.0
"""Seconds from a black hole to another search; doubled with each, up to ``RAISE_AFTER``."""
LOSSES_IN_A_HOLE = 3


class PathSize:
    """The size of datagrams on one path, and the search for a larger one."""

    def __init__(self, base: int, most: int) -> None:
        self.size = self._base = base
        self._most = most
        self._begin()
        self._probed = 0
        """Size of the probe that is on its way; 0 if none is."""
        self._tries = 0
        self._sent_at = -math.inf
        self._resume_at = -math.inf
        self._pause = FIRST_PAUSE
        self._arrived = -1
        """The last packet larger than the base that arrived, by its number."""
        self._missed = 0

    def _begin(self) -> None:
        self._least_lost = self._most + NEAR

    # ---- probes --------------------------------------------------------------------------

    def probe(self, now: float, *, round_trip: float, timeout: float) -> int:
        """Return the size of a probe that is to be sent now, and count it as sent; 0 if none."""
        if self._probed and now - self._sent_at >= TIMEOUTS_PER_PROBE * timeout:
            self.lost(self._probed)
        if self._probed or now - self._sent_at < round_trip:  # Q27
            return 0
        if self._least_lost - self.size <= NEAR:
            self._rest(now)
        if now < self._resume_at or self.size >= self._most:
            return 0
        self._probed, self._sent_at = self._candidate(), now
        return self._probed

    def _rest(self, now: float) -> None:
        """The search is over, for long (Q28)."""
        if self.size < self._most:
            self._resume_at = now + RAISE_AFTER
            self._begin()

    def _candidate(self) -> int:
        if self._least_lost > self._most:
            return self._most
        return (self.size + self._least_lost) // 2

    def acknowledged(self, size: int) -> None:
        """A probe arrived; it may have been taken for lost."""
        if size == self._probed:
            self._probed = self._tries = 0
        self.size = max(self.size, size)
        self._least_lost = max(self._least_lost, self.size + 1)

    def lost(self, size: int) -> None:
        """A probe did not arrive. Congestion loses some, too: three of a size tell (Q26)."""
        if size != self._probed:
            return
        self._probed = 0
        self._tries += 1
        if self._tries >= PROBES_PER_SIZE:
            self._tries = 0
            self._least_lost = size

    # ---- what befalls packets ------------------------------------------------------------

    def packet_arrived(self, number: int, size: int) -> None:
        if size > self._base:
            self._arrived = max(self._arrived, number)
            self._missed = 0

    def packet_missed(self, number: int, size: int, now: float) -> bool:
        """Count a packet that is lost; True if all that is large is, so that the size falls."""
        if size <= self._base or number < self._arrived or self.size == self._base:
            return False
        self._missed += 1
        if self._missed < LOSSES_IN_A_HOLE:
            return False
        self.size = self._base
        self._missed = 0
        self._resume_at = now + self._pause
        self._pause = min(2 * self._pause, RAISE_AFTER)
        self._probed = self._tries = 0
        self._begin()
        return True
