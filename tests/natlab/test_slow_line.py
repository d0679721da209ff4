"""A line that delays and loses packets."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.natlab.slow_line import MAX_PACKETS, Quality, SlowLine


def line(quality: Quality, seed: int = 0) -> SlowLine:
    return SlowLine(quality, Random(seed))


def packet(number: int) -> bytes:
    return number.to_bytes(4)


def test_a_packet_arrives_when_its_delay_is_over_and_not_before() -> None:
    slow = line(Quality(delay=0.5))
    assert slow.due() == float("inf")
    assert slow.enter(b"one", now=10.0) is None
    assert slow.due() == 10.5
    assert list(slow.leave(10.25)) == []
    assert list(slow.leave(10.5)) == [b"one"]
    assert slow.due() == float("inf")


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1), st.floats(0, 1)), max_size=30),
    st.integers(),
)
def test_no_packet_overtakes_another_or_is_too_early_whatever_changes(
    entries: list[tuple[float, float, float]], seed: int
) -> None:
    slow = line(Quality(), seed)
    now = 0.0
    earliest = []
    for number, (pause, delay, jitter) in enumerate(entries):
        now += pause
        slow.quality = Quality(delay, jitter)
        assert slow.enter(packet(number), now) is None
        earliest.append(now + delay)
    arrived: list[bytes] = []
    while (due := slow.due()) < float("inf"):
        for each in slow.leave(due):
            assert due >= earliest[len(arrived)]
            arrived.append(each)
    assert arrived == [packet(number) for number in range(len(entries))]


def test_jitter_makes_some_packets_later_but_none_more_than_it_says() -> None:
    slow = line(Quality(delay=1.0, jitter=0.5))
    dues = []
    for number in range(100):
        slow.enter(b"one", now=number * 10.0)
        dues.append(slow.due() - number * 10.0)
        assert list(slow.leave(number * 10.0 + 2)) == [b"one"]
    assert 1.0 <= min(dues) < 1.1
    assert 1.4 < max(dues) <= 1.5


def test_a_share_of_the_packets_is_lost_as_the_seed_says() -> None:
    def lost(seed: int) -> list[int]:
        slow = line(Quality(loss=0.25), seed)
        return [number for number in range(1000) if slow.enter(b"one", 0.0) is not None]

    assert 200 < len(lost(1)) < 300
    assert lost(1) == lost(1) != lost(2)


@pytest.mark.parametrize(("loss", "arriving"), [(0.0, 100), (1.0, 0)])
def test_a_line_loses_nothing_or_all_if_told_so(loss: float, arriving: int) -> None:
    slow = line(Quality(loss=loss))
    assert {slow.enter(b"one", 0.0) for _ in range(100)} == (
        {None} if arriving else {"lost on the line"}
    )
    assert len(list(slow.leave(0.0))) == arriving


def test_a_full_line_loses_what_comes() -> None:
    slow = line(Quality(delay=1.0))
    assert all(slow.enter(b"one", 0.0) is None for _ in range(MAX_PACKETS))
    assert slow.enter(b"more", 0.0) == "line full"
    assert len(list(slow.leave(1.0))) == MAX_PACKETS
    assert slow.enter(b"more", 1.0) is None


@pytest.mark.parametrize(
    "values", [(-1, 0, 0), (0, -1, 0), (0, 0, -0.1), (0, 0, 1.1), (float("nan"), 0, 0)]
)
def test_a_line_that_cannot_be_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no line"):
        Quality(*values)
