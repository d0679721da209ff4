"""Dials that end when their peer comes by itself. Rule: specs/dialing.md (DI13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import Race


@dataclass(slots=True, eq=False)
class Interruptible:
    """A dial that ends when the peer comes by itself."""

    since: int
    """Connections with higher numbers are newer than the dial."""
    race: Race = field(default_factory=Race)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    arrived: LiveConnection | None = None

    def look(self, connections: Sequence[LiveConnection]) -> None:
        """Look which connections to the peer there are now, the best first."""
        if self.scope.cancel_called:
            return  # For whom, stays known, even if that one leaves while the dial ends.
        came = (c for c in connections if c.ref.number > self.since and not c.is_relayed)
        self.arrived = next(came, None)
        # The peer may use already what is half made here: that is let come to its end.
        if self.arrived is not None and not self.race.is_shaking_hands():
            self.scope.cancel()


class Interruptions:
    """The dials under way, by peer: nobody is woken by what concerns another peer."""

    def __init__(self, connections: Callable[[PeerId], Sequence[LiveConnection]]) -> None:
        self._connections = connections
        self._dials: dict[PeerId, list[Interruptible]] = {}

    @contextmanager
    def during(self, peer_id: PeerId, since: int) -> Iterator[Interruptible]:
        """Watch for a peer while the block lasts."""
        dial = Interruptible(since)
        dial.race.watch = lambda: self.changed(peer_id)
        dials = self._dials.setdefault(peer_id, [])
        dials.append(dial)
        try:
            yield dial
        finally:
            dials.remove(dial)
            if not dials:
                del self._dials[peer_id]

    def changed(self, peer_id: PeerId) -> None:
        """Note that a connection to a peer is there or gone, or how far a dial of it has come."""
        for dial in self._dials.get(peer_id, ()):
            dial.look(self._connections(peer_id))
