"""The live connections of a swarm: whoever asks for those to one peer does not pay for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.connection import LiveConnection


class Roster:
    """All connections from their beginning until they have ended, in the order they began."""

    def __init__(self) -> None:
        self._by_number: dict[int, LiveConnection] = {}
        self._by_peer: dict[PeerId, dict[int, LiveConnection]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[LiveConnection]:
        return iter(self._by_number.values())

    def get(self, number: int) -> LiveConnection | None:
        return self._by_number.get(number)

    def of_peer(self, peer_id: PeerId) -> Mapping[int, LiveConnection]:
        """Return the connections to one peer, by their numbers."""
        return self._by_peer.get(peer_id, {})

    def add(self, connection: LiveConnection) -> None:
        number = connection.ref.number
        self._by_number[number] = connection
        self._by_peer.setdefault(connection.peer_id, {})[number] = connection

    def remove(self, connection: LiveConnection) -> None:
        number = connection.ref.number
        del self._by_number[number]
        of_peer = self._by_peer[connection.peer_id]
        del of_peer[number]
        if not of_peer:
            del self._by_peer[connection.peer_id]
