"""Identity keys: sign, verify, and the protobuf form they travel and are kept in.

Rules: specs/peer-id.md. Ed25519 is what every implementation speaks; the other three kinds
exist so that peers which have one can be understood.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from google.protobuf.message import DecodeError

from p2pnet.errors import ProtocolError
from p2pnet.pb import keys_pb2 as pb

NAME = "libp2p-key"
MAX_PUBLIC_KEY_BYTES = 2048
MAX_PRIVATE_KEY_BYTES = 8192
RSA_BITS = range(2048, 8192 + 1)
MAX_RSA_EXPONENT_BYTES = 4
SEED_BYTES = 32
POINT_BYTES = 33
SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

LoadedPublic = Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey
LoadedPrivate = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class KeyType(IntEnum):
    """The kinds of keys, by their number on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class PublicKey:
    """Who somebody is. A value: equal and hashed by its canonical encoding."""

    __slots__ = ("_encoded", "_kind", "_loaded")

    def __init__(self, kind: KeyType, data: bytes) -> None:
        """Take the kind's own form of a key, the ``Data`` of the protobuf.

        Raises:
            ValueError: if it is none, or a weak or oversized one.
        """
        self._kind = kind
        try:
            self._loaded = _PUBLIC_LOADERS[kind](data)
        except UnsupportedAlgorithm:
            raise ValueError(f"{kind.name} keys are not supported on this system") from None
        # P1: every field, in order, type 0 as well. Hashes and signatures are made of this.
        message = pb.PublicKey(type=pb.KeyType.Name(kind), data=data)
        self._encoded = message.SerializeToString(deterministic=True)

    @classmethod
    def decode_untrusted(cls, data: bytes) -> PublicKey:
        """Read a key from its protobuf form.

        Raises:
            ProtocolError: if it is malformed, of an unknown kind, weak or oversized.
        """
        if len(data) > MAX_PUBLIC_KEY_BYTES:  # P2
            raise ProtocolError(NAME, f"public key of {len(data)} bytes")
        try:
            message = pb.PublicKey.FromString(data)
        except DecodeError:
            raise ProtocolError(NAME, "malformed public key") from None
        if not (message.HasField("type") and message.HasField("data")):  # P2
            raise ProtocolError(NAME, "public key without type or data")
        try:
            return cls(KeyType(message.type), message.data)
        except ValueError as error:
            raise ProtocolError(NAME, str(error)) from None

    @property
    def kind(self) -> KeyType:
        return self._kind

    def encode(self) -> bytes:
        """Return the canonical protobuf form."""
        return self._encoded

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Tell if the holder of the private key signed ``data``; never raises."""
        try:
            match self._loaded:
                case Ed25519PublicKey() as key:
                    key.verify(signature, data)
                case rsa.RSAPublicKey() as key:
                    key.verify(signature, data, PKCS1v15(), SHA256())
                case key:
                    key.verify(signature, data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._encoded == other._encoded

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __reduce__(self) -> tuple[Callable[[bytes], PublicKey], tuple[bytes]]:
        return PublicKey.decode_untrusted, (self._encoded,)

    def __repr__(self) -> str:
        tail = self._encoded[-8:].hex()
        return f"<PublicKey {self._kind.name} …{tail}>"


class PrivateKey:
    """What proves who we are. It never shows its secret, except by ``encode``."""

    __slots__ = ("_kind", "_loaded", "_public")

    def __init__(self, kind: KeyType, data: bytes) -> None:
        """Take the kind's own form of a key, the ``Data`` of the protobuf.

        Raises:
            ValueError: if it is none, or a weak or oversized one.
        """
        self._kind = kind
        try:
            self._loaded = _PRIVATE_LOADERS[kind](data)
        except UnsupportedAlgorithm:
            raise ValueError(f"{kind.name} keys are not supported on this system") from None
        self._public = PublicKey(kind, _public_data(kind, self._loaded))

    @classmethod
    def generate(cls, kind: KeyType = KeyType.ED25519) -> PrivateKey:
        """Make a new key from the system's randomness."""
        return cls(kind, _private_data(kind, _GENERATORS[kind]()))

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Make the Ed25519 key of a seed of 32 bytes: the same seed, the same key.

        Raises:
            ValueError: if the seed is not 32 bytes long.
        """
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}")
        loaded = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(KeyType.ED25519, _private_data(KeyType.ED25519, loaded))

    @classmethod
    def decode(cls, data: bytes) -> PrivateKey:
        """Read a key from its protobuf form, as key files hold it.

        Raises:
            ValueError: if it is not a private key, with what is wrong (and nothing of the key).
        """
        if len(data) > MAX_PRIVATE_KEY_BYTES:
            raise ValueError(f"not a private key: {len(data)} bytes are too many")
        try:
            message = pb.PrivateKey.FromString(data)
        except DecodeError:
            raise ValueError("not a private key: not in the protobuf form of libp2p") from None
        if not (message.HasField("type") and message.HasField("data")):
            raise ValueError("not a private key: type or data is missing")
        try:
            kind = KeyType(message.type)
        except ValueError:
            raise ValueError(f"not a private key: unknown type {message.type}") from None
        return cls(kind, message.data)

    @property
    def kind(self) -> KeyType:
        return self._kind

    @property
    def public_key(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        match self._loaded:
            case Ed25519PrivateKey() as key:
                return key.sign(data)
            case rsa.RSAPrivateKey() as key:
                return key.sign(data, PKCS1v15(), SHA256())
            case key:
                signature = key.sign(data, ec.ECDSA(SHA256()))
                return _low_s(signature) if self._kind is KeyType.SECP256K1 else signature

    def encode(self) -> bytes:
        """Return the protobuf form, secret and all, as key files hold it."""
        message = pb.PrivateKey(
            type=pb.KeyType.Name(self._kind), data=_private_data(self._kind, self._loaded)
        )
        return message.SerializeToString(deterministic=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and self._public == other._public

    def __hash__(self) -> int:
        return hash(self._public)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled; use encode() where it must be written")

    def __repr__(self) -> str:
        return f"<PrivateKey of {self._public!r}>"


# ---- the four kinds: from and to the Data field ------------------------------------------


def _load_ed25519_public(data: bytes) -> LoadedPublic:
    if len(data) != SEED_BYTES:  # P3
        raise ValueError(f"Ed25519 public key of {len(data)} bytes")
    return Ed25519PublicKey.from_public_bytes(data)


def _load_secp256k1_public(data: bytes) -> LoadedPublic:
    if len(data) != POINT_BYTES or data[0] not in (2, 3):  # P4
        raise ValueError("Secp256k1 public key that is not a compressed point")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
    except ValueError:
        raise ValueError("Secp256k1 public key that is not on the curve") from None


# DER of a P-256 SubjectPublicKeyInfo up to its point: each of them begins with these bytes.
_P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def _load_ecdsa_public(data: bytes) -> LoadedPublic:
    point = data.removeprefix(_P256_HEAD)
    if len(point) != len(data) - len(_P256_HEAD) or len(point) != 65:  # P5
        raise ValueError("ECDSA public key that is not of P-256")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise ValueError("ECDSA public key that is not on the curve") from None


# DER of AlgorithmIdentifier { rsaEncryption, NULL }.
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
_SEQUENCE, _INTEGER, _BIT_STRING = 0x30, 0x02, 0x03


def _load_rsa_public(data: bytes) -> LoadedPublic:
    """Read a SubjectPublicKeyInfo by hand, so that sizes are known before any arithmetic (P6)."""
    info = _whole_der(data, _SEQUENCE)
    if not info.startswith(_RSA_ALGORITHM):
        raise ValueError("RSA public key of another algorithm")
    bits = _whole_der(info[len(_RSA_ALGORITHM) :], _BIT_STRING)
    if bits[:1] != b"\x00":
        raise ValueError("RSA public key in an odd number of bits")
    modulus, rest = _take_der(_whole_der(bits[1:], _SEQUENCE), _INTEGER)
    exponent = _whole_der(rest, _INTEGER)
    _check_rsa_modulus(modulus)
    if _der_integer_bits(exponent) > 8 * MAX_RSA_EXPONENT_BYTES:
        raise ValueError(f"RSA exponent of more than {MAX_RSA_EXPONENT_BYTES} bytes")
    e, n = int.from_bytes(exponent), int.from_bytes(modulus)
    if e < 3 or e % 2 == 0 or n % 2 == 0:
        raise ValueError("RSA key with an impossible exponent or modulus")
    return rsa.RSAPublicNumbers(e, n).public_key()


def _check_rsa_modulus(modulus: bytes) -> None:
    size = _der_integer_bits(modulus)
    if size not in RSA_BITS:
        raise ValueError(f"RSA key of {size} bits, not {RSA_BITS[0]} to {RSA_BITS[-1]}")


def _take_der(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split one DER value off ``data``: return its content and what follows."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("malformed DER")
    length, start = data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2 : min(start, 4)])
        # Distinguished: no more length bytes than needed; two are enough for every key.
        if start > 4 or length < (0x80 if start == 3 else 0x100):
            raise ValueError("malformed DER")
    if len(data) < start + length:
        raise ValueError("malformed DER")
    return data[start : start + length], data[start + length :]


def _whole_der(data: bytes, tag: int) -> bytes:
    content, rest = _take_der(data, tag)
    if rest:
        raise ValueError("malformed DER")
    return content


def _der_integer_bits(content: bytes) -> int:
    """Tell the size of a positive DER integer from its bytes alone."""
    if not content or content[0] >= 0x80:
        raise ValueError("malformed DER")
    if content[0] == 0 and (len(content) == 1 or content[1] < 0x80):
        raise ValueError("malformed DER")
    return 8 * (len(content) - 1) + content[0].bit_length()


def _load_ed25519_private(data: bytes) -> LoadedPrivate:
    # P3: seed and public key; an old form has the public key twice.
    seed, publics = data[:SEED_BYTES], data[SEED_BYTES:]
    if len(publics) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise ValueError(f"not an Ed25519 private key: {len(data)} bytes")
    loaded = Ed25519PrivateKey.from_private_bytes(seed)
    public = loaded.public_key().public_bytes_raw()
    if publics not in (public, public + public):
        raise ValueError("not an Ed25519 private key: seed and public key do not belong together")
    return loaded


def _load_secp256k1_private(data: bytes) -> LoadedPrivate:
    if len(data) != SEED_BYTES:  # P4
        raise ValueError(f"not a Secp256k1 private key: {len(data)} bytes")
    try:
        return ec.derive_private_key(int.from_bytes(data), ec.SECP256K1())
    except ValueError:
        raise ValueError("not a Secp256k1 private key: out of range") from None


def _load_ecdsa_private(data: bytes) -> LoadedPrivate:
    loaded = _load_der_private(data, "ECDSA")
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(
        loaded.curve, ec.SECP256R1
    ):
        raise ValueError("not an ECDSA private key of P-256")  # P5
    return loaded


def _load_rsa_private(data: bytes) -> LoadedPrivate:
    # PKCS#1: the version comes first, then the modulus.
    _version, rest = _take_der(_whole_der(data, _SEQUENCE), _INTEGER)
    _check_rsa_modulus(_take_der(rest, _INTEGER)[0])
    loaded = _load_der_private(data, "RSA")
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise ValueError("not an RSA private key")
    return loaded


def _load_der_private(data: bytes, kind: str) -> object:
    try:
        return load_der_private_key(data, password=None)
    except (ValueError, TypeError):
        # TypeError: it is encrypted. The library's words are dropped: they may quote the input.
        raise ValueError(f"not an {kind} private key: malformed or encrypted DER") from None


_GENERATORS: dict[KeyType, Callable[[], LoadedPrivate]] = {
    KeyType.RSA: lambda: rsa.generate_private_key(65537, RSA_BITS[0]),
    KeyType.ED25519: Ed25519PrivateKey.generate,
    KeyType.SECP256K1: lambda: ec.generate_private_key(ec.SECP256K1()),
    KeyType.ECDSA: lambda: ec.generate_private_key(ec.SECP256R1()),
}
_PUBLIC_LOADERS: dict[KeyType, Callable[[bytes], LoadedPublic]] = {
    KeyType.RSA: _load_rsa_public,
    KeyType.ED25519: _load_ed25519_public,
    KeyType.SECP256K1: _load_secp256k1_public,
    KeyType.ECDSA: _load_ecdsa_public,
}
_PRIVATE_LOADERS: dict[KeyType, Callable[[bytes], LoadedPrivate]] = {
    KeyType.RSA: _load_rsa_private,
    KeyType.ED25519: _load_ed25519_private,
    KeyType.SECP256K1: _load_secp256k1_private,
    KeyType.ECDSA: _load_ecdsa_private,
}


def _public_data(kind: KeyType, loaded: LoadedPrivate) -> bytes:
    if isinstance(loaded, Ed25519PrivateKey):
        return loaded.public_key().public_bytes_raw()
    if kind is KeyType.SECP256K1:
        return loaded.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _private_data(kind: KeyType, loaded: LoadedPrivate) -> bytes:
    if isinstance(loaded, Ed25519PrivateKey):
        return loaded.private_bytes_raw() + loaded.public_key().public_bytes_raw()
    if kind is KeyType.SECP256K1 and isinstance(loaded, ec.EllipticCurvePrivateKey):
        return loaded.private_numbers().private_value.to_bytes(SEED_BYTES)
    # P5, P6: PKCS#1 for RSA, SEC1 for ECDSA.
    return loaded.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _low_s(signature: bytes) -> bytes:
    """Bring a Secp256k1 signature into the form with the smaller s.

    Two are valid; rust-libp2p's identity crate refuses the other since its version 0.3 (P4).
    """
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, SECP256K1_ORDER - s))
