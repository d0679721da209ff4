"""What secured streams have in common, whatever seals their bytes.

A send that was interrupted spoils the stream, since the remote waits for the rest of what was
sealed. An error that the remote made is told to the sender, too, and closes the stream below.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from operator import index

import trio

from p2pnet.core.prompt import Prompt, SendNow, prompt_sender
from p2pnet.errors import ConnectionLost, SecurityError

Seal = Callable[[memoryview], bytes | bytearray]
"""Seals some plaintext, at least a byte; returns what must be sent for it.

Raises ConnectionLost if no more can be sealed.
"""


class SealedStream(trio.abc.Stream, Prompt):
    """A secured stream.

    Bytes that were tampered with raise StreamTampered, from then on and for the sender too,
    and close the stream under it.
    """

    def __init__(self, stream: trio.abc.Stream, seal: Seal, *, batch_bytes: int) -> None:
        self._stream = stream
        self._below = prompt_sender(stream)
        self._seal = seal
        self._batch_bytes = batch_bytes
        """Most plaintext sealed before any of it is sent."""
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
            for start in range(0, len(view), self._batch_bytes):
                with view[start : start + self._batch_bytes] as batch:
                    await self._send_batch(batch)

    async def _send_batch(self, batch: memoryview) -> None:
        await self._stream.send_all(self._seal(batch))

    def prompt_sender(self) -> SendNow | None:
        return None if self._below is None else partial(self._send_now, self._below)

    def _send_now(self, below: SendNow, data: bytes | bytearray) -> bool:
        self._check_sender()
        self._send_failed = True
        with memoryview(data) as view:
            is_gone = below(self._seal(view))
        self._send_failed = False
        return is_gone

    def _check_sender(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        if self._send_failed:
            # The remote waits for the rest of what was sealed, whose bytes are gone.
            raise trio.BrokenResourceError("an earlier send was interrupted")

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
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

    @abstractmethod
    async def _receive(self) -> bytes | bytearray:
        """Return some plaintext, as it comes; nothing at the end of the stream.

        Raises:
            SecurityError, ConnectionLost: if nothing good can come any more.
        """

    def _take(
        self, chunk: bytes | bytearray | memoryview, max_bytes: int | None
    ) -> bytes | bytearray:
        """Return as much of a chunk as is asked for, and keep the rest for the next time."""
        if max_bytes is not None and len(chunk) > max_bytes:
            view = memoryview(chunk)
            self._rest = view[max_bytes:]
            return bytes(view[:max_bytes])
        self._rest = None
        return bytes(chunk) if isinstance(chunk, memoryview) else chunk

    async def _fail(self, error: SecurityError | ConnectionLost) -> None:
        self._error = error
        await trio.aclose_forcefully(self._stream)

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._error is not None:
            raise self._error
