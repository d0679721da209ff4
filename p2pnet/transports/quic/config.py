"""The part: what can be set about QUIC. The library that speaks it is imported when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from p2pnet.core.keepalive import RELAXED, Habits
from p2pnet.errors import ExtraMissing
from p2pnet.interfaces import Kit
from p2pnet.security.tls.certificate import make_certificate
from p2pnet.transports.quic.core import CoreSettings, Library
from p2pnet.transports.quic.listening import Admission
from p2pnet.transports.quic.packets import Secrets
from p2pnet.transports.quic.terms import Terms
from p2pnet.transports.quic.transport import QuicTransport

MIN_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES = 1200, 1452


class NoSecretNetwork(ValueError):
    """QUIC cannot keep to a pre-shared key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QUIC:
    """The QUIC transport: ``/ip4/…/udp/…/quic-v1`` and ``/ip6/…/udp/…/quic-v1``."""

    core: Literal["aioquic", "qh3"] = "aioquic"
    """The library that speaks QUIC: ``qh3`` is several times faster, and less exact (Q13).

    It is for lines that lose few packets: where many are lost, it now and then loses a connection.
    """
    handshake_timeout: float = 10.0
    """Seconds until a dial that nobody answers is given up."""
    idle_timeout: float = 30.0
    """Seconds of silence after which a peer counts as gone that should have answered."""
    keep_alive: float | None = None
    """Seconds of silence after which a peer is pinged, or up to 15 % earlier; at most half of the
    idle timeout. None begins with 15, and goes by what ``Hold`` learns of the NAT; more than 15
    without that loses mappings of NATs that forget after 20."""
    linger: float = 1.0
    """Seconds a closed connection waits at most for what was sent before to arrive."""
    max_streams: int = 256
    """Streams that a remote may have open at once."""
    stream_window: int = 524_288
    """Bytes a remote may send on a stream before any of them was read, in the beginning ..."""
    max_stream_window: int = 10_485_760
    """... and when that has proved to slow it down."""
    connection_window: int = 786_432
    """The same for all streams of a connection together, in the beginning (windows of ``qh3`` don't
    grow: they are a quarter of the connection's largest, always) ..."""
    max_connection_window: int = 15_728_640
    """... and in the end: no connection holds more bytes that nobody reads."""
    max_unsent_bytes: int = 1_048_576
    """Bytes that a connection keeps to be sent; beyond that each stream may keep 16 KiB."""
    datagram_bytes: int = 1232
    """Largest datagram in the beginning: what every IPv6 network carries. 1200 to 1452."""
    max_datagram_bytes: int = MAX_DATAGRAM_BYTES
    """So large a datagram a path is probed for, once there is much to send; 1452 at most, what
    Ethernet carries. The same as ``datagram_bytes``: no probes."""
    retry_above: int = 64
    """So many handshakes under way on a listener, and who comes must show its address first."""
    max_handshakes: int = 1024
    """So many handshakes under way on a listener, and who comes is not answered."""

    def __post_init__(self) -> None:
        for name in ("handshake_timeout", "idle_timeout", "keep_alive"):
            value: float | None = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")
        if self.linger < 0:
            raise ValueError("linger must not be negative")
        if self.core not in ("aioquic", "qh3"):
            raise ValueError("core is 'aioquic' or 'qh3'")
        if not 1 <= self.max_streams <= 2**16:
            raise ValueError("max_streams is between 1 and 65536")
        sizes = (MIN_DATAGRAM_BYTES, self.datagram_bytes, self.max_datagram_bytes)
        if list(sizes) != sorted(sizes) or self.max_datagram_bytes > MAX_DATAGRAM_BYTES:
            raise ValueError(
                f"datagram_bytes is between {MIN_DATAGRAM_BYTES} and max_datagram_bytes, "
                f"and that no more than {MAX_DATAGRAM_BYTES}"
            )
        if not 0 <= self.retry_above <= self.max_handshakes:
            raise ValueError("retry_above is between 0 and max_handshakes")
        if min(self.stream_window, self.connection_window, self.max_unsent_bytes) < 65_536:
            raise ValueError("windows and max_unsent_bytes are at least 65536")
        if (
            self.max_stream_window < self.stream_window
            or self.max_connection_window < self.connection_window
        ):
            raise ValueError("a window does not shrink: its maximum is at least its beginning")

    def anywhere(self, port: int) -> tuple[str, ...]:
        """Return the addresses to listen at on all interfaces; port 0 is a free one."""
        return (f"/ip4/0.0.0.0/udp/{port}/quic-v1", f"/ip6/::/udp/{port}/quic-v1")

    def build(self, kit: Kit) -> QuicTransport:
        """Make the transport.

        Raises:
            ExtraMissing: if the extra ``p2pnet[quic]`` (or ``p2pnet[quic-fast]``) is missing.
            NoSecretNetwork: if the host has a pre-shared key.
        """
        if kit.is_private:
            raise NoSecretNetwork("QUIC cannot keep to a pre-shared key: leave it out")
        secrets = Secrets(kit.key.encode())
        own = make_certificate(kit.key, kit.env.random_bytes)
        settings = CoreSettings(
            certificate=own.certificate_pem,
            private_key=own.private_key_pem,
            reset_token=secrets.reset_token,
            idle_timeout=self.idle_timeout * (RELAXED if self.keep_alive is None else 1),  # KA3
            datagram_bytes=self.datagram_bytes,
            max_datagram_bytes=self.max_datagram_bytes,
            max_streams=self.max_streams,
            stream_window=self.stream_window,
            max_stream_window=self.max_stream_window,
            connection_window=self.connection_window,
            max_connection_window=self.max_connection_window,
        )
        terms = Terms(
            env=kit.env,
            habits=Habits(pace=kit.pace, fixed=self.keep_alive, patience=self.idle_timeout),
            linger=self.linger,
            max_unsent_bytes=self.max_unsent_bytes,
            max_unread_bytes=self.max_connection_window,
        )
        admission = Admission(
            cores=self._library(settings),
            secrets=secrets,
            terms=terms,
            retry_above=self.retry_above,
            max_handshakes=self.max_handshakes,
        )
        return QuicTransport(admission, handshake_timeout=self.handshake_timeout)

    def _library(self, settings: CoreSettings) -> Library:
        try:
            if self.core == "aioquic":
                from p2pnet.transports.quic.aioquic_core import Aioquic  # noqa: PLC0415

                return Aioquic(settings)
            from p2pnet.transports.quic.qh3_core import Qh3  # noqa: PLC0415
        except ImportError as error:
            extra = "quic" if self.core == "aioquic" else "quic-fast"
            raise ExtraMissing(f"QUIC(core={self.core!r}) needs {self.core}", extra) from error
        return Qh3(settings)
