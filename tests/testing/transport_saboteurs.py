"""Transports that break one rule each: TCP, with one thing in it gone wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, tcp_endpoint
from p2pnet.core.env import ByteStream
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.interfaces import (
    CapableConnection,
    Ends,
    Kit,
    MuxedStream,
    Part,
    PendingConnection,
    Role,
    TcpPorts,
    Upgrader,
)
from p2pnet.muxers.yamux.stream import YamuxStream
from p2pnet.negotiation.upgrader import UpgradedConnection
from p2pnet.transports.tcp import TCP, TcpPending, TcpTransport
from p2pnet.transports.tcp_ports import PortListener, SharedTcpPorts


@dataclass(frozen=True)
class Sabotaged:
    """A part that builds another transport than it should."""

    transport: type[TcpTransport]

    def build(self, kit: Kit) -> TcpTransport:
        return self.transport(TCP(), SharedTcpPorts(kit.env.network), kit.upgrader)


# ---- addresses ---------------------------------------------------------------------------


DOCUMENTED = ("192.0.2.1/tcp/4001", "2001:db8::1/tcp/4001")


class Modest(TcpTransport):
    """Says that it cannot listen where it can."""

    def can_listen(self, address: Multiaddr) -> bool:
        return super().can_listen(address) and str(address)[5:] in DOCUMENTED


class Stumbles(TcpTransport):
    """Falls over addresses that are not for it."""

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        if tcp_endpoint(address) is None:
            raise KeyError("tcp")
        return await super().dial(address, peer_id=peer_id, role=role, any_port=any_port)


class OneAddressForAll(TcpTransport):
    """Who listens second says that it listens where the first one does."""

    open: ClassVar[list[Multiaddr]] = []

    async def listen(self, address: Multiaddr) -> PortListener:
        listener = await super().listen(address)
        assert isinstance(listener, PortListener)
        self.open.append(listener.address)
        listener.address = self.open[0]
        listener.__class__ = ListenerAmongOthers
        return listener


class ListenerAmongOthers(PortListener):
    async def aclose(self) -> None:
        OneAddressForAll.open[:] = OneAddressForAll.open[1:]
        await super().aclose()


# ---- dialling ----------------------------------------------------------------------------


class HidesErrors(TcpTransport):
    """Takes a refusal for a loss."""

    async def _connect(self, remote: Endpoint, role: Role, any_port: bool) -> ByteStream:
        try:
            return await super()._connect(remote, role, any_port)
        except ConnectionRefusedError as error:
            raise ConnectionLost("refused") from error


class Careless:
    """An upgrader that takes anybody."""

    def __init__(self, upgrader: Upgrader) -> None:
        self._upgrader = upgrader

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> CapableConnection:
        return await self._upgrader.upgrade(stream, role, ends=ends, patience=patience)


class TakesAnybody(TcpTransport):
    def __init__(self, config: TCP, ports: TcpPorts, upgrader: Upgrader) -> None:
        super().__init__(config, ports, Careless(upgrader))


class KeepsThePort(TcpTransport):
    """Always leaves from the port that is listened on."""

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        return await super().dial(address, peer_id=peer_id, role=role)


class IsAlwaysTheDialer(TcpTransport):
    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        return await super().dial(address, peer_id=peer_id, any_port=any_port)


class ForgetsWhenCancelled(TcpTransport):
    """A dial that is cancelled just after it was answered leaves the stream open."""

    async def _connect(self, remote: Endpoint, role: Role, any_port: bool) -> ByteStream:
        stream = await super()._connect(remote, role, any_port)
        await trio.lowlevel.checkpoint()
        return stream


# ---- listening ---------------------------------------------------------------------------


class WithListener(TcpTransport):
    """Its listeners are of another type."""

    listener_type: ClassVar[type[PortListener]] = PortListener

    async def listen(self, address: Multiaddr) -> PortListener:
        listener = await super().listen(address)
        assert isinstance(listener, PortListener)
        listener.__class__ = self.listener_type
        return listener


class WaitsForEver(PortListener):
    """Who accepts at a closed listener waits for nothing."""

    async def accept(self) -> PendingConnection:
        try:
            return await super().accept()
        except trio.ClosedResourceError:
            await trio.sleep_forever()
            raise


class TakesAllAlong(PortListener):
    """With the listener, all that it accepted is closed."""

    accepted: ClassVar[list[TcpPending]] = []

    async def accept(self) -> PendingConnection:
        pending = await super().accept()
        assert isinstance(pending, TcpPending)
        self.accepted.append(pending)
        return pending

    async def aclose(self) -> None:
        while self.accepted:
            await trio.aclose_forcefully(self.accepted.pop()._stream)
        await super().aclose()


class OnlyAFew(PortListener):
    """Who comes while ten are there is sent away."""

    count = 0

    async def accept(self) -> PendingConnection:
        while True:
            pending = await super().accept()
            self.count += 1
            if not 10 < self.count <= 20:
                return pending
            await pending.aclose()


class WithPending(WithListener):
    """Its pending connections are of another type."""

    pending_type: ClassVar[type[TcpPending]] = TcpPending

    def pending(self, stream: ByteStream) -> TcpPending:
        pending = super().pending(stream)
        pending.__class__ = self.pending_type
        return pending


class StaysOpen(TcpPending):
    """Who is sent away stays."""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class StumblesOverSilence(TcpPending):
    """A remote that leaves without a word is an end of file."""

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        try:
            return await super().upgrade(patience=patience)
        except StreamReset:
            raise EOFError("no more bytes") from None


class MistakesItself(TcpPending):
    """Takes its own address for that of the remote."""

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        connection = await super().upgrade(patience=patience)
        assert isinstance(connection, UpgradedConnection)
        return replace(connection, remote_address=connection.local_address)


class DamagesMuch(YamuxStream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > 200_000:
            data = bytearray(data)
            data[100_000] ^= 1
        await super().send_all(data)


class DamagedConnection(UpgradedConnection):
    """Much data on a stream of its own is damaged."""

    async def open_stream(self) -> MuxedStream:
        stream = await super().open_stream()
        stream.__class__ = DamagesMuch
        return stream


class DamagesStreams(TcpPending):
    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        connection = await super().upgrade(patience=patience)
        assert isinstance(connection, UpgradedConnection)
        fields = {name: getattr(connection, name) for name in connection.__slots__}
        return DamagedConnection(**fields)


class LeavesASocket(TcpTransport):
    """Each listener has a datagram socket, too, which stays."""

    async def listen(self, address: Multiaddr) -> PortListener:
        listener = await super().listen(address)
        assert isinstance(listener, PortListener)
        endpoint = tcp_endpoint(listener.address)
        assert endpoint is not None
        assert isinstance(self._ports, SharedTcpPorts)
        await self._ports._network.bind_udp(Endpoint(endpoint.host, 0))
        return listener


def with_listener(kind: type[PortListener]) -> Sabotaged:
    return Sabotaged(type(kind.__name__, (WithListener,), {"listener_type": kind}))


def with_pending(kind: type[TcpPending]) -> Sabotaged:
    return Sabotaged(type(kind.__name__, (WithPending,), {"pending_type": kind}))


SABOTEURS: dict[str, Part[TcpTransport]] = {
    "addresses": Sabotaged(Modest),
    "unsupported": Sabotaged(Stumbles),
    "listen": Sabotaged(OneAddressForAll),
    "both-ends": with_pending(MistakesItself),
    "streams": with_pending(DamagesStreams),
    "nobody": Sabotaged(HidesErrors),
    "wrong-peer": Sabotaged(TakesAnybody),
    "closed-listener": with_listener(WaitsForEver),
    "outliving": with_listener(TakesAllAlong),
    "many-at-once": with_listener(OnlyAFew),
    "any-port": Sabotaged(KeepsThePort),
    "swapped-roles": Sabotaged(IsAlwaysTheDialer),
    "cancelled-dial": Sabotaged(ForgetsWhenCancelled),
    "sent-away": with_pending(StaysOpen),
    "failed-upgrade": with_pending(StumblesOverSilence),
    "close": Sabotaged(LeavesASocket),
}
