"""One TCP connection and a script: what its remote says, and what it says itself, by positions."""

from __future__ import annotations

from p2pnet.testing.packet import Flags, Segment
from p2pnet.testing.tcp import State, TcpConfig, TcpConnection

OURS, THEIRS = 2**32 - 2, 2**32 - 1
"""Both wrap within the handshake or shortly after."""
SYN, ACK, FIN, RST, NONE = Flags.SYN, Flags.ACK, Flags.FIN, Flags.RST, Flags.NONE
CONFIG = TcpConfig(receive_bytes=1000)

CLOSED, SYN_SENT, SYN_RECEIVED = State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED
ESTABLISHED, CLOSE_WAIT, LAST_ACK = State.ESTABLISHED, State.CLOSE_WAIT, State.LAST_ACK
FIN_WAIT_1, FIN_WAIT_2 = State.FIN_WAIT_1, State.FIN_WAIT_2
CLOSING, TIME_WAIT = State.CLOSING, State.TIME_WAIT


def theirs(flags: Flags, position: int = 1, ack: int = 1, data: bytes = b"") -> Segment:
    """A segment of the remote, by positions."""
    return Segment(
        flags,
        (THEIRS + position) % 2**32,
        (OURS + ack) % 2**32 if ACK in flags else 0,
        window=5000,
        data=data,
        max_segment=100 if SYN in flags else 0,
    )


def ours(connection: TcpConnection) -> list[str]:
    """What goes out, by positions: flags, own position, acknowledged position, length."""
    out = []
    for segment in connection.segments_to_send():
        position = (segment.sequence - OURS) % 2**32
        text = f"{segment.flags} {position}"
        if ACK in segment.flags:
            text += f" {(segment.acknowledgement - THEIRS) % 2**32}"
        out.append(text + (f" +{len(segment.data)}" if segment.data else ""))
    return out


def in_state(state: State, config: TcpConfig = CONFIG) -> TcpConnection:
    """A connection that has come to a state without any data, at time 0."""
    connection = TcpConnection(config, initial_sequence=OURS, max_segment=1460)
    if state is State.CLOSED:
        return connection
    if state is State.SYN_RECEIVED:
        connection.accept(theirs(SYN, 0), 0)
    else:
        connection.connect(0)
    if state not in (State.SYN_SENT, State.SYN_RECEIVED):
        connection.receive(theirs(SYN | ACK, 0), 0)
    if state in (State.CLOSE_WAIT, State.LAST_ACK):
        connection.receive(theirs(FIN | ACK), 0)
    if state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.LAST_ACK):
        connection.shutdown(0)
    if state is State.FIN_WAIT_2:
        connection.receive(theirs(ACK, ack=2), 0)
    if state is State.CLOSING:
        connection.receive(theirs(FIN | ACK), 0)
    if state is State.TIME_WAIT:
        connection.shutdown(0)
        connection.receive(theirs(FIN | ACK, ack=2), 0)
    connection.segments_to_send()
    assert connection.state is state
    return connection
