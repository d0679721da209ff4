"""TLS of qh3, bent to libp2p's rules: a server that demands a certificate, and other limits.

The second half of the door to qh3 (``qh3_core``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qh3 import tls
from qh3._hazmat import Buffer, CryptoError, SignatureError, verify_with_public_key
from qh3.quic.packet import (
    QuicErrorCode,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsBridgeError

from p2pnet.transports.quic.core import ALPN

SIGNATURES = [0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0807]
"""ECDSA with P-256 and P-384, RSA-PSS, Ed25519."""
SIGNATURE_ALGORITHMS = 13
CLIENT_CONTEXT = b"TLS 1.3, client CertificateVerify"


class ServerContext(tls.Context):
    """TLS of a server that demands a certificate of the client (Q4)."""

    demand: Buffer | None = None
    has_certificate = False
    is_proved = False

    if TYPE_CHECKING:
        own: object
    else:

        @property
        def certificate(self) -> object:
            """Our certificate; in front of it goes the request for the client's."""
            buffer, self.demand = self.demand, None
            if buffer is not None:
                push_certificate_request(buffer)
            return self.own

        @certificate.setter
        def certificate(self, certificate: object) -> None:
            self.own = certificate

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer, onertt_buf: Buffer
    ) -> None:
        self.demand = handshake_buf
        # So the library takes the client's Finished for one that can't be foretold.
        self._alps_negotiated = True
        try:
            super()._server_handle_hello(input_buf, initial_buf, handshake_buf, onertt_buf)
        except tls.AlertHandshakeFailure as alert:
            if "ALPN" in str(alert):
                raise NoProtocol(str(alert)) from alert
            raise

    def handle_message(
        self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int = -1
    ) -> None:
        self._receive_buffer += input_data
        while self.state is tls.State.SERVER_EXPECT_FINISHED and not self.is_proved:
            size = 4 + int.from_bytes(self._receive_buffer[1:4])
            if len(self._receive_buffer) < max(size, 4):
                return
            message, self._receive_buffer = (
                self._receive_buffer[:size],
                self._receive_buffer[size:],
            )
            self._take_proof(message, epoch)
        super().handle_message(b"", output_buf, epoch)

    def _take_proof(self, message: bytes, epoch: int) -> None:
        if epoch != tls.Epoch.HANDSHAKE:
            raise tls.AlertUnexpectedMessage
        buffer = Buffer(data=message)
        if message[0] == tls.HandshakeType.CERTIFICATE and not self.has_certificate:
            certificate = tls.pull_certificate(buffer)
            if not certificate.certificates:
                raise NoCertificate("the client showed no certificate")
            self._process_certificate(certificate)
            self.has_certificate = True
        elif message[0] == tls.HandshakeType.CERTIFICATE_VERIFY and self.has_certificate:
            self._verify(tls.pull_certificate_verify(buffer))
            self.is_proved = True
        else:
            raise tls.AlertUnexpectedMessage
        if self.key_schedule is not None:
            self.key_schedule.update_hash(message)

    def _verify(self, proof: tls.CertificateVerify) -> None:
        if self._peer_certificate is None or self.key_schedule is None:
            raise tls.AlertUnexpectedMessage
        if proof.algorithm not in SIGNATURES:
            raise tls.AlertDecryptError("a signature that was not asked for")
        try:
            verify_with_public_key(
                self._peer_certificate.public_key(),
                proof.algorithm,
                self.key_schedule.certificate_verify_data(CLIENT_CONTEXT),
                proof.signature,
            )
        except SignatureError as error:
            raise tls.AlertDecryptError(str(error)) from error

    def _server_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        if not self.is_proved:
            raise tls.AlertUnexpectedMessage
        super()._server_handle_finished(input_buf, output_buf)


class NoCertificate(tls.Alert):
    """Q4: TLS 1.3 has an alert for it, and the library has not."""

    description = 116  # type: ignore[assignment]  # Not among those it knows.


class NoProtocol(tls.Alert):
    """Q5: the library knows this alert neither, and says another."""

    description = 120  # type: ignore[assignment]


def push_certificate_request(buffer: Buffer) -> None:
    algorithms = b"".join(algorithm.to_bytes(2) for algorithm in SIGNATURES)
    listed = len(algorithms).to_bytes(2) + algorithms
    extension = SIGNATURE_ALGORITHMS.to_bytes(2) + len(listed).to_bytes(2) + listed
    body = b"\0" + len(extension).to_bytes(2) + extension
    kind = bytes([tls.HandshakeType.CERTIFICATE_REQUEST])
    buffer.push_bytes(kind + len(body).to_bytes(3) + body)


class Bridge(QuicTlsBridge):
    """Says other limits than those of HTTP/3, and looks at what the remote agreed to."""

    max_streams = 0
    has_failed = False
    """True once TLS failed here; the library takes that for what the remote said."""

    def receive_crypto(
        self,
        epoch: tls.Epoch,
        data: bytes,
        offset: int | None = None,
        *,
        version: int | None = None,
    ) -> None:
        try:
            super().receive_crypto(epoch, data, offset, version=version)
        except QuicTlsBridgeError:
            self.has_failed = True
            raise
        except CryptoError as error:  # The library lets it pass, and it is not one of Python's own.
            self.has_failed = True
            # In the hello a share of a key cannot be used, and later a certificate.
            is_hello = epoch is tls.Epoch.INITIAL
            alerts = tls.AlertDescription
            alert = alerts.illegal_parameter if is_hello else alerts.bad_certificate
            code = QuicErrorCode.CRYPTO_ERROR + int(alert)
            raise QuicTlsBridgeError(code, f"{alert.name}: {error}") from error

    def _on_alpn(self, alpn_protocol: str | None) -> None:
        if alpn_protocol != ALPN:  # Q5: a client of the library's takes whatever is answered.
            raise NoProtocol("the remote agreed on no application protocol")
        super()._on_alpn(alpn_protocol)

    def serialize_transport_parameters(self) -> bytes:
        """Replace what is a browser's."""
        told = super().serialize_transport_parameters()
        parameters = pull_quic_transport_parameters(Buffer(data=told))
        parameters.initial_max_streams_bidi = self.max_streams  # Q12
        parameters.initial_max_streams_uni = 0
        parameters.max_datagram_frame_size = None
        parameters.google_connection_options = None
        parameters.initial_rtt = None
        buffer = Buffer(capacity=1200)
        push_quic_transport_parameters(buffer, parameters)
        return buffer.data


def demand_certificate(context: tls.Context) -> None:
    """Make of a server's TLS one that asks for the client's certificate."""
    own = context.__dict__.pop("certificate")
    object.__setattr__(context, "__class__", ServerContext)
    context.certificate = own
