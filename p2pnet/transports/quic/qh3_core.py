"""The one door to qh3: QUIC in Rust with aioquic's face, several times as fast.

It was made for HTTP/3. What libp2p needs beyond that is added here: a server that asks for the
client's certificate, other limits for streams, and parameters that don't look like a browser's.
Each private name used is guarded by a test (tests/transports/quic/test_qh3_core.py). What can't
be had stands in specs/quic.md under Deviations.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress

from qh3 import tls
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnectionError
from qh3.quic.packet import (
    QuicErrorCode,
    get_retry_integrity_tag,
)
from qh3.quic.tls_bridge import QuicTlsBridgeError

from p2pnet.core.addresses import Endpoint
from p2pnet.transports.quic.core import (
    ALPN,
    FAULTS,
    ID_BYTES,
    MAX_HANDSHAKE_BYTES,
    MAX_IDS,
    Cause,
    Core,
    CoreSettings,
    Ended,
    Event,
    HandshakeDone,
    IdIssued,
    IdRetired,
    StreamData,
    StreamReset,
    StreamStopped,
    Whereabouts,
    addressed,
)
from p2pnet.transports.quic.packets import VERSION_1
from p2pnet.transports.quic.qh3_connection import Connection, receive_window, stream_window
from p2pnet.transports.quic.qh3_ends import LateEnds
from p2pnet.transports.quic.qh3_tls import SIGNATURES

OWN_FAULTS = (*FAULTS, QuicConnectionError, QuicTlsBridgeError)
GONE = (QuicConnectionError, ValueError)
"""How the library refuses to touch a stream that is over, as one the remote has stopped."""
MAX_UNSENT_PER_STREAM = 131_072
"""Bytes; what the remote would take is not told, so one stream must not fill the connection."""

logging.getLogger("quic").setLevel(logging.CRITICAL)  # What remotes do is told by us.


class Qh3:
    """Makes cores on qh3."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        (self._certificate,) = tls.load_pem_x509_certificates(settings.certificate)
        self._private_key = tls.load_pem_private_key(settings.private_key)

    def dial(self, remote: Endpoint, now: float) -> Core:
        connection = Connection(self._configuration(is_client=True), self._settings)
        connection.connect((remote.host, remote.port), now)
        return Qh3Core(connection, self._settings)

    def answer(self, original_id: bytes, retry_id: bytes | None) -> Core:
        configuration = self._configuration(is_client=False)
        connection = Connection(configuration, self._settings, original_id, retry_id)
        return Qh3Core(connection, self._settings)

    def retry(self, *, source: bytes, target: bytes, original: bytes, token: bytes) -> bytes:
        ids = bytes([len(target)]) + target + bytes([len(source)]) + source
        packet = b"\xf0" + VERSION_1.to_bytes(4) + ids + token
        return packet + get_retry_integrity_tag(packet, original, version=VERSION_1)

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        settings = self._settings
        return QuicConfiguration(
            alpn_protocols=[ALPN],
            connection_id_length=ID_BYTES,
            idle_timeout=settings.idle_timeout,
            is_client=is_client,
            max_data=receive_window(settings),
            max_stream_data=stream_window(settings),
            max_datagram_size=settings.datagram_bytes,
            probe_datagram_size=False,
            active_connection_id_limit=MAX_IDS,
            certificate=self._certificate,
            private_key=self._private_key,
            signature_algorithms=SIGNATURES,
            verify_mode=ssl.CERT_NONE,  # Judged by the rules of libp2p, at the end (Q4).
            verify_hostname=False,
        )


