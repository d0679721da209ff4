"""What meetings in the laboratory of NATs come to, cell by cell, and as a file."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interop.natlab.meeting import Row

DATA = Path(__file__).parent.parent / "docs" / "nat-lab.csv"
OURS, THEIRS = "p2pnet", "py-libp2p"


@dataclass(frozen=True, slots=True)
class LabCell:
    """All meetings of one implementation in one pair of homes, so far apart."""

    implementation: str
    a: str
    """Who called."""
    b: str
    transport: str
    round_trip: float
    """Seconds."""
    expected: str
    """"direct" or "relayed": what theory says."""
    runs: int
    direct: int
    first: int
    """Direct in the first attempt."""
    relayed: int
    """Relayed at the end, and usable."""
    named: int
    """Of those, with the right cause named at both ends."""
    median: float | None
    """Seconds from the relayed to the direct connection."""
    reason: str
    """Why it was not direct, as it was said most often, the causes at both ends first."""
    code: str
    """The state of the implementation."""

    @property
    def as_expected(self) -> int:
        return self.direct if self.expected == "direct" else self.named


def summarized(implementation: str, rows: Iterable[Row], *, code: str) -> list[LabCell]:
    """Put the meetings of each cell together."""
    cells: dict[tuple[str, str, str, float], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.a, row.b, row.transport, row.round_trip), []).append(row)
    return [summary_of(implementation, found, code) for _, found in sorted(cells.items())]


def summary_of(implementation: str, rows: Sequence[Row], code: str) -> LabCell:
    one = rows[0]
    direct = [row for row in rows if row.outcome == "direct"]
    relayed = [row for row in rows if row.outcome == "relayed"]
    seconds = [row.seconds for row in direct if row.seconds is not None]
    reasons = Counter(f"{row.causes} {row.reason}".strip() for row in rows if row.reason)
    return LabCell(
        implementation,
        one.a,
        one.b,
        one.transport,
        one.round_trip,
        one.expected,
        runs=len(rows),
        direct=len(direct),
        first=sum(row.attempts == 1 for row in direct),
        relayed=len(relayed),
        named=sum(row.is_explained for row in relayed),
        median=round(statistics.median(seconds), 3) if seconds else None,
        reason=min(reasons, key=lambda reason: (-reasons[reason], reason), default=""),
        code=code,
    )


def pooled(cells: Sequence[LabCell]) -> LabCell:
    """Put the cells of one pair together, however far apart; it has no median."""
    return replace(
        cells[0],
        runs=sum(cell.runs for cell in cells),
        direct=sum(cell.direct for cell in cells),
        first=sum(cell.first for cell in cells),
        relayed=sum(cell.relayed for cell in cells),
        named=sum(cell.named for cell in cells),
        median=None,
    )


def as_csv(cells: Sequence[LabCell]) -> str:
    """Write cells down, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LabCell)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in cells)
    return text.getvalue()


def from_csv(text: str) -> list[LabCell]:
    """Read what ``as_csv`` wrote."""
    return [
        LabCell(
            row["implementation"],
            row["a"],
            row["b"],
            row["transport"],
            float(row["round_trip"]),
            row["expected"],
            runs=int(row["runs"]),
            direct=int(row["direct"]),
            first=int(row["first"]),
            relayed=int(row["relayed"]),
            named=int(row["named"]),
            median=float(row["median"]) if row["median"] else None,
            reason=row["reason"],
            code=row["code"],
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def read_cells() -> list[LabCell]:
    """Read the cells that were measured last; none if there is no such file."""
    return from_csv(DATA.read_text()) if DATA.exists() else []
