"""Draw the results of a comparison: bars of medians, with their spreads. Needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib import pyplot as plt

from benchmarks.summary import Row, number, rows
from benchmarks.works import FIGURES

COLUMNS = 3
COLOURS = {
    "raw": "#9a9a9a",
    "p2pnet": "#c0392b",
    "p2pnet-qh3": "#e59866",
    "py-libp2p": "#2e86c1",
    "js-libp2p": "#d4ac0d",
    "go-libp2p": "#17a589",
    "rust-libp2p": "#8e5a2b",
}


def draw(axes: plt.Axes, figure: str, bars: list[Row]) -> None:
    """Draw one figure; on a log axis, as the fastest and the slowest are far apart."""
    names = [row.name for row in bars]
    medians = [row.median for row in bars]
    spread = [
        [row.median - row.least for row in bars],
        [row.most - row.median for row in bars],
    ]
    colours = [COLOURS[name] for name in names]
    drawn = axes.barh(names, medians, xerr=spread, color=colours, ecolor="#333333", capsize=2)
    axes.bar_label(drawn, [number(value) for value in medians], padding=3, fontsize=7)
    axes.invert_yaxis()
    if min(medians) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.3)
    title = FIGURES[figure]
    better = "more" if title.more_is_better else "less"
    axes.set_title(f"{title.title}\n{title.unit}, {better} is better", fontsize=8)
    axes.tick_params(labelsize=7)


def main(path: Path) -> None:
    report = json.loads(path.read_text())
    for stack, results in report["stacks"].items():
        measured = list(rows(results))
        figures = [name for name in FIGURES if any(row.figure == name for row in measured)]
        height = -(-len(figures) // COLUMNS)
        canvas, grid = plt.subplots(height, COLUMNS, figsize=(12, 2.2 * height), squeeze=False)
        for axes in grid.flat[len(figures) :]:
            axes.axis("off")
        for axes, figure in zip(grid.flat, figures, strict=False):
            draw(axes, figure, [row for row in measured if row.figure == figure])
        machine = report["machine"]
        canvas.suptitle(f"{stack}, {report['date']}, {machine['processor']}", fontsize=10)
        canvas.tight_layout()
        for suffix in ("svg", "png"):
            drawn = path.with_name(f"{path.stem}-{stack}.{suffix}")
            canvas.savefig(drawn)
            print(f"drawn: {drawn.name}")
        plt.close(canvas)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