class Qh3Core:
    """``Core`` on qh3."""

    def __init__(self, connection: Connection, settings: CoreSettings) -> None:
        self._connection = connection
        self._unread = 0
        self._late_ends = LateEnds()
        self._has_new_end = False
        """One that the library has not been asked to send; it has no bytes that it could count."""
        self._fresh: set[int] = set()
        """Streams with data of which the library has put nothing into a packet so far."""
        self._datagram_bytes = settings.datagram_bytes
        self._unheard: set[int] = set()
        """Streams that the remote has stopped, of which the library tells later."""
        self._most_unread = settings.max_connection_window // 2
        self._cause: Cause | None = None
        self._has_left = False
        self._has_finished = False
        """True once anything was sent after the handshake was over."""
        self._now = 0.0
        self._waiting: list[tuple[bytes, Endpoint]] = []
        self._whereabouts = Whereabouts()
        self.id = connection.host_cid

    @property
    def is_begun(self) -> bool:
        return self._connection.is_begun

    @property
    def certificates(self) -> Sequence[bytes]:
        return self._connection.certificates

    @property
    def idle_timeout(self) -> float:
        own = self._connection.configuration.idle_timeout
        return min(own, self._connection.remote_idle_timeout or own)

    @property
    def reset_tokens(self) -> Sequence[bytes]:
        return self._connection.reset_tokens

    @property
    def unsent(self) -> int:
        return self._queued(None)

    @property
    def is_settled(self) -> bool:
        is_all_sent = not self.unsent and not self._late_ends and not self._has_new_end
        return is_all_sent and not self._connection.has_unacknowledged

    @property
    def is_owed(self) -> bool:
        return self._connection.has_unacknowledged

    @property
    def probe_timeout(self) -> float:
        return 3 * self._connection.round_trip

    # ---- packets -------------------------------------------------------------------------

    def receive(self, datagrams: Sequence[bytes], remote: Endpoint, now: float) -> None:
        source = (remote.host, remote.port)
        self._whereabouts.begin(source)
        if self._connection.is_complete:
            self._receive(datagrams, source, now)
            return
        for data in datagrams:
            self._receive((data,), source, now)

    def _receive(self, datagrams: Sequence[bytes], source: tuple[str, int], now: float) -> None:
        connection = self._connection
        self._now = now
        was_over = connection.close_event is not None
        connection.received_bytes += sum(map(len, datagrams))
        try:
            connection.receive_many_datagrams(list(datagrams), source, now)
            self._fresh.clear()
            if connection.handshake_bytes > MAX_HANDSHAKE_BYTES:
                self._violated(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, "message too long")
        except OWN_FAULTS as error:
            if self.is_begun:
                self._fail(error)
        if not was_over:
            self._conclude()

    def _conclude(self) -> None:
        """Say why it is over, if what was looked at just now has ended it."""
        connection = self._connection
        final = connection.close_event
        if final is None or self._cause is not None:
            return
        if connection.has_local_error:
            self._cause = Cause.VIOLATION
        elif not self.is_begun:
            self._cause = Cause.VERSION
        else:
            self._cause = Cause.REMOTE if final.frame_type is None else Cause.REMOTE_REFUSED

    def _violated(self, code: int, reason: str) -> None:
        self._connection.close(code, 0, reason)
        self._cause = Cause.VIOLATION

    def _fail(self, error: Exception) -> None:
        """End the connection over what the library did not expect, and nothing else."""
        self._violated(QuicErrorCode.INTERNAL_ERROR, f"{type(error).__name__} in qh3")

    def transmit(self, now: float) -> Sequence[tuple[bytes, Endpoint]]:
        connection = self._connection
        self._collect(now)
        going: list[tuple[bytes, Endpoint]] = []
        if connection.is_proved:
            going, self._waiting = self._waiting, going
            return going
        while self._waiting:
            size = len(self._waiting[0][0])
            if connection.sent_bytes + size > 3 * connection.received_bytes:
                break
            connection.sent_bytes += size
            going.append(self._waiting.pop(0))
        return going

    @property
    def has_more(self) -> bool:
        return self._connection.has_more and not self._waiting

    def _collect(self, now: float) -> None:
        self._has_finished = self._has_finished or self._connection.is_complete
        while True:
            for stream in self._late_ends.due(self._connection, self.unsent_on, now):
                self._send(stream, b"", is_last=True)
            self._poll(now)
            if not self._late_ends.note(self._connection):
                return

    def _poll(self, now: float) -> None:
        self._has_new_end = False
        try:
            self._waiting += addressed(self._connection.datagrams_to_send(now))
        except QuicConnectionError:
            return
        except OWN_FAULTS as error:  # Something is lost that will never be sent again.
            self._fail(error)
        finally:
            self._fresh.clear()

    def timer(self) -> float | None:
        return self._connection.get_timer()

    def on_timer(self, now: float) -> None:
        was_over = self._connection.close_event is not None
        try:
            self._connection.handle_timer(now)
        except OWN_FAULTS as error:
            self._fail(error)
            return
        if not was_over and self._connection.close_event is not None:
            self._cause = Cause.SILENCE

    def resend(self, now: float) -> None:
        # All that the library offers; its next timeout is twice as long for it.
        probe_at = self._connection.probe_at
        if probe_at is not None:
            self.on_timer(probe_at)

    def next_event(self) -> Event | None:
        if self._unheard:
            return StreamStopped(self._unheard.pop(), 0)
        while (event := self._connection.next_event()) is not None:
            told = translated(event)
            if isinstance(told, StreamData):
                self._unread += len(told.data)
                self._connection.is_held |= self._unread >= self._most_unread
            if told is not None:
                return told
        cause, final = self._cause, self._connection.close_event
        if cause is None or final is None or self._has_left:
            return self._whereabouts.look(self._connection.proved_remote)
        self._cause = None
        return Ended(cause, int(final.error_code), str(final.reason_phrase)[:200])

    # ---- streams -------------------------------------------------------------------------

    def open_stream(self) -> int | None:
        return self._connection.begin_stream() if self._connection.is_complete else None

    def room(self, stream: int) -> int:
        return MAX_UNSENT_PER_STREAM - self.unsent_on(stream)

    def unsent_on(self, stream: int) -> int:
        return self._queued(stream)

    def _queued(self, stream: int | None) -> int:
        try:
            return self._connection.get_send_buffer_size(stream)
        except OWN_FAULTS as error:
            self._fail(error)
            return 0

    def write(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        if data:
            self._fresh.add(stream)
        if is_last and not self._may_end(stream):
            self._late_ends.put_off(stream)
            self.ping()  # The second packet that is to be acknowledged is so at once.
        else:
            self._send(stream, data, is_last=is_last)

    def _may_end(self, stream: int) -> bool:
        # The end rides along, unless all that is left was put into a packet that has yet to go.
        rides = stream in self._fresh or self.unsent_on(stream) > self._datagram_bytes
        return rides or self._late_ends.may_go(self._connection)

    def _send(self, stream: int, data: bytes, *, is_last: bool) -> None:
        with suppress(*GONE):
            if self._connection.can_send(stream):
                self._connection.send_stream_data(stream, data, is_last)
                self._has_new_end |= is_last
            elif self._connection.is_held:
                # The remote wants no more (Q9): with what code lies behind what nobody has read.
                self._unheard.add(stream)

    def reset(self, stream: int, code: int) -> None:
        self._late_ends.forget(stream)
        with suppress(*GONE):
            self._connection.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        with suppress(*GONE):
            self._connection.stop_stream(stream, code)

    def consume(self, stream: int, count: int, now: float) -> bool:
        self._unread -= count
        if not self._connection.is_held or self._unread > self._most_unread // 2:
            return False
        was_over = self._connection.close_event is not None
        try:
            self._connection.go_on()
        except OWN_FAULTS as error:
            self._fail(error)
        if not was_over:
            self._conclude()
        return True

    def bound(self, stream: int, max_bytes: int) -> None:
        """Do nothing: windows of the library do not grow, and all are one (specs/quic.md)."""

    def ping(self) -> None:
        with suppress(*GONE):
            if self._connection.is_complete:
                self._connection.send_ping(0)

    def close(self, code: int, reason: str, *, is_application: bool) -> None:
        self._has_left = True
        if not self._connection.is_complete:
            # The library seals its goodbye with the last keys it has, and a remote that lacks
            # them can't read it: what leads to them goes first.
            self._collect(self._now)
        elif not self._has_finished:
            # The same, but a dialer that refuses who it found shows nothing of itself (T14).
            self._connection.forgo_application_keys()
        self._connection.close(code, None if is_application else 0, reason)


def translated(event: events.QuicEvent) -> Event | None:
    match event:
        case events.StreamDataReceived():
            return StreamData(event.stream_id, event.data, event.end_stream)
        case events.StreamReset():
            return StreamReset(event.stream_id, event.error_code)
        case events.StopSendingReceived():
            return StreamStopped(event.stream_id, event.error_code)
        case events.HandshakeCompleted():
            return HandshakeDone()
        case events.ConnectionIdIssued():
            return IdIssued(event.connection_id)
        case events.ConnectionIdRetired():
            return IdRetired(event.connection_id)
        case _:
            return None
