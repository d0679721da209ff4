"""The conversation about a silence, as pure coroutines. Rules: specs/keepalive.md (KA7, KA8).

::

    asker                                server
      | -- seconds, 2 bytes -----------> |
      | <-- YES, or NOT_NOW ------------ |
      |                                  |    nobody says a word
      | <-- LIVED ---------------------- |
      |                                  |    if that did not come:
      | -- POKE -----------------------> |    opens the NAT again, and
      | <-- LIVED ---------------------- |    QUIC brings what was lost
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from p2pnet.errors import ProtocolError

PROTOCOL_ID = "/p2pnet/hold/1.0.0"
SECONDS_BYTES = 2
MAX_SECONDS = 90
NOT_NOW, YES, LIVED, POKE = b"\x00", b"\x01", b"\x02", b"\x03"
SETTLE = 0.5
"""Seconds for the last acknowledgements, before a silence is one; the server adds two of them."""


class Channel(Protocol):
    """Where the dialogue speaks and listens."""

    async def send(self, data: bytes, /) -> None: ...

    async def receive(self, count: int, /) -> bytes:
        """Return exactly so many bytes; StreamReset if the stream ended before."""
        ...


async def ask(channel: Channel, seconds: int) -> bool:
    """Ask to be told something after a silence; return whether that will be (KA7).

    Raises:
        ProtocolError: if the answer is none.
        StreamReset: if there is none.
    """
    await channel.send(seconds.to_bytes(SECONDS_BYTES, "big"))
    answer = await channel.receive(1)
    if answer not in (NOT_NOW, YES):
        raise ProtocolError(PROTOCOL_ID, f"neither yes nor no: {answer.hex()}")
    return answer == YES


async def hear(channel: Channel) -> None:
    """Wait for the word after the silence.

    Raises:
        ProtocolError: if it is another.
        StreamReset: if it does not come any more.
    """
    word = await channel.receive(1)
    if word != LIVED:
        raise ProtocolError(PROTOCOL_ID, f"another word than the one after a silence: {word.hex()}")


async def asked(channel: Channel) -> int:
    """Return how many seconds of silence are asked for (KA7).

    Raises:
        ProtocolError: if it is no time at all, or too long.
        StreamReset: if nothing is asked for.
    """
    seconds = int.from_bytes(await channel.receive(SECONDS_BYTES), "big")
    if not 1 <= seconds <= MAX_SECONDS:
        raise ProtocolError(PROTOCOL_ID, f"a silence of {seconds} s: 1 to {MAX_SECONDS} can be")
    return seconds


async def serve(channel: Channel, wait: Callable[[], Awaitable[None]] | None) -> None:
    """Say something when ``wait`` is over; None if that cannot be now (KA7, KA9)."""
    if wait is None:
        await channel.send(NOT_NOW)
        return
    await channel.send(YES)
    await wait()
    await channel.send(LIVED)
