"""Transfers that begin over a relay, through the kernel's NATs: nothing is lost or repeated.

How long they stand still is printed, and no more: on a busy machine it tells of the machine. The
bound is tested in virtual time: tests/network/test_resume*.py.
"""

from __future__ import annotations

import json

from interop.worlds import run_in_world

SECONDS = 240
MIB = 1 << 20

Fields = dict[str, object]


def transfer(kind: str, *, mib: int, circuit_mib: int, restarts: int = 0) -> Fields:
    """Send so much from home to home."""
    numbers = [str(number) for number in (mib, circuit_mib, restarts)]
    done = run_in_world("resume_trial", "town", kind, *numbers, seconds=SECONDS)
    assert done.stdout, done.stderr
    outcome: Fields = json.loads(done.stdout)
    print({name: outcome[name] for name in ("round_trip", "moves", "gaps_at_moves")})
    assert outcome["begun_relayed"] is True
    assert outcome["sent"] == outcome["received"] == mib * MIB
    assert outcome["sent_sha256"] == outcome["received_sha256"]
    return outcome


def moves(outcome: Fields) -> int:
    found = outcome["moves"]
    assert isinstance(found, list)
    return len(found)


def test_it_moves_to_the_direct_connection() -> None:
    outcome = transfer("port-restricted", mib=64, circuit_mib=512)
    assert outcome["ended_relayed"] is False
    assert moves(outcome) == 1


def test_it_goes_on_over_circuit_after_circuit_and_over_a_relay_that_was_started_anew() -> None:
    outcome = transfer("symmetric", mib=24, circuit_mib=8, restarts=1)
    assert outcome["ended_relayed"] is True
    assert moves(outcome) >= 3
