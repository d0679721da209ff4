"""The one door to aioquic, whose state machine of QUIC needs neither asyncio nor sockets.

Some of what libp2p asks is not in its public interface: that a client shows a certificate,
how many streams a remote may open, credit that follows the reader, tokens for resets. Each
private name used here is guarded by a test (tests/transports/quic/test_aioquic_core.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.packet import QuicErrorCode, QuicProtocolVersion, encode_quic_retry

from p2pnet.core.addresses import Endpoint
from p2pnet.security.tls.steady import SteadyKey
from p2pnet.transports.quic.aioquic_connection import Connection
from p2pnet.transports.quic.core import (
    ALPN,
    FAULTS,
    ID_BYTES,
    MAX_HANDSHAKE_BYTES,
    Cause,
    Challenged,
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
from p2pnet.transports.quic.credit import Tally, Window


class Aioquic:
    """Makes cores on aioquic."""

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        (self._certificate,) = tls.load_pem_x509_certificates(settings.certificate)
        self._private_key = SteadyKey(settings.private_key)

    def dial(self, remote: Endpoint, now: float) -> Core:
        connection = Connection(self._configuration(is_client=True), self._settings)
        place = (remote.host, remote.port)
        connection.connect(place, now)
        return AioquicCore(connection, self._settings, now, place)

    def answer(self, original_id: bytes, retry_id: bytes | None) -> Core:
        configuration = self._configuration(is_client=False)
        connection = Connection(configuration, self._settings, original_id, retry_id)
        return AioquicCore(connection, self._settings, 0.0)

    def retry(self, *, source: bytes, target: bytes, original: bytes, token: bytes) -> bytes:
        return encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1,
            source_cid=source,
            destination_cid=target,
            original_destination_cid=original,
            retry_token=token,
        )

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        settings = self._settings
        return QuicConfiguration(
            alpn_protocols=[ALPN],
            connection_id_length=ID_BYTES,
            idle_timeout=settings.idle_timeout,
            is_client=is_client,
            max_data=settings.connection_window,
            max_stream_data=settings.stream_window,
            max_datagram_size=settings.datagram_bytes,
            certificate=self._certificate,
            private_key=self._private_key,
            supported_versions=[QuicProtocolVersion.VERSION_1],
            verify_mode=ssl.CERT_NONE,  # Judged by the rules of libp2p, at the end (Q4).
        )


class AioquicCore:
    """``Core`` on aioquic."""

    def __init__(
        self,
        connection: Connection,
        settings: CoreSettings,
        now: float,
        dialled: tuple[str, int] | None = None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._window = Window(settings.connection_window, settings.max_connection_window, now)
        self._tallies: dict[int, Tally] = {}
        self._unsent = 0
        self._writing: set[int] = set()
        """Streams with bytes that were never sent so far, and maybe more."""
        self._has_left = False
        self._cause: Cause | None = None
        self._whereabouts = Whereabouts(dialled)
        self._is_challenged = False
        self.id = connection.host_cid

    @property
    def is_begun(self) -> bool:
        return self._connection.state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def certificates(self) -> Sequence[bytes]:
        return self._connection.certificates

    @property
    def idle_timeout(self) -> float:
        return self._connection.agreed_idle_timeout

    @property
    def reset_tokens(self) -> Sequence[bytes]:
        return self._connection.reset_tokens

    @property
    def unsent(self) -> int:
        return self._unsent

    @property
    def is_settled(self) -> bool:
        streams = self._connection.streams
        return all(
            stream.sender.is_finished or not tally.is_ended or tally.is_reset
            for number, tally in self._tallies.items()
            if (stream := streams.get(number)) is not None
        )

    @property
    def is_owed(self) -> bool:
        return self._connection.bytes_in_flight > 0

    @property
    def probe_timeout(self) -> float:
        return self._connection.probe_timeout

    # ---- packets -------------------------------------------------------------------------

    def receive(self, datagrams: Sequence[bytes], remote: Endpoint, now: float) -> None:
        source = (remote.host, remote.port)
        self._whereabouts.begin(source)
        for data in datagrams:
            self._receive(data, source, now)
        self._is_challenged |= self._connection.is_challenged

    def _receive(self, data: bytes, source: tuple[str, int], now: float) -> None:
        connection = self._connection
        was_over = connection.close_event is not None
        try:
            connection.receive_datagram(data, source, now)
            if self.is_begun and connection.handshake_bytes > MAX_HANDSHAKE_BYTES:
                connection.close(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, 0, "message too long")
        except FAULTS as error:
            if self.is_begun:
                self._failed(error)
        if was_over or connection.close_event is None:
            return
        if connection.violation is not None:
            self._cause = Cause.VIOLATION
        elif connection.state is QuicConnectionState.TERMINATED:
            self._cause = Cause.VERSION
        elif connection.close_event.frame_type is None:
            self._cause = Cause.REMOTE
        else:
            self._cause = Cause.REMOTE_REFUSED

    def _failed(self, error: Exception) -> None:
        """Give the connection up: the library has met what it did not expect."""
        reason = f"{type(error).__name__} in aioquic"
        self._connection.close(QuicErrorCode.INTERNAL_ERROR, 0, reason)

    def transmit(self, now: float) -> Sequence[tuple[bytes, Endpoint]]:
        if not self._connection.is_started:
            return ()
        try:
            datagrams = self._connection.datagrams_to_send(now)
        except FAULTS as error:
            self._failed(error)
            self._cause = Cause.VIOLATION
            return ()
        self._recount()
        return addressed(datagrams)

    @property
    def has_more(self) -> bool:
        return self._connection.has_more

    def _recount(self) -> None:
        for number in self._connection.take_gone():
            self._tallies.pop(number, None)
        unsent = {number: self.unsent_on(number) for number in self._writing}
        self._writing = {number for number, count in unsent.items() if count}
        self._unsent = sum(unsent.values())

    def timer(self) -> float | None:
        return self._connection.get_timer() if self._connection.is_started else None

    def on_timer(self, now: float) -> None:
        was_over = self._connection.close_event is not None
        try:
            self._connection.handle_timer(now)
        except FAULTS as error:
            self._failed(error)
            self._cause = Cause.VIOLATION
            return
        if not was_over and self._connection.close_event is not None:
            self._cause = Cause.SILENCE

    def resend(self, now: float) -> None:
        self._connection.resend(now)

    def next_event(self) -> Event | None:
        while (event := self._connection.next_event()) is not None:
            told = self._translate(event)
            if told is not None:
                return told
        cause, final = self._cause, self._connection.close_event
        if cause is None or final is None or self._has_left:
            return self._look_at_path()
        self._cause = None
        return Ended(cause, final.error_code, final.reason_phrase[:200])

    def _look_at_path(self) -> Event | None:
        if self._is_challenged:
            self._is_challenged = False
            return Challenged()
        return self._whereabouts.look(self._connection.proved_remote)

    def _translate(self, event: events.QuicEvent) -> Event | None:
        match event:
            case events.StreamDataReceived():
                self._tally(event.stream_id).delivered += len(event.data)
                return StreamData(event.stream_id, event.data, event.end_stream)
            case events.StreamReset():
                self._forgo(event.stream_id)
                return StreamReset(event.stream_id, event.error_code)
            case events.StopSendingReceived():
                self._tally(event.stream_id).is_reset = True
                return StreamStopped(event.stream_id, event.error_code)
            case events.HandshakeCompleted():
                return HandshakeDone()
            case events.ConnectionIdIssued():
                return IdIssued(event.connection_id)
            case events.ConnectionIdRetired():
                return IdRetired(event.connection_id)
            case _:
                return None

    def _forgo(self, number: int) -> None:
        """Give back the credit of bytes that will never be delivered, as of a reset (Q13)."""
        stream = self._connection.streams.get(number)
        if stream is not None:
            missing = stream.receiver.highest_offset - self._tally(number).delivered
            self._window.consume(missing, 0.0, 0.0)
            self._connection.connection_limit = self._window.limit

    def _tally(self, number: int) -> Tally:
        tally = self._tallies.get(number)
        if tally is None:
            settings = self._settings
            window = Window(settings.stream_window, settings.max_stream_window, 0.0)
            tally = self._tallies[number] = Tally(window)
        return tally

    # ---- streams -------------------------------------------------------------------------

    def open_stream(self) -> int | None:
        if not self._connection.may_open:
            return None
        number = self._connection.get_next_available_stream_id()
        self._connection.send_stream_data(number, b"")
        self._tally(number)
        return number

    def room(self, stream: int) -> int:
        state = self._connection.streams.get(stream)
        if state is None or state.is_blocked:
            return 0
        return state.max_stream_data_remote - self._tally(stream).written

    def unsent_on(self, stream: int) -> int:
        state = self._connection.streams.get(stream)
        if state is None or (tally := self._tally(stream)).is_reset:
            return 0
        return tally.written - state.sender.highest_offset

    def write(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        if stream not in self._connection.streams:
            return
        tally = self._tally(stream)
        if tally.is_reset or tally.is_ended:
            return
        self._connection.send_stream_data(stream, data, is_last)
        tally.written += len(data)
        tally.is_ended = is_last
        self._unsent += len(data)
        if data:
            self._writing.add(stream)

    def reset(self, stream: int, code: int) -> None:
        if stream in self._connection.streams:
            self._tally(stream).is_reset = True
            self._connection.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        state = self._connection.streams.get(stream)
        if state is not None and not state.receiver.is_finished:
            self._connection.stop_stream(stream, code)

    def consume(self, stream: int, count: int, now: float) -> bool:
        connection = self._connection
        has_risen = self._window.consume(count, now, connection.round_trip)
        connection.connection_limit = self._window.limit
        if stream in connection.streams:
            window = self._tally(stream).window
            if window.consume(count, now, connection.round_trip):
                connection.raise_limit(stream, window.limit)
                has_risen = True
        return has_risen

    def bound(self, stream: int, max_bytes: int) -> None:
        if stream in self._connection.streams:
            self._tally(stream).window.bound(max_bytes)

    def ping(self) -> None:
        self._connection.send_ping(0)

    def close(self, code: int, reason: str, *, is_application: bool) -> None:
        self._has_left = True
        self._connection.leave(code, reason, is_application=is_application)
