"""TLS 1.3 itself: the one door to pyOpenSSL. Bytes in, bytes out; no I/O.

    remote's bytes --> feed --> [ Engine ] --> read --> plaintext
    plaintext ------> write --> [ Engine ] --> data_to_send --> bytes for the remote

OpenSSL does the handshake and the records; whom to believe is never asked of it, but of
``certificate.judge``. Nothing here can be resumed: no ticket of ours is ever honoured, none of
theirs is kept, there is no early data, no name of a server, and no log of keys.
Rules: specs/tls.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from OpenSSL import SSL, crypto

from p2pnet.core.keys import PublicKey
from p2pnet.errors import BothDialed, ConnectionLost, ProofRefused, SecurityError, StreamTampered
from p2pnet.interfaces import Role
from p2pnet.security.tls.certificate import OwnCertificate
from p2pnet.security.tls.records import (
    HEADER_BYTES,
    RECORD_BYTES,
    RecordHeaders,
    begins_with_client_hello,
)

TLS_ID = "/tls/1.0.0"
ALPN = b"libp2p"
MAX_ALPN_BYTES = 255
MAX_RECORD_OVERHEAD_BYTES = 64
OUTPUT_BYTES = 4096
"""Read from OpenSSL at once, unless more is expected."""
MAX_UNSENT_BYTES = 4096
"""Of answers to updates of keys that wait for our next write: about 150 of them."""
CIPHER_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"
NO_RESUMPTION = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION

Judge = Callable[[bytes], PublicKey]
"""Returns the identity key that a certificate proves; raises SecurityError."""


class Engines:
    """Makes engines; what is the same for all connections is set up once."""

    def __init__(self, certificate: OwnCertificate) -> None:
        self._contexts = {role: new_context(certificate, role) for role in Role}

    def start(self, role: Role, muxers: Sequence[str], judge: Judge) -> Engine:
        return Engine(self._contexts[role], role, muxers=muxers, judge=judge)


def new_context(certificate: OwnCertificate, role: Role) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)  # T1
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITES)
    context.set_options(NO_RESUMPTION)  # T10
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # T10: OpenSSL sends tickets whatever one says, here two that are void when they arrive.
    context.set_timeout(0)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)  # T1
    context.use_certificate(certificate.certificate)
    context.use_privatekey(certificate.private_key)
    if role is Role.LISTENER:
        context.set_alpn_select_callback(select_alpn)
    return context


def verify(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int
) -> bool:
    """Judge the certificate of the remote; what OpenSSL thinks of it does not count."""
    return engine_of(connection).judge(certificate, depth)


def select_alpn(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    return engine_of(connection).select(offered)


def engine_of(connection: SSL.Connection) -> Engine:
    engine = connection.get_app_data()
    if not isinstance(engine, Engine):
        raise TypeError("a connection without its engine")
    return engine


class Engine:
    """One end of one TLS connection."""

    def __init__(
        self, context: SSL.Context, role: Role, *, muxers: Sequence[str], judge: Judge
    ) -> None:
        self._role = role
        self._judge = judge
        self._protocols = [encode_protocol(muxer) for muxer in muxers] + [ALPN]
        self._key: PublicKey | None = None
        self._refusal: SecurityError | None = None
        self._headers: RecordHeaders | None = RecordHeaders()
        self._opening = b""
        self._unsent = b""
        self._ended = False
        self._confirmed = role is Role.LISTENER
        self._tls = SSL.Connection(context)
        self._tls.set_app_data(self)
        if role is Role.DIALER:
            self._tls.set_alpn_protos(self._protocols)  # T3
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()

    # ---- the handshake -------------------------------------------------------------------

    def shake_hands(self) -> PublicKey | None:
        """Go on with the handshake; return the remote's identity key when it is over.

        Raises:
            SecurityError: if it fails. There may be something left to send, the reason.
        """
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return None
        except SSL.Error as error:
            raise self._refusal or failed_handshake(error) from None
        self._check_chain()
        if self._tls.get_alpn_proto_negotiated() not in self._protocols:  # T3
            raise SecurityError("the remote agreed on no application protocol")
        if self._key is None:
            raise SecurityError("the remote sent no certificate")
        self._headers = None
        return self._key

    @property
    def is_dialer(self) -> bool:
        return self._role is Role.DIALER

    @property
    def muxer(self) -> str | None:
        """The muxer that was agreed on by ALPN; None if that is still to be negotiated."""
        protocol = self._tls.get_alpn_proto_negotiated()
        return None if protocol == ALPN else protocol.decode()

    def judge(self, certificate: crypto.X509, depth: int) -> bool:
        """Take a certificate of the remote's chain; False refuses it."""
        if depth > 0:
            self._refusal = SecurityError("the remote sent more than one certificate")  # T2
        elif self._key is None and self._refusal is None:
            try:
                self._key = self._judge(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
            except SecurityError as error:
                self._refusal = error
        return self._refusal is None

    def select(self, offered: list[bytes]) -> bytes:
        """Choose what the dialer likes best, of what we speak (T3)."""
        protocol = next((one for one in offered if one in self._protocols and one != ALPN), None)
        if protocol is None and ALPN in offered:
            protocol = ALPN
        if protocol is None:
            self._refusal = SecurityError("the remote offers no application protocol of libp2p")
            raise self._refusal
        return protocol

    def _check_chain(self) -> None:
        # A listener is not given the certificate itself here, a dialer is.
        more = 1 if self._role is Role.DIALER else 0
        chain = self._tls.get_peer_cert_chain(as_cryptography=False)
        if chain is not None and len(chain) > more:  # T2
            raise SecurityError("the remote sent more than one certificate")

    # ---- bytes of the wire ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes from the remote: at least one.

        Raises:
            SecurityError: in the handshake, if they are no TLS that a sender may write.
            BothDialed: if they are a dialer's, and so are we.
        """
        if self._headers is not None:
            self._headers.check(bytes(data))
            self._check_opening(bytes(data))
        self._tls.bio_write(data)

    def _check_opening(self, data: bytes) -> None:
        if self.is_dialer and len(self._opening) <= HEADER_BYTES:
            self._opening += data[: HEADER_BYTES + 1 - len(self._opening)]
            if begins_with_client_hello(self._opening):  # T16
                raise BothDialed(
                    TLS_ID,
                    "a ClientHello where a ServerHello was due: both ends took the part of the "
                    "dialer, as after an accidental simultaneous open",
                )

    def data_to_send(self, expected: int = OUTPUT_BYTES) -> bytes:
        """Take what must be sent now; empty if nothing. Fastest if at most as expected."""
        pieces = [self._unsent] if self._unsent else []
        self._unsent = b""
        try:
            while True:
                pieces.append(self._tls.bio_read(expected))
        except SSL.WantReadError:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # ---- plaintext -----------------------------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """True once the remote has said that nothing more comes."""
        return self._ended

    def read(self) -> bytes:
        """Take all plaintext that has come; empty if there is none yet, or at the end.

        Raises:
            StreamTampered: if what came is not what the remote sent.
            ProofRefused: if the remote did not take our certificate.
            ConnectionLost: if it ended the connection for another reason.
        """
        pieces: list[bytes] = []
        try:
            while not self._ended:
                pieces.append(self._tls.recv(RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:  # T12
            self._ended = True
        except SSL.Error as error:
            raise self._failed_channel(error) from None
        self._unsent = self.data_to_send()
        if len(self._unsent) > MAX_UNSENT_BYTES:  # T9
            raise ConnectionLost("the remote does nothing but update its keys")
        if pieces or self._ended:
            self._confirmed = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: memoryview) -> bytes:
        """Seal some plaintext, at least a byte; return what must be sent for it.

        Raises:
            ConnectionLost: if the connection has failed already.
        """
        expected = OUTPUT_BYTES
        try:
            at = 0
            while at < len(data):  # A record at a time.
                sent = self._tls.send(data[at:])
                at += sent
                expected += sent + MAX_RECORD_OVERHEAD_BYTES
        except SSL.Error as error:
            raise ConnectionLost(f"TLS failed: {reason_of(error)}") from None
        return self.data_to_send(expected)

    def say_goodbye(self) -> bytes:
        """End our direction; return what must be sent to tell so (T12)."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            return b""
        return self.data_to_send()

    def cut(self) -> SecurityError | ConnectionLost:
        """Tell what it means that the stream ended without a word."""
        if self._confirmed:  # T12
            return ConnectionLost("the connection ended without the word of TLS for it")
        return ProofRefused("the remote hung up before it took our certificate")  # T11

    def _failed_channel(self, error: SSL.Error) -> SecurityError | ConnectionLost:
        reason = reason_of(error)
        if "alert" not in reason:  # T13
            return StreamTampered(f"a TLS record was changed on its way: {reason}")
        if self._confirmed:
            return ConnectionLost(f"the remote ended the connection: {reason}")
        return ProofRefused(f"the remote refused us: {reason}")  # T11


def encode_protocol(muxer: str) -> bytes:
    protocol = muxer.encode()
    if not 0 < len(protocol) <= MAX_ALPN_BYTES or protocol == ALPN:
        raise ValueError(f"{muxer!r} cannot be offered by ALPN")
    return protocol


def failed_handshake(error: SSL.Error) -> SecurityError:
    reason = reason_of(error)
    if "alert" in reason:
        return SecurityError(f"the remote refused the TLS handshake: {reason}")
    return SecurityError(f"the TLS handshake failed: {reason}")


def reason_of(error: SSL.Error) -> str:
    """Return OpenSSL's own words."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(reason for _, _, reason in error.args[0] if reason) or "unknown"
    return "; ".join(str(part) for part in error.args) or type(error).__name__
