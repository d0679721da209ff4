"""A NAT gives a QUIC connection another port, in the middle of it: what do peers make of that?

The NAT is a forwarder of datagrams on loopback. What is checked is what p2pnet can rely on (Q29,
Q30 and I18 of the specifications): p2pnet follows and says where it sees the dialer; go-libp2p
follows, too, and says as before where it saw it first, so that p2pnet has to know that this is
outdated (V16); the others answer no more, so that the connection ends.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio

from interop.processes import serving
from p2pnet import open_host, presets
from p2pnet.core.addresses import Endpoint, parse, quic_address, quic_endpoint, without_peer
from p2pnet.core.keys import PrivateKey
from p2pnet.errors import ConnectionLost, P2PError
from p2pnet.events import ConnectionClosed, PathChanged
from p2pnet.host.host import Host
from p2pnet.interfaces import Connection
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping
from p2pnet.transports.quic import QUIC

LOOPBACK = "127.0.0.1"
LISTEN = f"/ip4/{LOOPBACK}/udp/0/quic-v1"
MOST = 65_536
PATIENCE = 60.0


async def bound() -> trio.socket.SocketType:
    made = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await made.bind((LOOPBACK, 0))
    return made


def endpoint(of: trio.socket.SocketType) -> Endpoint:
    host, port = of.getsockname()
    return Endpoint(host, port)


class Nat:
    """Forwards datagrams between one client and a server, from a port that can change."""

    def __init__(self, server: Endpoint, inside: trio.socket.SocketType) -> None:
        self.inside = inside
        self.outside = inside
        self._server = (server.host, server.port)
        self._client = ("", 0)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.inside:
            async with trio.open_nursery() as self._nursery:
                await self.rebind()
                task_status.started()
                while True:
                    data, self._client = await self.inside.recvfrom(MOST)
                    await self.outside.sendto(data, self._server)

    async def rebind(self) -> None:
        """Use another port from now on; what comes to the one before is lost."""
        self.outside = await bound()
        self._nursery.start_soon(self._answer, self.outside)

    async def _answer(self, outside: trio.socket.SocketType) -> None:
        with outside:
            while True:
                data, _ = await outside.recvfrom(MOST)
                if outside is self.outside:
                    await self.inside.sendto(data, self._client)


async def seen_at(host: Host, connection: Connection) -> Endpoint | None:
    told = await host.service(Identify).identify(connection)
    return None if told.observed_address is None else quic_endpoint(told.observed_address)


async def ping(host: Host, connection: Connection) -> None:
    """Send something; it may be that nobody answers."""
    with suppress(P2PError):
        await host.service(Ping).ping(connection)


@pytest.mark.parametrize(
    ("peer", "follows", "tells"),
    [("p2pnet", True, True), ("go", True, False), ("js", False, False), ("rust", False, False)],
)
async def test_another_port_in_the_middle_of_a_connection(
    peer: str, follows: bool, tells: bool
) -> None:
    config = presets.minimal(key=PrivateKey.generate(), listen=[LISTEN], transports=[QUIC()])
    async with (
        serving(peer, "listen", LISTEN=LISTEN) as served,
        trio.open_nursery() as nursery,
        open_host(config) as host,
    ):
        places = [quic_endpoint(without_peer(parse(text))) for text in served.addresses]
        (server,) = [place for place in places if place is not None and place.host == LOOPBACK]
        nat = Nat(server, await bound())
        await nursery.start(nat.run)
        kinds: tuple[type[PathChanged | ConnectionClosed], ...] = (PathChanged, ConnectionClosed)
        with trio.fail_after(PATIENCE), host.subscribe(*kinds) as events:
            target = f"{quic_address(endpoint(nat.inside))}/p2p/{served.peer_id}"
            connection = await host.connect(target)
            first = endpoint(nat.outside)
            assert await seen_at(host, connection) == first
            await nat.rebind()
            nursery.start_soon(ping, host, connection)
            event = await anext(events)
            if follows:
                assert event == PathChanged(connection.ref, is_ours=True)
                await host.service(Ping).ping(connection)
                wanted = endpoint(nat.outside) if tells else first
                assert await seen_at(host, connection) == wanted
            else:
                assert isinstance(event, ConnectionClosed)
                assert isinstance(event.error, ConnectionLost)
        nursery.cancel_scope.cancel()
