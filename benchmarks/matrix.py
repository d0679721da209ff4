"""Run the NAT matrix over and over, write what came of it, and draw docs/nat-matrix.md from it.

Each batch of runs is a file of its own, below the hash of the code that it was measured with: what
is there is not run again, so that this can be stopped and continued at any time. It goes through
all pairs before it comes back to the first: when it is stopped, all have as many runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from itertools import combinations_with_replacement, product
from pathlib import Path

from benchmarks.matrix_code import ROOT, code_hash, commits_of, note
from benchmarks.matrix_futures import Past, Run, futures
from benchmarks.matrix_page import page
from benchmarks.matrix_status import Cell, table, told
from benchmarks.matrix_verdict import Summary, as_csv, from_csv, summarize
from benchmarks.natlab_cells import read_cells
from p2pnet.testing.kinds import ALL_KINDS, MATRIX
from p2pnet.testing.links import Quality
from p2pnet.testing.matrix import TRANSPORTS, Punched, can_meet, plain_link

RESULTS = ROOT / "benchmarks" / "results" / "matrix"
PAGE = ROOT / "docs" / "nat-matrix.md"
DATA = ROOT / "docs" / "nat-matrix.csv"
FUTURES = 20
"""Runs of one batch: they have one past in common."""
JITTER = 0.1
"""Of the time that a link takes."""
LOSS = 0.005
"""On each of the two links that a packet from peer to peer takes."""


def rough_link(round_trip: float) -> Quality:
    """Return a home's link that is late now and then, and loses a packet."""
    latency = plain_link(round_trip).latency
    return Quality(latency=latency * (1 - JITTER / 2), jitter=latency * JITTER, loss=LOSS)


def batches(chosen: argparse.Namespace) -> Iterator[tuple[Past, range]]:
    """Give what is to be run, a bit of everything first."""
    pairs = list(combinations_with_replacement(chosen.kinds, 2))
    for first in range(0, max(chosen.seeds, chosen.seeds_relayed), FUTURES):
        for milliseconds, (a, b), transport in product(
            chosen.round_trips, pairs, chosen.transports
        ):
            is_direct = can_meet(ALL_KINDS[a], ALL_KINDS[b], transport)
            most = chosen.seeds if is_direct else chosen.seeds_relayed
            round_trip = milliseconds / 1000
            past = Past(a, b, transport, round_trip, rough_link(round_trip))
            if first < most:
                yield past, range(first, min(first + FUTURES, most))


def file_of(results: Path, past: Past, seeds: range) -> Path:
    folder = results / f"{past.transport}-{past.round_trip * 1000:.0f}" / f"{past.a}+{past.b}"
    return folder / f"{seeds.start}-{seeds.stop}.json"


def measure(results: Path, past: Past, seeds: range) -> Path:
    """Run a batch, and write it down."""
    runs = futures(past, seeds)
    file = file_of(results, past, seeds)
    file.parent.mkdir(parents=True, exist_ok=True)
    partly = file.with_suffix(".partly")
    partly.write_text(json.dumps([asdict(run) for run in runs], indent=0))
    partly.replace(file)
    return file


def measured(folder: Path) -> list[Summary]:
    """Read the runs of one state of the code, cell by cell."""
    texts = [file.read_text() for file in sorted(folder.rglob("*.json"))]
    runs = [Run(**run) for text in texts for run in json.loads(text)]
    return summarize(runs, code=folder.name)


def runs_of(cells: Sequence[Summary]) -> Counter[Cell]:
    """Count the runs of each pair, whoever called."""
    runs: Counter[Cell] = Counter()
    for cell in cells:
        a, b = sorted((cell.a, cell.b), key=tuple(MATRIX).index)
        runs[a, b, cell.transport, cell.round_trip] += cell.runs
    return runs


