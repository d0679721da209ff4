"""The four conversations of a relay, as pure coroutines. Rules: specs/relay.md.

::

    reserving peer          relay           source            relay             target
        | -- RESERVE ---------> |             | -- CONNECT ----> |                  |
        | <-- STATUS OK, ------ |             |                  | -- CONNECT ----> |
        |     reservation                     |                  | <-- STATUS OK -- |
                                              | <-- STATUS OK -- |                  |
                                              | <========= the circuit ===========> |

They await nothing but their channel. What the answers lead to is their callers' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError, RelayRefused
from p2pnet.protocols.relay.messages import (
    HOP,
    STOP,
    HopConnect,
    HopMessage,
    HopStatus,
    Limit,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
    status_name,
)

M = TypeVar("M")

HINTS = {
    int(Status.RESERVATION_REFUSED): "it has no room for this host: try another relay",
    int(
        Status.RESOURCE_LIMIT_EXCEEDED
    ): "too many circuits or requests: wait, or try another relay",
    int(Status.PERMISSION_DENIED): "it will not serve this host, or was asked over another relay",
    int(Status.CONNECTION_FAILED): "it could not hand the circuit to the peer: try again",
    int(Status.NO_RESERVATION): "the peer has no reservation there: is it running with --relay?",
    int(Status.MALFORMED_MESSAGE): "it could not read the request",
    int(Status.UNEXPECTED_MESSAGE): "it did not expect the request",
}


class Channel(Protocol[M]):
    """Where a dialogue speaks and listens."""

    async def send(self, message: M, /) -> None: ...
    async def receive(self) -> M: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A no: the status that goes on the wire, and the reason, which stays here."""

    status: Status
    reason: str
    limit: str = ""
    """The field of our config that says no; empty if none does."""


async def reserve(channel: Channel[HopMessage], relay: PeerId) -> tuple[Reservation, Limit | None]:
    """Ask a relay for a reservation; return it, with the limit of circuits (R7).

    Raises:
        RelayRefused: if it says no.
        ProtocolError: if it answers something else.
    """
    await channel.send(Reserve())
    answer = await receive_ok(channel, relay)
    if answer.reservation is None:
        raise ProtocolError(HOP, "OK without a reservation")
    return answer.reservation, answer.limit


async def connect(channel: Channel[HopMessage], relay: PeerId, target: PeerId) -> Limit | None:
    """Ask a relay for a circuit to ``target``; return the limit on it (R25).

    The next byte on the stream is the target's.

    Raises:
        RelayRefused: if it says no.
        ProtocolError: if it answers something else.
    """
    await channel.send(HopConnect(target))
    return (await receive_ok(channel, relay)).limit


async def receive_ok(channel: Channel[HopMessage], relay: PeerId) -> HopStatus:
    match await channel.receive():
        case HopStatus(status) as answer:
            if status != Status.OK:  # R4: a status that is new to us is a no as well
                raise RelayRefused(relay, status_name(status), HINTS.get(status, ""))
            return answer
        case other:
            raise ProtocolError(HOP, f"expected STATUS, got {type(other).__name__}")


async def receive_request(channel: Channel[HopMessage]) -> Reserve | HopConnect | Refusal:
    """Play the relay: hear what a peer wants, or why it cannot have it (R22)."""
    try:
        message = await channel.receive()
    except ProtocolError as error:
        return Refusal(Status.MALFORMED_MESSAGE, error.reason)
    match message:
        case HopStatus():
            return Refusal(Status.UNEXPECTED_MESSAGE, "STATUS where a request was due")
        case request:
            return request


async def offer(channel: Channel[StopMessage], source: PeerId, limit: Limit | None) -> int:
    """Play the relay: offer a circuit to its target; return the target's status (R19).

    Raises:
        ProtocolError: if it answers something else.
    """
    await channel.send(StopConnect(source, limit))
    match await channel.receive():
        case StopStatus(status):
            return status
        case other:
            raise ProtocolError(STOP, f"expected STATUS, got {type(other).__name__}")


async def receive_offer(channel: Channel[StopMessage]) -> StopConnect | Refusal:
    """Play the target: hear who is calling, or why that makes no sense (R22)."""
    try:
        message = await channel.receive()
    except ProtocolError as error:
        return Refusal(Status.MALFORMED_MESSAGE, error.reason)
    match message:
        case StopStatus():
            return Refusal(Status.UNEXPECTED_MESSAGE, "STATUS where CONNECT was due")
        case call:
            return call
