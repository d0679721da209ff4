"""TLS 1.3 as libp2p speaks it: ``/tls/1.0.0``. Rules: specs/tls.md."""

from typing import TYPE_CHECKING

from p2pnet.core.lazy import lazily

if TYPE_CHECKING:
    from p2pnet.security.tls.certificate import KeyKind
    from p2pnet.security.tls.driver import TLS, TLSSecurity
    from p2pnet.security.tls.stream import TLSStream

__all__ = ["TLS", "KeyKind", "TLSSecurity", "TLSStream"]

if not TYPE_CHECKING:  # QUIC needs the certificates without OpenSSL.
    __getattr__ = lazily(
        __name__,
        {
            "KeyKind": "p2pnet.security.tls.certificate",
            "TLS": "p2pnet.security.tls.driver",
            "TLSSecurity": "p2pnet.security.tls.driver",
            "TLSStream": "p2pnet.security.tls.stream",
        },
    )
