"""Signatures of one length, which the library takes for those of any other key."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from p2pnet.core.keys import PrivateKey
from p2pnet.security.tls.certificate import KeyKind, make_certificate
from p2pnet.security.tls.steady import SteadyKey

SHA = ec.ECDSA(SHA256())
SIGNATURES = 40
"""By chance one of so many would have another length, but for once in a million million times."""


def test_q24_all_signatures_have_one_length_and_are_good() -> None:
    own = make_certificate(PrivateKey.generate(), os.urandom)
    key = SteadyKey(own.private_key_pem)
    public = own.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signatures = [key.sign(b"what was said", SHA) for _ in range(SIGNATURES)]
    assert {len(signature) for signature in signatures} == {71}
    for signature in signatures:
        public.verify(signature, b"what was said", SHA)
    assert len(set(signatures)) == SIGNATURES


def test_the_library_takes_it_for_a_key_of_its_curve() -> None:
    own = make_certificate(PrivateKey.generate(), os.urandom)
    key = SteadyKey(own.private_key_pem)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_other_kinds_of_keys_are_refused() -> None:
    own = make_certificate(PrivateKey.generate(), os.urandom, kind=KeyKind.ED25519)
    with pytest.raises(ValueError, match="P-256"):
        SteadyKey(own.private_key_pem)
