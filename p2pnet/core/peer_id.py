"""Who a peer is, as a short name: the multihash of its public key. Rules: specs/peer-id.md.

The one door to base58.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import base58

from p2pnet.core.keys import PublicKey
from p2pnet.errors import ProtocolError

NAME = "peer-id"
IDENTITY, SHA2_256 = 0x00, 0x12
MAX_INLINE_KEY_BYTES = 42
SHA2_256_BYTES = 32
CID_HEAD = b"\x01\x72"
"""CID version 1, content of kind libp2p-key."""
MAX_TEXT = 128
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, order=True, repr=False)
class PeerId:
    """The name of a peer. Two keys have one name only if they are the same key."""

    multihash: bytes

    def __post_init__(self) -> None:
        _check_multihash(self.multihash)

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read a peer id from text: base58, or a CID in base32, base36 or base58.

        Raises:
            ValueError: if it is none, with what is wrong.
        """
        if not 0 < len(text) <= MAX_TEXT or not text.isascii():
            raise ValueError(f"{text[:MAX_TEXT]!r} is not a peer id")
        try:
            return cls(_multihash_of(text))  # P10
        except ValueError as error:
            raise ValueError(f"{text!r} is not a peer id: {error}") from None

    @classmethod
    def decode_untrusted(cls, data: bytes) -> PeerId:
        """Read a peer id from its bytes.

        Raises:
            ProtocolError: if they are not the multihash of a key.
        """
        try:
            return cls(bytes(data))
        except ValueError as error:
            raise ProtocolError(NAME, str(error)) from None

    @classmethod
    def from_public_key(cls, key: PublicKey) -> PeerId:
        encoded = key.encode()
        if len(encoded) <= MAX_INLINE_KEY_BYTES:  # P7
            return cls(bytes([IDENTITY, len(encoded)]) + encoded)
        return cls(bytes([SHA2_256, SHA2_256_BYTES]) + sha256(encoded).digest())

    def to_bytes(self) -> bytes:
        return self.multihash

    def to_cid(self) -> str:
        """Return the newer text form: a CID in base32."""
        return "b" + _base32(CID_HEAD + self.multihash)

    @property
    def short(self) -> str:
        """The last eight characters: enough to tell peers apart in a log."""
        return str(self)[-8:]

    def public_key(self) -> PublicKey | None:
        """Return the key itself if the id is short enough to hold it, else None."""
        if self.multihash[0] != IDENTITY:
            return None
        try:
            key = PublicKey.decode_untrusted(self.multihash[2:])
        except ProtocolError:
            return None  # P11: some programs name themselves by random bytes.
        return key if self.matches(key) else None

    def matches(self, key: PublicKey) -> bool:
        """Tell if this is the name of that key."""
        return PeerId.from_public_key(key) == self

    def __str__(self) -> str:
        return _base58(self.multihash)  # P9

    def __repr__(self) -> str:
        return f"PeerId({self})"


def _check_multihash(data: bytes) -> None:
    """Refuse what is not the multihash of a public key (P8)."""
    if len(data) < 2 or len(data) - 2 != data[1]:
        raise ValueError("not a multihash")
    code, size = data[0], data[1]
    if code == SHA2_256 and size == SHA2_256_BYTES:
        return
    if code == IDENTITY and 0 < size <= MAX_INLINE_KEY_BYTES:
        return
    raise ValueError(f"a multihash of kind {code:#04x} and {size} bytes")


def _multihash_of(text: str) -> bytes:
    if text.startswith(("1", "Qm")):
        return _from_base58(text)
    match text[0]:
        case "b":
            cid = _from_base32(text[1:])
        case "k":
            cid = _from_base36(text[1:])
        case "z":
            cid = _from_base58(text[1:])
        case _:
            raise ValueError("neither base58 nor a CID in base32, base36 or base58")
    if not cid.startswith(CID_HEAD):
        raise ValueError("a CID, but not of version 1 and of a libp2p key")
    return cid.removeprefix(CID_HEAD)


# Every form has one spelling: what does not come back as it was given is refused. That covers
# the spaces, the padding and the spare bits which the decoders would let pass.


@lru_cache(maxsize=1024)
def _base58(data: bytes) -> str:
    return base58.b58encode(data).decode()


def _from_base58(text: str) -> bytes:
    data = base58.b58decode(text)
    if _base58(data) != text:
        raise ValueError("not canonical base58")
    return data


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def _from_base32(text: str) -> bytes:
    padding = "=" * (-len(text) % 8)
    data = base64.b32decode(text.upper() + padding)
    if _base32(data) != text:
        raise ValueError("not canonical base32")
    return data


def _base36(data: bytes) -> str:
    digits, number = "", int.from_bytes(data)
    while number:
        number, digit = divmod(number, 36)
        digits = BASE36[digit] + digits
    return digits


def _from_base36(text: str) -> bytes:
    if not text or not set(text) <= set(BASE36):
        raise ValueError("not base36")
    number = int(text, 36)
    data = number.to_bytes((number.bit_length() + 7) // 8)
    if _base36(data) != text:
        raise ValueError("not canonical base36")
    return data
