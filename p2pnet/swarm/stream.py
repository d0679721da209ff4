"""The live Stream: a muxed stream, for one protocol, of one connection."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pnet.interfaces import Connection, MuxedStream, Stream
from p2pnet.negotiation.driver import LazyStream


class LiveStream(Stream):
    """What handlers and callers hold.

    A lazy one was handed out before the remote agreed to the protocol: the proposal goes out
    with the first data, and the answer is checked before the first byte is returned.
    """

    def __init__(
        self,
        muxed: MuxedStream,
        protocol_id: str,
        connection: Connection,
        *,
        lazy: bool = False,
        on_close: Callable[[MuxedStream], None],
    ) -> None:
        self._muxed = muxed
        self._negotiated: trio.abc.HalfCloseableStream = (
            LazyStream(muxed, protocol_id) if lazy else muxed
        )
        self._protocol_id = protocol_id
        self._connection = connection
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"<Stream {self._protocol_id} to {self._connection.peer_id}>"

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def protocol_id(self) -> str:
        return self._protocol_id

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._negotiated.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._muxed.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self._negotiated.receive_some(max_bytes)
        # The answer has been checked, so from now on there is nothing between us and the muxer.
        self._negotiated = self._muxed
        return received

    async def send_eof(self) -> None:
        await self._negotiated.send_eof()

    async def send_last(self, data: bytes) -> None:
        if self._negotiated is not self._muxed or not self._muxed.send_along(data):
            await self.send_all(data)
        await self.send_eof()

    async def aclose(self) -> None:
        try:
            await self._negotiated.aclose()
        finally:
            self._on_close(self._muxed)

    def bound_unread(self, max_bytes: int) -> None:
        self._muxed.bound_unread(max_bytes)

    def reset(self, code: int = 0) -> None:
        self._muxed.reset(code)
        self._on_close(self._muxed)
