"""AutoNATv1: asks peers that speak no AutoNAT v2 to dial this host, and tells what it learns.

Rules: specs/autonat-v1.md (AO15 to AO22).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields

import trio

from p2pnet.core.addresses import Multiaddr, Scope, scope
from p2pnet.core.bus import Subscription
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.errors import EventsMissed
from p2pnet.events import (
    AddressesChanged,
    AddressTested,
    ConnectionClosed,
    ConnectionOpened,
    PeerIdentified,
    PortMapped,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.autonat_v1.dialogue import ask
from p2pnet.protocols.autonat_v1.messages import PROTOCOL_ID, DialResponse, Status, status_name
from p2pnet.protocols.autonat_v1.policy import (
    Cadence,
    Schedule,
    Server,
    is_usable,
    learned,
    network_of,
    offered,
)
from p2pnet.protocols.autonat_v1.server import channel_on

logger = logging.getLogger("p2pnet.autonat")

VERSION_2 = "/libp2p/autonat/2/dial-request"

Heard = PeerIdentified | ConnectionClosed | AddressesChanged | PortMapped
KINDS: tuple[type[Heard], ...] = (PeerIdentified, ConnectionClosed, AddressesChanged, PortMapped)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNATv1:
    """Has this host's addresses tested by servers that speak AutoNAT v1 only.

    Beside a part that asks those of version 2, as peers that speak both are left to that one.
    """

    settle: float = 2.0
    """Seconds from a change until it is acted upon, as more follow the first."""
    interval: float = 60.0
    """Seconds between two requests, once ``panel`` networks have answered."""
    throttle: float = 30.0
    """Seconds between two requests to one server."""
    pause: float = 600.0
    """Seconds to leave a server alone that refused, or said nothing of use."""
    panel: int = 3
    """So many networks are asked in the beginning. While servers of AutoNAT v2 in so many
    networks are there, nobody is asked."""
    request_timeout: float = 60.0
    """Seconds for a request; servers take 15 to say that nobody was reached."""
    arrival_timeout: float = 5.0
    """Seconds after an OK for the connection it speaks of to arrive."""
    max_servers: int = 1024
    """Servers of which is remembered when they were asked."""
    allow_private: bool = False
    """Ask peers with private and loopback addresses, and about such: for tests, and networks
    of one's own."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0 and setting.name != "allow_private":
                raise ValueError(f"{setting.name} must be positive, not {value}")

    def build(self, kit: Kit) -> AutoNATv1Service:
        return AutoNATv1Service(self)


class NobodyCame(Exception):
    """A server says that it has reached this host, and nobody was seen to come."""


