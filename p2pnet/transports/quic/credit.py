"""How much a remote may send before we have read: windows that follow the reader, and grow.

QUIC counts from the beginning of a stream, so a limit only ever rises:

    |<-- consumed -->|<------- size ------->|
                     |  unread  |  credit   |^ limit

A limit rises when at least half a window was read. If that took no more than four round
trips, the window was what slowed the remote down, and doubles (Q14).
"""

from __future__ import annotations

from dataclasses import dataclass

GROWTH_ROUND_TRIPS = 4
ROUND_TRIP_FLOOR = 0.005
"""Seconds; a shorter round trip counts as this, since then scheduling sets the pace."""


class Window:
    """The limit of one stream, or of a connection."""

    __slots__ = ("_consumed", "_max_size", "_since", "_size", "limit")

    def __init__(self, size: int, max_size: int, now: float) -> None:
        self._size = size
        self._max_size = max(size, max_size)
        self._consumed = 0
        self._since = now
        self.limit = size

    @property
    def consumed(self) -> int:
        return self._consumed

    def bound(self, max_size: int) -> None:
        """Grow no further than that."""
        self._max_size = max(self._size, min(max_size, self._max_size))

    def consume(self, count: int, now: float, round_trip: float) -> bool:
        """Note that so much was read; return True if the limit has risen."""
        self._consumed += count
        if (self._consumed + self._size - self.limit) * 2 < self._size:
            return False
        if now - self._since < GROWTH_ROUND_TRIPS * max(round_trip, ROUND_TRIP_FLOOR):
            self._size = min(self._size * 2, self._max_size)
        self._since = now
        self.limit = self._consumed + self._size
        return True


@dataclass(slots=True)
class Tally:
    """What went through a stream."""

    window: Window
    written: int = 0
    delivered: int = 0
    is_ended: bool = False
    is_reset: bool = False
