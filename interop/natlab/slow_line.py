"""A line between a home's router and the internet: it delays packets, and loses some."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

MAX_PACKETS: Final = 16384
"""Packets on their way at most; like a router's, a full queue loses what comes."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What a line does to packets.

    Attributes:
        delay: Seconds that each packet takes at least.
        jitter: Seconds that a packet may take longer, all lengths equally likely.
        loss: How likely it is that a packet gets lost.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.delay < 3600 and 0 <= self.jitter < 3600 and 0 <= self.loss <= 1):
            raise ValueError(f"no line has {self}")


class SlowLine:
    """One direction of a line. ``quality`` may change at any time, for packets yet to come.

    No packet overtakes another, whatever its jitter, and also after the delay has become
    shorter: what makes real lines slow is queues, too.
    """

    def __init__(self, quality: Quality, random: Random) -> None:
        self.quality = quality
        self._random = random
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._latest = float("-inf")

    def enter(self, packet: bytes, now: float) -> str | None:
        """Take a packet; or say why it is lost."""
        # Always drawing both numbers keeps what one setting does apart from the other.
        luck, extra = self._random.random(), self._random.random()
        if luck < self.quality.loss:
            return "lost on the line"
        if len(self._waiting) >= MAX_PACKETS:
            return "line full"
        due = now + self.quality.delay + extra * self.quality.jitter
        self._latest = max(self._latest, due)
        self._waiting.append((self._latest, packet))
        return None

    def leave(self, now: float) -> Iterator[bytes]:
        """Give those packets that have arrived by now."""
        while self._waiting and self._waiting[0][0] <= now:
            yield self._waiting.popleft()[1]

    def due(self) -> float:
        """When the next packet arrives; infinity if none is on its way."""
        return self._waiting[0][0] if self._waiting else float("inf")
