"""SwarmConfig: every bound of the swarm, with what it bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmConfig:
    """Bounds on connections, streams and dials. Seconds are floats, counts are integers."""

    max_connections: int = 512
    """Live connections in all; further inbound ones are refused."""
    high_connections: int = 192
    """Above this, not counting protected peers, connections that nobody needs are closed ..."""
    low_connections: int = 160
    """... until so many are left."""
    trim_grace: float = 60.0
    """A connection younger than this is not trimmed."""
    max_connections_per_peer: int = 16
    """A hole punch alone can make a dozen, where both ends foresee their ports."""
    max_pending_inbound: int = 256
    """Inbound connections that have not proved who they are; the oldest gives way."""
    max_pending_per_prefix: int = 64
    """So many of these from one public IPv4 address or IPv6 /56; the oldest of them gives way."""
    max_inbound_per_prefix: int = 64
    """Live inbound connections from one public IPv4 address or IPv6 /56, circuits not counted.
    Behind a proxy with a public address this and the one above have to be raised."""
    upgrade_timeout: float = 15.0
    """An inbound connection has so long for all its handshakes."""
    max_inbound_streams: int = 256
    """Per connection; further streams are reset."""
    max_outbound_streams: int = 500
    """Per connection; LimitExceeded beyond. rust-libp2p dies above 512."""
    negotiation_timeout: float = 10.0
    """A stream has so long to agree on a protocol."""
    dial_timeout: float = 15.0
    """For one address, handshakes included."""
    connect_timeout: float = 60.0
    """For all addresses of a peer together."""
    max_parallel_dials: int = 8
    """Addresses of one peer tried at the same time."""
    max_dials: int = 128
    """Direct addresses of all peers dialled at the same time; further ones wait."""
    max_dials_at_once: int = 512
    """Beside those: of hole punches, which cannot wait. Further ones are refused."""
    max_addresses_per_dial: int = 100
    """After DNS names were resolved."""
    max_backoffs: int = 4096
    """Addresses remembered for having failed."""
    black_hole_window: int = 100
    """Dials after which UDP or IPv6 is judged; then one in so many tries it all the same."""
    black_hole_minimum: int = 5
    """Of that window so many have to work, or else the network is taken to swallow the class."""
    max_expected: int = 64
    """Hole punches at a time whose peers may arrive and be silent."""
    max_peers: int = 4096
    """Peers of which addresses or protocols are remembered."""
    max_addresses_per_peer: int = 64
    max_protocols_per_peer: int = 1024
    goodbye_timeout: float = 1.0
    """Closing connections politely may take so long on leaving."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: float = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name} must be positive, not {value}")
        if self.black_hole_minimum > self.black_hole_window:
            raise ValueError("black_hole_minimum <= black_hole_window must hold")
        if not self.low_connections <= self.high_connections <= self.max_connections:
            raise ValueError("low_connections <= high_connections <= max_connections must hold")
