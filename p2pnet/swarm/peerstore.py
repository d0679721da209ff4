"""What is known of other peers: addresses with expiry, protocols. Bounded.

Rule: specs/connections.md (S15).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.config import SwarmConfig


@dataclass(slots=True)
class Peer:
    """One peer; addresses are kept with the time they expire, the last added last."""

    addresses: dict[Multiaddr, float] = field(default_factory=dict)
    protocols: frozenset[str] | None = None
    sequence: int = -1


class Peerstore:
    """Remembers at most ``max_peers``; the one heard of longest ago is forgotten first."""

    def __init__(self, config: SwarmConfig, now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        self._peers: OrderedDict[PeerId, Peer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def add_addresses(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, seconds: float
    ) -> None:
        peer = self._touch(peer_id)
        until = self._now() + seconds
        for address in addresses:
            until_before = peer.addresses.pop(address, 0.0)
            peer.addresses[address] = max(until, until_before)
        excess = len(peer.addresses) - self._config.max_addresses_per_peer
        for address in list(peer.addresses)[: max(excess, 0)]:
            del peer.addresses[address]

    def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        peer = self._peers.get(peer_id)
        if peer is None:
            return ()
        now = self._now()
        peer.addresses = {a: until for a, until in peer.addresses.items() if until > now}
        return tuple(peer.addresses)

    def set_protocols(self, peer_id: PeerId, protocols: Sequence[str]) -> None:
        limit = self._config.max_protocols_per_peer
        self._touch(peer_id).protocols = frozenset(protocols[:limit])

    def protocols(self, peer_id: PeerId) -> frozenset[str] | None:
        peer = self._peers.get(peer_id)
        return peer.protocols if peer else None

    def accept_sequence(self, peer_id: PeerId, sequence: int) -> bool:
        peer = self._touch(peer_id)
        if sequence <= peer.sequence:
            return False
        peer.sequence = sequence
        return True

    def _touch(self, peer_id: PeerId) -> Peer:
        peer = self._peers.setdefault(peer_id, Peer())
        self._peers.move_to_end(peer_id)
        while len(self._peers) > self._config.max_peers:
            self._peers.popitem(last=False)
        return peer
