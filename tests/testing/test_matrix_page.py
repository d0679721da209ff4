"""What runs of the NAT matrix are judged by, and the page that is drawn from them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import trio

from benchmarks.matrix import DATA, PAGE, batches, newest, parser_of, rough_link
from benchmarks.matrix_futures import Past, Run, futures, in_fork
from benchmarks.matrix_page import page
from benchmarks.matrix_verdict import Summary, as_csv, from_csv, misses, summarize
from benchmarks.natlab_cells import read_cells
from p2pnet.testing.kinds import ALL_KINDS, MATRIX
from p2pnet.testing.matrix import TRANSPORTS, Ended, can_meet

GOOD = Summary(
    "open", "carrier", "tcp", 0.08, "direct", runs=50, as_expected=50, first=49, median=0.3, p95=0.4
)
RELAYED = replace(GOOD, a="symmetric", b="symmetric", expected="relayed", first=0, median=None)
ONE = Run("open", "carrier", "tcp", 0.08, 0, "direct", 0.3, 1, "")


def test_the_page_is_drawn_from_the_figures_beside_it() -> None:
    """``python -m benchmarks.matrix --redraw`` makes it anew."""
    assert PAGE.read_text() == page(from_csv(DATA.read_text()), read_cells())


def test_the_figures_are_of_every_pair_and_expect_what_theory_says() -> None:
    cells = [cell for cell in from_csv(DATA.read_text()) if cell.round_trip == 0.08]
    pairs = {(frozenset((cell.a, cell.b)), cell.transport) for cell in cells}
    assert pairs == {
        (frozenset((a, b)), transport) for a, b, transport in product(MATRIX, MATRIX, TRANSPORTS)
    }
    for cell, transport in product(cells, TRANSPORTS):
        if cell.transport == transport:
            can = can_meet(ALL_KINDS[cell.a], ALL_KINDS[cell.b], transport)
            assert (cell.expected == "direct") is can, cell


@pytest.mark.parametrize(
    ("there", "back", "said"),
    [
        (GOOD, GOOD, []),
        (GOOD, replace(GOOD, as_expected=49), []),
        (GOOD, replace(GOOD, as_expected=48, first=48), ["direct in 98 of 100"]),
        (GOOD, replace(GOOD, first=47), ["at the first attempt in 96 of 100"]),
        (replace(GOOD, median=0.3401), GOOD, ["median 340 ms"]),
        (replace(GOOD, median=0.34), GOOD, []),
        (replace(GOOD, round_trip=0.02, median=0.16), None, []),
        (replace(GOOD, round_trip=0.02, median=0.17), None, ["median 170 ms"]),
        (RELAYED, RELAYED, []),
        (RELAYED, replace(RELAYED, as_expected=48), ["relayed in 98 of 100"]),
    ],
)
def test_a_pair_is_judged_by_shares_of_both_directions_and_the_slower_one(
    there: Summary, back: Summary | None, said: list[str]
) -> None:
    assert misses(there, back) == said


def test_runs_of_a_cell_are_put_together() -> None:
    second = replace(ONE, seed=2, attempt=2, seconds=3.3)
    relayed = replace(ONE, seed=4, outcome="relayed", seconds=None, attempt=3, reason="no answer")
    other = replace(ONE, a="carrier", b="open", seed=1)
    there, back = sorted(summarize([ONE, second, relayed, other]), key=lambda c: -c.runs)
    assert (there.runs, there.as_expected, there.first) == (3, 2, 1)
    assert (there.median, there.p95) == (1.8, 3.3)
    assert (back.a, back.runs, back.median, back.p95) == ("carrier", 1, 0.3, 0.3)


@pytest.mark.parametrize(
    ("causes", "reason", "as_expected"),
    [
        ("OWN_SYMMETRIC PEER_SYMMETRIC", "no answer", 1),
        ("OWN_SYMMETRIC PEER_SYMMETRIC", "", 0),
        ("PEER_SYMMETRIC OWN_SYMMETRIC", "no answer", 0),
        ("OWN_SYMMETRIC PUNCH_PENDING", "no answer", 0),
        ("", "no answer", 0),
    ],
)
def test_who_stays_relayed_has_done_what_is_expected_if_each_named_the_right_cause(
    causes: str, reason: str, as_expected: int
) -> None:
    """NT28."""
    run = Run("symmetric", "carrier", "tcp", 0.08, 0, "relayed", None, 3, reason, causes)
    (cell,) = summarize([run])
    assert (cell.expected, cell.as_expected, cell.causes) == ("relayed", as_expected, causes)


def test_causes_that_not_all_runs_named_stand_in_the_cell_the_most_frequent_first() -> None:
    run = Run("symmetric", "carrier", "tcp", 0.08, 0, "relayed", None, 3, "", "A B")
    (cell,) = summarize([replace(run, causes="C D"), run, run, replace(run, outcome="stuck")])
    assert cell.causes == "A B, C D"


def test_the_page_shows_what_was_named_and_where_that_was_not_it() -> None:
    right = "OWN_SYMMETRIC OWN_SYMMETRIC"
    found = {each.transport: each for each in (named_by(right), named_by(f"{right}, X", "quic"))}
    assert "| **symmetric** | ? / ? | OO / **2 of 3: OO, X** |" in page([GOOD, *found.values()])
    unknown = replace(found["tcp"], causes="", as_expected=0)
    assert "| **symmetric** | ? / ? | **0 of 3** / ? |" in page([GOOD, unknown])


def named_by(causes: str, transport: str = "tcp") -> Summary:
    ends = 3 if "," not in causes else 2
    return replace(RELAYED, transport=transport, causes=causes, runs=3, as_expected=ends)


def test_figures_are_read_as_they_were_written() -> None:
    cells = [replace(GOOD, code="1a2b"), RELAYED]
    assert from_csv(as_csv(cells)) == cells


def test_of_a_cell_the_code_as_it_is_counts_and_else_what_was_measured_before(
    tmp_path: Path,
) -> None:
    elsewhere = replace(ONE, a="firewall")
    for code, runs in (("now", [ONE]), ("before", [ONE, elsewhere])):
        file = tmp_path / code / "tcp-80" / "0-20.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps([asdict(run) for run in runs]))
    written = [replace(GOOD, a=a, code="written") for a in ("firewall", "carrier")]
    assert [(cell.a, cell.code) for cell in newest(tmp_path, "now", written)] == [
        ("carrier", "written"),
        ("firewall", "before"),
        ("open", "now"),
    ]


def test_the_programme_goes_through_all_pairs_before_it_comes_back_to_the_first() -> None:
    words = "--kinds open,symmetric --seeds 40 --seeds-relayed 5 --round-trips 80 --transports tcp"
    found = [
        (past.a, past.b, seeds) for past, seeds in batches(parser_of().parse_args(words.split()))
    ]
    assert found == [
        ("open", "open", range(20)),
        ("open", "symmetric", range(20)),
        ("symmetric", "symmetric", range(5)),
        ("open", "open", range(20, 40)),
        ("open", "symmetric", range(20, 40)),
    ]


def test_futures_of_one_past_differ_and_are_the_same_again() -> None:
    past = Past("open", "port-restricted", "tcp", 0.08, rough_link(0.08))
    first, second, third = futures(past, range(3))
    assert [(run.a, run.b) for run in (first, second)] == [(past.a, past.b), (past.b, past.a)]
    assert {run.outcome for run in (first, second, third)} == {"direct"}
    assert first.seconds != third.seconds
    assert futures(past, range(3)) == [first, second, third]


def test_a_fork_that_fails_says_why() -> None:
    async def fail() -> Ended:
        await trio.lowlevel.checkpoint()
        raise LookupError("nobody there")

    ended = trio.run(partial(in_fork, fail))
    assert (ended.outcome, ended.reason) == ("error", "LookupError('nobody there')")
