"""A stream secured by TLS, whichever engine does the TLS. Rules: specs/tls.md.

The only writers are ``send_all`` and ``aclose``: what TLS itself wants to say while somebody
receives (the answer to an update of keys) waits for the next of them, as its RFC allows. So a
receiver and a sender never stand in one another's way.
"""

from __future__ import annotations

from functools import partial
from operator import index
from typing import Protocol

import trio

from p2pnet.core.prompt import SendNow, prompt_sender
from p2pnet.errors import ConnectionLost, SecurityError
from p2pnet.security.tls.records import RECORD_BYTES

BATCH_BYTES = 16 * RECORD_BYTES
"""Most plaintext sealed before any of it is sent: 256 KiB, in whole records."""
LAST_WORD_SECONDS = 1.0
"""How long an alert, or the word that the stream ends, may wait for room on the way."""


class Sealing(Protocol):
    """What a stream asks of an engine whose handshake is over. Nothing of it waits."""

    @property
    def is_ended(self) -> bool:
        """True once the remote has said that nothing more comes."""
        ...

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes from the remote: at least one."""
        ...

    def read(self) -> bytes:
        """Take all plaintext that has come; empty if there is none yet, or at the end.

        Raises:
            SecurityError, ConnectionLost: if nothing good can come any more.
        """
        ...

    def write(self, data: memoryview) -> bytes:
        """Seal some plaintext, at least a byte; return what must be sent for it.

        Raises:
            ConnectionLost: if the connection has failed already.
        """
        ...

    def say_goodbye(self) -> bytes:
        """End our direction; return what must be sent to tell so."""
        ...

    def cut(self) -> SecurityError | ConnectionLost | None:
        """Tell what it means that the stream ended without a word; None is a good end."""
        ...


async def say_last(stream: trio.abc.Stream, data: bytes) -> None:
    """Send something if there is room for it soon, and somebody there."""
    if not data:
        return
    with trio.move_on_after(LAST_WORD_SECONDS):
        try:
            await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return


class TLSStream(trio.abc.Stream):
    """A secured stream.

    Bytes that were tampered with raise StreamTampered, from then on and for the sender too,
    and close the stream under it. Plaintext is handed out as it comes, all records of a chunk
    at once. The end is only what the remote said is the end.
    """

    def __init__(self, stream: trio.abc.Stream, engine: Sealing) -> None:
        self._stream = stream
        self._below = prompt_sender(stream)
        self._engine = engine
        self._sending = False
        self._send_failed = False
        self._receiving = False
        self._rest: memoryview | None = None
        self._closed = False
        self._error: SecurityError | ConnectionLost | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        self._sending = self._send_failed = True
        try:
            await self._send(data)
            self._send_failed = False
        except ConnectionLost as error:
            await self._fail(error)
            raise
        except trio.ClosedResourceError:
            self._check_usable()
            raise
        finally:
            self._sending = False

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            if self._below is None:
                await trio.lowlevel.checkpoint()
            else:
                await self._stream.send_all(data)  # What is left of a prompt send goes now.
            return
        with memoryview(data) as view:
            for start in range(0, len(view), BATCH_BYTES):
                with view[start : start + BATCH_BYTES] as batch:
                    records = self._engine.write(batch)
                await self._stream.send_all(records)

    def prompt_sender(self) -> SendNow | None:
        return None if self._below is None else partial(self._send_now, self._below)

    def _send_now(self, below: SendNow, data: bytes | bytearray) -> bool:
        self._check_sender()
        self._send_failed = True
        with memoryview(data) as view:
            is_gone = below(self._engine.write(view))
        self._send_failed = False
        return is_gone

    def _check_sender(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        if self._send_failed:
            # The remote waits for the rest of a record, whose bytes are gone.
            raise trio.BrokenResourceError("an earlier send was interrupted")

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._check_usable()
        self._receiving = True
        try:
            if self._rest is None:
                return self._take(await self._receive(), max_bytes)
            await trio.lowlevel.checkpoint()
            return self._take(self._rest, max_bytes)
        except (SecurityError, ConnectionLost) as error:
            await self._fail(error)
            raise
        except trio.ClosedResourceError:
            self._check_usable()
            raise
        finally:
            self._receiving = False

    async def _receive(self) -> bytes:
        """Return the plaintext of at least one record; nothing at the end of the stream."""
        if (data := self._engine.read()) or self._engine.is_ended:
            await trio.lowlevel.checkpoint()
            return data
        while True:
            try:
                chunk = await self._stream.receive_some()
            except trio.BrokenResourceError as error:
                # T11: who refuses us may reset the connection before its reason arrives.
                cut = self._engine.cut()
                if isinstance(cut, SecurityError):
                    raise cut from error
                raise
            if not chunk:
                if (cut := self._engine.cut()) is not None:
                    raise cut
                return b""
            self._engine.feed(chunk)
            if (data := self._engine.read()) or self._engine.is_ended:
                return data

    def _take(self, chunk: bytes | memoryview, max_bytes: int | None) -> bytes:
        """Return as much of a chunk as is asked for, and keep the rest for the next time."""
        if max_bytes is not None and len(chunk) > max_bytes:
            view = memoryview(chunk)
            self._rest = view[max_bytes:]
            return bytes(view[:max_bytes])
        self._rest = None
        return bytes(chunk)

    async def aclose(self) -> None:
        """Say that the stream ends, if there is room for that soon, and close it."""
        if self._closed or self._error is not None or self._sending or self._send_failed:
            self._closed = True
            await trio.aclose_forcefully(self._stream)
            return
        self._closed = True
        try:
            await say_last(self._stream, self._engine.say_goodbye())
        finally:
            await self._stream.aclose()

    async def _fail(self, error: SecurityError | ConnectionLost) -> None:
        self._error = error
        await trio.aclose_forcefully(self._stream)

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._error is not None:
            raise self._error
