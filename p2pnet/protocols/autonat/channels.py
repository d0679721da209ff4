"""The streams of AutoNAT v2, as channels for its dialogues."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from p2pnet.core.channel import MessageChannel
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import PeerLeft, StreamReset
from p2pnet.interfaces import Stream
from p2pnet.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    MAX_DIAL_BACK_BYTES,
    MAX_MESSAGE_BYTES,
    DialBack,
    DialBackMessage,
    DialBackResponse,
    Message,
    decode_dial_back_response_untrusted,
    decode_dial_back_untrusted,
    decode_message_untrusted,
    encode_dial_back,
    encode_dial_back_response,
    encode_message,
)


def request_channel(stream: Stream) -> MessageChannel[Message]:
    return MessageChannel(
        stream,
        DIAL_REQUEST,
        encode=encode_message,
        decode=decode_message_untrusted,
        max_bytes=MAX_MESSAGE_BYTES,
    )


class Conversation:
    """A dial-request stream as its client uses it: what it sends may be cut short."""

    def __init__(self, stream: Stream) -> None:
        self._channel = request_channel(stream)

    async def converse(self, messages: Iterable[Message], /) -> Message:
        """Send messages until an answer comes: a server may have enough before all are sent."""
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, messages)
                answer = await self._channel.receive()
                nursery.cancel_scope.cancel()
        return answer

    async def _send(self, messages: Iterable[Message]) -> None:
        try:
            for message in messages:
                await self._channel.send(message)
        except trio.BrokenResourceError:
            # Whoever reads no more may have answered before; else receiving fails as well.
            await trio.lowlevel.checkpoint()


def encode_either(message: DialBackMessage) -> bytes:
    match message:
        case DialBack():
            return encode_dial_back(message)
        case DialBackResponse():
            return encode_dial_back_response(message)


def heard_by_server(data: bytes) -> DialBackMessage:
    return decode_dial_back_response_untrusted(data)


def heard_by_client(data: bytes) -> DialBackMessage:
    return decode_dial_back_untrusted(data)


def dial_back_channel(stream: Stream, *, is_server: bool) -> MessageChannel[DialBackMessage]:
    """Make a channel for one side: only the side tells which of two messages some bytes are."""
    return MessageChannel(
        stream,
        DIAL_BACK,
        encode=encode_either,
        decode=heard_by_server if is_server else heard_by_client,
        max_bytes=MAX_DIAL_BACK_BYTES,
    )


class Telling:
    """A dial-back stream as its server uses it."""

    def __init__(self, stream: Stream) -> None:
        self._channel = dial_back_channel(stream, is_server=True)

    async def send(self, message: DialBackMessage, /) -> None:
        await self._channel.send(message)

    async def receive(self) -> DialBackMessage:
        """Wait for the answer. Raises ProtocolError."""
        try:
            return await self._channel.receive()
        except (StreamReset, PeerLeft):
            # rust-libp2p lets go of the stream once it has answered, which yamux makes a reset,
            # and that takes back the answer (AN15); so does QUIC with one that lets go of all.
            return DialBackResponse()
