"""How the simulated internet's TCP finds losses, and how much it has in flight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pnet.testing.packet import Segment
from p2pnet.testing.tcp import TcpConfig, TcpConnection
from p2pnet.testing.tcp_congestion import CongestionWindow, RetransmissionTimeout
from tests.testing.tcp_script import (
    ACK,
    ESTABLISHED,
    FIN,
    SYN_RECEIVED,
    in_state,
    ours,
    theirs,
)
from tests.testing.tcp_wire import LATENCY, Wire

ROUND_TRIP = 2 * LATENCY


class Losing:
    """Lose the segments of data that are named by their number, counted from 0."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = set(numbers)
        self.seen = 0

    def __call__(self, segment: Segment) -> tuple[float, ...]:
        if not segment.data:
            return (0,)
        self.seen += 1
        return () if self.seen - 1 in self.numbers else (0,)


def flights(wire: Wire) -> list[int]:
    """How many segments of data ``a`` sent at each moment."""
    at = [round(time, 6) for time, end, segment in wire.sent if end is wire.a and segment.data]
    return [at.count(time) for time in dict.fromkeys(at)]


def test_first_flight_has_ten_segments_and_each_next_twice_as_many() -> None:
    wire = Wire().open()
    wire.a.write(bytes(1460 * 150), wire.now)
    wire.run()
    assert flights(wire) == [10, 20, 40, 80]


def test_one_lost_segment_is_repeated_after_three_duplicates_without_the_timer() -> None:
    wire = Wire(fate=(losing := Losing(2))).open()
    began = wire.now
    wire.a.write(bytes(1460 * 10), wire.now)
    wire.run()
    assert losing.seen == 11
    assert wire.b.readable == 14_600
    assert wire.now - began == pytest.approx(2 * ROUND_TRIP)


def test_two_lost_segments_of_a_flight_take_a_round_trip_each() -> None:
    """RFC 6582: a partial acknowledgement repeats the next hole at once."""
    wire = Wire(fate=(losing := Losing(2, 6))).open()
    began = wire.now
    wire.a.write(bytes(1460 * 10), wire.now)
    wire.run()
    assert losing.seen == 12
    assert wire.b.readable == 14_600
    assert wire.now - began == pytest.approx(3 * ROUND_TRIP)


def test_first_two_duplicates_let_new_segments_out() -> None:
    """RFC 3042: else a window of four segments would never see three duplicates."""
    wire = Wire(TcpConfig(initial_window_segments=3), fate=(losing := Losing(0))).open()
    began = wire.now
    wire.a.write(bytes(1460 * 6), wire.now)
    wire.run()
    assert wire.b.readable == 1460 * 6
    assert losing.seen == 7
    assert wire.now - began == pytest.approx(3 * ROUND_TRIP)


def test_loss_halves_the_window() -> None:
    wire = Wire(fate=Losing(30)).open()
    wire.a.write(bytes(1460 * 300), wire.now)
    wire.run()
    assert wire.b.readable == 1460 * 300
    sent = flights(wire)
    assert sent[:3] == [10, 20, 40]
    # 70 were in flight at most when the loss of the third flight showed.
    assert max(sent[4:]) <= 41


def test_timeout_begins_again_with_one_segment() -> None:
    wire = Wire(fate=Losing(*range(10))).open()
    wire.a.write(bytes(1460 * 30), wire.now)
    wire.run()
    assert flights(wire)[:5] == [10, 1, 2, 4, 5]  # half of what was lost ends the slow start
    assert wire.b.readable == 1460 * 30


def test_after_a_pause_the_first_flight_is_small_again() -> None:
    wire = Wire().open()
    wire.a.write(bytes(1460 * 70), wire.now)
    wire.run()
    wire.run(10)
    wire.sent.clear()
    wire.now += 10
    wire.a.write(bytes(1460 * 70), wire.now)
    wire.run()
    assert flights(wire)[0] == 10


def test_long_fat_path_can_be_filled() -> None:
    """25 MB are in flight on 1 Gbit/s with 200 ms."""
    size = 64 * 2**20
    wire = Wire(TcpConfig(send_bytes=size, receive_bytes=size), max_segment=60_000).open()
    data, received = bytes(size), 0
    assert wire.a.write(data, wire.now) == size
    while received < 40 * 2**20:
        wire.step()
        received += len(wire.b.read(size, wire.now))
    in_flight = wire.a._sender.highest - wire.a._sender.unacknowledged
    assert in_flight > 25 * 10**6


# ---- one side, step by step ------------------------------------------------------------------


def writing(size: int) -> TcpConnection:
    """A connection that has sent so many bytes at time 0, in segments of 100."""
    connection = in_state(ESTABLISHED)
    connection.write(bytes(size), 0)
    assert sum(len(segment.data) for segment in connection.segments_to_send()) == size
    return connection


def say(connection: TcpConnection, segment: Segment, now: float = 0.05) -> list[str]:
    connection.receive(segment, now)
    return ours(connection)


def test_third_duplicate_repeats_the_first_segment_and_lets_new_ones_out() -> None:
    connection = writing(1000)
    connection.write(bytes(500), 0)
    assert say(connection, theirs(ACK)) == ["ACK 1001 1 +100"]
    assert say(connection, theirs(ACK)) == ["ACK 1101 1 +100"]
    assert say(connection, theirs(ACK)) == ["ACK 1 1 +100"]
    # Half of 12 segments, and 3, and 1 for each more: 12 are in flight.
    assert [say(connection, theirs(ACK)) for _ in range(3)] == [[], [], []]
    assert say(connection, theirs(ACK)) == ["ACK 1201 1 +100"]


