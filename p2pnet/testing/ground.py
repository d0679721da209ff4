"""What everything in a world stands on: one timeline, one trace, one source of chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from p2pnet.core.env import RecordKind
from p2pnet.testing.tcp import TcpConfig
from p2pnet.testing.timeline import Timeline
from p2pnet.testing.trace import Trace

Names = dict[tuple[str, RecordKind], tuple[str, ...]]
"""The DNS: what is found for a name and a kind of record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Shared by all machines and routers of a world."""

    seed: int
    tcp: TcpConfig = field(default_factory=TcpConfig)
    timeline: Timeline = field(default_factory=Timeline)
    trace: Trace = field(default_factory=Trace)
    names: Names = field(default_factory=dict)
    chances: dict[str, Random] = field(default_factory=dict)

    def chance(self, name: str) -> Random:
        """Return a source of chance of somebody's own: what others draw does not change it."""
        chance = self.chances[name] = Random(f"{self.seed} {name}")
        return chance

    def reseed(self, seed: int) -> None:
        """Let all chance go on as another seed has it."""
        for name, chance in self.chances.items():
            chance.seed(f"{seed} {name}")
