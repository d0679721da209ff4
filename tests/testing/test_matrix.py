"""Every pair of NATs through relay and DCUtR, against what theory says (specs/nat.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import combinations_with_replacement

import pytest

from p2pnet.testing.__main__ import main
from p2pnet.testing.links import Quality
from p2pnet.testing.matrix import (
    MATRIX_KINDS,
    TRANSPORTS,
    Cell,
    Measured,
    Punched,
    combined_sha256,
    measure,
    pairs,
    plain_link,
)
from tests.testing.town import Plan, Town

SEED = 0
SLOWEST = 2.0
"""Virtual seconds: a second attempt cannot be over before."""
LISTENERS_MEET = [
    (a, b)
    for a in ("full-cone", "address-restricted")
    for b in ("address-symmetric", "symmetric", "symmetric-sequential", "carrier-symmetric")
]
"""Pairs whose SYNs do not meet: what ``b`` dials ends at the listening socket of ``a``."""
USUAL, RARER = MATRIX_KINDS[:12], MATRIX_KINDS[12:]
CELLS: list[tuple[str, str, Punched]] = [
    *((a, b, "tcp") for a, b in combinations_with_replacement(USUAL, 2)),
    *((b, a, "quic") for a, b in combinations_with_replacement(USUAL, 2)),
    *((a, "port-restricted", TRANSPORTS[number % 2]) for number, a in enumerate(RARER)),
    *(("port-restricted", b, TRANSPORTS[1 - number % 2]) for number, b in enumerate(RARER)),
    ("no-simultaneous-open", "no-simultaneous-open", "tcp"),
    ("udp-blocked", "port-restricted", "quic"),
    ("udp-blocked", "udp-blocked", "quic"),
]
"""Every pair of twelve kinds: the one calls over TCP, the other over QUIC; five rarer kinds, each
with the usual one; and what else there is to stay relayed for.
All pairs both ways, many times, are for ``python -m benchmarks.matrix``.
"""


def test_the_matrix_has_every_pair_of_seventeen_kinds() -> None:
    assert len(MATRIX_KINDS) == 17
    assert len(set(pairs())) == 289


@pytest.fixture(scope="module")
def towns() -> Iterator[dict[Punched, Town]]:
    """All homes of the cells, settled: a town for each transport."""
    plans = {
        each: Plan(each, tuple((a, b) for a, b, transport in CELLS if transport == each), SEED)
        for each in TRANSPORTS
    }
    with Town(plans["tcp"]) as one, Town(plans["quic"]) as other:
        yield {"tcp": one, "quic": other}


@cache
def measured(transport: Punched, a: str, b: str) -> Measured:
    return measure(a, b, seed=SEED, transport=transport)


@pytest.mark.parametrize(("a", "b", "transport"), CELLS)
def test_a_pair_gets_as_far_as_theory_allows_and_says_why_no_further(
    towns: dict[Punched, Town], a: str, b: str, transport: Punched
) -> None:
    """NT28."""
    cell = towns[transport].meet(a, b)
    assert cell.is_as_expected, cell
    if cell.outcome == "direct":
        assert cell.attempt == 1
        assert cell.virtual_seconds is not None
        assert cell.virtual_seconds < SLOWEST
    else:
        assert any(word in cell.reason for word in ("no answer", "refused", "public address"))


@pytest.mark.parametrize(("a", "b"), LISTENERS_MEET)
def test_a_punch_that_ends_at_a_listening_socket_works_at_once(
    towns: dict[Punched, Town], a: str, b: str
) -> None:
    """D15 and, for QUIC, Q20: the one over TCP, the other over QUIC."""
    transport = TRANSPORTS[LISTENERS_MEET.index((a, b)) % 2]
    cell = towns[transport].meet(a, b)
    assert cell.outcome == "direct", cell
    assert cell.attempt == 1
    assert cell.virtual_seconds is not None
    assert cell.virtual_seconds < SLOWEST


@pytest.mark.parametrize(
    ("a", "b", "seed"),
    [(a, b, (9, 12, 16)[number % 3]) for number, (a, b) in enumerate(LISTENERS_MEET)],
)
def test_it_works_in_the_first_attempt_even_if_packets_are_late_or_lost(
    a: str, b: str, seed: int
) -> None:
    """D15: Seeds among which are some where SYNC comes after the SYN."""
    rough = Quality(latency=0.02, jitter=0.01, loss=0.02)
    cell = measure(a, b, seed=seed, link=rough).cell
    assert cell.outcome == "direct", cell
    assert cell.attempt == 1


def test_the_time_runs_while_both_have_the_relayed_connection_and_not_both_a_direct_one() -> None:
    """Ahead of it (D31) CONNECT takes half a round trip, TCP 1, its handshake 1.5."""
    for trip in (0.2, 0.1):
        cell = measure("port-restricted", "firewall", seed=SEED, link=plain_link(trip)).cell
        assert cell.virtual_seconds == pytest.approx(3 * trip)


@pytest.mark.parametrize(
    ("a", "b", "transport", "trips"),
    [
        ("port-restricted", "port-restricted", "quic", 2),
        ("port-restricted", "symmetric-sequential", "tcp", 3),
        ("port-restricted", "symmetric-sequential", "quic", 2),
        ("symmetric-sequential", "port-restricted", "tcp", 3),
        ("symmetric-sequential", "port-restricted", "quic", 2),
        ("address-restricted", "symmetric", "tcp", 3),
        ("address-restricted", "symmetric", "quic", 2),
        ("port-restricted", "no-simultaneous-open", "tcp", 3.3),
        ("symmetric-sequential", "no-simultaneous-open", "tcp", 3.3),
    ],
)
def test_a_direct_connection_takes_so_many_round_trips(
    a: str, b: str, transport: Punched, trips: float
) -> None:
    """D16 D28 D30 D31: To look at the ports of a NAT costs nothing more, on either side."""
    cell = measure(a, b, seed=SEED, link=plain_link(0.2), transport=transport).cell
    assert cell.virtual_seconds == pytest.approx(trips * 0.2, abs=0.01)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_command_prints_a_line_a_cell_and_the_hash_of_all_packets(
    capsys: pytest.CaptureFixture[str], transport: Punched
) -> None:
    names = ("udp-blocked", "open")[TRANSPORTS.index(transport) :]
    command = ["matrix", "--kinds", ",".join(names), "--seed", str(SEED), "--json"]
    assert main([*command, "--transport", transport]) == 0
    *cells, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [list(cell) for cell in cells] == [[field.name for field in fields(Cell)]] * len(
        names
    ) ** 2
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
    assert main(["matrix", "--kinds", "open", "--markdown", "--round-trip", "0.2"]) == 0
    table = capsys.readouterr().out
    assert table.index("## TCP") < table.index("| **open** |") < table.index("## QUIC")
