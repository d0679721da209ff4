"""The payload of a Noise handshake message: who I am, with proof, and which muxers I speak."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from p2pnet.core.foreword import MAX_FOREWORD_BYTES
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.errors import ProtocolError, SecurityError
from p2pnet.pb import noise_pb2 as pb

NOISE = "/noise"
SIGNATURE_PREFIX = b"noise-libp2p-static-key:"
MAX_SIGNATURE_BYTES = 4096
MAX_MUXERS = 100


@dataclass(frozen=True, slots=True)
class HandshakePayload:
    """What each end tells of itself, encrypted, in its last handshake message."""

    identity_key: PublicKey
    identity_signature: bytes
    """By the identity key, over the prefix and the sender's static Noise key."""
    muxers: tuple[str, ...] = ()
    """In order of preference; empty if the sender wants them negotiated afterwards."""
    foreword: bytes = b""
    """What a protocol says ahead, in message 3; empty if nothing (N14)."""

    @classmethod
    def sign(cls, key: PrivateKey, static_key: bytes) -> HandshakePayload:
        """Prove that the holder of ``key`` holds the static Noise key, too."""
        return cls(key.public_key, key.sign(SIGNATURE_PREFIX + static_key))

    def encode(self) -> bytes:
        message = pb.NoiseHandshakePayload(
            identity_key=self.identity_key.encode(), identity_sig=self.identity_signature
        )
        if self.muxers:
            message.extensions.stream_muxers.extend(self.muxers)
        if self.foreword:
            message.extensions.foreword = self.foreword
        return message.SerializeToString()

    @classmethod
    def decode_untrusted(cls, data: bytes) -> HandshakePayload:
        """Read a payload; it proves nothing before ``check_signature``.

        Raises:
            ProtocolError: if it is malformed, incomplete, or over a limit.
        """
        try:
            message = pb.NoiseHandshakePayload.FromString(data)
        except DecodeError:
            raise ProtocolError(NOISE, "malformed handshake payload") from None
        if not (message.HasField("identity_key") and message.HasField("identity_sig")):  # N6
            raise ProtocolError(NOISE, "handshake payload without identity key or signature")
        if len(message.identity_sig) > MAX_SIGNATURE_BYTES:  # N12
            raise ProtocolError(NOISE, f"signature of {len(message.identity_sig)} bytes")
        muxers = message.extensions.stream_muxers
        if len(muxers) > MAX_MUXERS:  # N12
            raise ProtocolError(NOISE, f"{len(muxers)} muxers offered")
        key = PublicKey.decode_untrusted(message.identity_key)
        foreword = message.extensions.foreword
        if len(foreword) > MAX_FOREWORD_BYTES:  # N14
            foreword = b""
        return cls(key, message.identity_sig, tuple(muxers), foreword)

    def check_signature(self, static_key: bytes) -> None:
        """Make sure that the identity key vouches for the static key of the handshake.

        Raises:
            SecurityError: if it does not.
        """
        signed = SIGNATURE_PREFIX + static_key  # N7
        if not self.identity_key.verify(signed, self.identity_signature):
            raise SecurityError("the remote's identity key did not sign its Noise key")
