"""WebSockets over trio streams: the handshakes, and the stream they lead to.

Rules: specs/websocket.md (W4 to W13).
"""

from __future__ import annotations

from contextlib import suppress
from operator import index

import trio

from p2pnet.errors import ConnectionLost, ProtocolError, SecurityError
from p2pnet.interfaces import Role
from p2pnet.transports.websocket.engine import (
    FRAME_BYTES,
    BadFrame,
    FrameLimits,
    Frames,
    Heard,
    answer,
    answered,
    ask,
)
from p2pnet.transports.websocket.heads import NAME, Refused, is_request, split_head

REPLY_SECONDS = 10.0
"""A remote that wants a pong and takes none for so long has stopped reading."""
FAREWELL_SECONDS = 1.0
BROKEN = (trio.BrokenResourceError, ConnectionLost, SecurityError)
"""How the stream below fails: plain, or secured."""
PIECE_BYTES = 32_768
"""Taken apart before others have a turn: of frames with nothing in them, this is a tenth of a
second's work."""


async def open_as_client(
    stream: trio.abc.Stream, host: str, role: Role, *, limits: FrameLimits, max_head_bytes: int
) -> WebSocketStream:
    """Ask a server for a WebSocket. The caller sets the deadline, and closes on errors.

    When both ends dial at once, each hears a request where it awaits a response. Whoever plays
    the listener then serves (W13).

    Raises:
        UpgradeRefused, ProtocolError, ConnectionLost: see the engine.
    """
    wire, request = ask(host)
    await stream.send_all(request)
    head, rest = await read_head(stream, b"", max_head_bytes)
    if is_request(head):
        if role is Role.LISTENER:
            return await serve(stream, head, rest, limits)
        head, rest = await read_head(stream, rest, max_head_bytes)
    return WebSocketStream(stream, answered(wire, head, limits), rest)


async def open_as_server(
    stream: trio.abc.Stream, *, limits: FrameLimits, max_head_bytes: int
) -> WebSocketStream:
    """Let a client have a WebSocket. The caller sets the deadline, and closes on errors.

    Raises:
        ProtocolError, ConnectionLost: if it asks wrongly; it was told so.
    """
    try:
        head, rest = await read_head(stream, b"", max_head_bytes)
    except Refused as refused:
        await say(stream, refused.response)
        raise
    return await serve(stream, head, rest, limits)


async def serve(
    stream: trio.abc.Stream, head: bytes, rest: bytes, limits: FrameLimits
) -> WebSocketStream:
    try:
        frames, response = answer(head, limits)
    except Refused as refused:
        await say(stream, refused.response)
        raise
    await stream.send_all(response)
    return WebSocketStream(stream, frames, rest)


async def read_head(stream: trio.abc.Stream, heard: bytes, maximum: int) -> tuple[bytes, bytes]:
    """Read the head of an HTTP message; return it and what came behind it.

    Raises:
        Refused: if it is too long.
        ConnectionLost: if the stream ends.
    """
    while (split := split_head(heard, maximum)) is None:
        data = await stream.receive_some(maximum)
        if not data:
            raise ConnectionLost("the remote hung up during the handshake of WebSocket")
        heard += data
    return split


async def say(stream: trio.abc.Stream, last_words: bytes) -> None:
    """Send what can be sent before the stream is closed."""
    with trio.move_on_after(FAREWELL_SECONDS), suppress(*BROKEN):
        await stream.send_all(last_words)


class WebSocketStream(trio.abc.HalfCloseableStream):
    """The bytes in the frames of a WebSocket.

    ``send_eof`` closes what WebSocket can close: the remote answers it, and says no more (W12).
    """

    def __init__(self, stream: trio.abc.Stream, frames: Frames, rest: bytes = b"") -> None:
        self._stream = stream
        self._frames = frames
        self._unread = memoryview(rest)
        """What has come, as with the handshake, and was not looked at."""
        self._data = memoryview(b"")
        self._sending = False
        self._receiving = False
        self._turn = trio.Lock()
        self._reply = b""
        self._is_cut = False
        """A frame was sent in part: nothing can follow."""
        self._is_over = False
        self._is_broken = False
        self._is_closed = False

    # ---- sending -------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open()
        self._sending = True
        try:
            async with self._turn:
                with memoryview(data) as view:
                    await self._send_frames(view)
        finally:
            self._sending = False

    async def _send_frames(self, view: memoryview) -> None:
        for at in range(0, len(view), FRAME_BYTES):
            self._check_can_send()
            await self._send(self._frames.frame(bytes(view[at : at + FRAME_BYTES])))
            await self._send_reply()
        await self._send_reply()

    def _check_can_send(self) -> None:
        self._check_open()
        if not self._frames.says_more:
            raise trio.BrokenResourceError("the WebSocket is closing")

    async def _send(self, data: bytes) -> None:
        """Send whole frames, in turn."""
        if self._is_cut:
            raise trio.BrokenResourceError("an earlier send was interrupted")
        self._is_cut = True
        await self._stream.send_all(data)
        self._is_cut = False

    async def _send_reply(self) -> None:
        """Send what the receiver wants said; as it may want more meanwhile, until it does not."""
        while self._reply:
            reply, self._reply = self._reply, b""
            await self._send(reply)

    async def wait_send_all_might_not_block(self) -> None:
        self._check_open()
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open()
        async with self._turn:
            await self._send_reply()
            await self._send(self._frames.close())

    # ---- receiving -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._check_open()
        self._receiving = True
        try:
            if self._data or self._is_over:
                await trio.lowlevel.checkpoint()
            await self._receive()
        finally:
            self._receiving = False
        size = len(self._data) if max_bytes is None else max_bytes
        taken, self._data = self._data[:size], self._data[size:]
        return bytes(taken)

    async def _receive(self) -> None:
        """Wait for data, or for the end."""
        while not self._data and not self._is_over:
            if self._unread:
                await trio.lowlevel.checkpoint()
            else:
                self._unread = memoryview(await self._stream.receive_some())
            if not self._unread:
                self._is_over = True  # W11
                return
            piece, self._unread = self._unread[:PIECE_BYTES], self._unread[PIECE_BYTES:]
            heard = await self._hear(bytes(piece))
            self._data = memoryview(heard.data)
            self._is_over = heard.is_over
            if heard.reply:  # Last, as who is cancelled here must find the data the next time.
                self._reply = heard.reply
                await self._answer()

    async def _hear(self, data: bytes) -> Heard:
        try:
            return self._frames.receive(data)
        except BadFrame as error:
            if not self._turn.locked() and not self._is_cut:
                await say(self._stream, error.farewell)
            await self._give_up()
            raise
        except ConnectionLost:
            await self._give_up()
            raise

    async def _answer(self) -> None:
        """Send a reply. If a sender has the turn, that one sends it after its frame (W10)."""
        if self._turn.locked():
            return
        async with self._turn:
            with trio.move_on_after(REPLY_SECONDS) as patience:
                with suppress(*BROKEN):  # What came before is still good.
                    await self._send_reply()
        if patience.cancelled_caught:
            await self._give_up()
            raise ProtocolError(NAME, "the remote asks for answers, and does not read them")

    # ---- the end -------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._is_broken:
            raise trio.BrokenResourceError("the WebSocket broke")

    async def _give_up(self) -> None:
        self._is_broken = True
        await trio.aclose_forcefully(self._stream)

    async def aclose(self) -> None:
        """Send a close frame, if that is possible at once, and close."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        try:
            if not (self._turn.locked() or self._is_cut or self._is_broken):
                await say(self._stream, self._frames.close())
        finally:
            await self._stream.aclose()
