"""The states of the simulated internet's TCP: what each segment and each call leads to."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from p2pnet.testing.packet import Flags
from p2pnet.testing.tcp import State, TcpConnection
from tests.testing.tcp_script import (
    ACK,
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTABLISHED,
    FIN,
    FIN_WAIT_1,
    FIN_WAIT_2,
    LAST_ACK,
    NONE,
    RST,
    SYN,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    in_state,
    ours,
    theirs,
)

Event = Callable[[TcpConnection], object]


def arrives(flags: Flags, position: int = 1, ack: int = 1, data: bytes = b"") -> Event:
    return lambda connection: connection.receive(theirs(flags, position, ack, data), 1)


def connects(connection: TcpConnection) -> None:
    connection.connect(1)


def accepts(connection: TcpConnection) -> None:
    connection.accept(theirs(SYN, 0), 1)


def shuts_down(connection: TcpConnection) -> None:
    connection.shutdown(1)


def closes(connection: TcpConnection) -> None:
    connection.close(1)


def aborts(connection: TcpConnection) -> None:
    connection.abort(1)


TRANSITIONS: list[tuple[State, str, Event, State, list[str]]] = [
    (CLOSED, "connect", connects, SYN_SENT, ["SYN 0"]),
    (CLOSED, "accept", accepts, SYN_RECEIVED, ["SYN+ACK 0 1"]),
    (CLOSED, "shutdown", shuts_down, CLOSED, []),
    (CLOSED, "abort", aborts, CLOSED, []),
    (CLOSED, "a segment", arrives(ACK), CLOSED, []),
    (SYN_SENT, "SYN-ACK", arrives(SYN | ACK, 0), ESTABLISHED, ["ACK 1 1"]),
    (SYN_SENT, "SYN", arrives(SYN, 0), SYN_RECEIVED, ["SYN+ACK 0 1"]),
    (SYN_SENT, "SYN-ACK of something else", arrives(SYN | ACK, 0, 7), SYN_SENT, ["RST 7"]),
    (SYN_SENT, "ACK of something else", arrives(ACK, 9, 0), SYN_SENT, ["RST 0"]),
    (SYN_SENT, "ACK without SYN", arrives(ACK), SYN_SENT, []),
    (SYN_SENT, "FIN without SYN", arrives(FIN), SYN_SENT, []),
    (SYN_SENT, "RST that acknowledges", arrives(RST | ACK, 0), CLOSED, []),
    (SYN_SENT, "RST of something else", arrives(RST | ACK, 0, 2), SYN_SENT, []),
    (SYN_SENT, "RST without ACK", arrives(RST, 0), SYN_SENT, []),
    (SYN_SENT, "shutdown", shuts_down, CLOSED, []),
    (SYN_SENT, "close", closes, CLOSED, []),
    (SYN_SENT, "abort", aborts, CLOSED, []),
    (SYN_RECEIVED, "ACK", arrives(ACK), ESTABLISHED, []),
    (SYN_RECEIVED, "SYN-ACK", arrives(SYN | ACK, 0), ESTABLISHED, []),
    (SYN_RECEIVED, "the SYN again", arrives(SYN, 0), SYN_RECEIVED, ["SYN+ACK 0 1"]),
    (SYN_RECEIVED, "another SYN", arrives(SYN, 500), SYN_RECEIVED, ["ACK 1 1"]),
    (SYN_RECEIVED, "ACK of something else", arrives(ACK, 1, 5), SYN_RECEIVED, ["RST 5"]),
    (SYN_RECEIVED, "SYN-ACK of something else", arrives(SYN | ACK, 0, 5), SYN_RECEIVED, ["RST 5"]),
    (SYN_RECEIVED, "ACK far away", arrives(ACK, 5000), SYN_RECEIVED, ["ACK 1 1"]),
    (SYN_RECEIVED, "FIN", arrives(FIN | ACK), CLOSE_WAIT, ["ACK 1 2"]),
    (SYN_RECEIVED, "data", arrives(ACK, data=b"x"), ESTABLISHED, ["ACK 1 2"]),
    (SYN_RECEIVED, "shutdown", shuts_down, SYN_RECEIVED, []),
    (SYN_RECEIVED, "abort", aborts, CLOSED, ["ACK+RST 1 1"]),
    (ESTABLISHED, "data", arrives(ACK, data=b"x"), ESTABLISHED, ["ACK 1 2"]),
    (ESTABLISHED, "later data", arrives(ACK, 2, data=b"x"), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "FIN", arrives(FIN | ACK), CLOSE_WAIT, ["ACK 1 2"]),
    (ESTABLISHED, "data and FIN", arrives(FIN | ACK, data=b"x"), CLOSE_WAIT, ["ACK 1 3"]),
    (ESTABLISHED, "FIN after a gap", arrives(FIN | ACK, 2), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "SYN-ACK again", arrives(SYN | ACK, 0), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "no flags", arrives(NONE, data=b"x"), ESTABLISHED, []),
    (ESTABLISHED, "ACK", arrives(ACK), ESTABLISHED, []),
    (ESTABLISHED, "ACK of what was not sent", arrives(ACK, 1, 2), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "old ACK", arrives(ACK, 1, -6000), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "old data", arrives(ACK, 0, data=b"x"), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "data out of the window", arrives(ACK, 1001, 1, b"x"), ESTABLISHED, ["ACK 1 1"]),
    (ESTABLISHED, "shutdown", shuts_down, FIN_WAIT_1, ["ACK+FIN 1 1"]),
    (ESTABLISHED, "close", closes, FIN_WAIT_1, ["ACK+FIN 1 1"]),
    (ESTABLISHED, "abort", aborts, CLOSED, ["ACK+RST 1 1"]),
    (FIN_WAIT_1, "ACK of the FIN", arrives(ACK, 1, 2), FIN_WAIT_2, []),
    (FIN_WAIT_1, "FIN", arrives(FIN | ACK), CLOSING, ["ACK 2 2"]),
    (FIN_WAIT_1, "FIN and ACK", arrives(FIN | ACK, 1, 2), TIME_WAIT, ["ACK 2 2"]),
    (FIN_WAIT_1, "data", arrives(ACK, data=b"x"), FIN_WAIT_1, ["ACK 2 2"]),
    (FIN_WAIT_1, "abort", aborts, CLOSED, ["ACK+RST 2 1"]),
    (FIN_WAIT_2, "data", arrives(ACK, 1, 2, b"x"), FIN_WAIT_2, ["ACK 2 2"]),
    (FIN_WAIT_2, "FIN", arrives(FIN | ACK, 1, 2), TIME_WAIT, ["ACK 2 2"]),
    (FIN_WAIT_2, "close", closes, FIN_WAIT_2, []),
    (FIN_WAIT_2, "abort", aborts, CLOSED, ["ACK+RST 2 1"]),
    (CLOSE_WAIT, "shutdown", shuts_down, LAST_ACK, ["ACK+FIN 1 2"]),
    (CLOSE_WAIT, "close", closes, LAST_ACK, ["ACK+FIN 1 2"]),
    (CLOSE_WAIT, "the FIN again", arrives(FIN | ACK), CLOSE_WAIT, ["ACK 1 2"]),
    (CLOSE_WAIT, "data after the FIN", arrives(ACK, 2, 1, b"x"), CLOSE_WAIT, []),
    (CLOSE_WAIT, "abort", aborts, CLOSED, ["ACK+RST 1 2"]),
    (CLOSING, "ACK of the FIN", arrives(ACK, 2, 2), TIME_WAIT, []),
    (CLOSING, "the FIN again", arrives(FIN | ACK), CLOSING, ["ACK 2 2"]),
    (CLOSING, "abort", aborts, CLOSED, []),
    (LAST_ACK, "ACK of the FIN", arrives(ACK, 2, 2), CLOSED, []),
    (LAST_ACK, "ACK of less", arrives(ACK, 2, 1), LAST_ACK, []),
    (LAST_ACK, "abort", aborts, CLOSED, []),
    (TIME_WAIT, "the FIN again", arrives(FIN | ACK, 1, 2), TIME_WAIT, ["ACK 2 2"]),
    (TIME_WAIT, "close", closes, TIME_WAIT, []),
    (TIME_WAIT, "abort", aborts, CLOSED, []),
]


@pytest.mark.parametrize(
    ("state", "event", "after", "sends"),
    [
        pytest.param(state, event, after, sends, id=f"{state.value}: {name}")
        for state, name, event, after, sends in TRANSITIONS
    ],
)
def test_event_leads_to_a_state_and_segments(
    state: State, event: Event, after: State, sends: list[str]
) -> None:
    connection = in_state(state)
    event(connection)
    assert connection.state is after
    assert ours(connection) == sends


AFTER_SYN = [state for state in State if state not in (CLOSED, State.LISTEN, SYN_SENT)]


def expected(state: State) -> int:
    """The position the remote's next byte has in such a connection."""
    return 2 if state in (CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT) else 1


