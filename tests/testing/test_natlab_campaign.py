"""Campaigns in the laboratory of NATs: what is to be done, what came of it, and its tables."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations_with_replacement, product
from pathlib import Path

import pytest

from benchmarks.natlab import cells, missing, otherwise, parser_of, wanted
from benchmarks.natlab_cells import LabCell, as_csv, from_csv, read_cells, summarized
from benchmarks.natlab_page import section
from benchmarks.natlab_py_libp2p import in_a_line, row_of
from interop.natlab.meeting import Row
from interop.processes import PeerFailed
from p2pnet.testing.kinds import ALL_KINDS, MATRIX
from p2pnet.testing.matrix import TRANSPORTS, can_meet

DIRECT = Row("open", "carrier", "tcp", "direct", "direct", 1, 0.2, "")
PLACE = ("p2pnet", "open", "carrier", "tcp")
BOTH = "OWN_SYMMETRIC OWN_SYMMETRIC"
RELAYED = Row("symmetric", "symmetric", "tcp", "relayed", "relayed", 3, None, "no answer", BOTH)


def chosen(*options: str) -> argparse.Namespace:
    return parser_of().parse_args(options)


def test_each_pair_meets_over_both_transports_and_the_second_time_the_other_one_calls() -> None:
    places = list(wanted(chosen("--rounds", "2")))
    count = len(MATRIX) * (len(MATRIX) + 1) // 2 * len(TRANSPORTS)
    assert len(MATRIX) >= 16
    assert len(places) == 2 * count
    first, second = places[:count], places[count:]
    assert {(a.name, b.name) for (a, b), _ in first} == set(
        combinations_with_replacement(MATRIX, 2)
    )
    assert [((b, a), transport) for (a, b), transport in first] == second


def test_pairs_without_a_way_are_told_how_often_by_a_number_of_their_own() -> None:
    options = ("--kinds", "open,symmetric", "--transports", "tcp", "--rounds", "3")
    places = list(wanted(chosen(*options, "--rounds-relayed", "1")))
    names = Counter(tuple(sorted((a.name, b.name))) for (a, b), _ in places)
    assert names == {("open", "open"): 3, ("open", "symmetric"): 3, ("symmetric", "symmetric"): 1}
    options = ("--kinds", "open,symmetric", "--transports", "tcp", "--rounds", "0")
    ((a, b), _), _ = wanted(chosen(*options, "--rounds-relayed", "2"))
    assert (a.name, b.name) == ("symmetric", "symmetric")


def test_a_pair_is_judged_both_ways_together_and_each_distance_by_itself() -> None:
    back = replace(DIRECT, a="carrier", b="open")
    slow, far = replace(back, seconds=0.3), replace(DIRECT, round_trip=0.2, seconds=0.7)
    second = replace(DIRECT, attempts=2)
    text = section([cell(DIRECT, *[DIRECT] * 30, second, second), cell(slow), cell(far)])
    assert "| p2pnet | TCP | 40 ms | 1 | 1 | 0 | 34 of 34 | 32 | 0 | 0 | 0 | 0 |" in text
    assert "| p2pnet | TCP | 200 ms | 1 | 1 | 1 | 1 of 1 | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| **open** |  | + |" in text


def test_what_is_done_is_not_done_again() -> None:
    options = chosen("--kinds", "open,carrier", "--transports", "tcp", "--rounds", "3")
    rows = [DIRECT, DIRECT, replace(DIRECT, transport="quic")]
    left = [(a.name, b.name) for (a, b), _ in missing(options, rows)]
    once = [("open", "open"), ("open", "carrier"), ("carrier", "carrier")]
    other = [("open", "open"), ("carrier", "open"), ("carrier", "carrier")]
    assert left == [pair for pair in (*once, *other, *once) if pair != ("open", "carrier")]


def test_what_came_out_otherwise_is_done_again_until_that_is_the_exception() -> None:
    options = chosen("--again", "--transports", "tcp")
    failed = replace(DIRECT, outcome="relayed", seconds=None, reason="no answer")
    rows = [failed, replace(failed, transport="quic"), RELAYED, DIRECT]
    ((pair, transport),) = otherwise(options, rows)
    assert ([kind.name for kind in pair], transport) == (["open", "carrier"], "tcp")
    assert otherwise(options, [*rows, DIRECT]) == []


def test_meetings_of_a_cell_are_put_together() -> None:
    second = replace(DIRECT, attempts=2, seconds=0.4)
    failed = replace(DIRECT, outcome="error", attempts=0, seconds=None, reason="TooSlowError()")
    silent, wrong = replace(RELAYED, reason=""), replace(RELAYED, causes="OWN_SYMMETRIC NONE")
    found = summarized("p2pnet", [DIRECT, second, failed, RELAYED, silent, wrong], code="abc")
    direct, relayed = sorted(found, key=lambda cell: cell.a)
    assert (direct.runs, direct.direct, direct.first, direct.relayed) == (3, 2, 1, 0)
    assert (direct.median, direct.reason, direct.as_expected) == (0.3, "TooSlowError()", 2)
    assert (relayed.runs, relayed.relayed, relayed.named, relayed.as_expected) == (3, 3, 1, 1)
    assert relayed.reason == "OWN_SYMMETRIC NONE no answer"
    assert relayed.median is None
    assert from_csv(as_csv(found)) == found


def cell(row: Row, *rows: Row, of: str = "p2pnet", code: str = "abc") -> LabCell:
    (one,) = summarized(of, [row, *rows], code=code)
    return one


def test_the_table_has_a_mark_for_each_pair_and_names_what_is_otherwise() -> None:
    quic = replace(DIRECT, transport="quic")
    reason = "no direct connection to 12D3KooWHWNBUeWrpHmX8: no answer"
    relayed = replace(quic, outcome="relayed", seconds=None, reason=reason)
    text = section([cell(DIRECT), cell(quic, relayed), cell(RELAYED)])
    assert "| **open** |  |  | + / **1 of 2** |" in text
    assert "| **symmetric** |  | - |  |" in text
    said = "- open calls carrier, QUIC, 40 ms: direct in 1 of 2: no direct connection: no answer"
    assert said in text
    assert "| p2pnet | TCP | 40 ms | 1 | 1 | 1 | 1 of 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| p2pnet | QUIC | 40 ms | 1 | 0 | 0 | 1 of 2 | 1 | 1 | 0 | 0 | 0 |" in text
    assert "py-libp2p" not in text.partition("| p2pnet |")[2]


def test_py_libp2p_stands_beside_it() -> None:
    failed = replace(DIRECT, outcome="relayed", seconds=None)
    text = section([cell(DIRECT, DIRECT), cell(DIRECT, failed, failed, of="py-libp2p")])
    assert "| **open** |  | 2 of 2 / 1 of 3 |" in text
    assert "TCP, where 3 meetings of py-libp2p ended 1 direct, 2 relayed, 0 in an error:" in text


def test_errors_of_py_libp2p_are_counted_by_where_they_happened() -> None:
    failed = replace(DIRECT, outcome="error", attempts=0, seconds=None)
    silent = replace(failed, reason="an echo over the direct connection: TooSlowError()")
    late = replace(failed, a="carrier", reason="reserving: OSError('no reservation')")
    text = section([cell(row, row, of="py-libp2p") for row in (silent, late)] + [cell(DIRECT)])
    where = "an echo over the direct connection: 2, reserving: 2"
    assert f"ended 0 direct, 0 relayed, 4 in an error ({where}):" in text


def test_what_a_peer_logged_last_is_told_with_its_failure() -> None:
    what = "the py-libp2p listen was not ready:"
    died = PeerFailed(f"{what}\n1.2 dcutr: started\nreserving: OSError('no')")
    assert in_a_line(died) == f"{what} reserving: OSError('no')"
    assert in_a_line(PeerFailed(f"{what}\n")) == what


@pytest.mark.parametrize(
    ("line", "outcome", "seconds"),
    [
        ({"error": None, "echo_ok": True, "relayed": False, "direct_ms": 1234.5}, "direct", 1.234),
        ({"error": None, "echo_ok": True, "relayed": True, "direct_ms": None}, "relayed", None),
        ({"error": None, "echo_ok": False, "relayed": False, "direct_ms": 1.0}, "error", None),
        ({"error": "gone"}, "error", None),
    ],
)
def test_the_line_of_a_caller_is_read(
    line: dict[str, object], outcome: str, seconds: float | None
) -> None:
    row = row_of(replace(DIRECT, outcome="error", attempts=0, seconds=None), line)
    assert (row.outcome, row.seconds) == (outcome, seconds)


def test_what_is_not_measured_here_stays_as_it_stands_in_the_docs(tmp_path: Path) -> None:
    written = read_cells()
    old = next(c for c in written if (c.implementation, c.a, c.b, c.transport) == PLACE)
    row = replace(DIRECT, round_trip=old.round_trip)
    (tmp_path / "p2pnet").mkdir()
    (tmp_path / "p2pnet" / "now.jsonl").write_text(json.dumps(asdict(row)))
    found = cells(tmp_path)
    assert [each for each in found if each not in written] == [cell(row, code="now")]
    assert [each for each in written if each not in found] == [old]
    assert {each.implementation for each in found} == {"p2pnet", "py-libp2p"}


def test_the_figures_expect_what_theory_says() -> None:
    for each, transport in product(read_cells(), TRANSPORTS):
        if each.transport == transport:
            can = can_meet(ALL_KINDS[each.a], ALL_KINDS[each.b], transport)
            assert (each.expected == "direct") is can, each
