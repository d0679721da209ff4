"""Receive windows: how much a remote may send, and when it may send more.

A window is cut in three: ``credit`` the remote may still use, bytes that have come and wait
to be read, and ``consumed`` bytes that were read but not yet given back as credit:

    |<------------------------ size ------------------------>|
    |  consumed  |  unread  |             credit             |
         ^ grows as the application reads; at half of size it becomes credit again

So an application that does not read holds at most ``size`` bytes, in memory of at most twice
that, as they may be kept with what else came along with them. A window that
half empties within four round trips is what slows the remote down, and doubles.
"""

from __future__ import annotations

from p2pnet.errors import ProtocolError
from p2pnet.muxers.yamux.messages import INITIAL_WINDOW, PROTOCOL_ID

GROWTH_ROUND_TRIPS = 4
ROUND_TRIP_FLOOR = 0.005
"""Seconds; a shorter round trip counts as this, since then scheduling sets the pace."""


class Budget:
    """What all windows of a connection together may have beyond their initial size."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, wanted: int) -> int:
        """Grant as much of ``wanted`` as there is."""
        granted = min(wanted, self._left)
        self._left -= granted
        return granted

    def give_back(self, amount: int) -> None:
        self._left += amount


class ReceiveWindow:
    """The receive window of one stream."""

    __slots__ = ("_budget", "_consumed", "_max_size", "_since", "credit", "size")

    def __init__(self, budget: Budget, max_size: int, now: float) -> None:
        self.size = INITIAL_WINDOW
        self.credit = INITIAL_WINDOW
        self._consumed = 0
        self._budget = budget
        self._max_size = max_size
        self._since = now

    def spend(self, amount: int) -> None:
        """Take the credit for bytes that are about to come.

        Raises:
            ProtocolError: if the remote has less.
        """
        if amount > self.credit:  # Y8
            raise ProtocolError(PROTOCOL_ID, f"{amount} bytes on a credit of {self.credit}")
        self.credit -= amount

    def consume(self, amount: int) -> bool:
        """Note that the application read; return True once ``grant`` is due (Y9)."""
        self._consumed += amount
        return self._consumed * 2 >= self.size

    def grant(self, now: float, round_trip: float | None) -> int:
        """Give back what was consumed, and more if the window was too small; return how much."""
        delta = self._consumed + self._growth(now, round_trip)
        self._consumed = 0
        self._since = now
        self.credit += delta
        return delta

    def _growth(self, now: float, round_trip: float | None) -> int:
        if round_trip is None:
            return 0
        if now - self._since >= GROWTH_ROUND_TRIPS * max(round_trip, ROUND_TRIP_FLOOR):
            return 0
        growth = self._budget.take(min(self.size, self._max_size - self.size))  # Y10
        self.size += growth
        return growth

    def bound(self, max_size: int) -> None:
        """Grow no further than that."""
        self._max_size = max(self.size, min(max_size, self._max_size))

    def release(self) -> None:
        """Give the growth back; nothing more will come."""
        self._budget.give_back(self.size - INITIAL_WINDOW)
        self.size = INITIAL_WINDOW
