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

from p2pnet.transports.quic.core import MAX_IDS, CoreSettings
from p2pnet.transports.quic.packets import VERSION_1
from p2pnet.transports.quic.qh3_tls import Bridge, demand_certificate

CONNECTED = "connected"
LOSS = "loss_detection"
PACING = "pacing"
BURST = 106
"""So many datagrams are made before they are sent: two trains of 64 KiB."""
MOST_LEFT = 4096
"""Events: not all that a remote can say is bounded by credit, so beyond that it is taken anyhow."""
EVENTS_ADDED = 5
"""Where the library's report on what came tells how many events it made of it."""


def receive_window(settings: CoreSettings) -> int:
    """Return what a remote may send beyond what we took: a quarter of all that we keep.

    The library never raises a window, and a line of 200 ms needs a large one; but full packets
    that fill it must be fewer than ``MOST_LEFT``.
    """
    return settings.max_connection_window // 4


def stream_window(settings: CoreSettings) -> int:
    """Return the same of one stream."""
    return min(settings.max_stream_window, receive_window(settings))


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
        self._left = 0
        self._made: list[tuple[bytes, tuple[str, int]]] = []
        self._was_limited = False
        self.has_more = False

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
            MAX_IDS,
            configuration.max_datagram_size,
            False,
            configuration.idle_timeout,
            3,
            None,
            None,
            receive_window(settings),
            0,
            stream_window(settings),
            0,
            0,
            0,
            stream_window(settings),
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
        is_up = self._core is not None and self._core.state == CONNECTED
        if self.is_held and is_up and self._left <= MOST_LEFT:
            return
        self._left = 0
        super()._drain_core()

    def receive_many_datagrams(
        self, datagrams: list[bytes], addr: tuple[str, int], now: float
    ) -> None:
        core = self._core
        if core is None or not self._handshake_complete:
            super().receive_many_datagrams(datagrams, addr, now)
            return
        report = self._call_core(core.receive_many_datagrams, datagrams, addr, now)
        self._left += report[EVENTS_ADDED]
        if self._was_limited:
            # Streams that are over are forgotten as their events are taken, and the library fails
            # over what of them waits in a packet for the window to open: that goes before.
            self._made += self._poll(now)
        self._drain_core()

    def go_on(self) -> None:
        """Take what was left in the library meanwhile."""
        self.is_held = False
        if self._core is not None:
            self._drain_core()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        made, self._made = self._made, []
        return made + self._poll(now)

    def _poll(self, now: float) -> list[tuple[bytes, tuple[str, int]]]:
        """Do as the library does, but for a look into each packet for a log that nobody keeps."""
        core = self._core
        made: list[tuple[bytes, tuple[str, int]]] = []
        while core is not None and len(made) < BURST:
            one = self._call_core(core.poll_transmit, now)
            if one is None:
                break
            made.append((one[0], one[1]))
        self.has_more = len(made) >= BURST
        self._was_limited = self._has_full_window
        return made

    @property
    def _has_full_window(self) -> bool:
        core = self._core
        room = 0 if core is None else core.congestion_window - core.bytes_in_flight
        return room < self._configuration.max_datagram_size

    @property
    def is_limited(self) -> bool:
        timer = None if self._core is None else self._core.get_timer()
        return self._was_limited or (timer is not None and timer[0] == PACING)

    @property
    def probe_at(self) -> float | None:
        """When what has no answer is sent again; None if another timer comes before that."""
        timer = None if self._core is None else self._core.get_timer()
        return timer[1] if timer is not None and timer[0] == LOSS else None

    @property
    def is_begun(self) -> bool:
        return self._core is not None and self._core.received_authenticated_packet

    @property
    def is_proved(self) -> bool:
        """True once the address of the remote is known to be true."""
        return self._is_client or self._handshake_complete or bool(self._retry_source_connection_id)

    @property
    def proved_remote(self) -> tuple[str, int] | None:
        """Where the remote is: the library goes over to another path once that is proved (Q29)."""
        if self._core is None or not self._handshake_complete:
            return None
        host, port = self._core.active_path[2][:2]
        return host, port

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
        return self.bytes_in_flight > 0

    @property
    def bytes_in_flight(self) -> int:
        return 0 if self._core is None else self._core.bytes_in_flight

    @property
    def loss_total(self) -> int:
        return 0 if self._core is None else self._core.loss_total

    @property
    def outstanding_application_packets(self) -> list[tuple[int, int, int]]:
        return [] if self._core is None else self._core.outstanding_application_packets

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
