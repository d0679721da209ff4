"""Every pair of NATs through relay and DCUtR, against what theory says (specs/nat.md)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from p2pnet.protocols.dcutr import DCUtR
from p2pnet.testing.__main__ import main
from p2pnet.testing.links import Quality
from p2pnet.testing.matrix import (
    MATRIX_KINDS,
    TRANSPORTS,
    Measured,
    Punched,
    combined_sha256,
    measure,
    pairs,
)

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


@cache
def measured(transport: Punched, a: str, b: str) -> Measured:
    return measure(a, b, seed=SEED, transport=transport)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("a", "b"), pairs())
def test_a_pair_gets_as_far_as_theory_allows_and_says_why_no_further(
    a: str, b: str, transport: Punched
) -> None:
    cell = measured(transport, a, b).cell
    assert cell.outcome == cell.expected, cell
    if cell.outcome == "direct":
        assert cell.virtual_seconds is not None
        assert cell.virtual_seconds < SLOWEST
    else:
        assert "no answer" in cell.reason or "refused" in cell.reason


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("a", "b"), LISTENERS_MEET)
def test_a_punch_that_ends_at_a_listening_socket_works_at_once(
    a: str, b: str, transport: Punched
) -> None:
    """D15 and, for QUIC, Q20."""
    seconds = measured(transport, a, b).cell.virtual_seconds
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


def test_the_page_shows_what_is_measured() -> None:
    _, *tables = PAGE.read_text().split("\n## ")
    shown = {
        (transport, row[0].strip(" *"), b): entry.strip()
        for transport, table in zip(TRANSPORTS, tables, strict=True)
        for row in (line.strip("|").split("|") for line in table.splitlines() if "| **" in line)
        for b, entry in zip(MATRIX_KINDS, row[1:], strict=True)
    }
    assert {cell: entry if entry == "relayed" else "direct" for cell, entry in shown.items()} == {
        (transport, a, b): measured(transport, a, b).cell.outcome
        for transport in TRANSPORTS
        for a, b in pairs()
    }
    assert all(float(entry) < SLOWEST for entry in shown.values() if entry != "relayed")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_command_prints_a_line_a_cell_and_the_hash_of_all_packets(
    capsys: pytest.CaptureFixture[str], transport: Punched
) -> None:
    names = ("symmetric", "open")
    command = ["matrix", "--kinds", ",".join(names), "--seed", str(SEED), "--json"]
    assert main([*command, "--transport", transport]) == 0
    *cells, last = map(json.loads, capsys.readouterr().out.splitlines())
    fields = ["a", "b", "transport", "expected", "outcome", "virtual_seconds", "reason"]
    assert [list(cell) for cell in cells] == [fields] * 4
    assert [(cell["a"], cell["b"]) for cell in cells] == pairs(names)
    hashed = [measured(transport, a, b) for a, b in pairs(names)]
    assert last == {"trace_sha256": combined_sha256(hashed)}


def test_another_seed_takes_other_packets() -> None:
    one, other = (measure("open", "symmetric", seed=seed) for seed in (1, 2))
    assert one.trace_sha256 != other.trace_sha256
    assert one.cell.outcome == other.cell.outcome


def test_the_command_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["matrix", "--kinds", "perfect"])
    assert "port-restricted" in capsys.readouterr().err


def test_the_command_shows_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--kinds", "open"]) == 0
    assert "direct after" in capsys.readouterr().out
    assert main(["matrix", "--kinds", "open", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert page.index("## TCP") < page.index("| **open** |") < page.index("## QUIC")
