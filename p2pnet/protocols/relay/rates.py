"""How often a key may ask, and how fast bytes may go. Pure. Rules: specs/relay.md (R29, R32).

An allowance is kept as one number, the time by which all of it is back::

    now                full_at      now + MINUTE
     |-----------------|..............|
      spent already        left: so many intervals fit in here
"""

from __future__ import annotations

import math
from collections import OrderedDict

MINUTE = 60.0
MAX_KEYS = 16_384
"""Keys whose allowance is not whole; the one that asked longest ago is forgiven."""
BURST_SECONDS = 0.25
"""Bytes for so long may go at once, after a rest."""


class Allowances:
    """Each key may ask so many times a minute, and so many times at once (R29)."""

    def __init__(self, per_minute: float, *, max_keys: int = MAX_KEYS) -> None:
        self._interval = MINUTE / per_minute
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def spend(self, key: str, now: float) -> bool:
        """Use up one of a key's; False if there is none left."""
        self._forget_whole(now)
        full_at = max(self._full_at.get(key, now), now) + self._interval
        if full_at - now > MINUTE * (1 + 1e-9):
            return False
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)
        return True

    def _forget_whole(self, now: float) -> None:
        """Drop those that have all of it back; the first asked longest ago."""
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now:
                return
            del self._full_at[key]


class Pace:
    """Spreads bytes over time: whoever has moved some is told how long to wait (R32)."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._free_at = -math.inf

    def spend(self, count: int, now: float) -> float:
        """Note bytes that were moved; return the seconds until more may be."""
        if not self._seconds_per_byte:
            return 0.0
        since = max(self._free_at, now - BURST_SECONDS)
        self._free_at = since + count * self._seconds_per_byte
        return max(0.0, self._free_at - now)
