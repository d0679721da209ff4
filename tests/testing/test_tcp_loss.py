"""The TCP of the simulated internet on bad lines: repetition, its times, and congestion."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pnet.testing.packet import Segment
from p2pnet.testing.tcp import State, TcpConfig, TcpConnection
from tests.testing.tcp_script import (
    ACK,
    ESTABLISHED,
    FIN_WAIT_2,
    SYN,
    SYN_RECEIVED,
    SYN_SENT,
    in_state,
    ours,
    theirs,
)
from tests.testing.tcp_wire import LATENCY, Wire

ROUND_TRIP = 2 * LATENCY


def cut(_segment: Segment) -> tuple[float, ...]:
    return ()


def until_over(connection: TcpConnection) -> tuple[list[float], float]:
    """When it sent something, and when it gave up."""
    times = [0.0] if connection.segments_to_send() else []
    now = 0.0
    while (at := connection.deadline()) is not None:
        now = at
        connection.timeout(now)
        times += [now] * len(connection.segments_to_send())
    return times, now


# ---- timers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SYN_SENT, SYN_RECEIVED])
def test_syn_is_repeated_six_times(state: State) -> None:
    connection = TcpConnection(TcpConfig(), initial_sequence=0, max_segment=1460)
    if state is SYN_SENT:
        connection.connect(0)
    else:
        connection.accept(theirs(SYN, 0), 0)
    times, end = until_over(connection)
    assert times == [0, 1, 3, 7, 15, 31, 63]
    assert end == 63 + 60  # Linux, with 120 s as the longest timeout: 127
    assert connection.error == errno.ETIMEDOUT
    assert connection.is_over


def test_data_is_repeated_fifteen_times_with_doubling_pauses() -> None:
    connection = in_state(ESTABLISHED)  # after a round trip of 0 s: 0.2 s remain
    connection.write(b"x", 0)
    times, end = until_over(connection)
    assert len(times) == 16
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(times)]
    assert pauses[:9] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2]
    assert pauses[9:] == [60.0] * 6
    assert end - times[-1] == pytest.approx(60)
    assert connection.error == errno.ETIMEDOUT


def test_timer_follows_the_round_trips() -> None:
    """RFC 6298: 0.1 s measured once makes a variation of 0.05 s, so 0.3 s."""
    wire = Wire().open()
    wire.fate = cut
    wire.a.write(b"x", wire.now)
    deadline = wire.a.deadline()
    assert deadline is not None
    assert deadline - wire.now == pytest.approx(0.3)
    wire.a.timeout(deadline - 0.001)
    assert len(wire.a.segments_to_send()) == 1  # nothing was repeated yet


def test_longer_round_trips_make_a_longer_timer() -> None:
    connection = in_state(ESTABLISHED)
    now = 0.0
    for _ in range(60):
        connection.write(b"x", now)
        now += 2.0
        connection.receive(theirs(ACK, 1, 1 + connection_sent(connection)), now)
    connection.write(b"x", now)
    deadline = connection.deadline()
    assert deadline is not None
    assert deadline - now == pytest.approx(2.2, abs=0.01)


def connection_sent(connection: TcpConnection) -> int:
    return connection._sender.buffer.end - 1


def test_round_trip_of_what_was_repeated_is_not_measured() -> None:
    """Karn: the doubled timeout stays until something is acknowledged that was sent once."""
    connection = in_state(ESTABLISHED)
    connection.write(b"x", 0)
    connection.timeout(0.2)
    connection.receive(theirs(ACK, 1, 2), 0.5)
    connection.write(b"y", 1)
    assert connection.deadline() == pytest.approx(1.4)
    connection.receive(theirs(ACK, 1, 3), 1)
    connection.write(b"z", 1)
    assert connection.deadline() == pytest.approx(1.2)


def test_data_after_a_lost_syn_waits_three_seconds() -> None:
    """RFC 6298, rule 5.7, and RFC 5681: one segment to begin with."""
    connection = TcpConnection(TcpConfig(), initial_sequence=0, max_segment=1460)
    connection.connect(0)
    connection.timeout(1)
    connection.receive(Segment(SYN | ACK, 5, 1, 10_000, max_segment=1000), 1.1)
    connection.segments_to_send()
    connection.write(bytes(3000), 2)
    assert len(connection.segments_to_send()) == 1
    assert connection.deadline() == 5


def test_repetitions_without_an_answer_are_counted() -> None:
    connection = in_state(ESTABLISHED)
    connection.write(b"x", 0)
    assert connection.unanswered == 0
    connection.timeout(0.2)
    connection.timeout(0.7)
    assert connection.unanswered == 2
    connection.receive(theirs(ACK, 1, 2), 1)
    assert connection.unanswered == 0


def test_fin_is_repeated() -> None:
    connection = in_state(ESTABLISHED)
    connection.shutdown(0)
    ours(connection)
    connection.timeout(0.2)
    assert ours(connection) == ["ACK+FIN 1 1"]


def test_data_and_fin_are_repeated_together() -> None:
    connection = in_state(ESTABLISHED)
    connection.write(b"abc", 0)
    assert ours(connection) == ["ACK 1 1 +3"]
    connection.shutdown(0)
    assert ours(connection) == ["ACK+FIN 4 1"]
    connection.timeout(0.2)
    assert ours(connection) == ["ACK+FIN 1 1 +3"]


def test_no_timer_runs_while_nothing_is_under_way() -> None:
    for state in (State.CLOSED, ESTABLISHED, State.CLOSE_WAIT, FIN_WAIT_2):
        assert in_state(state).deadline() is None


def test_timeout_too_early_does_nothing() -> None:
    connection = in_state(SYN_SENT)
    connection.timeout(0.9)
    assert ours(connection) == []
    assert connection.deadline() == 1


# ---- zero window -----------------------------------------------------------------------------


def test_closed_window_is_probed_with_doubling_pauses() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2000), wire.now)
    began = wire.now
    wire.run(100)
    probes = [(at, segment) for at, end, segment in wire.sent if end is wire.a][1:]
    assert all(not segment.data for _, segment in probes)
    times = [at - began - ROUND_TRIP for at, _ in probes]
    assert times == pytest.approx([0.3, 0.9, 2.1, 4.5, 9.3, 18.9, 38.1, 76.5], abs=0.05)
    assert wire.b.read(1000, wire.now) == bytes(1000)
    wire.run(1)
    assert wire.b.readable == 1000
    assert wire.a.deadline() is None


def test_lost_window_update_is_made_good_by_a_probe() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2000), wire.now)
    wire.run(1)
    wire.fate = lambda segment: (0,) if segment.window < 1000 or segment.data else ()
    wire.b.read(1000, wire.now)
    wire.post()
    wire.fate = lambda segment: (0,)
    wire.run(10)
    assert wire.b.readable == 1000


def test_closed_window_of_a_remote_that_is_gone_ends_the_connection() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2000), wire.now)
    wire.run(1)
    wire.fate = cut
    wire.run()
    assert wire.a.error == errno.ETIMEDOUT


def test_remote_that_answers_may_keep_its_window_closed_as_long_as_it_likes() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2000), wire.now)
    wire.run(24 * 3600)
    assert wire.a.state is ESTABLISHED
    assert wire.a.deadline() is not None


def test_closed_connection_does_not_wait_for_ever_for_a_window() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2000), wire.now)
    wire.a.close(wire.now)
    wire.run()
    assert wire.is_over
    assert wire.b.error == errno.ECONNRESET


def test_window_that_closes_again_is_probed_anew_for_a_closed_connection() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(2500), wire.now)
    wire.run(2000)  # more probes than a closed connection may send
    wire.b.read(1000, wire.now)
    wire.run(10)
    wire.a.close(wire.now)
    wire.run(10)
    assert wire.states == (State.FIN_WAIT_1, ESTABLISHED)


def test_fin_waits_for_the_window() -> None:
    wire = Wire(TcpConfig(receive_bytes=1000)).open()
    wire.a.write(bytes(1000), wire.now)
    wire.a.shutdown(wire.now)
    wire.run(50)
    assert wire.states == (State.FIN_WAIT_1, ESTABLISHED)
    wire.b.read(1000, wire.now)
    wire.run(1)
    assert wire.states == (FIN_WAIT_2, State.CLOSE_WAIT)


# ---- anything may happen on the wire ---------------------------------------------------------

fates = st.lists(
    st.sampled_from([(0.0,), (0.0,), (0.0,), (), (0.07,), (0.3,), (0.0, 0.0), (0.0, 0.5), (2.5,)]),
    max_size=150,
)


class Script:
    """Apply one fate after another; when they run out all is well."""

    def __init__(self, fates: list[tuple[float, ...]]) -> None:
        self._fates = iter(fates)

    def __call__(self, _segment: Segment) -> tuple[float, ...]:
        return next(self._fates, (0,))


class Application:
    """Writes a text, shuts down, reads all, and closes when it has both ends."""

    def __init__(self, connection: TcpConnection, text: bytes, reads: int) -> None:
        self.connection = connection
        self.unsent = memoryview(text)
        self.reads = reads
        self.received = b""

    def act(self, now: float) -> bool:
        """Do what can be done; True if something was read."""
        connection = self.connection
        if connection.is_open and self.unsent:
            self.unsent = self.unsent[connection.write(self.unsent, now) :]
        if connection.is_open and not self.unsent:
            connection.shutdown(now)
        self.received += (data := connection.read(self.reads, now))
        if connection.at_end and not self.unsent:
            connection.close(now)
        return bool(data)


@settings(deadline=None, max_examples=300)
@given(
    fates=fates,
    simultaneous=st.booleans(),
    sizes=st.tuples(st.integers(0, 9000), st.integers(0, 9000)),
    buffers=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
    max_segment=st.integers(40, 1460),
    reads=st.integers(1, 5000),
)
@example([()] * 7, False, (1, 1), (100, 100), 100, 1)
@example([(0.0,), *[()] * 9], False, (1, 1), (100, 100), 100, 1)
@example([()] * 150, True, (500, 500), (100, 100), 100, 100)
@example(  # a window closed after a timeout, then an acknowledgement of what was sent before it
    [(0,), (0,), (0,), (0,), (0.3,), (0.3,), (0,), (0.07,), (0,), (0,), (0.3,), ()],
    True,
    (1, 50),
    (1, 3),
    40,
    1,
)
def test_what_is_lost_reordered_or_doubled_arrives_in_order_once(
    fates: list[tuple[float, ...]],
    simultaneous: bool,
    sizes: tuple[int, int],
    buffers: tuple[int, int],
    max_segment: int,
    reads: int,
) -> None:
    least = max(sizes) // 50  # so that no example takes more than some hundred segments
    reads += least
    config = TcpConfig(receive_bytes=buffers[0] + least, send_bytes=buffers[1] + least)
    wire = Wire(config, fate=Script(fates), max_segment=max_segment, simultaneous=simultaneous)
    texts = [bytes(i * factor % 251 for i in range(size)) for factor, size in enumerate(sizes, 3)]
    applications = [
        Application(wire.a, texts[0], reads),
        Application(wire.b, texts[1], reads),
    ]
    goes_on = True
    while goes_on:
        goes_on = wire.step()
        for application in applications:
            goes_on |= application.act(wire.now)
            assert application.connection.readable <= config.receive_bytes
    assert wire.is_over
    errors = [error for error in (wire.a.error, wire.b.error) if error is not None]
    for application, text in zip(applications, reversed(texts), strict=True):
        assert application.received == text[: len(application.received)]
        if not errors:
            assert len(application.received) == len(text)
    # Six lost SYNs in a row are needed for an error; a wire that is well brings none.
    assert not errors or fates.count(()) > 6
