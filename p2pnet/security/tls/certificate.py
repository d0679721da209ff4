"""The certificates of libp2p: made, and judged. Pure. Rules: specs/tls.md.

A certificate is signed by a key of its own, and in an extension of its own the identity key
vouches for that one. Who holds the certificate key, which is what TLS proves, therefore is the
peer. No authority takes part. QUIC uses the same certificates.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.errors import ProtocolError, SecurityError
from p2pnet.security.tls import der

SIGNATURE_PREFIX = b"libp2p-tls-handshake:"
EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
EXTENSION_OID = bytes.fromhex("2b0601040183a25a0101")
MAX_CERTIFICATE_BYTES = 16_384
"""The largest keys and signatures that are understood need about 6 KiB."""
MAX_EXTENSIONS = 32
REMEMBERED = 128
"""Certificates of which it is remembered what they prove (T17)."""
CLOCK_SKEW = 3600.0
"""Seconds by which a remote's clock may be ahead of ours."""
NOT_BEFORE = datetime.datetime(1975, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(4096, 1, 1, tzinfo=datetime.UTC)
"""So that no peer with a wrong clock refuses us; they tell nothing of when a host was set up."""
SERIAL_BYTES = 8
SCALAR_BYTES = 32
P256_ORDER = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551
P256_SIGNATURE_BYTES = 71
"""The most frequent length of a signature; a rarer one would change the size of handshakes."""
RSA_BITS = range(2048, 8192 + 1)
MAX_RSA_EXPONENT_BITS = 32

OwnKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
CertificateKey = ec.EllipticCurvePublicKey | Ed25519PublicKey | rsa.RSAPublicKey
Hash = SHA256 | SHA384 | SHA512


class KeyKind(Enum):
    """The kinds of certificate keys that can be made."""

    P256 = "p256"
    """What every implementation understands."""
    ED25519 = "ed25519"
    """Smaller and faster, and a handshake always has the same size; not known to BoringSSL."""


# ---- making ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate of ours with its key; good for any number of connections."""

    der: bytes
    private_key: OwnKey = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate as an object of the library that TLS stacks take."""
        return x509.load_der_x509_certificate(self.der)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def private_key_pem(self) -> bytes:
        """The secret, in the form of PKCS #8."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_certificate(
    key: PrivateKey, random_bytes: Callable[[int], bytes], *, kind: KeyKind = KeyKind.P256
) -> OwnCertificate:
    """Make a certificate in which the identity key vouches for a fresh certificate key.

    The same random bytes give the same certificate.
    """
    own = _make_key(kind, random_bytes)
    spki = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    proof = der.encode(
        der.SEQUENCE,
        der.encode(der.OCTET_STRING, key.public_key.encode())
        + der.encode(der.OCTET_STRING, key.sign(SIGNATURE_PREFIX + spki)),  # T5
    )
    while True:
        made = _self_signed(own, proof, random_bytes)
        if kind is not KeyKind.P256 or len(made.signature) == P256_SIGNATURE_BYTES:
            return OwnCertificate(made.public_bytes(Encoding.DER), own)


def _make_key(kind: KeyKind, random_bytes: Callable[[int], bytes]) -> OwnKey:
    while True:
        secret = random_bytes(SCALAR_BYTES)
        if kind is KeyKind.ED25519:
            return Ed25519PrivateKey.from_private_bytes(secret)
        if 0 < (scalar := int.from_bytes(secret)) < P256_ORDER:
            return ec.derive_private_key(scalar, ec.SECP256R1())


def _self_signed(
    own: OwnKey, proof: bytes, random_bytes: Callable[[int], bytes]
) -> x509.Certificate:
    # Always as many bytes, and positive: the first two bits are 01.
    serial = int.from_bytes(random_bytes(SERIAL_BYTES)) & ~(3 << 62) | (1 << 62)
    # Some verifiers refuse an empty name; the digits are what go-libp2p has there.
    name = x509.Name([x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, str(serial))])
    builder = (
        x509.CertificateBuilder()
        .serial_number(serial)
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .public_key(own.public_key())
        # Not critical, and the first extension: js-libp2p looks at no other (T4).
        .add_extension(x509.UnrecognizedExtension(EXTENSION, proof), critical=False)
    )
    if isinstance(own, Ed25519PrivateKey):
        return builder.sign(own, None)
    return builder.sign(own, SHA256(), ecdsa_deterministic=True)


# ---- judging -----------------------------------------------------------------------------


def judge(data: bytes, *, now: float) -> PublicKey:
    """Return the identity key that a remote's certificate proves, if its key is proved.

    ``data`` is the one certificate that it sent, in DER, and ``now`` the wall clock's seconds.

    Raises:
        SecurityError: if it does not stand, with the reason.
    """
    if len(data) > MAX_CERTIFICATE_BYTES:  # T9
        raise SecurityError(f"the remote's certificate has {len(data)} bytes")
    proved = _proved(data)
    if now < proved.not_before - CLOCK_SKEW:  # T6
        raise SecurityError("the remote's certificate is not valid yet")
    if now > proved.not_after:  # T6
        raise SecurityError("the remote's certificate has expired")
    return proved.identity