@pytest.mark.parametrize("state", AFTER_SYN)
def test_reset_with_the_expected_number_ends_the_connection(state: State) -> None:
    connection = in_state(state)
    arrives(RST, expected(state))(connection)
    assert connection.is_over
    assert not connection.is_open
    assert connection.error == (None if state is TIME_WAIT else errno.ECONNRESET)
    assert ours(connection) == []
    assert connection.deadline() is None


@pytest.mark.parametrize("state", AFTER_SYN)
def test_blind_reset_inside_the_window_is_only_challenged(state: State) -> None:
    connection = in_state(state)
    arrives(RST, expected(state) + 1)(connection)
    assert connection.state is state
    own = 1 if state in (SYN_RECEIVED, ESTABLISHED, CLOSE_WAIT) else 2
    assert ours(connection) == [f"ACK {own} {expected(state)}"]
    arrives(RST, expected(state) + 1)(connection)
    assert ours(connection) == []  # not so soon again


@pytest.mark.parametrize("state", AFTER_SYN)
@pytest.mark.parametrize("distance", [-1, 1000, 2**31 - 1])
def test_blind_reset_outside_the_window_is_ignored(state: State, distance: int) -> None:
    connection = in_state(state)
    arrives(RST, expected(state) + distance)(connection)
    assert connection.state is state
    assert ours(connection) == []


