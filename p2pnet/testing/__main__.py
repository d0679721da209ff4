"""``python -m p2pnet.testing matrix``: the NAT matrix, on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product

from p2pnet.testing.kinds import MATRIX
from p2pnet.testing.matrix import (
    MATRIX_KINDS,
    ROUND_TRIP,
    TRANSPORTS,
    Cell,
    Measured,
    Punched,
    combined_sha256,
    measure,
    pairs,
    plain_link,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 only if every cell came out as expected."""
    parser = argparse.ArgumentParser(prog="python -m p2pnet.testing")
    commands = parser.add_subparsers(dest="command", required=True)
    matrix = commands.add_parser("matrix", help="every pair of NATs, simulated")
    matrix.add_argument("--kinds", type=kinds, default=MATRIX_KINDS, help="A,B,...: only these")
    matrix.add_argument("--transport", choices=TRANSPORTS, help="both, if not given")
    matrix.add_argument("--seed", type=int, default=0)
    matrix.add_argument("--round-trip", type=float, default=ROUND_TRIP, help="seconds")
    output = matrix.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON object a line")
    output.add_argument("--markdown", action="store_true", help="two tables")
    chosen = parser.parse_args(arguments)
    transports = (chosen.transport,) if chosen.transport else TRANSPORTS
    link = plain_link(chosen.round_trip)
    done: list[Measured] = []
    for transport, (a, b) in product(transports, pairs(chosen.kinds)):
        done.append(measure(a, b, seed=chosen.seed, transport=transport, link=link))
        tell(done[-1].cell, form_of(chosen))
    conclude(done, chosen.kinds, transports, form_of(chosen))
    return 0 if all(each.cell.is_as_expected for each in done) else 1


def kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in MATRIX:
            raise argparse.ArgumentTypeError(f"no kind {name!r}; there are {', '.join(MATRIX)}")
    return names


def form_of(chosen: argparse.Namespace) -> str:
    return "json" if chosen.json else "markdown" if chosen.markdown else "text"


def tell(cell: Cell, form: str) -> None:
    """Print a cell, if it is not for a table."""
    if form == "json":
        print(json.dumps(asdict(cell)), flush=True)
    elif form == "text":
        print(as_text(cell), flush=True)


def conclude(
    done: Sequence[Measured], names: Sequence[str], transports: Sequence[Punched], form: str
) -> None:
    """Print the tables, or the hash of all packets."""
    if form == "json":
        print(json.dumps({"trace_sha256": combined_sha256(done)}))
    elif form == "text":
        print(f"trace {combined_sha256(done)}")
    else:
        cells = [each.cell for each in done]
        print("\n".join(as_table(cells, names, each) for each in transports), end="")


def as_text(cell: Cell) -> str:
    seconds = "" if cell.virtual_seconds is None else f" after {cell.virtual_seconds:.3f} s"
    due = f"{cell.expected} {cell.expected_causes}".strip()
    wrong = "" if cell.is_as_expected else f"  (expected: {due})"
    reason = f", {cell.causes}: {cell.reason}" if cell.reason else ""
    return f"{cell.a:24} {cell.b:24} {cell.transport} {cell.outcome}{seconds}{reason}{wrong}"


def as_table(cells: Sequence[Cell], names: Sequence[str], transport: Punched) -> str:
    found = {(cell.a, cell.b): cell for cell in cells if cell.transport == transport}
    lines = [
        f"## {transport.upper()}",
        "",
        "| |" + "".join(f" {name} |" for name in names),
        "|---|" + "---|" * len(names),
    ]
    for a in names:
        row = "".join(f" {as_entry(found[a, b])} |" for b in names)
        lines.append(f"| **{a}** |{row}")
    return "\n".join(lines) + "\n"


def as_entry(cell: Cell) -> str:
    return cell.outcome if cell.virtual_seconds is None else f"{cell.virtual_seconds:.2f}"


if __name__ == "__main__":
    sys.exit(main())
