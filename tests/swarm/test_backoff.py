"""Rule DI3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.backoff import Backoff

PEER, OTHER = (PeerId(b"\x12\x20" + bytes([n]) * 32) for n in (1, 2))
ADDRESS, ELSEWHERE = parse("/ip4/1.2.3.4/tcp/1"), parse("/ip4/1.2.3.4/tcp/2")


def seconds_after(failures: int) -> float:
    backoff = Backoff(8)
    for _ in range(failures):
        backoff.failed(PEER, ADDRESS, "refused", now=100.0)
    refusal = backoff.check(PEER, ADDRESS, now=100.0)
    assert refusal is not None
    return refusal.seconds


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 5), (2, 6), (3, 9), (4, 14), (18, 294), (19, 300), (50, 300)]
)
def test_di3_each_failure_makes_the_wait_longer_up_to_five_minutes(
    failures: int, seconds: float
) -> None:
    assert seconds_after(failures) == seconds


def test_di3_an_address_that_never_failed_may_be_dialled() -> None:
    assert Backoff(8).check(PEER, ADDRESS, now=0.0) is None


def test_di3_the_wait_ends() -> None:
    backoff = Backoff(8)
    backoff.failed(PEER, ADDRESS, "refused", now=100.0)
    refusal = backoff.check(PEER, ADDRESS, now=104.0)
    assert refusal is not None
    assert refusal.seconds == 1.0
    assert str(refusal) == "left alone for 1 s more, it failed lately: refused"
    assert backoff.check(PEER, ADDRESS, now=105.0) is None


def test_di3_another_address_and_another_peer_are_not_concerned() -> None:
    backoff = Backoff(8)
    backoff.failed(PEER, ADDRESS, "refused", now=0.0)
    assert backoff.check(PEER, ELSEWHERE, now=0.0) is None
    assert backoff.check(OTHER, ADDRESS, now=0.0) is None


def test_di3_success_wipes_the_slate_clean() -> None:
    backoff = Backoff(8)
    for _ in range(5):
        backoff.failed(PEER, ADDRESS, "refused", now=0.0)
    backoff.worked(PEER, ADDRESS)
    backoff.worked(PEER, ADDRESS)
    assert backoff.check(PEER, ADDRESS, now=0.0) is None
    backoff.failed(PEER, ADDRESS, "refused", now=0.0)
    assert backoff.check(PEER, ADDRESS, now=5.0) is None


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8))
def test_di3_no_more_than_the_limit_is_remembered(ports: list[int], limit: int) -> None:
    backoff = Backoff(limit)
    for port in ports:
        backoff.failed(PEER, parse(f"/ip4/1.2.3.4/tcp/{port}"), "refused", now=0.0)
    remembered = [
        port
        for port in range(21)
        if backoff.check(PEER, parse(f"/ip4/1.2.3.4/tcp/{port}"), now=0.0)
    ]
    latest = list(dict.fromkeys(reversed(ports)))[:limit]
    assert sorted(remembered) == sorted(latest)
