"""The limits of a yamux connection."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnet.muxers.yamux.messages import INITIAL_WINDOW, MAX_UINT32

MIB = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may use, and what its remote may make it do."""

    max_streams: int = 512
    """Streams the remote has open at once; one more is reset, and the others go on."""
    max_outbound_streams: int = 500
    """With so many open, whoever opened them, we open none: rust-yamux dies above 512 of both."""
    max_unacknowledged: int = 256
    """Streams we opened and the remote has not acknowledged; whoever wants one more waits."""
    max_stream_window: int = 64 * MIB
    """Bytes that may wait to be read on one stream."""
    max_connection_window: int = 64 * MIB
    """Bytes that all windows together may have beyond 256 KiB each."""
    max_frame: int = 262_144
    """Most payload bytes put into one frame; rust-yamux takes up to 1 MiB."""
    max_unsent: int = 524_288
    """Bytes ready to be sent at which those wait who have much of them; at twice that, all do."""
    max_control: int = 65_536
    """Bytes of frames without payload that may be ready; a remote that causes more is dropped."""
    ping_interval: float = 30.0
    """Seconds of silence after which the remote is asked for a sign of life."""
    ping_timeout: float = 15.0
    """Seconds it then has; after them the connection is lost."""
    max_ping_rate: float = 10.0
    """Pings a second that are answered, over ten seconds; a remote that sends more is dropped."""
    grace: float = 1.0
    """Seconds a goodbye may take: until all is sent, and until the remote has closed too."""

    def __post_init__(self) -> None:
        integers = (
            ("max_streams", self.max_streams, 1, MAX_UINT32),
            ("max_outbound_streams", self.max_outbound_streams, 1, MAX_UINT32),
            ("max_unacknowledged", self.max_unacknowledged, 1, MAX_UINT32),
            ("max_stream_window", self.max_stream_window, INITIAL_WINDOW, MAX_UINT32),
            ("max_connection_window", self.max_connection_window, 0, 2**63),
            ("max_frame", self.max_frame, 1, MIB),
            ("max_unsent", self.max_unsent, 1, 2**63),
            ("max_control", self.max_control, 1024, 2**63),
        )
        for name, value, least, most in integers:
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        times = (
            ("ping_interval", self.ping_interval),
            ("ping_timeout", self.ping_timeout),
            ("max_ping_rate", self.max_ping_rate),
        )
        for name, seconds in times:
            if not seconds > 0:
                raise ValueError(f"{name} must be positive, not {seconds}")
        if not 0 <= self.grace < float("inf"):
            raise ValueError(f"grace must be finite and not negative, not {self.grace}")
