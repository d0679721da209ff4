"""How a connection of QUIC ends: codes of libp2p and of QUIC, and the errors they become.

Pure. Rules: specs/quic.md (Q15, Q16).
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    ConnectionLost,
    HandshakeCut,
    NegotiationFailed,
    PeerIdMismatch,
    PeerLeft,
    PeerSilent,
    ProtocolError,
    SecurityError,
)
from p2pnet.security.tls.certificate import judge
from p2pnet.transports.quic.core import ALPN, Cause, Ended

QUIC_V1 = "/quic-v1"
TLS_1 = "/tls/1.0.0"

GOODBYES = 3
"""Copies of a goodbye: nobody acknowledges it, and the socket may be closed when it is missed."""
GOODBYE_SECONDS = 1.0
"""How long a full socket may keep a goodbye waiting, and a dial whoever is to get one at all."""
NO_ERROR = 0
OUT_OF_RESOURCES = 0x1002
"""Of a stream: those of connections are one less, from here on."""
CODES = {
    0x0: "no error",
    0x1000: "no protocol in common",
    0x1001: "out of resources",
    0x1002: "too much in too little time",
    0x1003: "we broke a rule",
    0x1004: "another connection took its place",
    0x1005: "it was idle, and there were too many",
    0x1006: "the remote shuts down",
    0x1007: "the remote does not want us",
    0x1008: "a code out of range",
}
"""What libp2p says with the code of a close."""
GOOD_ORDER = frozenset({0x0, 0x1004, 0x1005, 0x1006})
"""Q16: closes that are nobody's fault."""

CONNECTION_REFUSED = 0x2
CRYPTO_ERROR = 0x100
BAD_CERTIFICATE = CRYPTO_ERROR + 42
CERTIFICATE_REQUIRED = CRYPTO_ERROR + 116
NO_APPLICATION_PROTOCOL = CRYPTO_ERROR + 120


class Refused(Exception):
    """The remote's certificate does not stand; ``code`` tells it so."""

    def __init__(self, error: SecurityError, code: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code


def identified(chain: Sequence[bytes], *, expected: PeerId | None, now: float) -> PeerId:
    """Return the peer that a chain of certificates proves; ``now`` is the wall clock's.

    Raises:
        Refused: if it proves none, or another than the ``expected``.
    """
    if not chain:  # Q4
        error = SecurityError("the remote showed no certificate")
        raise Refused(error, CERTIFICATE_REQUIRED)
    if len(chain) > 1:
        error = SecurityError(f"the remote showed {len(chain)} certificates, not one")
        raise Refused(error, BAD_CERTIFICATE)
    try:
        peer_id = PeerId.from_public_key(judge(chain[0], now=now))
    except SecurityError as error:
        raise Refused(error, BAD_CERTIFICATE) from error
    if expected is not None and peer_id != expected:
        raise Refused(PeerIdMismatch(expected, peer_id), BAD_CERTIFICATE)
    return peer_id


def failed_handshake(ended: Ended) -> Exception:
    """Return the error of a connection that ended before it began."""
    match ended.cause:
        case Cause.SILENCE:
            return no_answer()
        case Cause.VERSION:
            return NegotiationFailed(["QUIC version 1"])
        case Cause.VIOLATION:
            return violation(ended)
        case _ if ended.code == NO_APPLICATION_PROTOCOL:
            return NegotiationFailed([f"ALPN {ALPN}"])
        case _ if ended.code > CRYPTO_ERROR:
            alert = ended.code - CRYPTO_ERROR
            return SecurityError(f"the remote refused the handshake: TLS alert {alert}")
        case _:
            return HandshakeCut(f"the remote hung up in the handshake: {told(ended)}")


def failed_connection(ended: Ended) -> Exception | None:
    """Return the error of a connection that was established; None if all is in order."""
    match ended.cause:
        case Cause.REMOTE if ended.code in GOOD_ORDER:
            return None
        case Cause.SILENCE:
            return PeerSilent("the peer answers no more")
        case Cause.VIOLATION:
            return violation(ended)
        case _ if ended.code > CRYPTO_ERROR and ended.cause is Cause.REMOTE_REFUSED:
            # Our certificate is judged only when the handshake is over on our side already.
            alert = ended.code - CRYPTO_ERROR
            return ConnectionLost(f"the remote refused our certificate: TLS alert {alert}")
        case _:
            return ConnectionLost(f"the remote closed the connection: {told(ended)}")


def end_of_streams(error: Exception | None, *, is_ours: bool) -> ConnectionLost:
    """Return what its streams say once a connection is over."""
    if isinstance(error, ConnectionLost):
        return error
    if error is None and not is_ours:
        return PeerLeft("the remote closed the connection")
    return ConnectionLost(f"{error or 'the connection was closed here'}")


def violation(ended: Ended) -> Exception:
    if ended.code == NO_APPLICATION_PROTOCOL:
        return NegotiationFailed([f"ALPN {ALPN}"])
    if ended.code > CRYPTO_ERROR:
        alert = ended.code - CRYPTO_ERROR
        return SecurityError(f"TLS failed with alert {alert}: {printable(ended.reason)}")
    return ProtocolError(QUIC_V1, f"{printable(ended.reason)} (code {ended.code:#x})")


def no_answer() -> OSError:
    return TimeoutError("no answer over QUIC")


def told(ended: Ended) -> str:
    name = CODES.get(ended.code, "") if ended.cause is Cause.REMOTE else ""
    reason = printable(ended.reason)
    return ", ".join(part for part in (f"code {ended.code:#x}", name, reason) if part)


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
