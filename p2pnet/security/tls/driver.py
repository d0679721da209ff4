"""TLS over trio streams: the handshake, and the stream it leads to. Rules: specs/tls.md.

The only writers are ``send_all`` and ``aclose``: what TLS itself wants to say while somebody
receives (the answer to an update of keys) waits for the next of them, as its RFC allows. So a
receiver and a sender never stand in one another's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import index

import trio

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    ConnectionLost,
    HandshakeCut,
    PeerIdMismatch,
    ProtocolError,
    SecurityError,
)
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.security.tls.certificate import KeyKind, judge, make_certificate
from p2pnet.security.tls.engine import RECORD_BYTES, Engine, Engines

TLS_ID = "/tls/1.0.0"
MIN_HANDSHAKE_BYTES = 4096
BATCH_BYTES = 16 * RECORD_BYTES
"""Most plaintext sealed before any of it is sent: 256 KiB, in whole records."""
CHUNK_BYTES = 16_384
LAST_WORD_SECONDS = 1.0
"""How long an alert, or the word that the stream ends, may wait for room on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """The part: TLS 1.3, ``/tls/1.0.0``."""

    max_handshake_bytes: int = 65_536
    """Bounds what is read of the remote's handshake; 2 to 3 KiB are usual (T9)."""
    certificate_key: KeyKind = KeyKind.ED25519
    """What kind of key our certificate has."""

    def __post_init__(self) -> None:
        if self.max_handshake_bytes < MIN_HANDSHAKE_BYTES:
            raise ValueError(f"max_handshake_bytes is at least {MIN_HANDSHAKE_BYTES}")

    def build(self, kit: Kit) -> TLSSecurity:
        return TLSSecurity(self, env=kit.env, key=kit.key)


class TLSSecurity:
    """Does handshakes; one certificate serves them all."""

    protocol_id = TLS_ID

    def __init__(self, config: TLS, *, env: Env, key: PrivateKey) -> None:
        self._config = config
        self._env = env
        certificate = make_certificate(key, env.random_bytes, kind=config.certificate_key)
        self._engines = Engines(certificate)

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        """See Security.secure. On any error the stream is closed (T15)."""
        engine = self._engines.start(role, muxers, partial(self._judge, expected))
        try:
            try:
                key = await self._shake_hands(stream, engine)
            except (SecurityError, ProtocolError):
                await say_last(stream, engine.data_to_send())
                raise
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Secured(
            TLSStream(stream, engine),
            remote_key=key,
            peer_id=PeerId.from_public_key(key),
            muxer=engine.muxer,
        )

    def _judge(self, expected: PeerId | None, certificate: bytes) -> PublicKey:
        key = judge(certificate, now=self._env.wall_clock())
        if expected is not None and not expected.matches(key):  # T14
            raise PeerIdMismatch(expected, PeerId.from_public_key(key))
        return key

    async def _shake_hands(self, stream: trio.abc.Stream, engine: Engine) -> PublicKey:
        """Return the remote's key. What is left to send after a listener's part, waits."""
        left = self._config.max_handshake_bytes
        while (key := engine.shake_hands()) is None:
            if data := engine.data_to_send():
                await stream.send_all(data)
            if not left:  # T9
                raise ProtocolError(TLS_ID, "the handshake has no end")
            data = bytes(await stream.receive_some(min(left, CHUNK_BYTES)))
            if not data:
                raise HandshakeCut("the remote hung up during the TLS handshake")
            left -= len(data)
            engine.feed(data)
        if engine.is_dialer:
            await stream.send_all(engine.data_to_send())
        return key


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

    def __init__(self, stream: trio.abc.Stream, engine: Engine) -> None:
        self._stream = stream
        self._engine = engine
        self._sending = False
        self._send_failed = False
        self._receiving = False
        self._rest: memoryview | None = None
        self._closed = False
        self._error: SecurityError | ConnectionLost | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        if self._send_failed:
            # The remote waits for the rest of a record, whose bytes are gone.
            raise trio.BrokenResourceError("an earlier send was interrupted")
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
            await trio.lowlevel.checkpoint()
            return
        with memoryview(data) as view:
            for start in range(0, len(view), BATCH_BYTES):
                with view[start : start + BATCH_BYTES] as batch:
                    records = self._engine.write(batch)
                await self._stream.send_all(records)

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
                raise self._engine.cut()
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
