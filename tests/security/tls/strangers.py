"""TLS peers that do as they please: plain OpenSSL on a stream in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from cryptography import x509
from OpenSSL import SSL

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Kit, Role
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.security.tls import TLS, KeyKind, TLSSecurity
from p2pnet.security.tls.certificate import OwnCertificate, make_certificate

ALICE = PrivateKey.from_seed(bytes(31) + b"A")
BOB = PrivateKey.from_seed(bytes(31) + b"B")
ALICE_ID = PeerId.from_public_key(ALICE.public_key)
BOB_ID = PeerId.from_public_key(BOB.public_key)
CERTIFICATE = make_certificate(ALICE, Env.system().random_bytes, kind=KeyKind.ED25519)
YAMUX = "/yamux/1.0.0"


def security_of(key: PrivateKey, part: TLS | None = None, env: Env | None = None) -> TLSSecurity:
    kit = Kit(
        env=env or Env.system(),
        key=key,
        peer_id=PeerId.from_public_key(key.public_key),
        upgrader=LayeredUpgrader(),
    )
    return (part or TLS()).build(kit)


def stranger_context(
    certificate: OwnCertificate | None = CERTIFICATE,
    *,
    extra: Sequence[x509.Certificate] = (),
    alpn: Sequence[bytes] = (b"libp2p",),
    newest: int = SSL.TLS1_3_VERSION,
) -> SSL.Context:
    """Set up a peer that takes everybody; with ``extra`` it shows more than its certificate."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(newest)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if certificate is not None:
        context.use_certificate(certificate.certificate)
        context.use_privatekey(certificate.private_key)
    for one in extra:
        context.add_extra_chain_cert(one)
    if alpn:
        context.set_alpn_protos(list(alpn))
        context.set_alpn_select_callback(lambda _, offered: alpn[0])
    return context


class Stranger:
    """One end, by plain OpenSSL."""

    def __init__(self, context: SSL.Context, stream: trio.abc.Stream, role: Role) -> None:
        self.tls = SSL.Connection(context)
        self.stream = stream
        if role is Role.DIALER:
            self.tls.set_connect_state()
        else:
            self.tls.set_accept_state()

    async def shake_hands(self) -> None:
        await self._do(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        self.tls.send(data)
        await self.flush()

    async def receive(self) -> bytes:
        return await self._do(lambda: self.tls.recv(65_536))

    async def flush(self) -> None:
        if data := self.taken():
            await self.stream.send_all(data)

    def taken(self) -> bytes:
        try:
            return self.tls.bio_read(1 << 22)
        except SSL.WantReadError:
            return b""

    async def _do(self, step: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                result = step()
            except SSL.WantReadError:
                await self.flush()
                data = await self.stream.receive_some()
                if not data:
                    raise trio.BrokenResourceError("the other end is gone") from None
                self.tls.bio_write(data)
            except SSL.Error:
                await self.flush()
                raise
            else:
                await self.flush()
                return result or b""
