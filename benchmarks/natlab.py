"""Let p2pnet, or py-libp2p, meet in the laboratory of NATs, in homes of each pair of kinds.

What ``python -m interop.natlab matrix`` does once, over and over: every meeting is a line of a file
below the state of the code, and what is there is not done again, so that this can be stopped and
continued at any time. It goes through all pairs before it comes back to the first; every other time
the other one calls. A process uses one core; two may run at once, each for a transport.
docs/nat-lab.csv and the part of docs/nat-matrix.md about the laboratory are made of it::

    python -m benchmarks.natlab --rounds 34 --round-trips 20,80,200 --page
    python -m benchmarks.natlab --of py-libp2p --page
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations_with_replacement, product
from pathlib import Path

import trio

from benchmarks.implementations import PY_LIBP2P, prepare_py_libp2p
from benchmarks.matrix import RESULTS as SIMULATED
from benchmarks.matrix import kinds, numbers, redraw, transports
from benchmarks.matrix_code import LABORATORY, code_hash
from benchmarks.natlab_cells import (
    DATA,
    OURS,
    THEIRS,
    LabCell,
    as_csv,
    read_cells,
    summarized,
)
from benchmarks.natlab_py_libp2p import meet_py_libp2p
from interop.natlab.matrix import AT_ONCE, ROUND_TRIP, Meet, measure_all, settled
from interop.natlab.meeting import Place, Row
from interop.natlab.tenants import Tenants
from p2pnet.core.tasks import bare_exceptions
from p2pnet.demo.namespaces import LaboratoryError, check_support, reexec_command
from p2pnet.testing.kinds import ALL_KINDS, MATRIX
from p2pnet.testing.matrix import TRANSPORTS, can_meet

RESULTS = SIMULATED.parent / "natlab"


def file_of(implementation: str) -> Path:
    code = code_hash(LABORATORY) if implementation == OURS else PY_LIBP2P
    return RESULTS / implementation / f"{code}.jsonl"


def rows_of(file: Path) -> list[Row]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def wanted(chosen: argparse.Namespace) -> Iterator[Place]:
    """Give what is to be done, all pairs over one transport before the first comes again."""
    names = chosen.kinds or MATRIX
    pairs = list(combinations_with_replacement([ALL_KINDS[name] for name in names], 2))
    for number in range(max(chosen.rounds, chosen.rounds_relayed)):
        for transport, (a, b) in product(chosen.transports, pairs):
            can = can_meet(a, b, transport)
            if number < (chosen.rounds if can else chosen.rounds_relayed):
                yield (b, a) if number % 2 else (a, b), transport


def missing(chosen: argparse.Namespace, rows: Sequence[Row]) -> list[Place]:
    """Give those of the wanted meetings of which there is no row."""
    done = Counter((row.a, row.b, row.transport) for row in rows)
    found = []
    for (a, b), transport in wanted(chosen):
        key = (a.name, b.name, transport)
        if done[key]:
            done[key] -= 1
        else:
            found.append(((a, b), transport))
    return found


def otherwise(chosen: argparse.Namespace, rows: Sequence[Row]) -> list[Place]:
    """Give each place where most meetings, or the only one, came out otherwise than expected."""
    lead: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        lead[row.a, row.b, row.transport] += 1 if row.agrees else -1
    return [
        ((ALL_KINDS[a], ALL_KINDS[b]), transport)
        for (a, b, name), count in lead.items()
        for transport in chosen.transports
        if count <= 0 and name == transport
    ]


def work_off(chosen: argparse.Namespace, round_trip: float, file: Path) -> None:
    """Let those meet, so far apart, that have not, until all is done or time is up."""
    rows = [row for row in rows_of(file) if row.round_trip == round_trip]
    todo = (otherwise if chosen.again else missing)(chosen, rows)
    if not todo or chosen.minutes <= 0:
        return
    homes = {kind.name: kind for (a, b), _ in todo for kind in (a, b)}
    count = 0

    def report(row: Row) -> None:
        nonlocal count
        count += 1
        with file.open("a") as lines:
            row = replace(row, round_trip=round_trip)
            lines.write(json.dumps(asdict(row)) + "\n")
        mark = "" if row.agrees else f"  NOT AS EXPECTED: {row.expected}"
        print(f"{count}/{len(todo)} {row.transport} {row.a} {row.b}: {row.outcome}{mark}")
        sys.stdout.flush()

    with ExitStack() as ending:
        laboratory = ending.enter_context(settled(list(homes.values()), round_trip=round_trip))
        tenants = ending.enter_context(Tenants.housed())
        ending.enter_context(bare_exceptions())
        meet: Meet = tenants if chosen.of == OURS else meet_py_libp2p
        work = partial(measure_all, laboratory, todo, report=report, meet=meet)
        trio.run(partial(work, seconds=chosen.minutes * 60, at_once=chosen.at_once))


def cells(results: Path) -> list[LabCell]:
    """Give each cell as it was measured last, here or as it stands in the docs."""
    found = list(read_cells())
    for implementation in (OURS, THEIRS):
        files = (results / implementation).glob("*.jsonl")
        for file in sorted(files, key=lambda file: file.stat().st_mtime):
            found += summarized(implementation, rows_of(file), code=file.stem)
    last = {
        (cell.implementation, cell.transport, cell.a, cell.b, cell.round_trip): cell
        for cell in found
    }
    return [cell for _, cell in sorted(last.items())]


def in_words(found: Sequence[LabCell]) -> Iterator[str]:
    """Name the cells that are not as theory says, and count the others."""
    for implementation, transport in product((OURS, THEIRS), TRANSPORTS):
        here = [c for c in found if (c.implementation, c.transport) == (implementation, transport)]
        good = [cell for cell in here if cell.as_expected == cell.runs]
        yield f"{implementation}, {transport}: {len(good)} of {len(here)} cells as theory says"
        for cell in here:
            if cell not in good and implementation == OURS:
                yield f"  {cell.a} calls {cell.b}: {cell.as_expected}/{cell.runs} {cell.reason}"


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.natlab", description=__doc__)
    parser.add_argument("--of", choices=(OURS, THEIRS), default=OURS)
    parser.add_argument("--rounds", type=int, default=2, help="meetings of each pair")
    parser.add_argument(
        "--rounds-relayed", type=int, default=2, help="of a pair that theory sees no way for"
    )
    parser.add_argument("--kinds", type=kinds, help="A,B,...: only these")
    parser.add_argument(
        "--round-trips",
        type=numbers,
        default=(round(ROUND_TRIP * 1000),),
        help="milliseconds, 20,80",
    )
    parser.add_argument("--transports", type=transports, default=TRANSPORTS, help="tcp,quic")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="meetings at the same time")
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="at each distance, then stop; 0: only count"
    )
    parser.add_argument("--again", action="store_true", help="once more what was not as expected")
    parser.add_argument("--page", action="store_true", help="write docs/nat-lab.csv and its table")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def go_inside(arguments: Sequence[str]) -> None:
    """Do this again in a private world, in place of this process."""
    support = check_support()
    if not support.usable or support.how is None:
        raise LaboratoryError("; ".join(support.missing))
    own = [sys.executable, "-m", "benchmarks.natlab", *arguments, "--inside"]
    command = reexec_command(own, how=support.how)
    os.execv(command[0], command)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser_of().parse_args(arguments)
    if chosen.of == THEIRS:
        prepare_py_libp2p()
    if not chosen.inside:
        go_inside(arguments)
    os.nice(10)
    file = file_of(chosen.of)  # Of the code that runs, should another one come meanwhile.
    file.parent.mkdir(parents=True, exist_ok=True)
    for milliseconds in chosen.round_trips:
        work_off(chosen, milliseconds / 1000, file)
    found = cells(RESULTS)
    if chosen.page:
        DATA.write_text(as_csv(found))
        redraw()
    print("\n".join(in_words(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
