"""The ping conversation, as pure coroutines. Rules: specs/ping.md.

::

    initiator                     responder
        | -- 32 bytes ------------> |
        | <-- the same 32 bytes --- |      again and again, until the
        | -- end of stream -------> |      initiator ends the stream
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from p2pnet.errors import ProtocolError

PROTOCOL_ID = "/ipfs/ping/1.0.0"
PING_BYTES = 32


class Channel(Protocol):
    """Where the dialogue speaks and listens, 32 bytes at a time."""

    async def send(self, ping: bytes, /) -> None: ...

    async def receive(self) -> bytes:
        """Return exactly 32 bytes; EOFError if the stream ended before the first."""
        ...


async def measure(channel: Channel, payload: bytes, now: Callable[[], float]) -> float:
    """Send one ping; return the seconds until it was back (PI1, PI2).

    Raises:
        ProtocolError: if something else came back.
        EOFError: if the stream ended instead.
    """
    sent = now()
    await channel.send(payload)
    answer = await channel.receive()
    seconds = now() - sent
    if answer != payload:  # PI2
        raise ProtocolError(PROTOCOL_ID, "the echo differs from the ping")
    return seconds


async def echo(channel: Channel) -> int:
    """Send every ping back until the initiator ends the stream; return how many came (PI3)."""
    echoed = 0
    while True:
        try:
            ping = await channel.receive()
        except EOFError:
            return echoed
        await channel.send(ping)
        echoed += 1
