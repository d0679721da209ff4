"""A raw stream under a pre-shared key. Rules: specs/pnet.md.

::

    one                                   other
     | -- nonce (24 bytes), encrypted --->  |     with the first bytes there are to send
     | <--- nonce (24 bytes), encrypted --  |     or, if there are none, as soon as the nonce
     |                                      |     of the remote has come

There is no answer and no authentication: who has another key hears noise. What is under the
key always begins with the header of multistream, so that noise is told at its first byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from p2pnet.errors import AnotherNetwork, ExtraMissing, HandshakeCut
from p2pnet.security.pnet.key import PreSharedKey

if TYPE_CHECKING:  # Needs an extra; whoever has no private network can do without.
    from p2pnet.security.pnet.cipher import XSalsa20

NONCE_BYTES: Final = 24
HEADER: Final = b"\x13/multistream/1.0.0\n"
HINT: Final = "perhaps its pre-shared key is another"


class Protector:
    """Puts streams under a pre-shared key."""

    def __init__(self, key: PreSharedKey, random_bytes: Callable[[int], bytes]) -> None:
        self._cipher = import_cipher()
        self._key = key
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"Protector({self._key!r})"

    def __call__(self, stream: trio.abc.HalfCloseableStream) -> ProtectedStream:
        return ProtectedStream(stream, self)

    def new_nonce(self) -> bytes:
        return self._random_bytes(NONCE_BYTES)

    def cipher(self, nonce: bytes) -> XSalsa20:
        return self._cipher(self._key.secret, nonce)


def import_cipher() -> type[XSalsa20]:
    """Import the cipher.

    Raises:
        ExtraMissing: if the extra is not installed.
    """
    try:
        from p2pnet.security.pnet.cipher import XSalsa20  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise ExtraMissing("a private network needs pycryptodome", "psk") from error
    return XSalsa20


class ProtectedStream(trio.abc.HalfCloseableStream):
    """Encrypts what is sent and decrypts what is received; each direction begins with a nonce.

    Receiving raises AnotherNetwork if the remote has no key or another one, and HandshakeCut if
    it hung up before it said a word. A wait to receive may be cancelled, and nothing is lost; but
    who is cancelled in the first one, while the nonce is on its way out, can send nothing any more.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream, protector: Protector) -> None:
        self._stream = stream
        self._protector = protector
        self._sealing: XSalsa20 | None = None
        self._opening: XSalsa20 | None = None
        self._nonce = bytearray()
        self._heard = 0
        self._answering: trio.Event | None = None
        self._answer_failed = False

    # ---- sending -------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._wait_answered()
        if self._sealing is not None:
            await self._stream.send_all(self._sealing.apply(data))
            return
        nonce = self._protector.new_nonce()
        self._sealing = self._protector.cipher(nonce)
        await self._stream.send_all(nonce + self._sealing.apply(data))  # PN1

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._wait_answered()
        await self._stream.send_eof()

    async def _answer(self) -> None:
        """Send the nonce alone: the remote may send nothing before it has it (PN3)."""
        nonce = self._protector.new_nonce()
        self._sealing = self._protector.cipher(nonce)
        self._answering, self._answer_failed = trio.Event(), True
        try:
            await self._stream.send_all(nonce)
            self._answer_failed = False
        finally:
            self._answering.set()
            self._answering = None

    async def _wait_answered(self) -> None:
        if self._answering is not None:
            await self._answering.wait()
        if self._answer_failed:
            raise trio.BrokenResourceError("sending the nonce was interrupted")

    # ---- receiving -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._opening is None:
            self._opening = self._protector.cipher(await self._receive_nonce())
        if self._sealing is None:
            await self._answer()
        if self._heard >= len(HEADER):
            data = await self._stream.receive_some(max_bytes)
            return self._opening.apply(data) if data else data
        if self._heard:
            data = await self._stream.receive_some(max_bytes)
        else:
            data = await self._receive_first(max_bytes)
        return self._checked(self._opening.apply(data))

    async def _receive_nonce(self) -> bytes:
        while len(self._nonce) < NONCE_BYTES:
            self._nonce += await self._receive_first(NONCE_BYTES - len(self._nonce))
            if self._nonce.startswith(HEADER):  # PN5
                raise AnotherNetwork("the remote has no pre-shared key")
        return bytes(self._nonce)

    async def _receive_first(self, max_bytes: int | None) -> bytes | bytearray:
        """Receive before anything was understood: who hangs up now, hears noise, perhaps."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            raise HandshakeCut(f"the remote hung up: {error}; {HINT}") from error
        if not data:
            raise HandshakeCut(f"the remote hung up before a word; {HINT}")
        return data

    def _checked(self, plain: bytearray) -> bytearray:
        """Compare the first words with the header (PN4)."""
        wanted = HEADER[self._heard : self._heard + len(plain)]
        if not plain.startswith(wanted):
            raise AnotherNetwork("the remote has another pre-shared key")
        self._heard += len(plain)
        return plain

    async def aclose(self) -> None:
        await self._stream.aclose()
