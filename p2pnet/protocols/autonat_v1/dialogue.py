"""The AutoNAT v1 conversation, as pure coroutines. Rules: specs/autonat-v1.md.

::

    client                                      server
      | -- DIAL, who and where I am ------------> |
      | <=================== dials, as a stranger |
      | <------- DIAL_RESPONSE, what came of it - |
"""

from __future__ import annotations

from typing import Protocol

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.protocols.autonat_v1.messages import (
    PROTOCOL_ID,
    Dial,
    DialResponse,
    Message,
    Status,
)


class Channel(Protocol):
    """Where a dialogue speaks and listens."""

    async def send(self, message: Message, /) -> None: ...

    async def receive(self) -> Message: ...


async def ask(channel: Channel, own_id: PeerId, addresses: tuple[Multiaddr, ...]) -> DialResponse:
    """Play the client: ask to be dialled, and return the answer.

    Raises:
        ProtocolError: if it is none.
    """
    await channel.send(Dial(own_id, addresses))
    match await channel.receive():
        case DialResponse() as response:
            return response
        case Dial():
            raise ProtocolError(PROTOCOL_ID, "DIAL where DIAL_RESPONSE was due")


async def hear(channel: Channel, asker: PeerId) -> Dial | DialResponse:
    """Play the server: hear a request of ``asker``; return it, or the answer if it is bad (AO5)."""
    try:
        message = await channel.receive()
    except ProtocolError as error:
        return bad_request(error.reason)
    match message:
        case DialResponse():
            return bad_request("DIAL_RESPONSE where DIAL was due")
        case Dial(peer_id) as request:
            if peer_id != asker:
                return bad_request("that is not the peer that asks")
            return request


def bad_request(reason: str) -> DialResponse:
    return DialResponse(Status.E_BAD_REQUEST, reason)
