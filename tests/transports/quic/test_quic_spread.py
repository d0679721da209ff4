"""Which ports are knocked at in birthday punching."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from p2pnet.transports.quic.spread import FIRST_PORT, PORTS, ports_to_try

PROBES, MAPPINGS = 2048, 256


def test_each_port_is_knocked_at_once_wherever_it_begins() -> None:
    """D22."""
    assert sorted(ports_to_try(64_000, PORTS)) == list(range(FIRST_PORT, FIRST_PORT + PORTS))


def test_however_few_they_are_spread_over_all() -> None:
    """D22: A NAT may give ports from one block only."""
    tried = sorted(ports_to_try(7, PROBES))
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert max(gaps) < 3 * PORTS / PROBES


@pytest.mark.parametrize(
    ("probes", "expected"), [(174, 0.50), (256, 0.64), (1024, 0.98), (2048, 1.0)]
)
def test_a_hit_is_as_likely_as_theory_has_it(probes: int, expected: float) -> None:
    """D22 D23: against random ports of a NAT."""
    chance = random.Random(probes)
    runs = 1500
    hits = 0
    for _ in range(runs):
        given = set(chance.sample(range(FIRST_PORT, FIRST_PORT + PORTS), MAPPINGS))
        hits += not given.isdisjoint(ports_to_try(chance.randrange(PORTS), probes))
    assert hits / runs == pytest.approx(expected, abs=0.04)
