"""RelayLimits: every bound of a relay, with what it bounds; and how many connections that takes.

Rules: specs/relay.md (R15 to R33, R44).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from p2pnet.protocols.relay.policy import MAX_DATA, MAX_DURATION
from p2pnet.swarm.config import SwarmConfig

OPTIONAL = {
    "circuit_seconds": MAX_DURATION,
    "circuit_bytes": MAX_DATA,
    "circuit_bytes_per_second": MAX_DATA,
    "bytes_per_second": MAX_DATA,
}
"""Limits that may be absent (None or 0), and the most they may be."""
COUNTS = (
    "max_reservations",
    "max_reservations_per_prefix",
    "max_circuits",
    "max_circuits_per_peer",
    "max_circuits_per_prefix",
    "circuit_bytes",
    "circuit_bytes_per_second",
    "bytes_per_second",
    "max_pending_per_peer",
    "buffer_bytes",
    "window_bytes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay gives at most. A *prefix* is one IPv4 address, or one IPv6 /56.

    The defaults are go-libp2p's where it has such a limit. A host that is not made by
    ``presets.relay`` needs the connections of ``room_for`` to reach them.
    """

    max_reservations: int = 128
    max_reservations_per_prefix: int = 8
    """Of different peers; a peer has one."""
    reservation_seconds: float = 3600.0
    max_circuits: int = 1024
    max_circuits_per_peer: int = 16
    """Circuits that one peer may be an end of."""
    max_circuits_per_prefix: int = 128
    """Circuits that have an end, or both, there."""
    circuit_seconds: float | None = 120.0
    """How long a circuit may last; None or 0 is for ever."""
    circuit_bytes: int | None = 131_072
    """How many bytes a circuit carries in each direction; None or 0 is without limit."""
    circuit_bytes_per_second: int | None = None
    """How fast a circuit is in each direction; None or 0 is as fast as it goes."""
    bytes_per_second: int | None = None
    """How fast all circuits are together, both directions counted; None or 0 as above."""
    requests_per_minute_per_peer: float = 60.0
    """Of all kinds, readable or not; as many may come at once."""
    requests_per_minute_per_prefix: float = 240.0
    max_pending_per_peer: int = 8
    """Requests of one peer that are being read or answered at the same time."""
    request_timeout: float = 15.0
    """Seconds for a request to arrive, and for an answer to leave."""
    stop_timeout: float = 30.0
    """Seconds for the target of a circuit to accept it."""
    buffer_bytes: int = 65_536
    """Most bytes held in memory for one direction of a circuit, beside the muxer's window."""
    window_bytes: int = 1_048_576
    """Most of that window: how far a sender may get ahead of what is passed on. It begins with
    256 KiB over TCP and 512 KiB over QUIC, whatever this says, and grows for who reads fast."""

    def __post_init__(self) -> None:
        for name, value in self.items():
            if name in COUNTS and int(value or 0) != (value or 0):
                raise ValueError(f"{name} must be a whole number, not {value}")
            if name in OPTIONAL:
                if not 0 <= (value or 0) <= OPTIONAL[name]:
                    raise ValueError(f"{name} must be 0 to {OPTIONAL[name]}, or None")
            elif not 0 < (value or 0) <= MAX_DURATION:
                raise ValueError(f"{name} must be positive and at most {MAX_DURATION}, not {value}")

    def items(self) -> tuple[tuple[str, float | None], ...]:
        """Return every limit by its name, in the order above."""
        found: list[tuple[str, float | None]] = []
        for field in fields(RelayLimits):
            value: float | None = getattr(self, field.name)
            found.append((field.name, value))
        return tuple(found)


def room_for(limits: RelayLimits) -> SwarmConfig:
    """Return bounds of connections under which a relay can reach its limits (R44).

    An ordinary host's, and beside them a connection for each reservation and for both ends of
    each circuit. Those are protected (R43), so that they leave the marks of trimming as they are.
    A circuit counts for a network once, even with both ends there.
    """
    usual = SwarmConfig()
    carried = int(limits.max_reservations + 2 * limits.max_circuits)
    of_prefix = min(limits.max_reservations, limits.max_reservations_per_prefix)
    of_prefix += 2 * min(limits.max_circuits, limits.max_circuits_per_prefix)
    return replace(
        usual,
        max_connections=usual.max_connections + carried,
        max_inbound_per_prefix=usual.max_inbound_per_prefix + int(of_prefix),
    )
