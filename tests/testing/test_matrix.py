"""Every pair of NATs through relay and DCUtR, against what theory says (specs/nat.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnet.protocols.dcutr import DCUtR
from p2pnet.testing.__main__ import main
from p2pnet.testing.links import Quality
from p2pnet.testing.matrix import MATRIX_KINDS, Measured, combined_sha256, measure, pairs

PAGE = Path(__file__).parents[2] / "docs" / "nat-matrix.md"
SEED = 0
SLOWEST = 5.0
LISTENERS_MEET = [
    (a, b)
    for a in ("full-cone", "address-restricted")
    for b in ("address-symmetric", "symmetric", "symmetric-sequential", "carrier-symmetric")
]
"""Pairs whose SYNs do not meet: what ``b`` dials ends at the listening socket of ``a``."""


def test_the_matrix_has_every_pair_of_twelve_kinds() -> None:
    assert len(MATRIX_KINDS) == 12
    assert len(set(pairs())) == 144


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], Measured]:
    return {pair: measure(*pair, seed=SEED) for pair in pairs()}


@pytest.mark.parametrize(("a", "b"), pairs())
def test_a_pair_gets_as_far_as_theory_allows_and_says_why_no_further(
    measured: dict[tuple[str, str], Measured], a: str, b: str
) -> None:
    cell = measured[a, b].cell
    assert cell.outcome == cell.expected, cell
    if cell.outcome == "direct":
        assert cell.virtual_seconds is not None
        assert cell.virtual_seconds < SLOWEST
    else:
        assert "no answer" in cell.reason or "refused" in cell.reason


@pytest.mark.parametrize(("a", "b"), LISTENERS_MEET)
def test_a_punch_that_ends_at_a_listening_socket_works_at_once(
    measured: dict[tuple[str, str], Measured], a: str, b: str
) -> None:
    """D15."""
    seconds = measured[a, b].cell.virtual_seconds
    assert seconds is not None
    assert seconds < 2


@pytest.mark.parametrize("seed", [9, 12, 16])
@pytest.mark.parametrize(("a", "b"), LISTENERS_MEET)
def test_it_works_in_the_first_attempt_even_if_packets_are_late_or_lost(
    a: str, b: str, seed: int
) -> None:
    """D15: Seeds among which are some where SYNC comes after the SYN."""
    rough = Quality(latency=0.02, jitter=0.01, loss=0.02)
    cell = measure(a, b, seed=seed, link=rough).cell
    assert cell.outcome == "direct", cell
    assert cell.virtual_seconds is not None
    assert cell.virtual_seconds < DCUtR().punch_timeout


def test_the_page_shows_what_is_measured(measured: dict[tuple[str, str], Measured]) -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if "| **" in line]
    shown = {
        (row[0].strip(" *"), b): entry.strip()
        for row in rows
        for b, entry in zip(MATRIX_KINDS, row[1:], strict=True)
    }
    assert {pair: entry if entry == "relayed" else "direct" for pair, entry in shown.items()} == {
        pair: each.cell.outcome for pair, each in measured.items()
    }
    assert all(float(entry) < SLOWEST for entry in shown.values() if entry != "relayed")


def test_the_command_prints_a_line_a_cell_and_the_hash_of_all_packets(
    capsys: pytest.CaptureFixture[str], measured: dict[tuple[str, str], Measured]
) -> None:
    names = ("symmetric", "open")
    assert main(["matrix", "--kinds", ",".join(names), "--seed", str(SEED), "--json"]) == 0
    *cells, last = map(json.loads, capsys.readouterr().out.splitlines())
    fields = ["a", "b", "transport", "expected", "outcome", "virtual_seconds", "reason"]
    assert [list(cell) for cell in cells] == [fields] * 4
    assert [(cell["a"], cell["b"]) for cell in cells] == pairs(names)
    assert last == {"trace_sha256": combined_sha256([measured[pair] for pair in pairs(names)])}


def test_another_seed_takes_other_packets() -> None:
    one, other = (measure("open", "symmetric", seed=seed) for seed in (1, 2))
    assert one.trace_sha256 != other.trace_sha256
    assert one.cell.outcome == other.cell.outcome


def test_the_command_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--transport", "quic"]) == 2
    assert "QUIC" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["matrix", "--kinds", "perfect"])
    assert "port-restricted" in capsys.readouterr().err


def test_the_command_shows_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--kinds", "open"]) == 0
    assert "direct after" in capsys.readouterr().out
    assert main(["matrix", "--kinds", "open", "--markdown"]) == 0
    assert "| **open** |" in capsys.readouterr().out
