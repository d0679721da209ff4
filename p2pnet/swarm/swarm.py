"""The swarm owns all connections and listeners; ``run`` is their nursery."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr, circuit_of, is_relayed, quic_endpoint
from p2pnet.core.bus import EventBus
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions, boundary, close_at_once
from p2pnet.core.watch import Watch
from p2pnet.errors import AddressUnsupported, DialError, EventsMissed, LimitExceeded
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    ListeningOn,
    NetworkChanged,
    NetworkRenewed,
    PathChanged,
)
from p2pnet.interfaces import (
    CapableConnection,
    Listener,
    PendingConnection,
    Roaming,
    Role,
    Spread,
    SpreadingTransport,
    StreamHandler,
    Transport,
)
from p2pnet.swarm.arrivals import Arrivals, Settled
from p2pnet.swarm.black_hole import Class
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import Race
from p2pnet.swarm.dialling import Dialling, How, Own
from p2pnet.swarm.expecting import ExpectedListeners
from p2pnet.swarm.interrupting import Interruptions
from p2pnet.swarm.peerstore import Peerstore
from p2pnet.swarm.proving import prove_alive
from p2pnet.swarm.roster import Roster
from p2pnet.swarm.trimming import Candidate, choose
from p2pnet.swarm.turned_away import TRIMMED, TurnedAway
from p2pnet.swarm.unhurried import UnhurriedDial

logger = logging.getLogger("p2pnet.swarm")


class Swarm:
    """Connections by peer ID. Nothing happens before ``run``."""

    def __init__(self, config: SwarmConfig, env: Env, *, peer_id: PeerId, bus: EventBus) -> None:
        self._config = config
        self._peer_id = peer_id
        self._bus = bus
        self._network = env.network
        self._transports: list[Transport] = []
        self._listeners: list[Listener] = []
        self._connections = Roster()
        self.turned_away = TurnedAway()
        self._pending = Arrivals(
            most=config.max_pending_inbound,
            most_of_prefix=config.max_pending_per_prefix,
            refuse=self.turned_away.refuse,
        )
        self._settled = Settled()
        self._protected: dict[PeerId, set[str]] = {}
        self._numbers = 0
        self._tasks: trio.Nursery | None = None
        self.peers = Peerstore(config, trio.current_time)
        self.handlers: dict[str, StreamHandler] = {}
        self.expected = ExpectedListeners(config.max_expected)
        self.changes = Watch(0)
        """Counts openings and closings of connections, for who waits for either."""
        self._interruptions = Interruptions(self.connections)
        own = Own(self._transports, lambda: self.listen_addresses, bus.publish)
        self._dialling = Dialling(config, env.network, own=own, peers=self.peers)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold all connections until cancelled, then close them politely."""
        try:
            with self._bus.subscribe(NetworkChanged, NetworkRenewed) as moves:
                async with trio.open_nursery() as tasks:
                    self._tasks = tasks
                    task_status.started()
                    while True:
                        event = None
                        with suppress(EventsMissed):
                            event = await anext(moves)
                        if not isinstance(event, NetworkRenewed):
                            self._dialling.forget()  # DI24
                        await prove_alive(self.connections(), self._network)
        finally:
            self._tasks = None
            for listener in self._listeners:
                await close_at_once(listener)

    async def say_goodbye(self) -> None:
        """Close all connections in good order, within ``goodbye_timeout``."""
        relays = relays_of(self._connections)
        with trio.move_on_after(self._config.goodbye_timeout, shield=True):
            async with trio.open_nursery() as closing:
                for connection in self._connections:
                    is_carrier = not connection.is_relayed and connection.peer_id in relays
                    closing.start_soon(self._part, connection, is_carrier)

    async def _part(self, connection: LiveConnection, is_carrier: bool) -> None:
        if is_carrier:
            # A goodbye over a circuit has to be through before the circuit is gone (S22).
            with trio.move_on_after(self._config.goodbye_timeout / 2):
                await self.changes.wait_for(
                    lambda _: connection.peer_id not in relays_of(self._connections)
                )
        await connection.aclose("this host is leaving")

    # ---- transports and listeners --------------------------------------------------------

    def add_transport(self, transport: Transport) -> None:
        self._transports.append(transport)

    def can_dial(self, address: Multiaddr) -> bool:
        return any(transport.can_dial(address) for transport in self._transports)

    @property
    def is_silent_over_udp(self) -> bool:
        """Tell if somebody has answered who was silent over UDP, and nobody over that (DI20)."""
        return self._dialling.black_holes.is_silent(Class.UDP)

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
        deadline = trio.current_time() + self._config.upgrade_timeout
        scope = trio.CancelScope(deadline=deadline)
        self._nursery.start_soon(self._upgrade, pending, self._numbers, scope)
        self._pending.add(self._numbers, pending.remote_address, scope.cancel)

    async def _upgrade(
        self, pending: PendingConnection, number: int, scope: trio.CancelScope
    ) -> None:
        patience = self.expected.patience(pending.remote_address)  # D15
        capable: CapableConnection | None = None
        with boundary(logger, lambda: f"inbound connection from {pending.remote_address}"):
            try:
                with scope:
                    capable = await pending.upgrade(patience=patience)
            finally:
                self._pending.remove(number)
                if capable is None:
                    await close_at_once(pending)
            if capable is not None:
                await self._admit(capable, is_inbound=True)
            elif trio.current_time() >= scope.deadline:
                self.turned_away.refuse("upgrade_timeout")
                raise trio.TooSlowError

    # ---- connections ---------------------------------------------------------------------

    def connections(self, peer_id: PeerId | None = None) -> tuple[LiveConnection, ...]:
        """Return the live connections (to one peer), the best first (S16)."""
        there = (
            self._connections if peer_id is None else self._connections.of_peer(peer_id).values()
        )
        found = [connection for connection in there if not connection.is_closed]
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
        except BaseException as error:
            if isinstance(error, LimitExceeded):
                self.turned_away.refuse(error.limit)
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
        self._connections.add(connection)
        if is_inbound:
            self._settled.add(ref.number, ref.remote_address)
        if isinstance(capable, Roaming):
            capable.on_path_changed = partial(self._follow, connection)
        tasks.start_soon(self._hold, connection)
        self._trim()
        return connection

    def _check_room(self, capable: CapableConnection, *, is_inbound: bool) -> None:
        config = self._config  # S7
        if capable.peer_id == self._peer_id:
            raise LimitExceeded("connections to oneself", 0)
        if len(self._connections.of_peer(capable.peer_id)) >= config.max_connections_per_peer:
            raise LimitExceeded("max_connections_per_peer", config.max_connections_per_peer)
        if is_inbound and (
            self._settled.of_prefix(capable.remote_address) >= config.max_inbound_per_prefix
        ):
            raise LimitExceeded("max_inbound_per_prefix", config.max_inbound_per_prefix)
        if is_inbound and len(self._connections) >= config.max_connections:
            # S20: whoever came first was too young to be trimmed then, and may go by now.
            self._trim()
            raise LimitExceeded("max_connections", config.max_connections)

    async def _hold(self, connection: LiveConnection) -> None:
        self._bus.publish(ConnectionOpened(connection.ref))
        self._changed(connection.peer_id)
        reason = "this host is leaving"
        try:
            reason = await connection.run()
        finally:
            self._connections.remove(connection)
            self._settled.remove(connection.ref.number)
            self.turned_away.trimmed += connection.closing_reason == TRIMMED
            self._bus.publish(ConnectionClosed(connection.ref, reason, connection.failure))
            self._changed(connection.peer_id)
            logger.debug("%r ended: %s", connection, reason)

    def _follow(self, connection: LiveConnection, is_ours: bool) -> None:
        """Take that a connection goes on by another path."""
        if not is_ours:
            connection.ref = replace(connection.ref, remote_address=connection.remote_address)
            self._settled.move(connection.ref.number, connection.remote_address)
        if not connection.is_closed:
            self._bus.publish(PathChanged(connection.ref, is_ours))

    def _changed(self, peer_id: PeerId) -> None:
        self.changes.set(self.changes.value + 1)
        self._interruptions.changed(peer_id)  # DI13

    def _trim(self) -> None:
        config, protected = self._config, self._protected
        if len(self._connections) <= config.high_connections:
            return
        counted = sum(connection.peer_id not in protected for connection in self._connections)
        if counted <= config.high_connections:
            return  # A busy relay comes here with each arrival, and to weigh them all takes long.
        now = trio.current_time()
        candidates = [
            Candidate(
                number=connection.ref.number,
                age=now - connection.opened_at,
                streams=connection.streams,
                is_protected=connection.peer_id in protected,
                is_relayed=connection.is_relayed,
                is_inbound=connection.is_inbound,
            )
            for connection in self._connections
            if not connection.is_closed
        ]
        for number in choose(
            candidates,
            low=config.low_connections,
            high=config.high_connections,
            grace=config.trim_grace,
        ):
            connection = self._connections.get(number)
            if connection is not None:
                logger.info("closing %r: more than high_connections", connection)
                self._nursery.start_soon(connection.aclose, TRIMMED)

    # ---- dialling ------------------------------------------------------------------------

    async def dial_ranked(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, insist: frozenset[Multiaddr]
    ) -> LiveConnection:
        """Dial a peer's addresses in their order; those in ``insist`` whatever is thought of them.

        If the peer comes by itself meanwhile, that connection is returned.

        Raises:
            DialError: with one cause per address.
        """
        with bare_exceptions(), self._interruptions.during(peer_id, self._numbers) as dial:
            try:
                with dial.scope:
                    capable = await self._dialling.ranked(
                        peer_id, addresses, insist=insist, result=dial.race
                    )
                    return await self._admit(capable, is_inbound=False)
            except DialError:
                if dial.arrived is None or dial.arrived.is_closed:
                    raise
        if dial.arrived is None:
            raise trio.ClosedResourceError("the host is not running")
        return dial.arrived

    async def dial_at_once(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        role: Role,
        *,
        any_port: bool = False,
    ) -> LiveConnection:
        """Dial all addresses at the same moment, for a hole punch: no order, no back-off.

        If the caller is cancelled, what was answered has a second to come to its end.

        Raises:
            DialError: with one cause per address.
        """

        async def dial(race: Race) -> LiveConnection:
            how = How(role, any_port)
            capable = await self._dialling.at_once(peer_id, addresses, how, result=race)
            return await self._admit(capable, is_inbound=role is Role.LISTENER)

        # DI28: over QUIC the last word of a handshake is the dialer's.
        has_last_word = role is Role.DIALER and all(map(quic_endpoint, addresses))

        def is_needless() -> bool:
            return has_last_word and not all(each.is_relayed for each in self.connections(peer_id))

        return await UnhurriedDial(dial, is_needless).run(self._nursery)

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        """See ServiceHost.dial_from_many."""
        transport = self._spreading(address)
        capable = await transport.dial_from_many(address, peer_id=peer_id, spread=spread)
        await self._admit(capable, is_inbound=False)

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        """See ServiceHost.knock_at_many."""
        await self._spreading(address).knock_at_many(address, spread)

    def _spreading(self, address: Multiaddr) -> SpreadingTransport:
        for transport in self._transports:
            if isinstance(transport, SpreadingTransport) and transport.can_dial(address):
                return transport
        raise AddressUnsupported(address)

    @property
    def _nursery(self) -> trio.Nursery:
        if self._tasks is None:
            raise trio.ClosedResourceError("the host is not running")
        return self._tasks


def relays_of(connections: Iterable[LiveConnection]) -> set[PeerId]:
    """Return who carries those that are circuits."""
    return {circuit_of(each.remote_address).relay for each in connections if each.is_relayed}


def worth(connection: LiveConnection) -> tuple[bool, bool, int, int]:
    """Without limit before limited, direct before relayed, busy before idle, then the newest."""
    return (
        not connection.is_limited,
        not connection.is_relayed,
        connection.streams,
        connection.ref.number,
    )
