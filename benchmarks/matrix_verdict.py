"""What the runs of the NAT matrix come to: per cell, and against what is asked for."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from benchmarks.matrix_futures import Run
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.matrix import right_causes

DIRECT_SHARE = 0.99
FIRST_SHARE = 0.97
ROUND_TRIPS = 3
SPARE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one cell: who calls whom, over what, and how far apart."""

    a: str
    b: str
    transport: str
    round_trip: float
    expected: str
    """"direct" or "relayed"."""
    runs: int
    as_expected: int
    """Of a cell that stays relayed, those that were usable and named the right causes."""
    first: int
    """Direct in the first attempt."""
    median: float | None
    """Seconds from relayed to direct; so with the next."""
    p95: float | None
    causes: str = ""
    """Of a cell that stays relayed, what was named at either end; what most runs named, first."""
    code: str = ""
    """The hash of the code that was measured."""

    @property
    def is_direct(self) -> bool:
        return self.expected == "direct"

    @property
    def bound(self) -> float:
        return round(ROUND_TRIPS * self.round_trip + SPARE_SECONDS, 6)


def summarize(runs: Iterable[Run], *, code: str = "") -> list[Summary]:
    """Put the runs of each cell together; all are of the same code."""
    cells: dict[tuple[str, str, str, float], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.a, run.b, run.transport, run.round_trip), []).append(run)
    return [summary_of(found, code) for _, found in sorted(cells.items())]


def summary_of(runs: Sequence[Run], code: str) -> Summary:
    one = runs[0]
    due = right_causes(ALL_KINDS[one.a], ALL_KINDS[one.b], one.transport)
    expected = "relayed" if due else "direct"
    named = Counter(run.causes for run in runs if run.outcome == expected and due)
    seconds = sorted(run.seconds for run in runs if run.seconds is not None)
    return Summary(
        one.a,
        one.b,
        one.transport,
        one.round_trip,
        expected,
        runs=len(runs),
        as_expected=sum(is_as(due, run) for run in runs),
        first=sum(run.outcome == "direct" and run.attempt == 1 for run in runs),
        median=round(statistics.median(seconds), 4) if seconds else None,
        p95=seconds[-(-len(seconds) * 95 // 100) - 1] if seconds else None,
        causes=", ".join(causes for causes, _ in named.most_common()),
        code=code,
    )


def is_as(due: str, run: Run) -> bool:
    """Tell if a run came out as theory says; ``due`` are the causes, none if the two can meet."""
    if due:
        return (run.outcome, run.causes) == ("relayed", due) and bool(run.reason)
    return run.outcome == "direct"


def misses(there: Summary, back: Summary | None = None) -> list[str]:
    """Say what a pair misses of what is asked for: shares of both directions, slower median."""
    both = [there] if back is None else [there, back]
    runs, done = sum(cell.runs for cell in both), sum(cell.as_expected for cell in both)
    found = []
    if done < DIRECT_SHARE * runs:
        found.append(f"{there.expected} in {done} of {runs}")
    if there.is_direct:
        first = sum(cell.first for cell in both)
        if first < FIRST_SHARE * runs:
            found.append(f"at the first attempt in {first} of {runs}")
        slow = [cell.median for cell in both if cell.median and cell.median > cell.bound]
        if slow:
            found.append(f"median {max(slow) * 1000:.0f} ms")
    return found


# ---- as a file ---------------------------------------------------------------------------


def as_csv(cells: Sequence[Summary]) -> str:
    """Write cells down, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Summary)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in cells)
    return text.getvalue()


def from_csv(text: str) -> list[Summary]:
    """Read what ``as_csv`` wrote."""
    return [
        Summary(
            row["a"],
            row["b"],
            row["transport"],
            float(row["round_trip"]),
            row["expected"],
            runs=int(row["runs"]),
            as_expected=int(row["as_expected"]),
            first=int(row["first"]),
            median=float(row["median"]) if row["median"] else None,
            p95=float(row["p95"]) if row["p95"] else None,
            causes=row["causes"],
            code=row["code"],
        )
        for row in csv.DictReader(io.StringIO(text))
    ]
