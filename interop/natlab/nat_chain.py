"""Several NATs one behind the other, such as a home's behind its carrier's, used like one."""

from __future__ import annotations

from collections.abc import Sequence

from p2pnet.testing.nat import Dropped, Hop, Nat, Side
from p2pnet.testing.packet import Packet


class NatChain:
    """NATs from the host outwards; none at all lets everything pass as it is.

    A packet that one NAT sends back inside goes through those before it again, inwards;
    what one of them answers goes outwards from there.
    """

    def __init__(self, nats: Sequence[Nat]) -> None:
        self._nats = tuple(nats)

    def outbound(self, packet: Packet, now: float) -> Hop | Dropped:
        return self._outwards(packet, 0, now)

    def inbound(self, packet: Packet, now: float) -> Hop | Dropped:
        return self._inwards(packet, len(self._nats), now)

    def reset(self) -> None:
        """Forget all mappings, as after a reboot."""
        for nat in self._nats:
            nat.reset()

    def set_outside(self, address: str) -> None:
        """Give the outermost NAT another public address."""
        if self._nats:
            self._nats[-1].set_outside([address])

    def count_mappings(self, now: float) -> int:
        return sum(len(nat.mappings(now)) for nat in self._nats)

    def _outwards(self, packet: Packet, first: int, now: float) -> Hop | Dropped:
        for index in range(first, len(self._nats)):
            step = self._nats[index].outbound(packet, now)
            if isinstance(step, Dropped):
                return step
            packet = step.packet
            if step.to is Side.INSIDE:
                return self._inwards(packet, index, now)
        return Hop(packet, Side.OUTSIDE)

    def _inwards(self, packet: Packet, before: int, now: float) -> Hop | Dropped:
        for index in reversed(range(before)):
            step = self._nats[index].inbound(packet, now)
            if isinstance(step, Dropped):
                return step
            packet = step.packet
            if step.to is Side.OUTSIDE:
                return self._outwards(packet, index + 1, now)
        return Hop(packet, Side.INSIDE)
