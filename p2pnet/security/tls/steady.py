"""A certificate key whose signatures are all of one length, so that handshakes are as well.

A signature of ECDSA has a byte less, or more, half of the time, by chance that no caller can
choose. On the wire that is another size of packets, another pace, and other times from then on:
what happens would not follow from what was done, and no run could be compared with another.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from p2pnet.security.tls.certificate import P256_SIGNATURE_BYTES


class SteadyKey:
    """Signs again until the signature has the most frequent length: twice, on average.

    That gives nothing away: who sees signatures could ignore those of other lengths just as well.
    """

    def __init__(self, pem: bytes) -> None:
        key = load_pem_private_key(pem, None)
        if not (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"):
            raise ValueError("no key of P-256")
        self._key = key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    def sign(self, data: bytes, algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        while True:
            signature = self._key.sign(data, algorithm)
            if len(signature) == P256_SIGNATURE_BYTES:
                return signature


ec.EllipticCurvePrivateKey.register(SteadyKey)  # The library asks what kind of key it has.
