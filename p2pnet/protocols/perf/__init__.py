"""Perf: measure how fast bytes go to a peer and come back. Rules: specs/perf.md."""

from p2pnet.protocols.perf.dialogue import Figures, Progress
from p2pnet.protocols.perf.service import Perf, PerfService

__all__ = ["Figures", "Perf", "PerfService", "Progress"]
