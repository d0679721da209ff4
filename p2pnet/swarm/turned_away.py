"""How many connections found no room. Plain counters: each costs as little as can be in a flood."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LIMITS = (
    "max_connections",
    "max_connections_per_peer",
    "max_inbound_per_prefix",
    "max_pending_inbound",
    "max_pending_per_prefix",
    "upgrade_timeout",
)
"""Fields of SwarmConfig for which connections are refused."""
TRIMMED = "trimmed"
"""The reason of the end of a connection that was."""


@dataclass(slots=True)
class TurnedAway:
    """Counted since the host began; both only grow. Rule: specs/connections.md (S25)."""

    refused: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LIMITS, 0)))
    """By the limit that said no."""
    trimmed: int = 0

    def refuse(self, limit: str) -> None:
        if limit in self.refused:  # To be called by oneself is no limit of the config.
            self.refused[limit] += 1
