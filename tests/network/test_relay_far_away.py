"""Two homes whose relay is far from both: the way over it is much longer than the direct one."""

from __future__ import annotations

import pytest

from p2pnet.testing import matrix
from p2pnet.testing.links import Quality
from p2pnet.testing.matrix import measure, plain_link

DIRECT = 0.08
"""Seconds of a round trip; over the relay there are twice as many."""
ROUND_TRIPS = 3
SPARE_SECONDS = 0.1


@pytest.fixture(autouse=True)
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "RELAY_LINK", Quality(latency=DIRECT / 4))


@pytest.mark.parametrize(
    ("caller", "called"),
    [
        # Only one SYN can open the connection: that of who has the last word before the dials.
        ("address-restricted", "symmetric"),
        ("port-restricted", "no-simultaneous-open"),
        ("double-nat", "no-simultaneous-open"),
        # Only the other's can.
        ("symmetric", "address-restricted"),
        ("no-simultaneous-open", "port-restricted"),
        # Both can, and one that comes too early is refused.
        ("port-restricted-reset", "port-restricted-reset"),
    ],
)
def test_no_syn_is_lost_because_it_comes_too_early(caller: str, called: str) -> None:
    """D27 D31: TCP would repeat it after a second."""
    cell = measure(caller, called, seed=1, link=plain_link(DIRECT)).cell
    assert (cell.outcome, cell.attempt) == ("direct", 1)
    assert cell.virtual_seconds is not None
    assert cell.virtual_seconds <= ROUND_TRIPS * 2 * DIRECT + SPARE_SECONDS
