"""Theory, simulation and the NAT of the kernel agree, kind by kind and pair by pair."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interop.worlds import need_namespaces
from p2pnet.testing.kinds import ALL_KINDS, KINDS, SPECIAL_KINDS
from p2pnet.testing.packet import TransportName
from p2pnet.testing.theory import can_punch

ROOT = Path(__file__).parent.parent
SECONDS = 400
TRANSPORTS: list[TransportName] = ["udp", "tcp"]
SPECIAL = [*SPECIAL_KINDS, "port-restricted", "full-cone"]

Row = dict[str, object]


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: plain sockets do here."""


def calibrated(*options: str) -> list[Row]:
    """Calibrate once; a disagreement is for the tests to show."""
    need_namespaces()
    done = subprocess.run(
        [sys.executable, "-m", "interop.natlab", "calibrate", "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    assert rows.pop()["event"] == "done", done.stderr
    return rows


@pytest.fixture(scope="module")
def matrix() -> list[Row]:
    return calibrated()


@pytest.fixture(scope="module")
def special() -> list[Row]:
    return calibrated("--kinds", ",".join(SPECIAL))


def told(row: Row, transport: str, event: str) -> bool:
    return row["transport"] == transport and row["event"] == event


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_classifier_finds_what_the_kind_says(
    matrix: list[Row], transport: TransportName, kind: str
) -> None:
    rows = [row for row in matrix if told(row, transport, "classified") and row["kind"] == kind]
    (row,) = rows
    assert row["error"] is None
    assert row["found"] == row["expected"]
    assert row["simulated"] == row["expected"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_punches_end_as_theory_says(matrix: list[Row], transport: TransportName, kind: str) -> None:
    compare(matrix, transport, kind, list(KINDS))


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_punches_of_special_kinds_end_as_theory_says(
    special: list[Row], transport: TransportName, kind: str
) -> None:
    compare(special, transport, kind, SPECIAL)


def compare(rows: list[Row], transport: TransportName, kind: str, others: list[str]) -> None:
    punched = {
        str(row["b"]): row for row in rows if told(row, transport, "punched") and row["a"] == kind
    }
    theory = {
        other: "direct"
        if can_punch(ALL_KINDS[kind], ALL_KINDS[other], transport).direct
        else "none"
        for other in others
    }
    reasons = {other: row["reason"] for other, row in punched.items()}
    assert {other: row["outcome"] for other, row in punched.items()} == theory, reasons
    assert {other: row["simulated"] for other, row in punched.items()} == theory
