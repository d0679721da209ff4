"""Draw the curves of ``benchmarks.growth`` on log axes. Needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib import pyplot as plt

COLUMNS = 3


def main(path: Path) -> None:
    curves = {title: points for title, points in json.loads(path.read_text()).items() if points}
    rows = -(-len(curves) // COLUMNS)
    canvas, grid = plt.subplots(rows, COLUMNS, figsize=(12, 3.4 * rows), squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.axis("off")
    for axes, (title, points) in zip(grid.flat, curves.items(), strict=False):
        amounts, values = zip(*points, strict=True)
        axes.plot(amounts, values, "o-", color="#c0392b")
        # Cost in proportion runs beside this line.
        axes.plot(
            amounts, [values[-1] * amount / amounts[-1] for amount in amounts], ":", color="#999"
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
    canvas.tight_layout()
    for suffix in ("svg", "png"):
        canvas.savefig(path.with_suffix(f".{suffix}"))
    print(f"drawn: {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
