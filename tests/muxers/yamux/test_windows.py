"""Receive windows: specs/yamux.md Y8 to Y10."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import ProtocolError
from p2pnet.muxers.yamux.messages import INITIAL_WINDOW
from p2pnet.muxers.yamux.windows import Budget, ReceiveWindow

MIB = 1_048_576
HALF = INITIAL_WINDOW // 2


def new_window(budget: int = 64 * MIB, max_size: int = 16 * MIB) -> ReceiveWindow:
    return ReceiveWindow(Budget(budget), max_size, 0.0)


def test_y8_more_than_the_credit_is_a_protocol_error() -> None:
    window = new_window()
    window.spend(INITIAL_WINDOW)
    with pytest.raises(ProtocolError):
        window.spend(1)


def test_y9_credit_comes_back_once_half_of_the_window_was_read() -> None:
    window = new_window()
    window.spend(INITIAL_WINDOW)
    assert not window.consume(HALF - 1)
    assert window.consume(1)
    assert window.grant(1.0, None) == HALF
    assert window.credit == HALF


def test_y10_a_window_that_half_empties_within_four_round_trips_doubles() -> None:
    window = new_window()
    window.spend(HALF)
    window.consume(HALF)
    assert window.grant(0.39, 0.1) == HALF + INITIAL_WINDOW
    assert window.size == window.credit == 2 * INITIAL_WINDOW


def test_y10_a_window_that_takes_longer_keeps_its_size() -> None:
    window = new_window()
    window.spend(HALF)
    window.consume(HALF)
    assert window.grant(0.41, 0.1) == HALF
    assert window.size == INITIAL_WINDOW


def test_y10_a_window_does_not_grow_before_the_round_trip_is_known() -> None:
    window = new_window()
    window.consume(HALF)
    assert window.grant(0.0, None) == HALF


def test_a_bound_ends_the_growth_takes_nothing_back_and_stays() -> None:
    """relay.md, R21."""
    window = new_window()
    for bound in (3 * HALF, INITIAL_WINDOW, 64 * MIB):
        window.bound(bound)
        window.spend(window.credit)
        window.consume(window.size)
        window.grant(0.0, 0.1)
        assert window.size == window.credit == 3 * HALF


def test_y10_on_loopback_a_round_trip_counts_as_five_milliseconds() -> None:
    window = new_window()
    window.consume(HALF)
    window.grant(0.019, 0.0001)
    assert window.size == 2 * INITIAL_WINDOW


def grow(window: ReceiveWindow, times: int) -> None:
    for _ in range(times):
        window.spend(window.size // 2)
        window.consume(window.size // 2)
        window.grant(0.0, 0.1)


def test_y10_a_window_grows_to_its_maximum_and_no_further() -> None:
    window = new_window(max_size=MIB + 1)
    grow(window, 10)
    assert window.size == window.credit == MIB + 1


def test_y10_the_windows_of_a_connection_share_a_budget_and_give_it_back() -> None:
    budget = Budget(INITIAL_WINDOW + 100)
    first, second = (ReceiveWindow(budget, 16 * MIB, 0.0) for _ in range(2))
    grow(first, 1)
    grow(second, 5)
    assert first.size == 2 * INITIAL_WINDOW
    assert second.size == INITIAL_WINDOW + 100
    first.release()
    first.release()
    grow(second, 5)
    assert second.size == 2 * INITIAL_WINDOW + 100


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300_000)), max_size=60))
def test_credit_and_unread_and_consumed_fill_the_window_exactly(
    steps: list[tuple[bool, int]],
) -> None:
    window = new_window(budget=MIB)
    unread = 0
    for now, (arrives, amount) in enumerate(steps):
        if arrives:
            amount = min(amount, window.credit)
            window.spend(amount)
            unread += amount
        else:
            amount = min(amount, unread)
            unread -= amount
            if window.consume(amount):
                assert window.grant(now * 0.1, 0.1) > 0
        consumed = window.size - unread - window.credit
        assert 0 <= consumed < window.size / 2
        assert window.size <= INITIAL_WINDOW + MIB
