"""How often one may ask, and how fast bytes go: specs/relay.md R29, R32."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.protocols.relay.rates import BURST_SECONDS, MINUTE, Allowances, Pace


def test_r29_a_minutes_worth_may_come_at_once_and_then_one_at_a_time() -> None:
    allowances = Allowances(60)
    assert [allowances.spend("a", 5.0) for _ in range(61)] == [True] * 60 + [False]
    assert not allowances.spend("a", 5.9)
    assert allowances.spend("a", 6.1)
    assert not allowances.spend("a", 6.2)
    assert allowances.spend("b", 6.2)


def test_r29_whoever_has_asked_nothing_for_a_minute_is_forgotten() -> None:
    allowances = Allowances(2)
    for number in range(100):
        allowances.spend(str(number), 0.0)
        allowances.spend(str(number), 0.0)
    assert len(allowances) == 100
    assert allowances.spend("new", MINUTE + 1)
    assert len(allowances) == 1


def test_r29_a_crowd_of_keys_takes_bounded_memory() -> None:
    allowances = Allowances(1, max_keys=10)
    for number in range(1000):
        assert allowances.spend(str(number), 0.0)
    assert len(allowances) == 10
    assert not allowances.spend("999", 1.0)


@given(
    st.floats(0.5, 600),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 10)), max_size=200),
)
def test_r29_in_no_minute_does_a_key_get_more_than_two_minutes_worth(
    per_minute: float, asked: list[tuple[str, float]]
) -> None:
    allowances = Allowances(per_minute)
    now = 0.0
    granted: dict[str, list[float]] = {"a": [], "b": []}
    for key, pause in asked:
        now += pause
        if allowances.spend(key, now):
            granted[key].append(now)
    for times in granted.values():
        for start in times:
            within = sum(start <= at < start + MINUTE for at in times)
            assert within <= 2 * per_minute + 1


def test_r32_without_a_rate_nobody_waits() -> None:
    for rate in (None, 0):
        pace = Pace(rate)
        assert pace.spend(10**12, 0.0) == 0.0


def test_r32_after_a_rest_a_little_goes_at_once() -> None:
    pace = Pace(1000)
    assert pace.spend(250, 100.0) == pytest.approx(0)
    assert pace.spend(500, 100.0) == pytest.approx(0.5)
    assert pace.spend(250, 200.0) == pytest.approx(0)


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_r32_whoever_waits_as_told_keeps_to_the_rate(rate: int, counts: list[int]) -> None:
    pace, now = Pace(rate), 0.0
    for count in counts:
        now += pace.spend(count, now)
    assert sum(counts) <= rate * (now + BURST_SECONDS) * (1 + 1e-6) + 1
