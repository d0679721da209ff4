"""How far a campaign of the NAT matrix is: how many runs each cell has, and at which commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Cell = tuple[str, str, str, float]
"""The kinds of both homes, the transport, the round trip in seconds; the kinds in their order."""


def told(runs: Mapping[Cell, int], wanted: Mapping[Cell, int], commits: Sequence[str]) -> str:
    """Say how many runs the cells have of how many that they shall have."""
    lines = [f"commits: {', '.join(commits) or 'none yet'}"]
    columns = sorted({(transport, trip) for _, _, transport, trip in wanted})
    for transport, trip in columns:
        here = [cell for cell in wanted if cell[2:] == (transport, trip)]
        counts = Counter((runs.get(cell, 0), wanted[cell]) for cell in here)
        parts = [f"{n} pairs {done}/{all_of}" for (done, all_of), n in sorted(counts.items())]
        lines.append(f"{transport} {trip * 1000:.0f} ms: {', '.join(parts)}")
    done = sum(min(runs.get(cell, 0), most) for cell, most in wanted.items())
    lines.append(f"in all: {done:,} of {sum(wanted.values()):,} runs")
    return "\n".join(lines)


def table(runs: Mapping[Cell, int], wanted: Mapping[Cell, int], kinds: Sequence[str]) -> str:
    """Draw the runs of each cell: the one kind at the left, the other on top by its number."""
    width = max(map(len, kinds)) + 4
    lines = []
    for transport, trip in sorted({(cell[2], cell[3]) for cell in wanted}):
        lines.append(f"\n{transport} {trip * 1000:.0f} ms")
        lines.append(" " * width + "".join(f"{number:5}" for number in range(1, len(kinds) + 1)))
        for number, a in enumerate(kinds, 1):
            cells = [(a, b, transport, trip) for b in kinds]
            counts = [str(runs.get(cell, 0)) if cell in wanted else "" for cell in cells]
            lines.append(
                f"{number:2} {a}".ljust(width) + "".join(f"{count:>5}" for count in counts)
            )
    return "\n".join(lines)
