"""Keeps the journal of a host, and explains by it how this host and its peers are reached."""

from __future__ import annotations

import trio

from p2pnet.connectivity.explain import (
    TESTING,
    Acquaintance,
    Explanation,
    Situation,
    explain_host,
    explain_peer,
)
from p2pnet.connectivity.journal import KINDS, Journal
from p2pnet.core.bus import EventBus
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import EventsMissed
from p2pnet.host.advertising import Advertising
from p2pnet.swarm.swarm import Swarm


class Explaining:
    """Answers ``Host.explain``."""

    def __init__(self, swarm: Swarm, advertising: Advertising, bus: EventBus) -> None:
        self._swarm = swarm
        self._advertising = advertising
        self._bus = bus
        self._journal = Journal()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._bus.subscribe(*KINDS, limit=4096) as events:
            task_status.started()
            while True:
                try:
                    event = await anext(events)
                except EventsMissed:
                    continue  # The journal has a gap, then.
                self._journal.note(event, trio.current_time())

    def explain(self, peer_id: PeerId | None) -> Explanation:
        situation = self._situation()
        if peer_id is None:
            return explain_host(situation)
        peer = Acquaintance(
            peer_id=peer_id,
            addresses=self._swarm.peers.addresses(peer_id),
            protocols=self._swarm.peers.protocols(peer_id),
            connections=tuple(c.ref for c in self._swarm.connections(peer_id)),
            entries=self._journal.entries(peer_id),
        )
        return explain_peer(peer, situation)

    def _situation(self) -> Situation:
        refs = tuple(connection.ref for connection in self._swarm.connections())
        spoken = {ref.peer_id: self._swarm.peers.protocols(ref.peer_id) or () for ref in refs}
        return Situation(
            interfaces=self._advertising.interfaces,
            known=self._advertising.known.value,
            nat=self._advertising.nat.value,
            reachability=self._advertising.reachability.value,
            connections=refs,
            testers=sum(not TESTING.isdisjoint(protocols) for protocols in spoken.values()),
            has_relay=bool(self._journal.reservations),
            relay_failures=self._journal.relay_failures,
            failed_dials=tuple(self._journal.failed_dials),
        )
