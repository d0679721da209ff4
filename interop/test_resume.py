"""Transfers that begin over a relay, through the kernel's NATs: nothing is lost or repeated.

How long they stand still is printed, and no more: on a busy machine it tells of the machine. What
is asserted is what keeps it short: at the move to a direct connection nothing is sent again, as
the old one carries on until the new one does. The bound is tested in virtual time, in
tests/network/test_resume*.py.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from interop.worlds import run_in_world

SECONDS = 240
MIB = 1 << 20
ROAMERS = (
    ("tcp", "me", "new"),
    ("tcp", "peer", "same"),
    ("quic", "peer", "new"),
    ("quic", "me", "same"),
)
"""Over what, who moves to another home, and if its private address there is another one."""

Fields = dict[str, Any]


def transfer(*words: object) -> Fields:
    """Send from home to home; the words are those of the trial."""
    done = run_in_world("resume_trial", *map(str, words), seconds=SECONDS)
    assert done.stdout, done.stderr
    outcome: Fields = json.loads(done.stdout)
    shown = ("round_trip", "moves", "gaps_at_moves", "longest_gap", "resent")
    print(words, {name: outcome[name] for name in shown})
    return outcome


def check(outcome: Fields) -> None:
    assert outcome["begun_relayed"] is True
    assert outcome["sent"] == outcome["received"]
    assert outcome["sent_sha256"] == outcome["received_sha256"]


@pytest.mark.parametrize("transport", ["tcp", "quic"])
def test_it_moves_to_the_direct_connection_and_sends_nothing_twice(transport: str) -> None:
    outcome = transfer("town", transport, "port-restricted", 64, 512)
    check(outcome)
    assert outcome["sent"] == 64 * MIB
    assert outcome["ended_relayed"] is False
    assert len(outcome["moves"]) == 1
    assert outcome["resent"] == 0


@pytest.mark.parametrize("transport", ["tcp", "quic"])
def test_it_goes_on_over_circuit_after_circuit_and_over_a_relay_that_was_started_anew(
    transport: str,
) -> None:
    outcome = transfer("town", transport, "symmetric", 24, 8, 1)
    check(outcome)
    assert outcome["sent"] == 24 * MIB
    assert outcome["ended_relayed"] is True
    assert len(outcome["moves"]) >= 3


@pytest.fixture(scope="module")
def roamed() -> dict[tuple[str, ...], Fields]:
    """Have all roam at the same time: most of it is waiting until it is noticed."""
    with ThreadPoolExecutor() as worlds:
        found = worlds.map(lambda words: transfer("roam", *words, 8), ROAMERS)
        return dict(zip(ROAMERS, found, strict=True))


@pytest.mark.parametrize("words", ROAMERS, ids=" ".join)
def test_it_goes_on_when_one_end_has_moved_to_another_home(
    roamed: dict[tuple[str, ...], Fields], words: tuple[str, ...]
) -> None:
    outcome = roamed[words]
    check(outcome)
    assert len(outcome["moves"]) >= 2
    before, after = outcome["addresses"]
    assert (before == after) is (words[-1] == "same")