class AutoNATv1Service:
    """Made by the part ``AutoNATv1``; works on its own, and publishes ``AddressTested``."""

    def __init__(self, config: AutoNATv1) -> None:
        self._config = config
        self._schedule = Schedule(
            Cadence(
                interval=config.interval,
                throttle=config.throttle,
                pause=config.pause,
                panel=config.panel,
                max_servers=config.max_servers,
            )
        )
        self._observed: dict[int, Multiaddr] = {}
        """Where the peer of each connection sees this host."""
        self._changed = trio.Event()

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(*KINDS) as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, host, events)
                task_status.started()
                await trio.sleep(self._config.settle)
                while True:
                    await self._round(host)

    async def _listen(self, host: ServiceHost, events: Subscription[Heard]) -> None:
        while True:
            try:
                event = await anext(events)
            except EventsMissed:
                for number in [n for n in self._observed if host.connection(n) is None]:
                    del self._observed[number]
            else:
                self._take(host, event)
            self._changed.set()

    def _take(self, host: ServiceHost, event: Heard) -> None:
        match event:
            case PeerIdentified(ref, observed_address=observed):
                if observed is not None and host.connection(ref.number) is not None:
                    self._observed[ref.number] = observed
            case ConnectionClosed(ref):
                self._observed.pop(ref.number, None)

    # ---- whom to ask, and when -----------------------------------------------------------

    async def _round(self, host: ServiceHost) -> None:
        """Ask whoever is due; or wait until somebody is, or something has changed."""
        self._changed = trio.Event()
        servers = self._servers(host)
        self._schedule.offer(self._offered(host, None))
        due = self._schedule.due(list(servers))
        now = trio.current_time()
        if due > now:
            with trio.move_on_at(due):
                await self._changed.wait()
                await trio.sleep(self._config.settle)
            return
        async with trio.open_nursery() as nursery:
            for server in self._schedule.choose(list(servers), now):
                nursery.start_soon(self._ask, host, server, servers[server])

    def _servers(self, host: ServiceHost) -> dict[Server, Connection]:
        """Return the peers that can be asked; none while there are better ones (AO21)."""
        found: dict[Server, Connection] = {}
        better: set[str] = set()
        known: set[PeerId] = set()
        for connection in host.connections():
            peer_id, network = connection.peer_id, network_of(connection.remote_address)
            if network is None or peer_id in known or not self._is_fit(connection):
                continue
            protocols = host.peers.protocols(peer_id) or frozenset()
            if VERSION_2 in protocols:
                better.add(network)
            elif PROTOCOL_ID in protocols:
                found[Server(peer_id, network, connection.is_inbound)] = connection
                known.add(peer_id)
        return {} if len(better) >= self._config.panel else found

    def _is_fit(self, connection: Connection) -> bool:
        # No relay carries a connection whose far end is a usable address.
        return not connection.is_closed and is_usable(
            connection.remote_address, allow_private=self._config.allow_private
        )

    def _offered(self, host: ServiceHost, connection: Connection | None) -> tuple[Multiaddr, ...]:
        return offered(
            host.punch_addresses(),
            None if connection is None else self._seen_at(connection),
            allow_private=self._config.allow_private,
        )

    def _seen_at(self, connection: Connection) -> Multiaddr | None:
        """Return where the peer sees this host: as it said, or clearly so (AO17)."""
        told = self._observed.get(connection.ref.number)
        if told is None and scope(connection.local_address) is Scope.PUBLIC:
            return connection.local_address
        return told

    # ---- one request ---------------------------------------------------------------------

    async def _ask(self, host: ServiceHost, server: Server, connection: Connection) -> None:
        verdicts: tuple[tuple[Multiaddr, bool], ...] = ()
        judge = self._schedule.failed
        with boundary(logger, f"AutoNAT v1 request to {server.peer_id}"):
            try:
                verdicts = await self._verdicts(host, connection)
            except NobodyCame:
                judge = self._schedule.unproven
                logger.info("%s says it has dialled this host, but nobody came", server.peer_id)
        if verdicts:
            self._schedule.answered(server, trio.current_time())
        else:
            # Of a connection that ends, the streams end first.
            await trio.sleep(self._config.settle)
            if not connection.is_closed:
                judge(server, trio.current_time())
        for address, reached in verdicts:
            host.publish(
                AddressTested(
                    address, reached, server.peer_id, connection.remote_address, PROTOCOL_ID
                )
            )

    async def _verdicts(
        self, host: ServiceHost, connection: Connection
    ) -> tuple[tuple[Multiaddr, bool], ...]:
        """Ask a server; return which addresses it has tested, and with what result.

        Raises:
            NobodyCame: if it says OK, and is not borne out.
        """
        ours, seen_at = self._offered(host, connection), self._seen_at(connection)
        with host.subscribe(ConnectionOpened) as arrivals:
            with trio.fail_after(self._config.request_timeout):
                response = await self._request(host, connection, ours)
            logger.debug(
                "%s answers %s %s",
                connection.peer_id,
                status_name(response.status),
                response.text,
            )
            verdicts = learned(response, offered=ours, observed=seen_at, own_id=host.peer_id)
            if verdicts and response.status == Status.OK and not await self._has_arrived(arrivals):
                raise NobodyCame
        return verdicts

    async def _request(
        self, host: ServiceHost, connection: Connection, ours: tuple[Multiaddr, ...]
    ) -> DialResponse:
        stream = await connection.open_stream(PROTOCOL_ID)
        try:
            response = await ask(channel_on(stream), host.peer_id, ours)
            await stream.aclose()
        except BaseException:
            stream.reset()
            raise
        return response

    async def _has_arrived(self, arrivals: Subscription[ConnectionOpened]) -> bool:
        """Tell if anybody has dialled this host since the request (AO16)."""
        with trio.move_on_after(self._config.arrival_timeout):
            while True:
                try:
                    ref = (await anext(arrivals)).connection
                except EventsMissed:
                    continue
                if ref.is_inbound and not ref.is_relayed:
                    return True
        return False
