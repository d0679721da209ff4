"""Messages over a connection, one a line; and over a datagram socket, one a datagram."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.probing.messages import (
    MAX_MESSAGE_BYTES,
    NAME,
    Message,
    decode_untrusted,
    encode,
)

LOST = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, ProtocolError)
"""What ends a conversation."""


class Lines:
    """A connection on which both sides speak lines."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def send(self, message: Message) -> None:
        await self._stream.send_all(encode(message) + b"\n")

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ProtocolError: if the line is too long or malformed.
            trio.EndOfChannel: at the end.
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_MESSAGE_BYTES:
                raise ProtocolError(NAME, "line without end")
            data = await self._stream.receive_some(MAX_MESSAGE_BYTES)
            if not data:
                raise trio.EndOfChannel
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        await trio.lowlevel.checkpoint()
        return decode_untrusted(bytes(line))

    async def drain(self, seconds: float) -> None:
        """Wait until the other side has closed, but not for ever."""
        with trio.move_on_after(seconds), suppress(*LOST):
            while True:
                await self.receive()


class Datagrams(Protocol):
    """What is needed of a UDP socket."""

    async def send(self, data: bytes, remote: Endpoint) -> None: ...
    async def receive(self) -> tuple[bytes, Endpoint]: ...


async def receive_datagram(socket: Datagrams) -> tuple[Message, Endpoint]:
    """Wait for the next datagram that is a message."""
    while True:
        data, source = await socket.receive()
        try:
            return decode_untrusted(data), source
        except ProtocolError:
            continue


async def send_datagram(socket: Datagrams, message: Message, remote: Endpoint) -> bool:
    """Send a message; False if the network would not even take it."""
    try:
        await socket.send(encode(message), remote)
    except OSError:
        return False
    return True
