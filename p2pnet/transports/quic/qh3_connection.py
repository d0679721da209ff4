"""A connection of qh3, bent to libp2p's rules. A third of the door to qh3 (``qh3_core``).

The library asks nobody before it gives credit: it does so as what has come is taken from its
native core. So that is not done while too much waits to be read (Q13).
"""

from __future__ import annotations

from collections.abc import Sequence

from qh3 import tls
from qh3._hazmat import QuicConnectionCore
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.tls_bridge import QuicTlsBridge

from p2pnet.transports.quic.core import CoreSettings
from p2pnet.transports.quic.packets import VERSION_1
from p2pnet.transports.quic.qh3_tls import Bridge, demand_certificate

CONNECTED = "connected"


def receive_window(settings: CoreSettings) -> int:
    """Return what a remote may send beyond what we took: at most half of what we keep unread."""
    return min(settings.connection_window, settings.max_connection_window // 2)


class Connection(QuicConnection):
    """qh3's connection, bent to libp2p's rules."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        settings: CoreSettings,
        original_id: bytes | None = None,
        retry_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        self._settings = settings
        self.received_bytes = self.sent_bytes = 0
        self.is_held = False
        """True while what has come is left where it is: the library gives credit as we take it."""

    def _create_core(self, remote_addr: object, initial_dcid: bytes, now: float) -> None:
        settings, configuration = self._settings, self._configuration
        self._core = QuicConnectionCore(
            self._is_client,
            self._version or VERSION_1,
            ("0.0.0.0", 0),
            remote_addr,  # type: ignore[arg-type]  # As it was given to us.
            self.host_cid,
            initial_dcid,
            # The library chokes on padding that it may not answer: the factor of three, of
            # what may be sent to an address that is not known to be true, is kept by us.
            True,
            8,
            configuration.max_datagram_size,
            False,
            configuration.idle_timeout,
            3,
            None,
            None,
            receive_window(settings),
            0,
            settings.stream_window,
            0,
            0,
            0,
            settings.stream_window,
            settings.max_streams,
            0,
            0,
            0,
            configuration.initial_rtt,
            0.025,
            now,
        )
        self._applied_transport_parameters = None
        self._pre_handshake_state_replayed = False

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        Bridge.max_streams = self._settings.max_streams
        bridge = Bridge(
            self._configuration,
            version=self._version or VERSION_1,
            local_initial_source_connection_id=self.host_cid,
            remote_initial_source_connection_id=remote_source_cid,
            original_destination_connection_id=self._original_destination_connection_id,
            retry_source_connection_id=self._retry_source_connection_id,
            stateless_reset_token=(
                None if self._is_client else self._settings.reset_token(self.host_cid)
            ),
            version_change_handler=self._set_version,
        )
        if not self._is_client:
            demand_certificate(bridge.tls)
        self._tls = bridge
        return bridge

    def _drain_core(self) -> None:
        if self.is_held and self._core is not None and self._core.state == CONNECTED:
            return
        super()._drain_core()

    def go_on(self) -> None:
        """Take what was left in the library meanwhile."""
        self.is_held = False
        if self._core is not None:
            self._drain_core()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        """Do as the library does, but for a look into each packet for a log that nobody keeps."""
        core = self._core
        made: list[tuple[bytes, tuple[str, int]]] = []
        while core is not None and (one := self._call_core(core.poll_transmit, now)) is not None:
            made.append((one[0], one[1]))
        return made

    @property
    def is_begun(self) -> bool:
        return self._core is not None and self._core.received_authenticated_packet

    @property
    def is_proved(self) -> bool:
        """True once the address of the remote is known to be true."""
        return self._is_client or self._handshake_complete or bool(self._retry_source_connection_id)

    @property
    def close_event(self) -> events.ConnectionTerminated | None:
        return self._close_event

    @property
    def has_local_error(self) -> bool:
        if isinstance(self._tls, Bridge) and self._tls.has_failed:
            return True
        return self._core is not None and self._core.local_error is not None

    @property
    def is_complete(self) -> bool:
        return self._handshake_complete

    @property
    def handshake_bytes(self) -> int:
        return 0 if self._tls is None else len(self._tls.tls._receive_buffer)  # noqa: SLF001

    @property
    def certificates(self) -> Sequence[bytes]:
        leaf = self.get_peercert()
        chain = [] if leaf is None else [leaf, *self.get_issuercerts()]
        return tuple(one.public_bytes() for one in chain)

    @property
    def remote_idle_timeout(self) -> float:
        parameters = None if self._tls is None else self._tls.remote_transport_parameters
        return (parameters.max_idle_timeout or 0) / 1000 if parameters is not None else 0.0

    @property
    def reset_tokens(self) -> Sequence[bytes]:
        parameters = None if self._tls is None else self._tls.remote_transport_parameters
        token = None if parameters is None else parameters.stateless_reset_token
        return (token,) if token else ()

    @property
    def round_trip(self) -> float:
        known = None if self._core is None else self._core.smoothed_rtt
        return self._configuration.initial_rtt if known is None else known

    @property
    def has_unacknowledged(self) -> bool:
        # Not the packets that are outstanding: those that only acknowledge stay among them.
        return self._core is not None and self._core.bytes_in_flight > 0

    def forgo_application_keys(self) -> None:
        """Have the last words be sealed for who has not heard that the handshake is over."""
        if self._is_client and self._core is not None:
            self._core.discard_keys(int(tls.Epoch.ONE_RTT))

    def begin_stream(self) -> int | None:
        """Open a stream; None while the remote allows no more."""
        if self._core is None:
            return None
        try:
            number = self._core.open_stream(False)
        except (RuntimeError, ValueError):
            return None
        self._record_local_stream(number)
        return number

    def can_send(self, stream: int) -> bool:
        return self._stream_can_send(stream)
