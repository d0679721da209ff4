"""Results of a comparison, as rows: medians, spreads, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.implementations import OURS, RAW
from benchmarks.works import FIGURES

NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one implementation. Ratios are medians over rounds, each within its round."""

    figure: str
    name: str
    median: float
    least: float
    most: float
    to_ours: float | None
    to_raw: float | None


def rows(stack: dict) -> Iterator[Row]:
    """Yield the rows of all figures, in the order of the tables."""
    for figure in FIGURES:
        ours = values_of(stack, OURS, figure)
        raw = values_of(stack, RAW, figure)
        for name in stack:
            rounds = values_of(stack, name, figure)
            if values := [value for value in rounds if value is not None]:
                yield Row(
                    figure,
                    name,
                    statistics.median(values),
                    min(values),
                    max(values),
                    ratio(rounds, ours),
                    ratio(rounds, raw),
                )


Values = list[float | None]


def values_of(stack: dict, name: str, figure: str) -> Values:
    """Return what each round gave; None for one that failed."""
    return [found.get(figure) for found in stack.get(name, {}).get("rounds", [])]


def ratio(values: Values, others: Values) -> float | None:
    pairs = zip(values, others, strict=False)
    ratios = [one / other for one, other in pairs if one is not None and other]
    return statistics.median(ratios) if ratios else None


def number(value: float | None) -> str:
    """Write three digits that count."""
    if value is None:
        return NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 1
        else f"{value:.3f}"
    )


def print_summary(report: dict) -> None:
    for stack, results in report["stacks"].items():
        last = None
        print(f"\n{stack:44}{'median':>10}{'min':>10}{'max':>10}{'x p2pnet':>10}{'x raw':>10}")
        for row in rows(results):
            if row.figure != last:
                print(f"{FIGURES[row.figure].title}, {FIGURES[row.figure].unit}")
                last = row.figure
            cells = (row.median, row.least, row.most, row.to_ours, row.to_raw)
            print(f"    {row.name:40}" + "".join(f"{number(cell):>10}" for cell in cells))
