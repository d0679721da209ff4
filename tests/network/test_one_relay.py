"""Two homes that have one relay, so that nobody but one peer tells what their NATs do (D16)."""

from __future__ import annotations

import pytest

from p2pnet.testing import matrix
from p2pnet.testing.matrix import Punched, measure


@pytest.fixture(autouse=True)
def one_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "RELAYS", 1)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(
    ("caller", "called"),
    [
        ("symmetric-sequential", "port-restricted"),
        ("port-restricted", "symmetric-sequential"),
        ("symmetric-sequential", "symmetric-sequential"),
    ],
)
def test_ports_in_sequence_are_foreseen(caller: str, called: str, transport: Punched) -> None:
    """D16: in the first attempt, as with two relays."""
    cell = measure(caller, called, seed=5, transport=transport).cell
    assert (cell.outcome, cell.attempt) == ("direct", 1)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
def test_a_nat_that_was_suspected_wrongly_is_punched_all_the_same(transport: Punched) -> None:
    """D16 D17: it gives one port for all, though another one than that of the host."""
    cell = measure("carrier", "port-restricted-sequential", seed=5, transport=transport).cell
    assert (cell.outcome, cell.attempt) == ("direct", 1)