@pytest.mark.parametrize(
    "segment",
    [
        pytest.param(theirs(ACK, 50, 1, b"x"), id="data"),
        pytest.param(theirs(FIN | ACK, 50), id="FIN"),
    ],
)
def test_what_is_more_than_an_acknowledgement_is_no_duplicate(segment: Segment) -> None:
    connection = writing(1000)
    for _ in range(4):
        assert say(connection, segment) == ["ACK 1001 1"]


def test_news_of_the_window_is_no_duplicate() -> None:
    connection = writing(1000)
    for window in (6000, 7000, 8000, 9000):
        assert say(connection, replace(theirs(ACK), window=window)) == []


def test_duplicates_after_a_timeout_mean_nothing() -> None:
    connection = writing(1000)
    connection.timeout(0.2)
    assert ours(connection) == ["ACK 1 1 +100"]
    for _ in range(4):
        assert say(connection, theirs(ACK), 0.3) == []


def test_round_trip_of_a_flight_with_a_loss_is_not_measured() -> None:
    connection = writing(1000)
    for _ in range(3):
        say(connection, theirs(ACK))
    say(connection, theirs(ACK, 1, 1001), 0.15)
    connection.write(b"x", 1)
    assert connection.deadline() == pytest.approx(1.2)


def test_segment_that_repeats_old_bytes_and_brings_new_ones_is_not_measured() -> None:
    connection = writing(950)
    connection.write(bytes(100), 0)
    assert ours(connection) == []  # there is room for half of it only
    connection.timeout(0.2)
    assert ours(connection) == ["ACK 1 1 +100"]
    assert say(connection, theirs(ACK, 1, 901), 0.3) == ["ACK 901 1 +100", "ACK 1001 1 +50"]
    say(connection, theirs(ACK, 1, 1001), 0.31)
    assert connection.deadline() == pytest.approx(0.31 + 0.4)


def test_only_the_first_partial_acknowledgement_restarts_the_timer() -> None:
    """RFC 6582, section 4: "impatient"."""
    connection = writing(1000)
    for _ in range(3):
        say(connection, theirs(ACK))
    assert say(connection, theirs(ACK, 1, 101), 0.1) == ["ACK 101 1 +100"]
    deadline = connection.deadline()
    assert deadline == pytest.approx(0.3)
    assert say(connection, theirs(ACK, 1, 201), 0.15) == ["ACK 201 1 +100"]
    assert connection.deadline() == deadline


def test_recovery_repeats_the_fin_with_the_last_segment() -> None:
    connection = in_state(SYN_RECEIVED)
    connection.write(bytes(500), 0)
    connection.shutdown(0)
    assert say(connection, theirs(ACK))[-1] == "ACK+FIN 401 1 +100"
    for _ in range(2):
        say(connection, theirs(ACK))
    assert say(connection, theirs(ACK)) == ["ACK 1 1 +100"]
    assert say(connection, theirs(ACK, 1, 401)) == ["ACK+FIN 401 1 +100"]


def test_acknowledgement_and_reset_stand_after_all_that_was_ever_sent() -> None:
    connection = writing(1000)
    connection.timeout(0.2)
    ours(connection)
    assert say(connection, theirs(ACK, 1, 1, b"x"), 0.3) == ["ACK 1001 2"]
    connection.read(1, 1)
    connection.abort(1)
    assert ours(connection) == ["ACK+RST 1001 2"]


# ---- the rules by themselves -----------------------------------------------------------------


def test_timeout_is_never_longer_than_the_longest() -> None:
    timeout = RetransmissionTimeout(TcpConfig())
    timeout.sample(100)
    assert timeout.seconds == 60
    timeout.back_off()
    assert timeout.seconds == 60


def test_variation_of_the_round_trips_lengthens_the_timeout() -> None:
    """RFC 6298, rules 2.2 and 2.3, by hand."""
    timeout = RetransmissionTimeout(TcpConfig())
    timeout.sample(1.0)
    assert timeout.seconds == pytest.approx(1.0 + 4 * 0.5)
    timeout.sample(2.0)
    assert timeout.seconds == pytest.approx(1.125 + 4 * (0.75 * 0.5 + 0.25 * 1.0))


def test_window_grows_by_a_segment_in_a_round_trip_after_a_loss() -> None:
    window = CongestionWindow(TcpConfig(), 100)
    window.enter_recovery(1000)
    assert window.size == 800
    window.leave_recovery(5000)
    assert window.size == 500
    for _ in range(4):
        window.grow(100, 500)
    assert window.size == 500
    window.grow(100, 500)
    assert window.size == 600


def test_window_does_not_grow_while_it_is_not_used() -> None:
    window = CongestionWindow(TcpConfig(), 100)
    window.grow(100, 500)
    assert window.size == 1000
    window.grow(100, 501)
    assert window.size == 1100
    window.collapse(1000, again=False)
    for _ in range(4):
        window.grow(100, window.size)
    assert window.size == 500
    window.grow(100_000, 400)
    assert window.size == 500


def test_recovery_ends_without_a_burst() -> None:
    window = CongestionWindow(TcpConfig(), 100)
    window.enter_recovery(1000)
    window.leave_recovery(0)
    assert window.size == 200


def test_partial_acknowledgement_takes_what_left_and_gives_a_segment() -> None:
    window = CongestionWindow(TcpConfig(), 100)
    window.enter_recovery(1000)
    window.partial(300)
    assert window.size == 600
    window.partial(50)
    assert window.size == 550
    window.partial(5000)
    assert window.size == 200


def test_second_timeout_of_a_segment_does_not_halve_again() -> None:
    window = CongestionWindow(TcpConfig(), 100)
    window.collapse(1000, again=False)
    window.collapse(100, again=True)
    assert window.size == 100
    for size in (200, 300, 400, 500, 500):
        window.grow(100, window.size)
        assert window.size == size
