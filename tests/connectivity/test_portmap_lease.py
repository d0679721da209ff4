"""When a mapping is asked for, by the clock: leases, waits and epochs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.connectivity.portmap.asking import Grant
from p2pnet.connectivity.portmap.epoch import EpochOf
from p2pnet.connectivity.portmap.lease import (
    LATEST_RENEWAL,
    MAX_SILENCES,
    RECOVERY_DELAY,
    SHORTEST_INTERVAL,
    Lease,
)
from p2pnet.core.addresses import Endpoint

OUTSIDE = Endpoint("11.0.1.1", 4001)
ELSEWHERE = Endpoint("11.0.1.9", 4001)


def middle(least: float, most: float) -> float:
    return (least + most) / 2


def held(seconds: float = 3600.0, *, at: float = 0.0, check_interval: float = 45.0) -> Lease:
    lease = Lease(check_interval, middle)
    lease.asks(at)
    assert lease.granted(Grant(OUTSIDE, seconds), at)
    return lease


def test_a_mapping_is_asked_for_at_once() -> None:
    lease = Lease(45.0, middle)
    assert lease.due <= 0.0
    assert lease.is_renewal(0.0)


def test_it_is_looked_after_and_renewed_before_half_of_its_lifetime() -> None:
    """PM9."""
    lease = held(200.0)
    assert lease.due == 45.0
    assert not lease.is_renewal(45.0)
    lease.asks(45.0)
    lease.granted(Grant(OUTSIDE, 200.0, is_fresh=False), 45.0)
    assert lease.due == pytest.approx(75.0)  # 0.375 of its lifetime
    assert lease.is_renewal(75.0)
    lease.asks(75.0)
    lease.granted(Grant(OUTSIDE, 200.0), 75.0)
    assert not lease.is_renewal(120.0)


@given(
    st.floats(10.0, 1e10),
    st.floats(0.0, 1e9),
    st.floats(0.0, 1.0),
    st.floats(SHORTEST_INTERVAL, 1e4),
)
def test_there_is_always_time_for_a_second_attempt(
    seconds: float, now: float, part: float, check_interval: float
) -> None:
    """PM9: whatever the lifetime and the chance; and never more often than every 4 s."""
    lease = Lease(check_interval, lambda least, most: least + part * (most - least))
    lease.asks(now)
    lease.granted(Grant(OUTSIDE, seconds), now)
    assert now + SHORTEST_INTERVAL <= lease.due
    assert lease.due <= now + max(LATEST_RENEWAL * seconds, SHORTEST_INTERVAL) + 1e-3
    assert lease.due <= now + check_interval + 1e-3


def test_a_mapping_without_an_end_is_looked_after_and_never_renewed() -> None:
    """PM9."""
    lease = held(math.inf)
    for look in range(1, 100):
        assert lease.due == 45.0 * look
        assert not lease.is_renewal(lease.due)
        lease.asks(lease.due)
        assert not lease.granted(Grant(OUTSIDE, math.inf, is_fresh=False), lease.due)


def test_another_outside_endpoint_is_news_and_its_lifetime_goes_on() -> None:
    lease = held(200.0)
    lease.asks(45.0)
    assert lease.granted(Grant(ELSEWHERE, 200.0, is_fresh=False), 45.0)
    assert not lease.granted(Grant(ELSEWHERE, 200.0, is_fresh=False), 60.0)
    assert lease.due == pytest.approx(75.0)


def test_after_silence_it_is_asked_again_soon_and_then_lost() -> None:
    """PM11."""
    lease = held()
    lease.asks(45.0)
    assert not lease.unanswered(53.0)
    assert lease.due == 57.0
    lease.asks(57.0)
    assert not lease.unanswered(65.0)
    assert lease.due == 73.0
    lease.asks(73.0)
    assert lease.unanswered(81.0)


def test_an_answer_ends_the_doubt() -> None:
    """PM11."""
    lease = held()
    for _ in range(MAX_SILENCES * 3):
        lease.asks(100.0)
        assert not lease.unanswered(100.0)
        lease.granted(Grant(OUTSIDE, 3600.0), 100.0)


def test_silence_beyond_its_end_loses_it() -> None:
    """PM11."""
    lease = held(60.0)
    assert lease.unanswered(60.0)


def test_silence_to_the_first_question_is_enough() -> None:
    assert Lease(45.0, middle).unanswered(8.0)


def test_after_a_restart_it_is_asked_for_within_five_seconds_and_anew() -> None:
    """PM10."""
    lease = held()
    lease.nudge(20.0)
    assert lease.due == 20.0 + RECOVERY_DELAY / 2
    assert lease.is_renewal(lease.due)


def test_many_announcements_do_not_make_it_ask_more_often() -> None:
    """PM9, PM10: an announcement can be anybody's."""
    lease = held(at=0.0)
    for moment in range(40):
        lease.nudge(moment / 10)
    assert lease.due == SHORTEST_INTERVAL


@pytest.mark.parametrize("protocol", ["nat-pmp", "pcp"])
@given(st.lists(st.floats(0.0, 1e5), max_size=20), st.integers(0, 2**31))
def test_a_clock_that_goes_right_is_never_taken_for_a_restart(
    protocol: str, pauses: list[float], began: int
) -> None:
    """PM10."""
    clock, now = EpochOf(protocol), 0.0
    for pause in pauses:
        now += pause
        assert not clock.began_anew(began + int(now), now)


@pytest.mark.parametrize("protocol", ["nat-pmp", "pcp"])
@given(st.integers(1000, 2**31), st.floats(0.0, 600.0), st.floats(0.0, 1.0))
def test_a_clock_that_begins_anew_is_noticed(
    protocol: str, before: int, pause: float, part: float
) -> None:
    """PM10: the router came up after the pause had begun, so it counts less than the pause."""
    clock = EpochOf(protocol)
    assert not clock.began_anew(before, 0.0)
    assert clock.began_anew(int(pause * part), pause)
    assert not clock.began_anew(int(pause * part) + 60, pause + 60)


def test_a_slow_clock_is_put_up_with() -> None:
    """PM10."""
    clock = EpochOf("nat-pmp")
    clock.began_anew(0, 0.0)
    assert not clock.began_anew(874, 1000.0)
    clock = EpochOf("nat-pmp")
    clock.began_anew(0, 0.0)
    assert clock.began_anew(872, 1000.0)
