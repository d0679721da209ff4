"""The two conversations of AutoNAT v2, as pure coroutines. Rules: specs/autonat.md.

::

    client                                   server
      | -- DialRequest, addresses, nonce ----> |
      | <------ DialDataRequest, so much ----- |   if the address is at another IP
      | -- DialDataResponse, again and again > |   than the client
      |                                        |
      | <=== a connection of its own: DialBack, nonce ===
      | === DialBackResponse ==================>
      |                                        |
      | <---------------------- DialResponse - |

The last may come at any time, even before the request: a server that is busy does not read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from p2pnet.errors import ProtocolError
from p2pnet.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    MAX_DATA_BYTES,
    DialBack,
    DialBackMessage,
    DialBackResponse,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    Message,
    Status,
)

MAX_PAYMENT = 100_000
"""Bytes of data that a client pays for one dial at most."""
MIN_CHUNK = 100
"""Bytes of data in each message but the last."""


class Channel(Protocol):
    """Where a server speaks and listens."""

    async def send(self, message: Message, /) -> None: ...
    async def receive(self) -> Message: ...


class AskingChannel(Protocol):
    """Where a client speaks, and listens at the same time."""

    async def converse(self, messages: Iterable[Message], /) -> Message:
        """Send messages, one after the other, until an answer comes; return it."""
        ...


class DialBackChannel(Protocol):
    """A dial-back stream."""

    async def send(self, message: DialBackMessage, /) -> None: ...
    async def receive(self) -> DialBackMessage: ...


# ---- the client --------------------------------------------------------------------------


async def ask(
    channel: AskingChannel, request: DialRequest, pay: Callable[[int], None]
) -> DialResponse:
    """Ask a server to dial; pay what it wants for it (AN20, AN21).

    ``pay`` is called with the number of bytes before they are sent, and raises if they are
    not to be.

    Raises:
        ProtocolError: if the server breaks a rule, or wants too much.
    """
    answer = await channel.converse([request])
    if isinstance(answer, DialDataRequest):
        check_index(answer.index, request)
        if answer.num_bytes > MAX_PAYMENT:
            raise ProtocolError(DIAL_REQUEST, f"a demand for {answer.num_bytes} bytes of data")
        pay(answer.num_bytes)
        answer = await channel.converse(payment(answer.num_bytes))
    if not isinstance(answer, DialResponse):
        raise ProtocolError(DIAL_REQUEST, f"{type(answer).__name__} where DialResponse was due")
    if answer.status == Status.OK:
        check_index(answer.index, request)
    return answer


def check_index(index: int, request: DialRequest) -> None:
    """Refuse an address that was not offered; any that was will do (AN21)."""
    if index >= len(request.addresses):
        raise ProtocolError(DIAL_REQUEST, f"address {index} of {len(request.addresses)}")


def payment(num_bytes: int) -> Iterator[DialDataResponse]:
    """Cut a payment into messages that everybody reads."""
    for paid in range(0, num_bytes, MAX_DATA_BYTES):
        yield DialDataResponse(bytes(min(MAX_DATA_BYTES, num_bytes - paid)))


async def take_dial_back(channel: DialBackChannel, recognise: Callable[[int], bool]) -> bool:
    """Hear a nonce, and say so if it is one that we wait for (AN23).

    Raises:
        ProtocolError: if something else comes.
    """
    match await channel.receive():
        case DialBack(nonce):
            if not recognise(nonce):
                return False
            await channel.send(DialBackResponse())
            return True
        case DialBackResponse():
            raise ProtocolError(DIAL_BACK, "an answer where DialBack was due")


# ---- the server --------------------------------------------------------------------------


async def receive_request(channel: Channel) -> DialRequest:
    """Hear what a client wants.

    Raises:
        ProtocolError: if it says something else (AN10).
    """
    match await channel.receive():
        case DialRequest() as request:
            return request
        case other:
            name = type(other).__name__
            raise ProtocolError(DIAL_REQUEST, f"{name} where DialRequest was due")


async def collect(channel: Channel, demand: DialDataRequest) -> None:
    """Demand data, and wait until it is there (AN13).

    Raises:
        ProtocolError: if something else comes, or the data comes in drops.
    """
    await channel.send(demand)
    left = demand.num_bytes
    while left > 0:
        match await channel.receive():
            case DialDataResponse(data):
                if len(data) < min(left, MIN_CHUNK):
                    raise ProtocolError(DIAL_REQUEST, f"{len(data)} bytes of data in a message")
                left -= len(data)
            case other:
                name = type(other).__name__
                raise ProtocolError(DIAL_REQUEST, f"{name} where data was due")


async def deliver(channel: DialBackChannel, nonce: int) -> None:
    """Say the nonce to whoever was dialled, and wait until it is acknowledged (AN15).

    Raises:
        ProtocolError: if it is not.
    """
    await channel.send(DialBack(nonce))
    match await channel.receive():
        case DialBackResponse(status):
            if status != 0:
                raise ProtocolError(DIAL_BACK, f"dial-back answered with status {status}")
        case DialBack():
            raise ProtocolError(DIAL_BACK, "DialBack where an answer was due")
