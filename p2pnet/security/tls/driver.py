"""The part, and the handshake of TLS over trio streams. Rules: specs/tls.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    HandshakeCut,
    PeerIdMismatch,
    ProtocolError,
    SecurityError,
)
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.security.tls.certificate import KeyKind, judge, make_certificate
from p2pnet.security.tls.engine import TLS_ID, Engine, Engines
from p2pnet.security.tls.stream import TLSStream, say_last

MIN_HANDSHAKE_BYTES = 4096
CHUNK_BYTES = 16_384


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