@pytest.mark.parametrize("state", [s for s in AFTER_SYN if s is not SYN_RECEIVED])
def test_syn_within_a_connection_is_challenged(state: State) -> None:
    connection = in_state(state)
    arrives(SYN, expected(state) + 3)(connection)
    assert connection.state is state
    own = 1 if state in (ESTABLISHED, CLOSE_WAIT) else 2
    assert ours(connection) == [f"ACK {own} {expected(state)}"]


def test_refused_dial_says_so() -> None:
    connection = in_state(SYN_SENT)
    arrives(RST | ACK, 0)(connection)
    assert connection.error == errno.ECONNREFUSED
    assert connection.is_over
    assert connection.deadline() is None


def test_reset_of_a_simultaneous_open_ends_it() -> None:
    connection = in_state(SYN_SENT)
    arrives(SYN, 0)(connection)
    arrives(RST, 1)(connection)
    assert connection.error == errno.ECONNRESET


def test_nothing_is_begun_by_closing_an_unused_connection() -> None:
    connection = in_state(CLOSED)
    closes(connection)
    assert not connection.is_open
    assert connection.deadline() is None
    assert ours(connection) == []


def test_answers_without_data_keep_a_pause_and_those_with_data_do_not() -> None:
    connection = in_state(ESTABLISHED)
    for at, answers in ((1.0, 1), (1.4, 0), (1.5, 1), (1.6, 0)):
        connection.receive(theirs(ACK, 0), at)
        assert len(ours(connection)) == answers
    for _ in range(3):
        connection.receive(theirs(ACK, 0, data=b"x"), 1.6)
        assert len(ours(connection)) == 1
