"""Learns how the NAT filters, by a port that has spoken to one server only.

Rules: specs/autonat.md (AN30 to AN32). Three servers at three networks give three ports::

    port 1 --- speaks to A ---> A, dial it!   gets through unless the NAT filters by port
                                B, dial it!   gets through if the NAT lets strangers in
    port 2 --- speaks to B ---> B, then C
    port 3 --- speaks to C ---> C, then A

At which address a port is seen outside is learnt from the server that it speaks to.

What is not let in takes a server many seconds to tell, and each is asked one thing at a time. So
the ports of all transports wait in one line for a server; and strangers are asked second, as
where nobody is let in by another port, nothing is new in what they say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr, at_endpoint, parse, place_of, scope
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.errors import P2PError
from p2pnet.events import FilteringTested
from p2pnet.interfaces import Apart, Connection, ServiceHost
from p2pnet.protocols.autonat.asking import Asker
from p2pnet.protocols.autonat.known_servers import KnownServers
from p2pnet.protocols.autonat.policy import Outcome, port_of
from p2pnet.protocols.autonat.schedule import Server

logger = logging.getLogger("p2pnet.autonat")

ANYWHERE_4 = {"tcp": parse("/ip4/0.0.0.0/tcp/0"), "udp": parse("/ip4/0.0.0.0/udp/0/quic-v1")}
ANYWHERE_6 = {"tcp": parse("/ip6/::/tcp/0"), "udp": parse("/ip6/::/udp/0/quic-v1")}
ENOUGH = 3
"""Networks whose servers are asked in a round."""

Rate = Callable[[Server, Outcome], None]


@dataclass(frozen=True, slots=True)
class Told:
    """What a server has said of a port."""

    transport: str
    by_stranger: bool
    reached: bool

    @property
    def is_final(self) -> bool:
        """Tell if no stranger has to be asked any more."""
        return self.by_stranger or not self.reached


class Scout:
    """Tests the filtering, a round at a time."""

    def __init__(
        self,
        host: ServiceHost,
        asker: Asker,
        servers: KnownServers,
        *,
        timeout: float,
    ) -> None:
        self._host = host
        self._asker = asker
        self._servers = servers
        self._timeout = timeout
        self._told: set[Told] = set()
        self._turns: dict[PeerId, trio.Lock] = {}

    async def explore(
        self, servers: Sequence[Server], rate: Rate, transports: Iterable[str]
    ) -> bool:
        """Run a round with servers of different networks; False if it has to be repeated soon.

        So it has if nothing came of it, or if strangers were asked and none has told (AN30).
        """
        self._told = set()
        self._turns = {server.peer_id: trio.Lock() for server in servers}
        unanswered: set[str] = set()
        async with trio.open_nursery() as nursery:
            for transport in transports:
                places = self._servers.place
                usable = [s for s in servers if places(s.peer_id, transport) is not None]
                if len(usable) > 1:
                    unanswered.add(transport)
                explore = partial(self._explore_port, transport=transport, rate=rate)
                for number, server in enumerate(usable):
                    nursery.start_soon(explore, server, usable[(number + 1) % len(usable)])
        answered = {told.transport for told in self._told if told.is_final}
        return bool(self._told) and not unanswered - answered

    async def _explore_port(
        self, server: Server, stranger: Server, *, transport: str, rate: Rate
    ) -> None:
        """Test one port, which speaks to ``server`` alone (AN31)."""
        with boundary(logger, f"filtering test with {server.peer_id}"):
            async with self._host.apart(stranger=False) as apart:
                with trio.fail_after(self._timeout):
                    connection, outside = await self._open_port(apart, server, transport)
                ask = partial(self._ask, outside=outside, rate=rate)
                await ask(server, connection)
                other = self._servers.connection(stranger.peer_id)
                if other is not None and stranger != server:
                    await ask(stranger, other, by_stranger=True)

    async def _open_port(
        self, apart: Apart, server: Server, transport: str
    ) -> tuple[Connection, Multiaddr]:
        """Open a port and connect from it; return also where the server sees it.

        Raises:
            P2PError: if that cannot be.
        """
        place = self._servers.place(server.peer_id, transport)
        if place is None:
            raise P2PError("nobody knows where to dial the server")
        listening = await apart.listen((ANYWHERE_6 if server.is_ipv6 else ANYWHERE_4)[transport])
        connection = await apart.dial(server.peer_id, place)
        if port_of(connection.local_address) != port_of(listening):
            raise P2PError("the dial has not left from the port that it was to leave from")
        seen = await self._host.observe(connection)
        port = None if seen is None else place_of(seen)
        if port is None or port.protocol != transport or port.endpoint.port == 0:
            raise P2PError(f"the server sees this host at {seen}")
        outside = at_endpoint(listening, port.endpoint)
        if scope(outside) not in self._servers.scopes:
            raise P2PError(f"the server sees this host at {outside}")
        return connection, outside

    async def _ask(
        self,
        server: Server,
        connection: Connection,
        *,
        outside: Multiaddr,
        rate: Rate,
        by_stranger: bool = False,
    ) -> None:
        async with self._turns[server.peer_id]:
            # AN32: never paid for, as it was a peer who named the address.
            outcome = await self._asker.test(connection, outside, pays=False)
        rate(server, outcome)
        if outcome in (Outcome.REACHED, Outcome.NOT_REACHED):
            reached = outcome is Outcome.REACHED
            place = place_of(outside)
            transport = "tcp" if place is None else place.protocol
            self._told.add(Told(transport, by_stranger, reached))
            self._host.publish(FilteringTested(transport, by_stranger, reached, server.peer_id))
