"""TLS peers for the tests: two of ours, and strangers that do as they please."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
import trio.testing
from cryptography import x509
from OpenSSL import SSL

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.security.tls import TLS, KeyKind, TLSSecurity
from p2pnet.security.tls.certificate import OwnCertificate, make_certificate
from tests.core.passing_on import PassingOn

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


# ---- two of ours ---------------------------------------------------------------------------


async def secure_both(
    one: trio.abc.Stream,
    other: trio.abc.Stream,
    *,
    muxers: tuple[Sequence[str], Sequence[str]] = ((), ()),
    part: TLS | None = None,
) -> tuple[Secured, Secured]:
    found: dict[Role, Secured] = {}

    async def secure(stream: trio.abc.Stream, role: Role) -> None:
        is_dialer = role is Role.DIALER
        found[role] = await security_of(ALICE if is_dialer else BOB, part).secure(
            stream,
            role,
            expected=BOB_ID if is_dialer else None,
            muxers=muxers[0 if is_dialer else 1],
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, one, Role.DIALER)
        nursery.start_soon(secure, other, Role.LISTENER)
    return found[Role.DIALER], found[Role.LISTENER]


class Tap(PassingOn):
    """One end of a stream that shows what is sent, and can do without."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream)
        self.sent: list[bytes] = []
        self.is_stuck = False
        self.change: Callable[[bytes], bytes] = bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        if self.is_stuck:
            await trio.sleep_forever()
        await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.change(bytes(await super().receive_some(max_bytes)))


async def tapped_pair() -> tuple[trio.abc.Stream, Tap, trio.abc.Stream, Tap]:
    """Return the ends of a secured stream that were both heard already."""
    one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    at_dialer, at_listener = await secure_both(one, other)
    for sender, receiver in ((at_dialer, at_listener), (at_listener, at_dialer)):
        await sender.stream.send_all(b"x")
        assert await receiver.stream.receive_some() == b"x"
    one.sent.clear()
    other.sent.clear()
    return at_dialer.stream, one, at_listener.stream, other
