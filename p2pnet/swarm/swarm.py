"""The swarm owns all connections and listeners; ``run`` is their nursery."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr, is_relayed, peer_id_of, tcp_endpoint, without_peer
from p2pnet.core.bus import EventBus
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary, close_at_once
from p2pnet.core.watch import Watch
from p2pnet.errors import (
    AddressMisleads,
    AddressUnsupported,
    DialError,
    FailedAttempt,
    LimitExceeded,
    describe,
)
from p2pnet.events import ConnectionClosed, ConnectionOpened, ConnectionRef, ListeningOn
from p2pnet.interfaces import (
    CapableConnection,
    Listener,
    PendingConnection,
    Role,
    StreamHandler,
    Transport,
)
from p2pnet.swarm.backoff import Backoff
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import race
from p2pnet.swarm.expecting import ExpectedListeners
from p2pnet.swarm.peerstore import Peerstore
from p2pnet.swarm.ranking import Attempt, rank
from p2pnet.swarm.resolver import resolve
from p2pnet.swarm.trimming import Candidate, choose

logger = logging.getLogger("p2pnet.swarm")

CONNECTED_SECONDS = 900.0
"""An address that worked is remembered for so long after it did."""


@dataclass(frozen=True, slots=True)
class How:
    """How a dial is made; see Transport.dial."""

    role: Role = Role.DIALER
    any_port: bool = False
    deadline: float = math.inf


class Swarm:
    """Connections by peer ID. Nothing happens before ``run``."""

    def __init__(self, config: SwarmConfig, env: Env, *, peer_id: PeerId, bus: EventBus) -> None:
        self._config = config
        self._env = env
        self._peer_id = peer_id
        self._bus = bus
        self._transports: list[Transport] = []
        self._listeners: list[Listener] = []
        self._connections: dict[int, LiveConnection] = {}
        self._pending: OrderedDict[int, trio.CancelScope] = OrderedDict()
        self._protected: dict[PeerId, set[str]] = {}
        self._numbers = 0
        self._backoff = Backoff(config.max_backoffs)
        self._dial_slots = trio.CapacityLimiter(config.max_dials)
        self._tasks: trio.Nursery | None = None
        self.peers = Peerstore(config, trio.current_time)
        self.handlers: dict[str, StreamHandler] = {}
        self.expected = ExpectedListeners(config.max_expected)
        self.changes = Watch(0)
        """Counts openings and closings of connections, for who waits for either."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold all connections until cancelled, then close them politely."""
        try:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._tasks = None
            for listener in self._listeners:
                await close_at_once(listener)

    async def say_goodbye(self) -> None:
        """Close all connections in good order, within ``goodbye_timeout``."""
        with trio.move_on_after(self._config.goodbye_timeout, shield=True):
            async with trio.open_nursery() as closing:
                for connection in self._connections.values():
                    closing.start_soon(connection.aclose, "this host is leaving")

    # ---- transports and listeners --------------------------------------------------------

    def add_transport(self, transport: Transport) -> None:
        self._transports.append(transport)

    async def listen(self, address: Multiaddr) -> Listener:
        """Open a listener; connections are accepted once it is handed to ``serve``.

        Raises:
            AddressUnsupported: if no transport listens at such an address.
            OSError: if the address is taken, or is not this machine's.
        """
        for transport in self._transports:
            if transport.can_listen(address):
                listener = await transport.listen(address)
                self._listeners.append(listener)
                self._bus.publish(ListeningOn(listener.address))
                return listener
        raise AddressUnsupported(address, "no transport can listen there")

    @property
    def listen_addresses(self) -> tuple[Multiaddr, ...]:
        return tuple(listener.address for listener in self._listeners)

    def serve(self, listener: Listener) -> None:
        self._nursery.start_soon(self._accept_loop, listener)

    async def _accept_loop(self, listener: Listener) -> None:
        while True:
            try:
                pending = await listener.accept()
            except trio.ClosedResourceError:
                return
            self.accept(pending)

    def accept(self, pending: PendingConnection) -> None:
        """Take in an inbound connection; the oldest unfinished one gives way at the limit (S6)."""
        self._numbers += 1
        scope = trio.CancelScope()
        self._pending[self._numbers] = scope
        self._nursery.start_soon(self._upgrade, pending, self._numbers, scope)
        while len(self._pending) > self._config.max_pending_inbound:
            _, oldest = self._pending.popitem(last=False)
            oldest.cancel()

    async def _upgrade(
        self, pending: PendingConnection, number: int, scope: trio.CancelScope
    ) -> None:
        what = f"inbound connection from {pending.remote_address}"
        patience = self.expected.patience(pending.remote_address)  # D15
        with boundary(logger, what), scope:
            try:
                with trio.fail_after(self._config.upgrade_timeout):
                    capable = await pending.upgrade(patience=patience)
            except BaseException:
                await close_at_once(pending)
                raise
            finally:
                self._pending.pop(number, None)
            await self._admit(capable, is_inbound=True)

    # ---- connections ---------------------------------------------------------------------

    def connections(self, peer_id: PeerId | None = None) -> tuple[LiveConnection, ...]:
        """Return the live connections (to one peer), the best first (S16)."""
        found = [
            connection
            for connection in self._connections.values()
            if not connection.is_closed and peer_id in (None, connection.peer_id)
        ]
        return tuple(sorted(found, key=worth, reverse=True))

    def connection(self, number: int) -> LiveConnection | None:
        return self._connections.get(number)

    def protect(self, peer_id: PeerId, tag: str) -> None:
        self._protected.setdefault(peer_id, set()).add(tag)

    def unprotect(self, peer_id: PeerId, tag: str) -> None:
        tags = self._protected.get(peer_id, set())
        tags.discard(tag)
        if not tags:
            self._protected.pop(peer_id, None)

    async def _admit(self, capable: CapableConnection, *, is_inbound: bool) -> LiveConnection:
        """Make a capable connection one of ours.

        Raises:
            LimitExceeded: if there is no room for it; it is closed.
        """
        try:
            tasks = self._nursery
            self._check_room(capable, is_inbound=is_inbound)
        except BaseException:
            await close_at_once(capable)
            raise
        self._numbers += 1
        ref = ConnectionRef(
            number=self._numbers,
            peer_id=capable.peer_id,
            local_address=capable.local_address,
            remote_address=capable.remote_address,
            is_inbound=is_inbound,
            is_relayed=is_relayed(capable.remote_address),
        )
        connection = LiveConnection(
            capable, ref, config=self._config, handlers=self.handlers, peers=self.peers
        )
        self._connections[ref.number] = connection
        tasks.start_soon(self._hold, connection)
        self._trim()
        return connection

    def _check_room(self, capable: CapableConnection, *, is_inbound: bool) -> None:
        config = self._config  # S7
        if capable.peer_id == self._peer_id:
            raise LimitExceeded("connections to oneself", 0)
        of_peer = sum(c.peer_id == capable.peer_id for c in self._connections.values())
        if of_peer >= config.max_connections_per_peer:
            raise LimitExceeded("max_connections_per_peer", config.max_connections_per_peer)
        if is_inbound and len(self._connections) >= config.max_connections:
            # S20: whoever came first was too young to be trimmed then, and may go by now.
            self._trim()
            raise LimitExceeded("max_connections", config.max_connections)

    async def _hold(self, connection: LiveConnection) -> None:
        self._bus.publish(ConnectionOpened(connection.ref))
        self.changes.set(self.changes.value + 1)
        reason = "this host is leaving"
        try:
            reason = await connection.run()
        finally:
            del self._connections[connection.ref.number]
            self._bus.publish(ConnectionClosed(connection.ref, reason, connection.failure))
            self.changes.set(self.changes.value + 1)
            logger.debug("%r ended: %s", connection, reason)

    def _trim(self) -> None:
        now = trio.current_time()
        candidates = [
            Candidate(
                number=number,
                age=now - connection.opened_at,
                streams=connection.streams,
                is_protected=connection.peer_id in self._protected,
                is_relayed=connection.is_relayed,
                is_inbound=connection.is_inbound,
            )
            for number, connection in self._connections.items()
            if not connection.is_closed
        ]
        config = self._config
        for number in choose(
            candidates,
            low=config.low_connections,
            high=config.high_connections,
            grace=config.trim_grace,
        ):
            logger.info("closing %r: more than high_connections", self._connections[number])
            self._nursery.start_soon(self._connections[number].aclose, "trimmed")

    # ---- dialling ------------------------------------------------------------------------

    async def dial_ranked(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, insist: frozenset[Multiaddr]
    ) -> LiveConnection:
        """Dial a peer's addresses in their order; those in ``insist`` whatever the back-off.

        Raises:
            DialError: with one cause per address.
        """
        insisted = {without_peer(address) for address in insist}
        usable, failed = await self._usable(peer_id, addresses)
        now = trio.current_time()
        dialled = []
        for address, origin in usable.items():
            refusal = self._backoff.check(peer_id, address, now)
            if refusal is None or origin in insisted:
                dialled.append(address)
            else:
                failed.append(FailedAttempt(address, refusal))
        how = How(deadline=now + self._config.connect_timeout)
        return await self._race(peer_id, rank(dialled), failed, how)

    async def dial_at_once(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        role: Role,
        *,
        any_port: bool = False,
    ) -> LiveConnection:
        """Dial all addresses at the same moment, for a hole punch: no order, no back-off.

        Raises:
            DialError: with one cause per address.
        """
        usable, failed = await self._usable(peer_id, addresses)
        attempts = [Attempt(0.0, address) for address in usable]
        how = How(role, any_port)
        return await self._race(peer_id, attempts, failed, how)

    async def _usable(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr]
    ) -> tuple[dict[Multiaddr, Multiaddr], list[FailedAttempt]]:
        """Resolve names, and set aside what cannot be dialled, with the reason (S19).

        What is left stands with the address it came from; both without the peer.
        """
        found = await resolve(
            tuple(addresses),
            self._env.network,
            max_addresses=self._config.max_addresses_per_dial,
        )
        own = {tcp_endpoint(address) for address in self.listen_addresses}
        usable: dict[Multiaddr, Multiaddr] = {}
        failed = list(found.failed)
        for full, origin in found.addresses.items():
            address = without_peer(full)
            endpoint = tcp_endpoint(address)
            if peer_id_of(full) not in (None, peer_id):
                failed.append(
                    FailedAttempt(full, AddressMisleads(full, "it leads to another peer"))
                )
            elif endpoint is not None and endpoint in own:
                failed.append(FailedAttempt(address, AddressMisleads(address, "our own address")))
            elif self._transport_for(address) is None:
                failed.append(FailedAttempt(address, AddressUnsupported(address)))
            else:
                usable.setdefault(address, without_peer(origin))
        return usable, failed

    def _transport_for(self, address: Multiaddr) -> Transport | None:
        return next((t for t in self._transports if t.can_dial(address)), None)

    async def _race(
        self, peer_id: PeerId, attempts: list[Attempt], failed: list[FailedAttempt], how: How
    ) -> LiveConnection:
        async def dial_one(address: Multiaddr) -> CapableConnection:
            transport = self._transport_for(address)
            if transport is None:
                raise AddressUnsupported(address)
            # S18: a circuit takes no slot, as the dial of its relay within it may need one.
            async with nullcontext() if is_relayed(address) else self._dial_slots:
                with trio.fail_after(self._config.dial_timeout):
                    return await transport.dial(
                        address, peer_id=peer_id, role=how.role, any_port=how.any_port
                    )

        config = self._config
        result = await race(
            attempts, dial_one, max_parallel=config.max_parallel_dials, deadline=how.deadline
        )
        now = trio.current_time()
        for attempt in result.failed:
            if isinstance(attempt.address, Multiaddr):
                self._backoff.failed(peer_id, attempt.address, describe(attempt.cause), now)
        if result.winner is None or result.winning_address is None:
            late = [FailedAttempt(a, trio.TooSlowError()) for a in result.unfinished]
            hint = f"no answer within {config.connect_timeout:.0f} s" if late else ""
            raise DialError(peer_id, [*failed, *result.failed, *late], hint)
        self._backoff.worked(peer_id, result.winning_address)
        self.peers.add_addresses(peer_id, [result.winning_address], seconds=CONNECTED_SECONDS)
        return await self._admit(result.winner, is_inbound=how.role is Role.LISTENER)

    @property
    def _nursery(self) -> trio.Nursery:
        if self._tasks is None:
            raise trio.ClosedResourceError("the host is not running")
        return self._tasks


def worth(connection: LiveConnection) -> tuple[bool, bool, int, int]:
    """Without limit before limited, direct before relayed, busy before idle, then the newest."""
    return (
        not connection.is_limited,
        not connection.is_relayed,
        connection.streams,
        connection.ref.number,
    )
