"""A connection of aioquic, bent to libp2p's rules. A third of the door to ``aioquic_core``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

from aioquic import tls
from aioquic.quic import connection, events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionAdapter, QuicConnectionState
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from p2pnet.transports.quic.aioquic_probing import ProbingConnection
from p2pnet.transports.quic.core import MAX_IDS, CoreSettings

GROUPS = (tls.Group.X25519, tls.Group.SECP256R1)
"""For the exchange of keys: the library makes a key of each group, used or not."""

vars(connection)["EPOCHS"] = cache(connection.EPOCHS)
"""The library's table of frames is made for each connection, and a set for each of its 33 rows."""

library_logger = logging.getLogger(__name__)
library_logger.setLevel(logging.CRITICAL)  # What remotes do is told by us, and within bounds.


class Connection(ProbingConnection):
    """aioquic's connection, bent to libp2p's rules."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        settings: CoreSettings,
        original_id: bytes | None = None,
        retry_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            most=settings.max_datagram_bytes,
            original_id=original_id,
            retry_id=retry_id,
        )
        self._reset_token = settings.reset_token
        self.violation: tuple[int, str] | None = None
        self.connection_limit = settings.connection_window
        self._local_active_connection_id_limit = MAX_IDS
        bidirectional, unidirectional = self._local_max_streams_bidi, self._local_max_streams_uni
        bidirectional.value = bidirectional.sent = settings.max_streams  # Q12
        unidirectional.value = unidirectional.sent = 0
        self._logger = QuicConnectionAdapter(library_logger, {"id": "-"})
        if not configuration.is_client:
            own = self._host_cids[0]
            own.stateless_reset_token = self._reset_token(own.cid)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._request_client_certificate = not self._is_client  # noqa: SLF001  # Q4
        self.tls._supported_groups = list(GROUPS)  # noqa: SLF001

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        for own in self._host_cids:
            if not own.was_sent:
                own.stateless_reset_token = self._reset_token(own.cid)

    def _probe_preferred_address(self) -> None:
        # Q19: a remote must not choose whom else we send packets to.
        self._remote_preferred_address = None

    # ---- credit follows the reader (Q13) -----------------------------------------------------

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        limit = self._local_max_data
        limit.value = max(limit.value, self.connection_limit)
        streams = self._local_max_streams_bidi
        if limit.value == limit.sent and streams.value == streams.sent:
            return  # As with almost every packet.
        used = limit.used
        limit.used = 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    # ---- once more ---------------------------------------------------------------------------

    def resend(self, now: float) -> None:
        """Take what is on its way for lost. The next timeout is no longer for it."""
        self._loss.reschedule_data(now=now)

    # ---- the end -------------------------------------------------------------------------

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """Note that the library closes by itself: the remote broke a rule."""
        if self._close_event is None:
            self.violation = (error_code, reason_phrase)
        super().close(error_code, frame_type, reason_phrase)

    def leave(self, code: int, reason: str, *, is_application: bool) -> None:
        super().close(code, None if is_application else 0, reason)

    @property
    def close_event(self) -> events.ConnectionTerminated | None:
        return self._close_event

    @property
    def state(self) -> QuicConnectionState:
        return self._state

    # ---- what it knows -------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """True if there is somebody to send to."""
        return bool(self._network_paths)

    @property
    def proved_remote(self) -> tuple[str, int] | None:
        """Where the remote is; None while that is only what its packets say (Q29)."""
        path = self._network_paths[0] if self._network_paths else None
        return path.addr if path is not None and path.is_validated else None

    @property
    def is_challenged(self) -> bool:
        """True if whom we dialled asks for a proof that we are where it sees us (Q30)."""
        return (
            self._is_client
            and bool(self._network_paths)
            and bool(self._network_paths[0].remote_challenges)
        )

    @property
    def streams(self) -> dict[int, QuicStream]:
        return self._streams

    @property
    def handshake_bytes(self) -> int:
        return len(self.tls._receive_buffer)  # noqa: SLF001

    @property
    def certificates(self) -> Sequence[bytes]:
        leaf = self.tls._peer_certificate  # noqa: SLF001
        if leaf is None:
            return ()
        chain = [leaf, *self.tls._peer_certificate_chain]  # noqa: SLF001
        der = tls.Encoding.DER  # type: ignore[attr-defined]  # cryptography's, at second hand
        return tuple(one.public_bytes(der) for one in chain)

    @property
    def agreed_idle_timeout(self) -> float:
        return min(self._configuration.idle_timeout, self._remote_max_idle_timeout or 3600.0)

    @property
    def reset_tokens(self) -> Sequence[bytes]:
        ids = [self._peer_cid, *self._peer_cid_available]
        return tuple(one.stateless_reset_token for one in ids if one.stateless_reset_token)

    @property
    def has_more(self) -> bool:
        return self._pacer.is_cut

    @property
    def round_trip(self) -> float:
        return self._loss._rtt_smoothed  # noqa: SLF001

    @property
    def probe_timeout(self) -> float:
        return self._loss.get_probe_timeout()

    @property
    def may_open(self) -> bool:
        return self._local_next_stream_id_bidi // 4 < self._remote_max_streams_bidi
