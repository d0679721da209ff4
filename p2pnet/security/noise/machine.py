"""Noise_XX_25519_ChaChaPoly_SHA256, and the handshake of libp2p on it. Rules: specs/noise.md.

Theory of operation
===================

The dialer is the initiator. Three messages, each in a frame with its length in two bytes:

    initiator                                responder
        | -- e ------------------------------> |        nothing but a fresh key
        | <-- e, ee, s, es, payload ---------- |        from here on encrypted
        | -- s, se, payload -----------------> |
        | <== frames of sealed messages =====> |

``XXHandshake`` is Noise itself, payloads being mere bytes: it is held against the published
vectors. ``HandshakeMachine`` puts libp2p's payloads into it: each end's identity key signs its
static Noise key, and both list their muxers. It takes no byte more than its three messages,
``wanted`` at a time, so that nothing of what follows is ever left over in here.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from p2pnet.core.foreword import MAX_FOREWORD_BYTES
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import BothDialed, HandshakeCut, PeerIdMismatch, ProtocolError, SecurityError
from p2pnet.interfaces import Role
from p2pnet.security.noise.cipher import (
    LENGTH,
    LENGTH_BYTES,
    MAX_MESSAGE_BYTES,
    TAG_BYTES,
    CipherState,
    frame,
)
from p2pnet.security.noise.messages import NOISE, HandshakePayload

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
KEY_BYTES = 32


class SymmetricState:
    """The running hash and chaining key of a handshake (Noise, section 5.2)."""

    def __init__(self, prologue: bytes) -> None:
        self._chaining_key = PROTOCOL_NAME
        self.hash = PROTOCOL_NAME
        self._cipher: CipherState | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = derive_two(self._chaining_key, secret)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = plaintext if self._cipher is None else self._cipher.seal(plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        opened = sealed if self._cipher is None else self._cipher.open(sealed, self.hash)
        self.mix_hash(sealed)
        return opened

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers for the messages of the initiator and of the responder."""
        first, second = derive_two(self._chaining_key, b"")
        return CipherState(first), CipherState(second)


