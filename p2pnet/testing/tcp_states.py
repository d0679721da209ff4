"""The states of a TCP connection, and what is answered where there is none.

::

                     connect()                       accept(syn)
        CLOSED ───────────────▶ SYN_SENT                 │
                                 │     │ SYN             ▼
                         SYN-ACK │     └───────▶ SYN_RECEIVED
                                 ▼                       │ ACK, or SYN-ACK of a remote
                            ESTABLISHED ◀────────────────┘ that dialled at the same time
              shutdown() │               │ FIN
                         ▼               ▼
                    FIN_WAIT_1       CLOSE_WAIT
            ACK │    │ FIN               │ shutdown()
                ▼    ▼                   ▼
        FIN_WAIT_2  CLOSING          LAST_ACK
            FIN │    │ ACK               │ ACK
                ▼    ▼                   ▼
               TIME_WAIT ────────────▶ CLOSED
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from p2pnet.testing.packet import Flags, Segment


class State(Enum):
    """RFC 9293, section 3.3.2."""

    CLOSED = "CLOSED"
    LISTEN = "LISTEN"
    """Not of a connection, but of the socket its SYN comes to."""
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"


HANDSHAKE = (State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED)
TAKES_DATA = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)
AFTER_BOTH_FINS = (State.CLOSING, State.LAST_ACK, State.TIME_WAIT)

AFTER_SHUTDOWN: Mapping[State, State] = {
    State.ESTABLISHED: State.FIN_WAIT_1,
    State.CLOSE_WAIT: State.LAST_ACK,
}
AFTER_FIN: Mapping[State, State] = {
    State.ESTABLISHED: State.CLOSE_WAIT,
    State.FIN_WAIT_1: State.CLOSING,
    State.FIN_WAIT_2: State.TIME_WAIT,
}
AFTER_FIN_ACKNOWLEDGED: Mapping[State, State] = {
    State.FIN_WAIT_1: State.FIN_WAIT_2,
    State.CLOSING: State.TIME_WAIT,
    State.LAST_ACK: State.CLOSED,
}


def answer_without_connection(segment: Segment) -> Segment | None:
    """Return the RST for a segment that belongs to no connection; None if it is a RST itself."""
    if Flags.RST in segment.flags:
        return None
    if Flags.ACK in segment.flags:
        return Segment(Flags.RST, segment.acknowledgement % 2**32)
    length = len(segment.data) + (Flags.SYN in segment.flags) + (Flags.FIN in segment.flags)
    return Segment(Flags.RST | Flags.ACK, 0, (segment.sequence + length) % 2**32)