def wanted(chosen: argparse.Namespace) -> Counter[Cell]:
    """Count the runs that each pair shall have."""
    runs: Counter[Cell] = Counter()
    for past, seeds in batches(chosen):
        a, b = sorted((past.a, past.b), key=tuple(MATRIX).index)
        runs[a, b, past.transport, past.round_trip] += len(seeds)
    return runs


def status(chosen: argparse.Namespace, results: Path) -> str:
    """Say how far the code as it is has been measured."""
    runs = runs_of(measured(results))
    said = told(runs, wanted(chosen), commits_of(results))
    return f"code {results.name}, {said}"


def newest(results: Path, current: str, before: Iterable[Summary] = ()) -> list[Summary]:
    """Give each cell as it was measured last: of the code as it is, or else of the one before.

    ``before`` is what was measured before all that is here.
    """
    folders = sorted(results.iterdir(), key=lambda folder: folder.stat().st_mtime)
    folders.sort(key=lambda folder: folder.name == current)
    found = [*before, *(cell for folder in folders for cell in measured(folder))]
    cells = {(cell.round_trip, cell.transport, cell.a, cell.b): cell for cell in found}
    return [cell for _, cell in sorted(cells.items())]


def redraw() -> None:
    """Write the page from the figures that stand beside it."""
    PAGE.write_text(page(from_csv(DATA.read_text()), read_cells()))


def work_off(chosen: argparse.Namespace, results: Path) -> None:
    """Run what is missing, in a few processes, until all is done or time is up."""
    begun = time.monotonic()
    todo = [item for item in batches(chosen) if not file_of(results, *item).exists()]
    end = begun + chosen.minutes * 60
    if todo:
        note(results, to_go=len(todo))
    todo_left = iter(todo)
    under_way: set[Future[Path]] = set()
    done = 0
    with ProcessPoolExecutor(chosen.jobs) as pool:
        while time.monotonic() < end:
            while len(under_way) < chosen.jobs and (item := next(todo_left, None)):
                under_way.add(pool.submit(measure, results, *item))
            if not under_way:
                break
            ready, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ready:
                done += 1
                left = (time.monotonic() - begun) / done * (len(todo) - done) / 60
                name = future.result().relative_to(results)
                print(f"{done}/{len(todo)} {name}, {left:.0f} min to go", flush=True)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in MATRIX:
            raise argparse.ArgumentTypeError(f"no kind {name!r}; there are {', '.join(MATRIX)}")
    return names


def transports(text: str) -> tuple[Punched, ...]:
    return tuple(transport for transport in TRANSPORTS if transport in text.split(","))


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="for each pair that meets ...")
    parser.add_argument("--seeds-relayed", type=int, default=20, help="... and that cannot")
    parser.add_argument("--round-trips", type=numbers, default=(80, 20, 200), help="milliseconds")
    parser.add_argument("--kinds", type=kinds, default=tuple(MATRIX), help="A,B,...: only these")
    parser.add_argument("--transports", type=transports, default=TRANSPORTS, help="tcp,quic")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, default=1e6, help="then stop; continue later")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the runs are kept")
    parser.add_argument("--page", action="store_true", help="write docs/nat-matrix.md and .csv")
    parser.add_argument("--status", action="store_true", help="print how many runs there are")
    parser.add_argument("--redraw", action="store_true", help="write the page from the .csv files")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser_of().parse_args(arguments)
    if chosen.redraw:
        redraw()
        return 0
    results = chosen.results / code_hash()
    if chosen.status:
        print(status(chosen, results))
        print(table(runs_of(measured(results)), wanted(chosen), chosen.kinds))
        return 0
    results.mkdir(parents=True, exist_ok=True)
    os.nice(10)
    work_off(chosen, results)
    cells = newest(chosen.results, results.name, from_csv(DATA.read_text()))
    if chosen.page:
        DATA.write_text(as_csv(cells))
        redraw()
    print(page(cells).partition("\n## ")[0])
    print(status(chosen, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
