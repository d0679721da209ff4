"""The host: one peer of the network, and all that a user does with it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from operator import ne
from typing import Literal, TypeVar

import trio

from p2pnet.connectivity.explain import Explanation
from p2pnet.connectivity.known import KnownAddress
from p2pnet.connectivity.nat import Mapping, Nats
from p2pnet.core.addresses import Multiaddr, components, parse, peer_id_of, place_of
from p2pnet.core.bus import EventBus, Subscription
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.sparing import PortCount
from p2pnet.core.watch import Watch
from p2pnet.errors import DialError, LimitedConnection
from p2pnet.events import DialFailed, Reachability
from p2pnet.host.advertising import Advertising
from p2pnet.host.apart import build_upgrader, swarm_apart
from p2pnet.host.config import HostConfig
from p2pnet.host.explaining import Explaining
from p2pnet.interfaces import (
    AddressFinder,
    Apart,
    Connection,
    Kit,
    LimitedUse,
    Listener,
    Observer,
    Part,
    PendingConnection,
    Role,
    Service,
    Spread,
    Stream,
    StreamHandler,
    StreamOpener,
    Target,
    Transport,
)
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.joining import JoinedDials
from p2pnet.swarm.peerstore import Peerstore
from p2pnet.swarm.swarm import Swarm
from p2pnet.transports.tcp_ports import SharedTcpPorts

logger = logging.getLogger("p2pnet.host")

S = TypeVar("S")
E = TypeVar("E")

NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
NO_ADDRESS = "no address of it is known: give one, or a relay at which it can be found"


class Host:
    """Made by ``open_host``. All methods belong to the trio run in which it was opened."""

    def __init__(self, config: HostConfig) -> None:
        env = config.env or Env.system()
        key = config.key or PrivateKey.generate()
        self._config = config
        self._peer_id = PeerId.from_public_key(key.public_key)
        self._bus = EventBus()
        self._swarm = Swarm(config.swarm, env, peer_id=self._peer_id, bus=self._bus)
        self.turned_away = self._swarm.turned_away
        """How many connections were refused, by limit, or trimmed."""
        self._env, self._key = env, key
        upgrader = build_upgrader(config, env, key)
        kit = Kit(
            env,
            key,
            self._peer_id,
            upgrader,
            is_private=config.private_network is not None,
            tcp_ports=SharedTcpPorts(env.network),
        )
        for part in config.transports:
            self._swarm.add_transport(part.build(kit))
        self._services = [(part, part.build(kit)) for part in config.services]
        self._advertising = Advertising(
            config, peer_id=self._peer_id, swarm=self._swarm, bus=self._bus, env=env
        )
        self._explaining = Explaining(
            config, swarm=self._swarm, advertising=self._advertising, bus=self._bus
        )
        self._dials = JoinedDials(self._dial)
        self._finders: list[AddressFinder] = []
        self._observers: list[Observer] = []
        self._ports_apart = PortCount()
        self._opener: StreamOpener | None = None
        self._protocols: Watch[tuple[str, ...]] = Watch(())
        self._stopping = trio.Event()
        self._tasks: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Host {self._peer_id}>"

    # ---- state ---------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    @property
    def addresses(self) -> Watch[tuple[Multiaddr, ...]]:
        """The advertised addresses, each with ``/p2p``: what to give to others."""
        return self._advertising.addresses

    @property
    def reachability(self) -> Watch[Reachability]:
        """What this host believes of itself: can strangers dial it?"""
        return self._advertising.reachability

    @property
    def known_addresses(self) -> Watch[tuple[KnownAddress, ...]]:
        """All addresses of this host, where each is from, and why it is advertised or not."""
        return self._advertising.known

    @property
    def nat(self) -> Watch[Nats]:
        """What kind of NAT this host is behind, for each transport, as far as can be told."""
        return self._advertising.nat

    @property
    def protocols(self) -> Watch[tuple[str, ...]]:
        """What this host serves."""
        return self._protocols

    @property
    def peers(self) -> Peerstore:
        """What is known of other peers."""
        return self._swarm.peers

    def explain(self, target: Target | None = None) -> Explanation:
        """Say how a peer is reached, or why not, and what would help; or so of this host itself.

        Raises:
            ValueError: if the target names no peer.
        """
        return self._explaining.explain(None if target is None else read_target(target)[0])

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        """Return the direct addresses of this host worth dialling in a hole punch."""
        return self._advertising.punch_addresses()

    def ports_move(self, transport: Literal["tcp", "udp"]) -> bool | None:
        """Tell if the NAT gives each destination another port; None if that is not known."""
        nat = self.nat.value.of(transport)
        return None if nat.mapping is Mapping.UNKNOWN else nat.is_symmetric

    def connections(self, peer_id: PeerId | None = None) -> tuple[Connection, ...]:
        """Return the live connections (to one peer), the best first."""
        return self._swarm.connections(peer_id)

    def connection(self, number: int) -> Connection | None:
        """Return the connection that an event named by its number, if it still lives."""
        return self._swarm.connection(number)

    def service(self, part: type[Part[S]]) -> S:
        """Return the running service of a part: ``host.service(Ping).ping(...)``.

        Raises:
            LookupError: if the host was made without it.
        """
        for own, service in self._services:
            if isinstance(own, part):
                return service  # type: ignore[return-value]
        raise LookupError(f"this host has no {part.__name__}; add it to its services")

    # ---- protocols and events ------------------------------------------------------------

    def handle(self, protocol_id: str, handler: StreamHandler) -> None:
        """Serve a protocol: ``handler`` gets each inbound stream, in a task of its own.

        The stream is closed when the handler returns, and reset when it raises.

        Raises:
            ValueError: if the protocol is served already, or its name is no protocol name.
        """
        if not protocol_id.startswith("/") or len(protocol_id) > 256:
            raise ValueError(f"{protocol_id!r}: a protocol begins with '/', and is short")
        if protocol_id in self._swarm.handlers:
            raise ValueError(f"{protocol_id} is served already")
        self._swarm.handlers[protocol_id] = handler
        self._protocols.set(tuple(sorted(self._swarm.handlers)))

    def unhandle(self, protocol_id: str) -> None:
        """Stop serving a protocol; open streams go on."""
        self._swarm.handlers.pop(protocol_id, None)
        self._protocols.set(tuple(sorted(self._swarm.handlers)))

    def handler(self, protocol_id: str) -> StreamHandler | None:
        """Return what serves a protocol, if anything does."""
        return self._swarm.handlers.get(protocol_id)

    def subscribe(
        self, *kinds: type[E], limit: int = 1024
    ) -> AbstractContextManager[Subscription[E]]:
        """Collect events: ``with host.subscribe(ConnectionOpened) as events: async for …``."""
        return self._bus.subscribe(*kinds, limit=limit)

    def publish(self, event: object) -> None:
        """Tell an event to whoever subscribed to its kind; for services."""
        self._bus.publish(event)

    # ---- connecting ----------------------------------------------------------------------

    async def connect(self, target: Target) -> Connection:
        """Return the best connection to a peer, and dial only if there is none.

        A bare peer ID is looked for at its known addresses, and behind this host's relays.

        Raises:
            DialError: if no address worked; its ``attempts`` hold one cause per address.
            ValueError: if the target names no peer.
        """
        peer_id, address = read_target(target)
        for connection in self._swarm.connections(peer_id):
            await trio.lowlevel.checkpoint()
            return connection
        if peer_id == self._peer_id:
            raise DialError(peer_id, (), "that is this host itself")
        insist = frozenset([address] if address else [])
        return await self._dials.join(peer_id, insist, self._nursery)

    async def _dial(self, peer_id: PeerId, insist: frozenset[Multiaddr]) -> LiveConnection:
        found = [address for finder in self._finders for address in finder(peer_id)]
        addresses = [*insist, *self._swarm.peers.addresses(peer_id), *found]
        try:
            if not addresses:
                raise DialError(peer_id, (), NO_ADDRESS)
            return await self._swarm.dial_ranked(peer_id, addresses, insist=insist | {*found})
        except DialError as error:
            self._bus.publish(DialFailed(peer_id, error))
            raise

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> Connection:
        """Dial these very addresses at the same moment, connected or not; for hole punches.

        With ``any_port`` the dial does not leave from the port that is listened on.

        Raises:
            DialError: with one cause per address.
        """
        return await self._swarm.dial_at_once(peer_id, addresses, role, any_port=any_port)

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        """Connect from whichever of many sockets gets through; for hole punches."""
        await self._swarm.dial_from_many(peer_id, address, spread)

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        """Send to many ports of an IP; for hole punches."""
        await self._swarm.knock_at_many(address, spread)

    async def wait_direct(self, target: Target) -> Connection:
        """Wait until there is a connection to the peer that is not relayed, and return it.

        Waits for ever if none comes: put ``trio.fail_after`` around it.
        """
        return await self._wait_connection(read_target(target)[0], allow_unlimited_circuit=False)

    async def _wait_connection(
        self, peer_id: PeerId, *, allow_unlimited_circuit: bool
    ) -> LiveConnection:
        await trio.lowlevel.checkpoint()
        while True:
            seen = self._swarm.changes.value
            for connection in self._swarm.connections(peer_id):
                if not connection.is_relayed:
                    return connection
                if allow_unlimited_circuit and not connection.is_limited:
                    return connection
            await self._swarm.changes.wait_for(partial(ne, seen))

    async def open_stream(
        self, target: Target, *protocol_ids: str, limited: LimitedUse = "wait"
    ) -> Stream:
        """Open a stream to a peer, for the first of the protocols that it speaks.

        If only a limited (relayed) connection is there, ``limited`` says what to do: "allow"
        uses it, "refuse" raises, "wait" waits for a better one; put ``trio.fail_after`` around.

        Raises:
            DialError: if the peer cannot be reached.
            LimitedConnection: if only a limited one is there, and that was refused.
            NegotiationFailed: if it speaks none of the protocols; where identify said that it
                does, and it does not after all, the first receive raises this.
        """
        if not protocol_ids:
            raise ValueError("name at least one protocol")
        known = self._swarm.connections(read_target(target)[0])
        connection = known[0] if known else await self.connect(target)
        if connection.is_limited and limited != "allow":  # S21
            if limited == "refuse":
                raise LimitedConnection(connection.peer_id)
            connection = await self._wait_connection(
                connection.peer_id, allow_unlimited_circuit=True
            )
        if self._opener is not None:
            return await self._opener(connection, protocol_ids)
        return await connection.open_stream(*protocol_ids)

    # ---- for services --------------------------------------------------------------------

    def can_dial(self, address: Multiaddr) -> bool:
        """Tell if a transport of this host reaches addresses of that kind."""
        return self._swarm.can_dial(address)

    def add_transport(self, transport: Transport) -> None:
        """Make another kind of address dialable."""
        self._swarm.add_transport(transport)

    def add_finder(self, finder: AddressFinder) -> None:
        """Ask this too for addresses of a peer, whenever one is dialled."""
        self._finders.append(finder)

    def add_observer(self, observer: Observer) -> None:
        """Let ``observe`` ask by this."""
        self._observers.append(observer)

    def set_opener(self, opener: StreamOpener) -> None:
        """Let ``open_stream`` open its streams by this."""
        self._opener = opener

    async def observe(self, connection: Connection) -> Multiaddr | None:
        """Ask a peer where it sees a connection of this host; None if it cannot be asked."""
        await trio.lowlevel.checkpoint()
        for observer in self._observers:
            return await observer(connection)
        return None

    def accept(self, pending: PendingConnection) -> None:
        """Take in a connection that arrived through a service."""
        self._swarm.accept(pending)

    def expect_listeners(
        self, addresses: Sequence[Multiaddr], *, patience: float
    ) -> AbstractContextManager[None]:
        """Be the dialer of those who arrive from these IPs and are silent; for hole punches."""
        return self._swarm.expected.during(addresses, patience)

    def apart(
        self, *, stranger: bool, unanswered_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Apart]:
        """Run a swarm on ports of its own, for as long as the block lasts.

        As a ``stranger`` it has a key of its own too, and serves nothing; else it is this
        host, and serves what this host does. See ServiceHost for ``unanswered_bytes``.
        """
        key = PrivateKey.from_seed(self._env.random_bytes(32)) if stranger else self._key
        handlers = {} if stranger else self._swarm.handlers
        return swarm_apart(
            self._config, self._env, key, handlers, unanswered_bytes, self._ports_apart
        )

    def ports_apart(self, transport: str) -> int:
        """Return from how many IPv4 ports apart anything has left so far, of TCP or UDP."""
        return self._ports_apart[transport]

    def protect(self, peer_id: PeerId, tag: str) -> None:
        """Never trim the connections to a peer while a tag is on it."""
        self._swarm.protect(peer_id, tag)

    def unprotect(self, peer_id: PeerId, tag: str) -> None:
        """Take a tag off."""
        self._swarm.unprotect(peer_id, tag)

    # ---- life ----------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live until ``stop``. Cancellation is held off meanwhile, so that goodbyes are said."""
        with trio.CancelScope() as life:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks
                await tasks.start(self._swarm.run)
                async with trio.open_nursery() as services:
                    await self._start(services)
                    life.shield = True
                    task_status.started()
                    await self._stopping.wait()
                    services.cancel_scope.cancel()
                await self._swarm.say_goodbye()
                tasks.cancel_scope.cancel()

    async def _start(self, services: trio.Nursery) -> None:
        # Ports are bound before any service dials, since dials leave from them; and nobody
        # is let in before the services are there.
        listeners = await self._listen()
        await services.start(self._advertising.run)
        await services.start(self._explaining.run)
        for _, service in self._services:
            await services.start(self._run_service, service)
        for listener in listeners:
            self._swarm.serve(listener)

    async def _listen(self) -> list[Listener]:
        """Open the listeners; without IPv6 on this machine, "all IPv6 addresses" are none."""
        listeners: list[Listener] = []
        for address in map(parse, self._config.listen):
            try:
                listeners.append(await self._swarm.listen(address))
            except OSError as error:
                place = place_of(address)
                if place is None or place.endpoint.host != "::" or error.errno not in NO_IPV6:
                    reason = f"cannot listen at {address}: {error.strerror}"
                    raise OSError(error.errno, reason) from error
                logger.info("not listening on %s: %s", address, error)
        return listeners

    async def _run_service(self, service: Service, *, task_status: trio.TaskStatus[None]) -> None:
        await service.run(self, task_status=task_status)

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()

    @property
    def _nursery(self) -> trio.Nursery:
        if self._tasks is None or self._stopping.is_set():
            raise trio.ClosedResourceError("the host is not running")
        return self._tasks


def read_target(target: Target) -> tuple[PeerId, Multiaddr | None]:
    """Return the peer that a target names, and the address it gives, if it does.

    Raises:
        ValueError: if it names no peer.
    """
    if isinstance(target, PeerId):
        return target, None
    if isinstance(target, str) and not target.startswith("/"):
        return PeerId.parse(target), None
    address = parse(target) if isinstance(target, str) else target
    peer_id = peer_id_of(address)
    if peer_id is None:
        raise ValueError(f"{address} does not end in /p2p/<peer id>: whom does it lead to?")
    if len(components(address)) == 1:
        return peer_id, None
    return peer_id, address
