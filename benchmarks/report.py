"""Write the results of a comparison into docs/performance.md: ``python -m benchmarks.report``.

Without a file it takes the newest of benchmarks/results. Only what stands between the two marks is
replaced; the rest of the page is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from benchmarks.implementations import OURS, RAW, ROOT
from benchmarks.summary import Row, number, rows
from benchmarks.works import FIGURES

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- measured: begin; written by python -m benchmarks.report -->"
END = "<!-- measured: end -->"
TIMES = "\N{MULTIPLICATION SIGN}"
STACK_TITLES = {
    "tcp-noise": "TCP, Noise, yamux",
    "tcp-tls": "TCP, TLS, yamux",
    "quic": "QUIC",
    "ws-noise": "WebSocket, Noise, yamux",
}


def describe_run(report: dict) -> Iterator[str]:
    machine = report["machine"]
    yield f"Measured on {report['date']}, at commit {machine['commit']}: {machine['processor']}; "
    yield f"{machine['system']}, Python {machine['python']}; {report['rounds']} rounds of turns of "
    yield f"about {report['seconds']:g} s; load {machine['load']} when it began.\n\n"
    versions = {
        name: found["version"]
        for stack in report["stacks"].values()
        for name, found in stack.items()
        if name != RAW and found["version"]
    }
    yield (
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".\n"
    )
    for name, reason in report["missing"].items():
        yield f"Not measured: {name}: {one_line(reason)}\n"


def describe_stack(name: str, stack: dict) -> Iterator[str]:
    """Yield one table: a row for each figure, a column for each implementation."""
    names = [each for each in stack if any(stack[each]["rounds"])]
    yield f"\n### {STACK_TITLES[name]}\n\n"
    yield "| | " + " | ".join(names) + " |\n|---|" + "---:|" * len(names) + "\n"
    for figure, group in groupby(rows(stack), key=lambda row: row.figure):
        found = {row.name: row for row in group}
        title = FIGURES[figure]
        cells = [cell(found.get(each)) for each in names]
        yield f"| {title.title}, {title.unit} | " + " | ".join(cells) + " |\n"
    for each in stack:
        for work, reasons in stack[each]["failures"].items():
            yield f"\n{each} failed {len(reasons)} times at *{work}*: {one_line(reasons[0])}\n"


def cell(row: Row | None) -> str:
    if row is None:
        return number(None)
    text = f"**{number(row.median)}**<br>{number(row.least)} to {number(row.most)}"
    if row.name not in (OURS, RAW) and row.to_ours is not None:
        text += f"<br>{number(row.to_ours)} {TIMES} {OURS}"
    if row.name != RAW and row.to_raw is not None:
        text += f"<br>{number(row.to_raw)} {TIMES} raw"
    return text


def one_line(text: str) -> str:
    """Shorten a reason; without the folder of this checkout, which means nothing elsewhere."""
    return " ".join(text.replace(f"{ROOT}/", "").split())[:200]


def newest() -> Path:
    found = sorted((ROOT / "benchmarks" / "results").glob("compare-*.json"))
    if not found:
        sys.exit("there are no results yet: run `make bench` first")
    return found[-1]


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else newest()
    report = json.loads(path.read_text())
    parts = list(describe_run(report))
    for name, stack in report["stacks"].items():
        parts += describe_stack(name, stack)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{''.join(parts)}\n{END}{after}")
    print(f"{PAGE.relative_to(ROOT)}: from {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
