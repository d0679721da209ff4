"""MessageChannel: length-prefixed messages on a trio stream, for dialogues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.errors import ProtocolError

M = TypeVar("M")


async def read_frame(stream: trio.abc.ReceiveStream, *, max_bytes: int, protocol_id: str) -> bytes:
    """Read one length-prefixed message, and not a byte beyond it.

    What follows may belong to another layer (a relayed connection, for one).

    Raises:
        ProtocolError: if the message is larger than ``max_bytes``, or the stream ends within it.
        EOFError: if the stream ended before it.
    """
    decoder = FrameDecoder(max_bytes, protocol_id)
    begun = False
    while True:
        data = await stream.receive_some(decoder.wanted())
        if not data:
            if begun:
                raise ProtocolError(protocol_id, "the stream ended within a message")
            raise EOFError("the stream ended")
        begun = True
        decoder.feed(bytes(data))
        frame = decoder.next_frame()
        if frame is not None:
            return frame


class MessageChannel(Generic[M]):
    """Sends and receives the messages of one protocol; knows nothing of their meaning."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        protocol_id: str,
        *,
        encode: Callable[[M], bytes],
        decode: Callable[[bytes], M],
        max_bytes: int,
    ) -> None:
        self._stream = stream
        self._protocol_id = protocol_id
        self._encode = encode
        self._decode = decode
        self._max_bytes = max_bytes

    async def send(self, message: M, /) -> None:
        await self._stream.send_all(encode_frame(self._encode(message)))

    async def receive(self) -> M:
        """Wait for the next message.

        Raises:
            ProtocolError: if it is malformed, too large, or missing.
        """
        try:
            frame = await read_frame(
                self._stream, max_bytes=self._max_bytes, protocol_id=self._protocol_id
            )
        except EOFError:
            raise ProtocolError(self._protocol_id, "the stream ended without an answer") from None
        return self._decode(frame)
