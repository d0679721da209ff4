"""No security at all, for tests of large worlds: the plaintext protocol of libp2p.

Never give this part to a host that others can reach: nothing is encrypted, nothing is
protected from change, and *whoever knows a public key can pretend to be its peer*. What it is
good for is a simulation of a thousand hosts, whose handshakes then cost nothing.

    dialer                                    listener
      | -- Exchange(peer id, public key) -->  |     both at once, each with its length in front
      | <-- Exchange(peer id, public key) --  |
      | <== bytes, just as they are =======>  |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from google.protobuf.message import DecodeError

from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.core.keys import PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import HandshakeCut, PeerIdMismatch, ProtocolError, SecurityError
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.pb import plaintext_pb2 as pb

PLAINTEXT = "/plaintext/2.0.0"
MAX_EXCHANGE_BYTES = 4096
"""Bounds what a remote says of itself; the largest key is half of it."""


@dataclass(frozen=True, slots=True)
class Insecure:
    """The part: ``/plaintext/2.0.0``. For tests only: anybody can read, change and pretend."""

    def build(self, kit: Kit) -> InsecureSecurity:
        return InsecureSecurity(Exchange(kit.peer_id, kit.key.public_key))


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an end says of itself. It proves nothing."""

    peer_id: PeerId
    key: PublicKey

    def encode(self) -> bytes:
        message = pb.Exchange(id=self.peer_id.to_bytes(), pubkey=self.key.encode())
        return message.SerializeToString()

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Exchange:
        """Read what a remote says of itself.

        Raises:
            ProtocolError: if it is malformed or incomplete.
            SecurityError: if the peer id is not that of the key.
        """
        try:
            message = pb.Exchange.FromString(data)
        except DecodeError:
            raise ProtocolError(PLAINTEXT, "malformed exchange") from None
        if not (message.HasField("id") and message.HasField("pubkey")):
            raise ProtocolError(PLAINTEXT, "exchange without peer id or public key")
        peer_id = PeerId.decode_untrusted(message.id)
        key = PublicKey.decode_untrusted(message.pubkey)
        if not peer_id.matches(key):
            raise SecurityError(f"the remote says it is {peer_id}, but shows another's key")
        return cls(peer_id, key)


class InsecureSecurity:
    """Believes every remote. The "secured" stream is the raw one."""

    protocol_id = PLAINTEXT

    def __init__(self, ours: Exchange) -> None:
        self._ours = ours

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        """See Security.secure. On any error the stream is closed; muxers are never settled."""
        try:
            theirs = await self._introduce(stream)
            if expected is not None and not expected.matches(theirs.key):
                raise PeerIdMismatch(expected, theirs.peer_id)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Secured(stream, remote_key=theirs.key, peer_id=theirs.peer_id, muxer=None)

    async def _introduce(self, stream: trio.abc.Stream) -> Exchange:
        """Send and receive at once: on a stream without any buffer neither end could begin."""
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, encode_frame(self._ours.encode()))
                return await receive_exchange(stream)


async def receive_exchange(stream: trio.abc.ReceiveStream) -> Exchange:
    decoder = FrameDecoder(MAX_EXCHANGE_BYTES, PLAINTEXT)
    while (frame := decoder.next_frame()) is None:
        data = await stream.receive_some(decoder.wanted())
        if not data:
            raise HandshakeCut("the remote hung up during the plaintext handshake")
        decoder.feed(bytes(data))
    return Exchange.decode_untrusted(frame)
