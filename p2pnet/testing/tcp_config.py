"""What a simulated TCP connection may be told: sizes, times and patience."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_BUFFER = 2**30
"""Sequence numbers are compared by half of their space; a window must stay well below (RFC 7323,
section 2.3, has the same limit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpConfig:
    """How a connection behaves; times in seconds, as Linux has them where it has them.

    Raises:
        ValueError: a buffer has no room or is larger than sequence numbers can tell apart.
    """

    receive_bytes: int = 4 * 2**20
    send_bytes: int = 4 * 2**20
    first_retransmission: float = 1.0
    """The timeout before a round trip was measured (RFC 6298, rule 2.1)."""
    shortest_retransmission: float = 0.2
    """What a timeout is longer than the smoothed round trip, at least."""
    longest_retransmission: float = 60.0
    max_syn_retries: int = 6
    """How often a SYN, or a SYN-ACK, is repeated."""
    max_retries: int = 15
    """How often data, a FIN or an unanswered window probe is repeated without any progress."""
    time_wait: float = 60.0
    fin_wait: float = 60.0
    """How long a closed connection waits for the FIN of the remote."""
    initial_window_segments: int = 10
    """RFC 6928."""

    def __post_init__(self) -> None:
        for name, size in (("receive_bytes", self.receive_bytes), ("send_bytes", self.send_bytes)):
            if not 1 <= size <= LARGEST_BUFFER:
                raise ValueError(f"{name} must be 1 to {LARGEST_BUFFER}, got {size}")
