"""What a world in memory has not: sockets, and handshakes."""

from __future__ import annotations

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.changes import Changes, NoChanges
from p2pnet.core.env import ByteStream, DatagramSocket, RecordKind, StreamListener
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import CapableConnection, Ends, Role


class NoNetwork:
    """Nobody may open a socket."""

    own: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        raise NotImplementedError

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        raise NotImplementedError

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        raise NotImplementedError

    def interface_addresses(self) -> tuple[str, ...]:
        return self.own

    def gateways(self) -> tuple[str, ...]:
        return self.routers

    def changes(self) -> Changes:
        return NoChanges()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        raise NotImplementedError


class NoUpgrader:
    """Nothing is upgraded here."""

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> CapableConnection:
        raise NotImplementedError
