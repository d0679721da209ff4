"""Certificates of libp2p: made, and judged by T2, T4 to T9 of specs/tls.md."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.env import Env
from p2pnet.core.keys import KeyType, PrivateKey, PublicKey
from p2pnet.errors import SecurityError
from p2pnet.security.tls import der
from p2pnet.security.tls.certificate import (
    CLOCK_SKEW,
    EXTENSION,
    EXTENSION_OID,
    MAX_CERTIFICATE_BYTES,
    MAX_EXTENSIONS,
    REMEMBERED,
    SIGNATURE_PREFIX,
    KeyKind,
    judge,
    make_certificate,
)

NOW = 1_700_000_000.0
ALICE = PrivateKey.from_seed(bytes(31) + b"A")
random_bytes = Env.system().random_bytes

CertificateKey = (
    ec.EllipticCurvePrivateKey | Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey
)
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def spki_of(key: CertificateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def proof_by(identity: PrivateKey, spki: bytes) -> bytes:
    return der.encode(
        der.SEQUENCE,
        der.encode(der.OCTET_STRING, identity.public_key.encode())
        + der.encode(der.OCTET_STRING, identity.sign(SIGNATURE_PREFIX + spki)),
    )


def libp2p(value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(EXTENSION, value)


def certify(
    key: CertificateKey,
    algorithm: SHA224 | SHA256 | SHA384 | SHA512 | None = None,
    *,
    proof: bytes | None = None,
    critical: bool = False,
    others: Sequence[tuple[x509.ExtensionType, bool]] = (),
    signer: CertificateKey | None = None,
    rsa_padding: padding.PSS | None = None,
    begin: float = NOW - 60,
    end: float = NOW + 60,
) -> bytes:
    """Make a certificate as no host of ours would."""
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .serial_number(77)
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(datetime.datetime.fromtimestamp(begin, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.UTC))
        .public_key(key.public_key())
    )
    value = proof_by(ALICE, spki_of(key)) if proof is None else proof
    if value:
        builder = builder.add_extension(libp2p(value), critical=critical)
    for extension, is_critical in others:
        builder = builder.add_extension(extension, critical=is_critical)
    made = builder.sign(signer or key, algorithm, rsa_padding=rsa_padding)
    return made.public_bytes(Encoding.DER)


def sign_again(signed: bytes, key: ec.EllipticCurvePrivateKey = P256) -> bytes:
    """Put a certificate around what its builder would not sign."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = key.sign(signed, ec.ECDSA(SHA256()))
    return der.encode(
        der.SEQUENCE, signed + algorithm + der.encode(der.BIT_STRING, b"\x00" + signature)
    )


def parts_of(certificate: bytes) -> list[der.Value]:
    """Take the signed part of a certificate apart."""
    signed = der.Reader(der.only(certificate, der.SEQUENCE).content).take(der.SEQUENCE)
    reader, parts = der.Reader(signed.content), []
    while (tag := reader.next_tag) is not None:
        parts.append(reader.take(tag))
    return parts


def with_parts(parts: Sequence[bytes]) -> bytes:
    return sign_again(der.encode(der.SEQUENCE, b"".join(parts)))


def with_extensions(extensions: Sequence[bytes]) -> bytes:
    parts = [part.whole for part in parts_of(certify(P256, SHA256()))]
    parts[-1] = der.encode(0xA3, der.encode(der.SEQUENCE, b"".join(extensions)))
    return with_parts(parts)


def extension(oid: bytes, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, der.encode(der.OID, oid) + der.encode(der.OCTET_STRING, value))


def refusal_of(certificate: bytes, now: float = NOW) -> str:
    with pytest.raises(SecurityError) as caught:
        judge(certificate, now=now)
    assert type(caught.value) is SecurityError
    return str(caught.value)


# ---- ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KeyKind)
@pytest.mark.parametrize("identity", KeyType)
def test_what_is_made_proves_the_identity_key(kind: KeyKind, identity: KeyType) -> None:
    key = PrivateKey.generate(identity)
    made = make_certificate(key, random_bytes, kind=kind)
    for now in (0x10000000, NOW, 2**35):
        assert judge(made.der, now=now) == key.public_key


@pytest.mark.parametrize("kind", KeyKind)
def test_a_certificate_always_has_the_same_size_and_never_the_same_key(kind: KeyKind) -> None:
    made = [make_certificate(ALICE, random_bytes, kind=kind) for _ in range(20)]
    assert len({len(one.der) for one in made}) == 1
    assert len({spki_of(one.private_key) for one in made}) == 20


