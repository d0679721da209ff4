"""Rules Q26 to Q28: when the search goes on, and when it rests."""

from __future__ import annotations

from p2pnet.transports.quic.path_size import FIRST_PAUSE, RAISE_AFTER, PathSize


def probe(path: PathSize, now: float) -> int:
    return path.probe(now, round_trip=1.0, timeout=2.0)


def fail(path: PathSize, now: float, size: int) -> float:
    """Lose three probes of a size; return when the next may be sent."""
    for _ in range(3):
        assert probe(path, now) == size
        path.lost(size)
        now += 1
    return now


def fall(path: PathSize, now: float, number: int) -> None:
    assert [path.packet_missed(number + at, 1452, now) for at in range(3)] == [False, False, True]


def test_a_probe_waits_for_a_round_trip_and_for_the_one_before() -> None:
    """Q27."""
    path = PathSize(1232, 1452)
    assert probe(path, 0.0) == 1452
    assert probe(path, 1.5) == 0, "one is on its way"
    path.lost(1452)
    assert probe(path, 1.5) == 1452
    path.lost(1452)
    assert probe(path, 2.4) == 0, "too soon"
    assert probe(path, 2.5) == 1452


def test_a_probe_of_which_nothing_is_heard_is_lost_after_three_timeouts() -> None:
    """Q27: no timer does that, but whoever asks for the next one."""
    path = PathSize(1232, 1452)
    for now in (0.0, 6.0, 12.0):
        assert probe(path, now) == 1452
        assert probe(path, now + 5.9) == 0
    assert probe(path, 18.0) == 1342


def test_an_acknowledgement_that_comes_late_counts() -> None:
    """Q26: whatever arrives is carried."""
    path = PathSize(1232, 1452)
    now = fail(path, 0.0, 1452)
    path.acknowledged(1452)
    assert path.size == 1452
    assert probe(path, now) == 0


def test_a_search_that_ended_below_the_most_is_repeated() -> None:
    """Q28."""
    path = PathSize(1232, 1248)
    now = fail(path, 0.0, 1248)
    assert probe(path, now) == 0
    assert probe(path, now + RAISE_AFTER - 1) == 0
    assert probe(path, now + RAISE_AFTER) == 1248
    path.acknowledged(1248)
    assert probe(path, now + 10 * RAISE_AFTER) == 0, "there is nothing more to look for"


def test_each_black_hole_is_left_alone_for_twice_as_long() -> None:
    """Q28."""
    path, now, pause = PathSize(1232, 1452), 0.0, FIRST_PAUSE
    for number in range(0, 100, 10):
        assert probe(path, now) == 1452
        path.acknowledged(1452)
        fall(path, now, number)
        assert path.size == 1232
        assert probe(path, now + pause - 1) == 0
        now, pause = now + pause, min(2 * pause, RAISE_AFTER)
    assert pause == RAISE_AFTER


def test_small_packets_tell_nothing_of_a_black_hole() -> None:
    """Q28."""
    path = PathSize(1232, 1452)
    path.acknowledged(probe(path, 0.0))
    assert not any(path.packet_missed(number, 1232, 1.0) for number in range(9))
    path.packet_arrived(20, 1232)
    fall(path, 1.0, 10)
