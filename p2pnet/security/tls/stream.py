"""A stream secured by TLS, whichever engine does the TLS. Rules: specs/tls.md.

The only writers are ``send_all`` and ``aclose``: what TLS itself wants to say while somebody
receives (the answer to an update of keys) waits for the next of them, as its RFC allows. So a
receiver and a sender never stand in one another's way.
"""

from __future__ import annotations

from typing import Protocol

import trio

from p2pnet.errors import ConnectionLost, SecurityError
from p2pnet.security.sealed import SealedStream
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


class TLSStream(SealedStream):
    """A stream secured by TLS.

    Plaintext is handed out as it comes, all records of a chunk at once. The end is only what
    the remote said is the end.
    """

    def __init__(self, stream: trio.abc.Stream, engine: Sealing) -> None:
        self._engine = engine
        super().__init__(stream, engine.write, batch_bytes=BATCH_BYTES)

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