@pytest.mark.parametrize("kind", KeyKind)
def test_the_same_chance_makes_the_same_certificate(kind: KeyKind) -> None:
    def count_up() -> bytes:
        state = 0

        def draw(count: int) -> bytes:
            nonlocal state
            state += 1
            return state.to_bytes(count)

        return make_certificate(ALICE, draw, kind=kind).der

    assert count_up() == count_up()


def test_the_extension_comes_first_and_is_not_critical_and_the_name_not_empty() -> None:
    made = make_certificate(ALICE, random_bytes).certificate
    first = made.extensions[0]
    assert (first.oid, first.critical) == (EXTENSION, False)
    assert made.subject == made.issuer
    assert len(made.subject.rfc4514_string()) > 10


def test_the_secret_is_not_shown_and_comes_as_pem_when_it_is_asked_for() -> None:
    made = make_certificate(ALICE, random_bytes)
    assert "private_key" not in repr(made)
    assert made.private_key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert made.certificate_pem.startswith(b"-----BEGIN CERTIFICATE-----\n")
    assert made.certificate.public_bytes(Encoding.DER) == made.der


def test_a_key_is_drawn_again_if_it_is_none() -> None:
    drawn = iter([b"\xff" * 32, bytes(32), b"\x01" * 32])

    def draw(count: int) -> bytes:
        return next(drawn) if count == 32 else random_bytes(count)

    key = make_certificate(ALICE, draw).private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers().private_value == int.from_bytes(b"\x01" * 32)


# ---- theirs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (P256, SHA256()),
        (P256, SHA512()),
        (ec.generate_private_key(ec.SECP384R1()), SHA384()),
        (ec.generate_private_key(ec.SECP521R1()), SHA512()),
        (RSA, SHA256()),
        (RSA, SHA384()),
        (RSA, SHA512()),
        (Ed25519PrivateKey.generate(), None),
    ],
)
@pytest.mark.parametrize("critical", [False, True])
def test_every_good_kind_of_key_and_hash_is_taken(
    key: CertificateKey, algorithm: SHA256 | None, critical: bool
) -> None:
    """T4 T7."""
    made = certify(key, algorithm, critical=critical)
    assert judge(made, now=NOW) == ALICE.public_key


@pytest.mark.parametrize("digest", [SHA256(), SHA384(), SHA512()])
def test_rsa_by_pss_is_taken(digest: SHA256 | SHA384 | SHA512) -> None:
    """T7."""
    pss = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    made = certify(RSA, digest, rsa_padding=pss)
    assert judge(made, now=NOW) == ALICE.public_key


WEAK_RSA = rsa.generate_private_key(65537, 1024)
ODD_RSA = rsa.RSAPublicNumbers(2**64 + 13, RSA.public_key().public_numbers().n).public_key()


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (certify(WEAK_RSA, SHA256()), "weak or of an unknown kind"),
        (certify(ec.generate_private_key(ec.SECP256K1()), SHA256()), "weak or of an unknown"),
        (certify(ec.generate_private_key(ec.SECP224R1()), SHA256()), "weak or of an unknown"),
        (certify(ed448.Ed448PrivateKey.generate()), "weak or unknown algorithm"),
        (certify(P256, SHA224()), "weak or unknown algorithm"),
        (certify(RSA, SHA224()), "weak or unknown algorithm"),
        (
            certify(RSA, SHA256(), rsa_padding=padding.PSS(padding.MGF1(SHA256()), salt_length=20)),
            "weak or unknown algorithm",
        ),
    ],
)
def test_weak_and_unknown_keys_and_hashes_are_refused(certificate: bytes, reason: str) -> None:
    """T7."""
    assert reason in refusal_of(certificate)


def test_an_rsa_key_that_would_take_long_is_refused() -> None:
    """T7."""
    odd = ODD_RSA.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    parts = [part.whole for part in parts_of(certify(RSA, SHA256()))]
    parts[6] = odd
    signed = der.encode(der.SEQUENCE, b"".join(parts))
    algorithm = parts[2]
    signature = der.encode(der.BIT_STRING, bytes(257))
    whole = der.encode(der.SEQUENCE, signed + algorithm + signature)
    assert "weak or of an unknown kind" in refusal_of(whole)


