"""The TCP of the simulated internet: how connections end, their windows, and garbage."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.testing.packet import Flags, Segment
from p2pnet.testing.tcp import State, TcpConfig, TcpConnection
from p2pnet.testing.tcp_states import answer_without_connection
from tests.testing.tcp_script import (
    ACK,
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    CONFIG,
    ESTABLISHED,
    FIN,
    FIN_WAIT_1,
    FIN_WAIT_2,
    RST,
    SYN,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    in_state,
    ours,
    theirs,
)
from tests.testing.tcp_wire import NEAR_THE_WRAP, Wire

# ---- shutdown and close ----------------------------------------------------------------------


def test_handshake_data_and_an_orderly_end() -> None:
    wire = Wire().open()
    assert wire.a.deadline() is wire.b.deadline() is None
    assert wire.a.write(b"hello" * 1000, wire.now) == 5000
    wire.run()
    assert wire.b.readable == 5000
    assert wire.b.read(7, wire.now) == b"hellohe"
    assert wire.b.read(10_000, wire.now) == (b"hello" * 1000)[7:]
    assert wire.b.read(10_000, wire.now) == b""
    wire.a.shutdown(wire.now)
    wire.run()
    assert wire.states == (FIN_WAIT_2, CLOSE_WAIT)
    assert wire.a.deadline() is wire.b.deadline() is None  # a half-open connection waits for ever
    assert wire.b.at_end
    assert wire.b.write(b"bye", wire.now) == 3
    wire.run()
    assert wire.a.read(10, wire.now) == b"bye"
    assert not wire.a.at_end
    wire.b.close(wire.now)
    wire.run(1)
    assert wire.states == (TIME_WAIT, CLOSED)
    assert wire.a.at_end
    wire.run(58.9)
    assert not wire.a.is_over
    wire.run(1)
    assert wire.is_over
    assert wire.a.error is wire.b.error is None


def test_ends_that_dial_at_the_same_time_meet() -> None:
    wire = Wire(simultaneous=True)
    assert wire.states == (SYN_SENT, SYN_SENT)
    wire.step()
    wire.step()
    assert wire.states == (SYN_RECEIVED, SYN_RECEIVED)
    wire.step()
    wire.step()
    assert wire.states == (ESTABLISHED, ESTABLISHED)
    flags = [str(segment.flags) for _, _, segment in wire.sent]
    assert flags == ["SYN", "SYN", "SYN+ACK", "SYN+ACK"]
    assert wire.a.write(b"punched", wire.now) == 7
    wire.run()
    assert wire.b.read(100, wire.now) == b"punched"


def test_fins_that_cross_end_in_closing_on_both_sides() -> None:
    wire = Wire().open()
    wire.a.close(wire.now)
    wire.b.close(wire.now)
    wire.step()
    wire.step()
    assert wire.states == (CLOSING, CLOSING)
    wire.run(1)
    assert wire.states == (TIME_WAIT, TIME_WAIT)
    wire.run()
    assert wire.is_over


def test_shutdown_during_the_handshake_sends_the_fin_after_it() -> None:
    connection = in_state(SYN_RECEIVED)
    assert connection.write(b"early", 0) == 5
    connection.shutdown(1)
    assert ours(connection) == []
    connection.receive(theirs(ACK), 1)
    assert connection.state is FIN_WAIT_1
    assert ours(connection) == ["ACK+FIN 1 1 +5"]


def test_nothing_can_be_written_after_shutdown() -> None:
    connection = in_state(ESTABLISHED)
    assert connection.send_room() == CONFIG.send_bytes
    connection.shutdown(1)
    assert connection.send_room() == 0
    assert connection.write(b"late", 1) == 0
    connection.shutdown(1)
    assert ours(connection) == ["ACK+FIN 1 1"]


def test_close_with_unread_data_resets() -> None:
    wire = Wire().open()
    wire.a.write(b"unread", wire.now)
    wire.run(1)
    wire.b.close(wire.now)
    assert wire.b.is_over
    wire.run()
    assert wire.a.is_over
    assert wire.a.error == errno.ECONNRESET


def test_close_in_time_wait_with_unread_data_resets_nothing() -> None:
    connection = in_state(FIN_WAIT_2)
    connection.receive(theirs(FIN | ACK, 1, 2, b"unread"), 1)
    ours(connection)
    connection.close(1)
    assert connection.state is TIME_WAIT
    assert ours(connection) == []
    assert connection.read(10, 1) == b""


def test_data_that_arrives_after_close_is_answered_with_a_reset() -> None:
    wire = Wire().open()
    wire.a.close(wire.now)
    wire.run(1)
    assert wire.states == (FIN_WAIT_2, CLOSE_WAIT)
    wire.b.write(b"too late", wire.now)
    wire.run(1)
    assert wire.is_over
    assert wire.b.error == errno.ECONNRESET
    assert wire.a.error is None


def test_closed_connection_takes_the_fin_of_the_remote() -> None:
    wire = Wire().open()
    wire.a.close(wire.now)
    wire.run(1)
    wire.b.close(wire.now)
    wire.run(1)
    assert wire.states == (TIME_WAIT, CLOSED)
    assert wire.b.error is None


@pytest.mark.parametrize("shut_down_first", [False, True])
def test_closed_connection_is_forgotten_if_the_remote_never_ends_it(shut_down_first: bool) -> None:
    connection = in_state(FIN_WAIT_2 if shut_down_first else ESTABLISHED)
    assert connection.deadline() is None
    connection.close(10)
    if not shut_down_first:
        connection.receive(theirs(ACK, ack=2), 10)
    ours(connection)
    assert connection.deadline() == 10 + CONFIG.fin_wait
    connection.timeout(69.9)
    assert not connection.is_over
    connection.timeout(70)
    assert connection.is_over
    assert connection.error is None
    assert ours(connection) == []


def test_repeated_fin_restarts_time_wait() -> None:
    connection = in_state(TIME_WAIT)
    assert connection.deadline() == CONFIG.time_wait
    connection.receive(theirs(FIN | ACK, 1, 2), 30)
    assert connection.deadline() == 30 + CONFIG.time_wait


def test_what_arrived_can_be_read_when_all_is_over() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(ACK, data=b"last words"), 1)
    connection.receive(theirs(RST, 11), 1)
    assert connection.is_over
    assert connection.read(100, 2) == b"last words"
    assert not connection.at_end
    assert connection.write(b"x", 2) == 0


def test_only_a_newer_syn_replaces_a_connection_in_time_wait() -> None:
    connection = in_state(TIME_WAIT)
    assert connection.is_replaceable_by(theirs(SYN, 3))
    assert not connection.is_replaceable_by(theirs(SYN, 2))
    assert not connection.is_replaceable_by(theirs(SYN | ACK, 3))
    assert not in_state(ESTABLISHED).is_replaceable_by(theirs(SYN, 3))


@pytest.mark.parametrize(
    ("segment", "answer"),
    [
        (Segment(SYN, 2**32 - 1), Segment(RST | ACK, 0, 0)),
        (Segment(SYN | FIN, 5, data=b"abc"), Segment(RST | ACK, 0, 10)),
        (Segment(ACK, 5, 77, data=b"abc"), Segment(RST, 77)),
        (Segment(RST, 5), None),
        (Segment(RST | ACK, 5, 6), None),
    ],
)
def test_segment_without_connection_is_answered_with_a_reset(
    segment: Segment, answer: Segment | None
) -> None:
    assert answer_without_connection(segment) == answer


# ---- segments and windows --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "largest"), [(0, 536), (1, 48), (-9, 48), (100, 100), (1460, 1460), (9000, 1460)]
)
def test_segments_are_no_larger_than_both_sides_like(told: int, largest: int) -> None:
    connection = in_state(SYN_SENT)
    connection.receive(replace(theirs(SYN | ACK, 0), max_segment=told), 0)
    ours(connection)
    connection.write(bytes(3000), 0)
    assert max(len(segment.data) for segment in connection.segments_to_send()) == largest


def test_syn_tells_the_largest_segment_and_the_window() -> None:
    connection = TcpConnection(CONFIG, initial_sequence=-1, max_segment=1400)
    connection.connect(0)
    (syn,) = connection.segments_to_send()
    assert (syn.max_segment, syn.window, syn.sequence) == (1400, 1000, 2**32 - 1)


def test_out_of_order_and_overlapping_data_is_put_in_order() -> None:
    connection = in_state(ESTABLISHED)
    text = b"abcdefghij"
    for start, end in ((6, 8), (2, 4), (8, 10), (3, 7), (0, 1)):
        connection.receive(theirs(ACK, 1 + start, 1, text[start:end]), 1)
    assert ours(connection) == ["ACK 1 1"] * 4 + ["ACK 1 2"]
    assert connection.readable == 1
    connection.receive(theirs(ACK, 1, 1, text[:3]), 1)
    assert ours(connection) == ["ACK 1 11"]
    assert connection.read(100, 1) == text


def test_fin_ahead_of_its_time_counts_when_the_gap_is_filled() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(FIN | ACK, 3, 1, b"c"), 1)
    assert not connection.at_end
    connection.receive(theirs(ACK, 1, 1, b"ab"), 1)
    assert ours(connection) == ["ACK 1 1", "ACK 1 5"]
    assert connection.state is CLOSE_WAIT
    assert connection.read(100, 1) == b"abc"
    assert connection.at_end


def test_no_more_is_taken_than_the_window_holds() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(ACK, 1, 1, bytes(1500)), 1)
    assert connection.readable == 1000
    (segment,) = connection.segments_to_send()
    assert segment.window == 0
    connection.receive(theirs(ACK, 1001, 1, b"probe"), 1)
    assert connection.readable == 1000
    assert len(ours(connection)) == 1
    connection.receive(theirs(FIN | ACK, 1001), 1)
    assert connection.state is ESTABLISHED  # there is no room for a FIN either


def test_acknowledgement_at_the_edge_of_a_full_window_is_taken() -> None:
    connection = in_state(ESTABLISHED)
    connection.write(b"x", 0)
    connection.receive(theirs(ACK, 1, 1, bytes(400)), 1)
    connection.receive(theirs(ACK, 1001, 2), 1)  # what is between was lost
    assert connection.deadline() is None


def test_reader_reopens_the_window_when_it_has_doubled() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(ACK, 1, 1, bytes(1000)), 1)
    ours(connection)
    connection.read(499, 1)
    assert connection.segments_to_send() == []  # not worth a segment
    connection.read(1, 1)
    (segment,) = connection.segments_to_send()
    assert segment.window == 500
    connection.read(499, 1)
    assert connection.segments_to_send() == []
    connection.read(1, 1)
    (segment,) = connection.segments_to_send()
    assert segment.window == 1000


def test_reader_of_little_does_not_make_segments() -> None:
    connection = in_state(ESTABLISHED, TcpConfig(receive_bytes=100_000))
    connection.receive(theirs(ACK, 1, 1, bytes(20_000)), 1)
    ours(connection)
    connection.read(20_000, 1)
    assert connection.segments_to_send() == []


def test_window_is_not_opened_by_crumbs() -> None:
    """RFC 9293, section 3.8.6.2.2: by half of the buffer or a segment at least."""
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(ACK, 1, 1, bytes(300)), 1)
    connection.read(300, 1)
    ours(connection)
    connection.receive(theirs(ACK, 301, 1, b"x"), 1)
    (segment,) = connection.segments_to_send()
    assert segment.window == 1000 - 301


def test_reading_after_the_fin_tells_the_remote_nothing() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(theirs(FIN | ACK, 1, 1, bytes(900)), 1)
    ours(connection)
    connection.read(900, 1)
    assert connection.segments_to_send() == []


def test_old_segment_does_not_bring_back_an_old_window() -> None:
    connection = in_state(ESTABLISHED)
    connection.receive(replace(theirs(ACK, 2, 1, b"b"), window=0), 0)
    connection.receive(replace(theirs(ACK, 1, 1, b"a"), window=5000), 0)
    ours(connection)
    connection.write(b"x", 0)
    assert ours(connection) == []


@pytest.mark.parametrize("name", ["receive_bytes", "send_bytes"])
@pytest.mark.parametrize("size", [0, -1, 2**30 + 1])
def test_buffers_that_cannot_work_are_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=name):
        TcpConfig(**{name: size})


def test_write_takes_what_there_is_room_for() -> None:
    connection = in_state(ESTABLISHED, TcpConfig(send_bytes=100))
    assert connection.write(memoryview(bytes(60)), 0) == 60
    assert connection.send_room() == 40
    assert connection.write(bytearray(60), 0) == 40
    assert connection.send_room() == 0
    connection.receive(theirs(ACK, 1, 101), 0)
    assert connection.send_room() == 100


def test_small_segments_are_not_cut_while_something_is_under_way() -> None:
    """RFC 9293, section 3.8.6.2.1: a window that is nearly full is not filled with crumbs."""
    connection = in_state(SYN_SENT)
    connection.receive(replace(theirs(SYN | ACK, 0), max_segment=1000, window=2300), 0)
    ours(connection)
    connection.write(bytes(5000), 0)
    assert ours(connection) == ["ACK 1 1 +1000", "ACK 1001 1 +1000"]
    connection.receive(replace(theirs(ACK, 1, 2001), window=300), 0)
    assert ours(connection) == ["ACK 2001 1 +300"]


# ---- anything at all -------------------------------------------------------------------------

near = st.integers(-3000, 3000)
numbers = st.one_of(near, st.integers(), near.map(lambda n: n + NEAR_THE_WRAP))
garbage = st.builds(
    Segment,
    st.sampled_from([Flags(value) for value in range(16)]),
    numbers,
    numbers,
    st.one_of(st.integers(), st.integers(0, 3000)),
    st.binary(max_size=50).map(lambda data: data * 30),
    st.one_of(st.just(0), st.integers()),
)
calls = st.sampled_from(
    ["write", "read", "shutdown", "close", "abort", "timeout", "timeout", "timeout"]
)


@given(
    st.sampled_from([state for state in State if state is not State.LISTEN]),
    st.lists(st.one_of(garbage, garbage, calls), max_size=40),
)
def test_whatever_arrives_a_connection_never_raises(
    state: State, events: list[Segment | str]
) -> None:
    connection = in_state(state)
    now = 0.0
    for event in events:
        was_over = connection.is_over
        if isinstance(event, Segment):
            connection.receive(event, now)
        elif event == "timeout":
            now = max(connection.deadline() or now, now)
            connection.timeout(now)
        elif event == "write":
            connection.write(bytes(2000), now)
        elif event == "read":
            connection.read(300, now)
        elif event == "shutdown":
            connection.shutdown(now)
        elif event == "close":
            connection.close(now)
        else:
            connection.abort(now)
        sent = connection.segments_to_send()
        assert connection.readable <= CONFIG.receive_bytes
        assert not (was_over and sent)
        assert not (connection.is_over and connection.is_open)
        for segment in sent:
            assert 0 <= segment.sequence < 2**32
            assert 0 <= segment.acknowledgement < 2**32
            assert 0 <= segment.window <= CONFIG.receive_bytes
        if connection.is_over:
            assert connection.deadline() is None
            assert connection.send_room() == 0
