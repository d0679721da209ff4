"""What connections of QUIC go by, and where they run."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Env
from p2pnet.core.keepalive import Habits
from p2pnet.transports.quic.endpoint import QuicSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all connections of a transport go by."""

    env: Env
    habits: Habits
    linger: float
    max_unsent_bytes: int
    max_unread_bytes: int


@dataclass(frozen=True, slots=True)
class Way:
    """Where a connection runs."""

    socket: QuicSocket
    local: Endpoint
    remote: Endpoint
    is_dialed: bool
    ids: tuple[bytes, ...] = field(default=())
    """More connection IDs by which the remote addresses it, in the beginning."""