def test_a_key_on_a_curve_that_is_spelt_out_is_refused() -> None:
    """T7: NamedCurve encoding is a must."""
    parts = [part.whole for part in parts_of(certify(P256, SHA256()))]
    key_oid = der.encode(der.OID, bytes.fromhex("2a8648ce3d0201"))
    spelt_out = der.encode(der.SEQUENCE, der.encode(der.INTEGER, b"\x01"))
    point = der.encode(
        der.BIT_STRING,
        b"\x00" + P256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    )
    parts[6] = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, key_oid + spelt_out) + point)
    assert "malformed or unknown" in refusal_of(with_parts(parts))


def test_a_certificate_that_another_key_has_signed_is_refused() -> None:
    """T8."""
    other = ec.generate_private_key(ec.SECP256R1())
    assert "not signed by its own key" in refusal_of(certify(P256, SHA256(), signer=other))
    assert "another kind of key" in refusal_of(certify(P256, SHA256(), signer=RSA))


def test_a_proof_for_another_certificate_key_or_by_another_identity_is_refused() -> None:
    """T5."""
    elsewhere = proof_by(ALICE, spki_of(RSA))
    assert "did not sign its certificate key" in refusal_of(
        certify(P256, SHA256(), proof=elsewhere)
    )
    stranger = PrivateKey.generate()
    mixed = der.encode(
        der.SEQUENCE,
        der.encode(der.OCTET_STRING, ALICE.public_key.encode())
        + der.encode(der.OCTET_STRING, stranger.sign(SIGNATURE_PREFIX + spki_of(P256))),
    )
    assert "did not sign its certificate key" in refusal_of(certify(P256, SHA256(), proof=mixed))


@pytest.mark.parametrize(
    ("proof", "reason"),
    [
        (b"\x30\x00", "malformed"),
        (b"garbage", "malformed"),
        (proof_by(ALICE, spki_of(P256)) + b"\x00", "malformed"),
        (der.encode(0x30, b"\x04\x02\x08\x01\x04\x01x"), "no identity key"),
        (der.encode(0x30, der.encode(4, bytes(5000)) + b"\x04\x01x"), "no identity key"),
    ],
)
def test_an_extension_that_holds_no_proof_is_refused(proof: bytes, reason: str) -> None:
    """T5 T9."""
    assert reason in refusal_of(certify(P256, SHA256(), proof=proof))


def test_a_certificate_without_the_extension_or_without_any_is_refused() -> None:
    """T4."""
    assert "lacks the extension" in refusal_of(certify(P256, SHA256(), proof=b""))
    other = (x509.BasicConstraints(ca=False, path_length=None), False)
    assert "lacks the extension" in refusal_of(certify(P256, SHA256(), proof=b"", others=[other]))


