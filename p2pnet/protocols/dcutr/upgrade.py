"""A procedure of an initiator, while it is under way. Rules: specs/dcutr.md (D12, D13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.errors import P2PError
from p2pnet.interfaces import Connection
from p2pnet.protocols.dcutr.plain import PlainDial
from p2pnet.protocols.dcutr.sampling import Lookout


@dataclass(frozen=True, slots=True)
class Persistence:
    """How often to try, and what to do afterwards; see ``DCUtR``."""

    attempts: int
    head_start: float
    retry_pause: float
    exchange_timeout: float
    max_parallel: int
    close_relayed_after: float | None
    jitter: Callable[[float, float], float]


@dataclass(slots=True)
class Upgrade:
    """A procedure under way with one peer."""

    scope: trio.CancelScope
    lookout: Lookout
    plain: PlainDial
    nursery: trio.Nursery
    """Of what goes on after it."""
    is_conversing: bool = False
    """True from the first attempt on: the peer knows, or will in a moment."""
    relayed: Connection | None = None
    """Where the last conversation is, or was; None if there was nothing left to have it on."""
    theirs: tuple[Multiaddr, ...] = ()
    """What the peer offered ahead, or in the attempt before."""

    @property
    def is_deserted(self) -> bool:
        """Tell if the relayed connection ended on which the peer hears of it."""
        return self.is_conversing and (self.relayed is None or self.relayed.is_closed)


class NotSpoken(P2PError):
    """The peer refused the protocol before it had said what it speaks; now it has."""


class Deserted(P2PError):
    """The relayed connection ended before all attempts were made."""
