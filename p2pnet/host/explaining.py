"""Keeps the journal of a host, and explains by it how this host and its peers are reached."""

from __future__ import annotations

import trio

from p2pnet.connectivity.explain import (
    DCUTR,
    Acquaintance,
    Explanation,
    Situation,
    can_test,
    explain_host,
    explain_peer,
)
from p2pnet.connectivity.journal import KINDS, NO_AIM, Journal, Noted
from p2pnet.core.bus import EventBus
from p2pnet.core.peer_id import PeerId
from p2pnet.host.advertising import Advertising
from p2pnet.host.config import HostConfig
from p2pnet.protocols.relay import RelayClient
from p2pnet.swarm.swarm import Swarm


class Explaining:
    """Answers ``Host.explain``."""

    def __init__(
        self, config: HostConfig, *, swarm: Swarm, advertising: Advertising, bus: EventBus
    ) -> None:
        parts = [part for part in config.services if isinstance(part, RelayClient)]
        self._wants_relay = any(part.relays and part.reserve for part in parts)
        self._swarm = swarm
        self._advertising = advertising
        self._bus = bus
        self._began = 0.0
        self._journal = Journal()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._bus.tap(*KINDS, take=self._note):
            self._began = trio.current_time()
            task_status.started()
            await trio.sleep_forever()

    def _note(self, event: Noted) -> None:
        self._journal.note(event, self._now())

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
            aim=self._journal.aims.get(peer_id, NO_AIM),
        )
        return explain_peer(peer, situation)

    def _now(self) -> float:
        """Return the seconds since this host began: a time that means something to people."""
        return trio.current_time() - self._began

    def _situation(self) -> Situation:
        refs = tuple(connection.ref for connection in self._swarm.connections())
        spoken = self._swarm.peers.protocols
        return Situation(
            now=self._now(),
            interfaces=self._advertising.interfaces,
            known=self._advertising.known.value,
            nat=self._advertising.nat.value,
            reachability=self._advertising.reachability.value,
            connections=refs,
            testers=len({r.peer_id for r in refs if can_test(r, spoken(r.peer_id) or ())}),
            speaks_dcutr=DCUTR in self._swarm.handlers,
            can_punch=bool(self._advertising.punch_addresses()),
            is_silent_over_udp=self._swarm.is_silent_over_udp,
            has_relay=bool(self._journal.reservations),
            wants_relay=self._wants_relay,
            relay_failures=dict(self._journal.relay_failures),
            failures=tuple(self._journal.failures),
        )