def test_other_extensions_are_passed_over_unless_they_are_critical() -> None:
    """T4."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"whatever")
    made = certify(P256, SHA256(), others=[(unknown, False)])
    assert judge(made, now=NOW) == ALICE.public_key
    made = certify(P256, SHA256(), others=[(unknown, True)])
    assert "unknown critical extension" in refusal_of(made)


def test_an_extension_that_comes_twice_is_refused() -> None:
    """T4."""
    proof = extension(EXTENSION_OID, proof_by(ALICE, spki_of(P256)))
    assert judge(with_extensions([proof]), now=NOW) == ALICE.public_key
    assert "extension twice" in refusal_of(with_extensions([proof, proof]))
    other = extension(b"\x2a\x03", b"")
    assert "extension twice" in refusal_of(with_extensions([other, proof, other]))


def test_too_many_extensions_are_refused() -> None:
    """T9."""
    proof = extension(EXTENSION_OID, proof_by(ALICE, spki_of(P256)))
    others = [extension(bytes([0x2A, number]), b"") for number in range(MAX_EXTENSIONS)]
    assert judge(with_extensions([proof, *others[1:]]), now=NOW) == ALICE.public_key
    assert f"more than {MAX_EXTENSIONS}" in refusal_of(with_extensions([proof, *others]))


def test_a_certificate_that_is_not_valid_at_the_time_is_refused() -> None:
    """T6."""
    made = certify(P256, SHA256(), begin=NOW, end=NOW + 100)
    assert judge(made, now=NOW - CLOCK_SKEW) == ALICE.public_key
    assert judge(made, now=NOW + 100) == ALICE.public_key
    assert "not valid yet" in refusal_of(made, NOW - CLOCK_SKEW - 1)
    assert "expired" in refusal_of(made, NOW + 101)


def test_what_a_certificate_proves_is_remembered_while_it_is_one_of_the_last() -> None:
    """T17."""
    first = certify(P256, SHA256())
    proved = judge(first, now=NOW)
    assert judge(bytes(bytearray(first)), now=NOW + 1) is proved
    for second in range(1, REMEMBERED + 1):
        judge(certify(P256, SHA256(), end=NOW + 60 + second), now=NOW)
    again = judge(first, now=NOW)
    assert again == proved
    assert again is not proved


def test_a_certificate_that_was_refused_is_judged_anew_and_puts_none_out_of_mind() -> None:
    """T17."""
    good = certify(P256, SHA256())
    proved = judge(good, now=NOW)
    for length in range(REMEMBERED + 1):
        bad = good[:-1] + bytes([good[-1] ^ 1]) + bytes(length)
        assert refusal_of(bad) == refusal_of(bad)
    assert judge(good, now=NOW) is proved


@pytest.mark.parametrize(
    ("tag", "time"),
    [
        (der.UTC_TIME, b"2301010000Z"),
        (der.UTC_TIME, b"231301000000Z"),
        (der.UTC_TIME, b"230101000000+0000"),
        (der.UTC_TIME, b"23010100 000Z"),
        (der.GENERALIZED_TIME, b"00000101000000Z"),
        (der.GENERALIZED_TIME, b"20230229000000Z"),
        (der.GENERALIZED_TIME, b"20230101000000.5Z"),
        (der.OCTET_STRING, b"20230101000000Z"),
    ],
)
def test_a_time_that_is_none_is_refused(tag: int, time: bytes) -> None:
    """T9."""
    parts = [part.whole for part in parts_of(certify(P256, SHA256()))]
    good = der.encode(der.GENERALIZED_TIME, b"20990101000000Z")
    parts[4] = der.encode(der.SEQUENCE, der.encode(tag, time) + good)
    assert "malformed" in refusal_of(with_parts(parts))


@pytest.mark.parametrize("tag", [0x81, 0x82, 0xA1])
def test_a_unique_id_is_refused(tag: int) -> None:
    """T4."""
    parts = [part.whole for part in parts_of(certify(P256, SHA256()))]
    parts.insert(7, der.encode(tag, b"\x00abc"))
    assert "unique id" in refusal_of(with_parts(parts))


def test_another_version_or_two_algorithms_or_odd_bits_are_refused() -> None:
    """T9."""
    parts = [part.whole for part in parts_of(certify(P256, SHA256()))]
    older = [der.encode(0xA0, b"\x02\x01\x01"), *parts[1:]]
    assert "version 3" in refusal_of(with_parts(older))
    other = [*parts[:2], bytes.fromhex("300a06082a8648ce3d040303"), *parts[3:]]
    assert "two signature algorithms" in refusal_of(with_parts(other))
    whole = certify(P256, SHA256())
    reader = der.Reader(der.only(whole, der.SEQUENCE).content)
    signed, algorithm = reader.take(der.SEQUENCE).whole, reader.take(der.SEQUENCE).whole
    odd = der.encode(der.SEQUENCE, signed + algorithm + der.encode(der.BIT_STRING, b"\x01ab"))
    assert "odd number of bits" in refusal_of(odd)


def test_a_certificate_over_the_limit_is_refused_unread() -> None:
    """T9."""
    assert f"has {MAX_CERTIFICATE_BYTES + 1} bytes" in refusal_of(bytes(MAX_CERTIFICATE_BYTES + 1))
    padding_extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(1 << 20))
    huge = certify(P256, SHA256(), others=[(padding_extension, False)])
    assert "bytes" in refusal_of(huge)


@pytest.mark.parametrize("kind", KeyKind)
def test_a_certificate_cut_anywhere_or_changed_anywhere_proves_nothing(kind: KeyKind) -> None:
    """T5 T8 T9."""
    good = make_certificate(ALICE, random_bytes, kind=kind).der
    for at in range(len(good)):
        refusal_of(good[:at])
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        refusal_of(bytes(changed))
    refusal_of(good + b"\x00")


@given(st.binary(max_size=600))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with suppress(SecurityError):
        judge(data, now=NOW)


GOOD = make_certificate(ALICE, random_bytes, kind=KeyKind.ED25519).der


@given(st.integers(0, len(GOOD)), st.binary(max_size=40), st.integers(0, 40))
def test_a_certificate_with_garbage_inside_is_refused_or_still_the_same(
    at: int, garbage: bytes, removed: int
) -> None:
    spoilt = GOOD[:at] + garbage + GOOD[at + removed :]
    found: PublicKey | None = None
    with suppress(SecurityError):
        found = judge(spoilt, now=NOW)
    assert found is None or spoilt == GOOD