class XXHandshake:
    """The three messages of Noise XX; payloads are bytes without a meaning here."""

    def __init__(
        self, *, static: X25519PrivateKey, ephemeral: X25519PrivateKey, prologue: bytes = b""
    ) -> None:
        self._static = static
        self._ephemeral = ephemeral
        self._symmetric = SymmetricState(prologue)
        self._remote_ephemeral = b""
        self.remote_static = b""
        """Known after message 2 or 3; 32 bytes."""

    @property
    def hash(self) -> bytes:
        return self._symmetric.hash

    def split(self) -> tuple[CipherState, CipherState]:
        """See SymmetricState.split."""
        return self._symmetric.split()

    def write_first(self, payload: bytes) -> bytes:
        return self._write_ephemeral() + self._symmetric.encrypt_and_hash(payload)

    def read_first(self, message: bytes) -> bytes:
        return self._symmetric.decrypt_and_hash(self._read_ephemeral(message))

    def write_second(self, payload: bytes) -> bytes:
        symmetric = self._symmetric
        message = self._write_ephemeral()
        symmetric.mix_key(exchange(self._ephemeral, self._remote_ephemeral))
        message += symmetric.encrypt_and_hash(public_bytes(self._static))
        symmetric.mix_key(exchange(self._static, self._remote_ephemeral))
        return message + symmetric.encrypt_and_hash(payload)

    def read_second(self, message: bytes) -> bytes:
        symmetric = self._symmetric
        rest = self._read_ephemeral(message)
        symmetric.mix_key(exchange(self._ephemeral, self._remote_ephemeral))
        rest = self._read_static(rest)
        symmetric.mix_key(exchange(self._ephemeral, self.remote_static))
        return symmetric.decrypt_and_hash(rest)

    def write_third(self, payload: bytes) -> bytes:
        symmetric = self._symmetric
        message = symmetric.encrypt_and_hash(public_bytes(self._static))
        symmetric.mix_key(exchange(self._static, self._remote_ephemeral))
        return message + symmetric.encrypt_and_hash(payload)

    def read_third(self, message: bytes) -> bytes:
        rest = self._read_static(message)
        self._symmetric.mix_key(exchange(self._ephemeral, self.remote_static))
        return self._symmetric.decrypt_and_hash(rest)

    def _write_ephemeral(self) -> bytes:
        public = public_bytes(self._ephemeral)
        self._symmetric.mix_hash(public)
        return public

    def _read_ephemeral(self, message: bytes) -> bytes:
        self._remote_ephemeral = message[:KEY_BYTES]
        if len(self._remote_ephemeral) < KEY_BYTES:  # N4
            raise ProtocolError(NOISE, f"handshake message of {len(message)} bytes")
        self._symmetric.mix_hash(self._remote_ephemeral)
        return message[KEY_BYTES:]

    def _read_static(self, rest: bytes) -> bytes:
        sealed = rest[: KEY_BYTES + TAG_BYTES]
        if len(rest) < KEY_BYTES + 2 * TAG_BYTES:  # N4
            raise ProtocolError(NOISE, "handshake message without a static key")
        self.remote_static = self._symmetric.decrypt_and_hash(sealed)
        return rest[len(sealed) :]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A static Noise key, and the payload in which the identity key vouches for it."""

    static: X25519PrivateKey = field(repr=False)
    proof: HandshakePayload

    @classmethod
    def create(cls, key: PrivateKey, static: bytes) -> Credentials:
        """Make them from an identity key and 32 secret bytes; good for any number of sessions."""
        private = private_key(static)
        return cls(private, HandshakePayload.sign(key, public_bytes(private)))


@dataclass(frozen=True, slots=True)
class Established:
    """What a handshake leads to."""

    remote_key: PublicKey
    peer_id: PeerId
    muxer: str | None
    said: bytes
    """The foreword of this end ..."""
    heard: bytes
    """... and that of the remote; empty if there was none (N14)."""
    sending: CipherState = field(repr=False)
    receiving: CipherState = field(repr=False)


class HandshakeMachine:
    """One end of a libp2p Noise handshake."""

    def __init__(
        self,
        role: Role,
        credentials: Credentials,
        *,
        ephemeral: bytes,
        muxers: Sequence[str] = (),
        expected: PeerId | None = None,
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._is_initiator = role is Role.DIALER
        self._noise = XXHandshake(static=credentials.static, ephemeral=private_key(ephemeral))
        self._ours = replace(credentials.proof, muxers=tuple(muxers))
        self._expected = expected
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._received = 0
        self._finished = False
        self.foreword: Callable[[], bytes] | None = None
        """Asked before message 3 is sent, and the remote is known, for what to tell it (N14)."""
        self._out = frame(self._noise.write_first(b"")) if self._is_initiator else b""

    def data_to_send(self) -> bytes:
        """Take what must be sent now; empty if nothing. The last may come with the end."""
        data, self._out = self._out, b""
        return data

    def wanted(self) -> int:
        """Tell how many bytes may be read and given to ``receive``; 0 once finished."""
        if self._finished:
            return 0
        length = self._length()
        whole = LENGTH_BYTES if length is None else LENGTH_BYTES + length
        return whole - len(self._buffer)

    def receive(self, data: bytes) -> Established | None:
        """Take at most ``wanted`` bytes; the end of the stream is the empty ``data``.

        Raises:
            SecurityError: if the remote cannot prove who it is, or hangs up.
            PeerIdMismatch: if it is another than expected.
            ProtocolError: if its messages are malformed.
        """
        if len(data) > self.wanted():
            raise ValueError(f"{len(data)} bytes read where {self.wanted()} were wanted")
        if not data:
            raise HandshakeCut("the remote hung up during the Noise handshake")
        self._buffer += data
        length = self._length()
        if length is None or len(self._buffer) < LENGTH_BYTES + length:
            return None
        message = bytes(self._buffer[LENGTH_BYTES:])
        self._buffer.clear()
        self._received += 1
        if self._is_initiator:
            return self._receive_second(message)
        if self._received == 2:
            return self._receive_third(message)
        self._receive_first(message)
        return None

    def _length(self) -> int | None:
        """Return the length of the message that is coming in, once known."""
        if len(self._buffer) < LENGTH_BYTES:
            return None
        length: int = LENGTH.unpack_from(self._buffer)[0]
        is_first = not self._is_initiator and self._received == 0
        if is_first and length != KEY_BYTES:  # N4
            raise ProtocolError(NOISE, f"message 1 has {length} bytes: more or less than a key")
        if self._is_initiator and length == KEY_BYTES:  # N5
            raise BothDialed(
                NOISE,
                "the answer is no longer than a message 1: both ends took the part of the "
                "dialer, as after an accidental simultaneous open",
            )
        if length > self._max_bytes:  # N12
            raise ProtocolError(NOISE, f"handshake message of {length} bytes")
        return length

    def _receive_first(self, message: bytes) -> None:
        self._noise.read_first(message)
        self._out = frame(self._noise.write_second(self._ours.encode()))

    def _receive_second(self, message: bytes) -> Established:
        theirs = self._check(self._noise.read_second(message))
        said = b"" if self.foreword is None else self.foreword()
        if len(said) <= MAX_FOREWORD_BYTES:  # N14
            self._ours = replace(self._ours, foreword=said)
        self._out = frame(self._noise.write_third(self._ours.encode()))
        muxer = choose_muxer(self._ours.muxers, theirs.muxers)
        return self._establish(theirs, muxer)

    def _receive_third(self, message: bytes) -> Established:
        theirs = self._check(self._noise.read_third(message))
        muxer = choose_muxer(theirs.muxers, self._ours.muxers)
        return self._establish(theirs, muxer)

    def _check(self, payload: bytes) -> HandshakePayload:
        """Find out who the remote is, before anything more is told to it."""
        theirs = HandshakePayload.decode_untrusted(payload)
        theirs.check_signature(self._noise.remote_static)
        if self._expected is not None and not self._expected.matches(theirs.identity_key):  # N8
            raise PeerIdMismatch(self._expected, PeerId.from_public_key(theirs.identity_key))
        return theirs

    def _establish(self, theirs: HandshakePayload, muxer: str | None) -> Established:
        self._finished = True
        key = theirs.identity_key
        peer_id = PeerId.from_public_key(key)
        initiators, responders = self._noise.split()
        sending, receiving = initiators, responders
        said, heard = self._ours.foreword, b""
        if not self._is_initiator:
            sending, receiving = responders, initiators
            heard = theirs.foreword  # N14: of message 3 alone
        return Established(
            key, peer_id, muxer, said=said, heard=heard, sending=sending, receiving=receiving
        )


def choose_muxer(initiators: Sequence[str], responders: Sequence[str]) -> str | None:
    """Return the initiator's favourite among what both listed; None to negotiate it (N9)."""
    return next((muxer for muxer in initiators if muxer in responders), None)


def public_bytes(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def private_key(secret: bytes) -> X25519PrivateKey:
    """Make an X25519 key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret)


def exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """Do the Diffie-Hellman. Raises SecurityError for a point that makes the result known."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SecurityError("the remote sent a Noise key of small order") from None


def derive_two(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Derive two keys: HKDF as Noise has it, section 4.3."""
    temporary = hmac.digest(chaining_key, secret, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    return first, hmac.digest(temporary, first + b"\x02", "sha256")
