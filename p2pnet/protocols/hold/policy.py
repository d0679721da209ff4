"""Which silence to try next, and what may be kept. Pure. Rules: specs/keepalive.md (KA6).

::

    5   7.5   15   30   60     seconds of silence that are kept
    6    9    18   36   72     seconds that a mapping has to live for them
              ^--- here it begins: up while they live, down until one does
"""

from __future__ import annotations

import math

from p2pnet.core.keepalive import LONGEST_SILENCE

SILENCES = (5.0, 7.5, LONGEST_SILENCE, 30.0, 60.0)
MARGIN = 1.2
"""How many times a silence that is kept must have been survived."""
FIRST = SILENCES.index(LONGEST_SILENCE)


class Ladder:
    """What is known of a NAT, one trial after the other."""

    def __init__(self) -> None:
        self._lived = -1
        self._lost = len(SILENCES)

    @property
    def _next(self) -> int:
        if self._lived >= 0:
            return self._lived + 1
        return min(FIRST, self._lost - 1)

    @property
    def trial(self) -> int | None:
        """How many seconds of silence to try; None if all is known."""
        is_done = not self._lived < self._next < self._lost
        return None if is_done else math.ceil(SILENCES[self._next] * MARGIN)

    @property
    def kept(self) -> float:
        """The longest silence that no mapping is lost by, as far as is known."""
        return SILENCES[max(0, self._lived if self._lived >= 0 else self._next)]

    def tell(self, *, lived: bool) -> None:
        """Take how the trial ended."""
        if lived:
            self._lived = self._next
        else:
            self._lost = self._next
