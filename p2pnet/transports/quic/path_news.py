"""That a connection goes on by another path: its host is told once a second at most (Q29, Q30).

A remote that has proved two places may go to and fro between them with each packet.
"""

from __future__ import annotations

import math

SECONDS_BETWEEN = 1.0


class PathNews:
    """What the host has not been told yet, and when it may be."""

    def __init__(self) -> None:
        self._untold: dict[bool, None] = {}
        self._next = -math.inf

    @property
    def due(self) -> float:
        """When to call ``take``; infinity if there is no news."""
        return self._next if self._untold else math.inf

    def add(self, *, is_ours: bool) -> None:
        """Note a change, of where this end is seen or of where the remote is."""
        self._untold[is_ours] = None

    def take(self, now: float) -> tuple[bool, ...]:
        """Return what the host is to be told now, as ``Roaming.on_path_changed`` wants it."""
        if now < self.due:
            return ()
        told = tuple(self._untold)
        self._untold.clear()
        self._next = now + SECONDS_BETWEEN
        return told