@dataclass(frozen=True, slots=True)
class _Proved:
    """What a certificate proves, in the time in which it is valid."""

    identity: PublicKey
    not_before: float
    not_after: float


@lru_cache(maxsize=REMEMBERED)
def _proved(data: bytes) -> _Proved:
    """Return what follows from the bytes of a certificate alone, whoever sends them, and when.

    What is refused is not remembered: then this raises SecurityError, each time.
    """
    try:
        certificate = _Certificate.parse(data)
        proof = _find_proof(certificate.extensions)
        identity, signature = _take_proof(proof)
    except der.DerError as error:  # T9
        raise SecurityError(f"the remote's certificate is malformed: {error}") from None
    _check_self_signature(certificate)
    try:
        key = PublicKey.decode_untrusted(identity)
    except ProtocolError as error:
        raise SecurityError(f"the remote's certificate holds no identity key: {error}") from None
    if not key.verify(SIGNATURE_PREFIX + certificate.spki, signature):  # T5
        raise SecurityError("the remote's identity key did not sign its certificate key")
    return _Proved(key, certificate.not_before, certificate.not_after)


@dataclass(frozen=True, slots=True)
class _Extension:
    oid: bytes
    is_critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate taken apart; nothing in it is believed yet."""

    signed: bytes
    algorithm: bytes
    signature: bytes
    not_before: float
    not_after: float
    spki: bytes
    """The certificate key as it came: this is what the identity key signed."""
    extensions: tuple[_Extension, ...]

    @classmethod
    def parse(cls, data: bytes) -> _Certificate:
        """Raises DerError."""
        outer = der.Reader(der.only(data, der.SEQUENCE).content)
        signed = outer.take(der.SEQUENCE)
        algorithm = outer.take(der.SEQUENCE).whole
        signature = outer.take(der.BIT_STRING).content
        outer.finish()
        inner = der.Reader(signed.content)
        if der.only(inner.take(VERSION).content, der.INTEGER).content != b"\x02":
            raise der.DerError("it is not of version 3")
        inner.take(der.INTEGER)
        if inner.take(der.SEQUENCE).whole != algorithm:
            raise der.DerError("it names two signature algorithms")
        inner.take(der.SEQUENCE)
        validity = der.Reader(inner.take(der.SEQUENCE).content)
        not_before, not_after = _take_time(validity), _take_time(validity)
        validity.finish()
        inner.take(der.SEQUENCE)
        spki = inner.take(der.SEQUENCE).whole
        if inner.next_tag in UNIQUE_IDS:  # T4
            raise der.DerError("it has a unique id")
        extensions = inner.take_if(EXTENSIONS)
        inner.finish()
        if signature[:1] != b"\x00":
            raise der.DerError("a signature in an odd number of bits")
        return cls(
            signed.whole,
            algorithm,
            signature[1:],
            not_before,
            not_after,
            spki,
            () if extensions is None else _parse_extensions(extensions.content),
        )


VERSION, EXTENSIONS = 0xA0, 0xA3
UNIQUE_IDS = (0x81, 0x82, 0xA1, 0xA2)


def _take_time(reader: der.Reader) -> float:
    """Return seconds since 1970. Raises DerError."""
    short = reader.take_if(der.UTC_TIME)
    content = (short or reader.take(der.GENERALIZED_TIME)).content
    if short is not None:  # RFC 5280, 4.1.2.5.1: two digits stand for 1950 to 2049.
        content = (b"19" if content[:1] >= b"5" else b"20") + content
    if len(content) != len("YYYYMMDDHHMMSSZ") or not content[:-1].isdigit() or content[-1:] != b"Z":
        raise der.DerError("a time in another form than certificates have")
    year, *rest = (int(content[at : at + 2]) for at in range(2, 14, 2))
    month, day, hour, minute, second = rest
    try:
        moment = datetime.datetime(
            100 * int(content[:2]) + year, month, day, hour, minute, second, tzinfo=datetime.UTC
        )
    except ValueError:
        raise der.DerError("a time that does not exist") from None
    return moment.timestamp()


def _parse_extensions(data: bytes) -> tuple[_Extension, ...]:
    reader = der.Reader(der.only(data, der.SEQUENCE).content)
    extensions: list[_Extension] = []
    while reader.next_tag is not None:
        if len(extensions) == MAX_EXTENSIONS:  # T9
            raise der.DerError(f"more than {MAX_EXTENSIONS} extensions")
        parts = der.Reader(reader.take(der.SEQUENCE).content)
        oid = parts.take(der.OID).content
        critical = parts.take_if(der.BOOLEAN)
        value = parts.take(der.OCTET_STRING).content
        parts.finish()
        extensions.append(_Extension(oid, critical is not None and any(critical.content), value))
    return tuple(extensions)


def _find_proof(extensions: tuple[_Extension, ...]) -> bytes:
    """Return what is in the extension of libp2p.

    Raises:
        SecurityError: if there is none, or one twice, or an unknown one that is critical.
    """
    seen: set[bytes] = set()
    proof = None
    for extension in extensions:
        if extension.oid in seen:  # T4
            raise SecurityError("the remote's certificate has an extension twice")
        seen.add(extension.oid)
        if extension.oid == EXTENSION_OID:
            proof = extension.value
        elif extension.is_critical:  # T4
            raise SecurityError("the remote's certificate has an unknown critical extension")
    if proof is None:  # T4
        raise SecurityError("the remote's certificate lacks the extension of libp2p")
    return proof


def _take_proof(value: bytes) -> tuple[bytes, bytes]:
    """Return the identity key and its signature. Raises DerError."""
    parts = der.Reader(der.only(value, der.SEQUENCE).content)
    key, signature = parts.take(der.OCTET_STRING), parts.take(der.OCTET_STRING)
    parts.finish()
    return key.content, signature.content


def _pss(digest: Hash) -> PSS:
    return PSS(mgf=MGF1(digest), salt_length=digest.digest_size)


ECDSA = {
    bytes.fromhex("300a06082a8648ce3d040302"): SHA256(),
    bytes.fromhex("300a06082a8648ce3d040303"): SHA384(),
    bytes.fromhex("300a06082a8648ce3d040304"): SHA512(),
}
ED25519 = bytes.fromhex("300506032b6570")


def _pss_algorithm(hash_oid: str, salt: int) -> bytes:
    """Encode RSASSA-PSS with one hash for everything, and a salt as long as the hash."""
    digest = der.encode(
        der.SEQUENCE, der.encode(der.OID, bytes.fromhex(hash_oid)) + bytes.fromhex("0500")
    )
    mask = der.encode(
        der.SEQUENCE, der.encode(der.OID, bytes.fromhex("2a864886f70d010108")) + digest
    )
    parameters = der.encode(
        der.SEQUENCE,
        der.encode(0xA0, digest)
        + der.encode(0xA1, mask)
        + der.encode(0xA2, der.encode(der.INTEGER, bytes([salt]))),
    )
    oid = der.encode(der.OID, bytes.fromhex("2a864886f70d01010a"))
    return der.encode(der.SEQUENCE, oid + parameters)


RSA: dict[bytes, tuple[PSS | PKCS1v15, Hash]] = {
    bytes.fromhex("300d06092a864886f70d01010b0500"): (PKCS1v15(), SHA256()),
    bytes.fromhex("300d06092a864886f70d01010c0500"): (PKCS1v15(), SHA384()),
    bytes.fromhex("300d06092a864886f70d01010d0500"): (PKCS1v15(), SHA512()),
    _pss_algorithm("608648016503040201", 32): (_pss(SHA256()), SHA256()),
    _pss_algorithm("608648016503040202", 48): (_pss(SHA384()), SHA384()),
    _pss_algorithm("608648016503040203", 64): (_pss(SHA512()), SHA512()),
}
"""The signature algorithms that are taken, by their identifiers: none that is weak (T7)."""


def _check_self_signature(certificate: _Certificate) -> None:
    algorithm, signature, signed = certificate.algorithm, certificate.signature, certificate.signed
    if algorithm != ED25519 and algorithm not in ECDSA and algorithm not in RSA:  # T7
        raise SecurityError("the remote's certificate is signed by a weak or unknown algorithm")
    key = _load_key(certificate.spki)
    try:
        if isinstance(key, Ed25519PublicKey) and algorithm == ED25519:
            key.verify(signature, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm in ECDSA:
            key.verify(signature, signed, ec.ECDSA(ECDSA[algorithm]))
        elif isinstance(key, rsa.RSAPublicKey) and algorithm in RSA:
            key.verify(signature, signed, *RSA[algorithm])
        else:  # T8
            raise SecurityError("the remote's certificate is signed by another kind of key")
    except InvalidSignature:  # T8
        raise SecurityError("the remote's certificate is not signed by its own key") from None


def _load_key(spki: bytes) -> CertificateKey:
    """Load a certificate key. Raises SecurityError if it is weak, odd or of an unknown kind."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise SecurityError("the remote's certificate key is malformed or unknown") from None
    match key:
        case Ed25519PublicKey():
            return key
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1() | ec.SECP521R1()):
            return key
        case rsa.RSAPublicKey(key_size=bits) if bits in RSA_BITS:
            if key.public_numbers().e.bit_length() <= MAX_RSA_EXPONENT_BITS:
                return key
    raise SecurityError("the remote's certificate key is weak or of an unknown kind")  # T7
