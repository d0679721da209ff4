"""Connections, transports and arrivals that are nothing but what a test says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair

from p2pnet.core.addresses import Endpoint, Multiaddr, is_relayed, parse
from p2pnet.core.changes import Changes, NoChanges
from p2pnet.core.env import ByteStream, DatagramSocket, Env, RecordKind, StreamListener
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import answered
from p2pnet.errors import AddressUnsupported, ConnectionLost
from p2pnet.interfaces import (
    CapableConnection,
    CircuitLimit,
    Listener,
    MuxedStream,
    PendingConnection,
    Role,
)

ME, PEER, OTHER, THIRD = (PeerId(b"\x12\x20" + bytes([n]) * 32) for n in range(4))
HERE = parse("/ip4/10.0.0.1/tcp/4001")


class OneStream(MuxedStream):
    """A stream in memory; what is sent on it comes out of ``far``."""

    def __init__(self) -> None:
        self._near, self.far = memory_stream_pair()
        self.reset_codes: list[int] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._near.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._near.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._near.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._near.send_eof()

    async def aclose(self) -> None:
        await self._near.aclose()

    def reset(self, code: int = 0) -> None:
        self.reset_codes.append(code)
        self._near.send_stream.close()
        self._near.receive_stream.close()


class Line:
    """A capable connection that lasts until it is closed."""

    def __init__(
        self, peer_id: PeerId, remote_address: Multiaddr, *, limit: CircuitLimit | None = None
    ) -> None:
        self.peer_id = peer_id
        self.local_address = HERE
        self.remote_address = remote_address
        self.security = self.muxer = "/none"
        self.limit = limit
        self.is_over = False
        self.opened: list[OneStream] = []
        self._closed = trio.Event()
        self._accept: Callable[[MuxedStream], None] | None = None

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        self._accept = accept
        await self._closed.wait()

    def arrive(self, stream: MuxedStream) -> None:
        """Let the remote open a stream."""
        assert self._accept is not None
        self._accept(stream)

    async def open_stream(self) -> MuxedStream:
        await trio.lowlevel.checkpoint()
        if self.is_closed:
            raise ConnectionLost("closed")
        self.opened.append(OneStream())
        return self.opened[-1]

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


@dataclass
class Wires:
    """A transport: seconds until each address answers, and with what error if with one."""

    answers: dict[Multiaddr, tuple[float, Exception | None]] = field(default_factory=dict)
    dialled: list[Multiaddr] = field(default_factory=list)
    roles: list[tuple[Role, bool]] = field(default_factory=list)
    relayed: bool = False
    udp: bool = False
    heard: dict[Multiaddr, float] = field(default_factory=dict)
    """Seconds until the first answer, where the handshakes take longer."""

    def can_dial(self, address: Multiaddr) -> bool:
        if "/udp/" in str(address) and not self.udp:
            return False
        return is_relayed(address) is self.relayed

    def can_listen(self, address: Multiaddr) -> bool:
        return self.can_dial(address)

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        self.dialled.append(address)
        self.roles.append((role, any_port))
        seconds, error = self.answers.get(address, (0.0, None))
        heard = self.heard.get(address)
        if heard is not None:
            await trio.sleep(heard)
            answered()
        await trio.sleep(seconds - (heard or 0.0))
        if error is not None:
            raise error
        return Line(peer_id, address)

    async def listen(self, address: Multiaddr) -> Listener:
        await trio.lowlevel.checkpoint()
        return Doorway(address)


class Doorway:
    """A listener at which whatever a test sends arrives."""

    def __init__(self, address: Multiaddr) -> None:
        self.address = address
        self.is_closed = False
        self.send, self._arrivals = trio.open_memory_channel[PendingConnection](8)

    async def accept(self) -> PendingConnection:
        try:
            return await self._arrivals.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self.is_closed = True
        self._arrivals.close()
        await trio.lowlevel.checkpoint()


class Arrival:
    """An inbound connection that proves itself when it is told to."""

    def __init__(self, line: Line | None = None) -> None:
        self.remote_address = line.remote_address if line else parse("/ip4/8.8.8.8/tcp/1")
        self.is_closed = False
        self.patience: list[float | None] = []
        self._line = line

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        self.patience.append(patience)
        if self._line is None:
            await trio.sleep_forever()
            raise AssertionError
        await trio.lowlevel.checkpoint()
        return self._line

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class NoNetwork:
    """A network with nothing on it but names."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ("127.0.0.1", "10.0.0.1")
    routers: tuple[str, ...] = ()

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        raise AddressUnsupported(remote)

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        raise AddressUnsupported(local)

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        raise AddressUnsupported(local)

    def move(self) -> None:
        """Be in another network."""
        self.interfaces = ("127.0.0.1", "10.9.9.9")

    def interface_addresses(self) -> tuple[str, ...]:
        return self.interfaces

    def gateways(self) -> tuple[str, ...]:
        return self.routers

    def changes(self) -> Changes:
        return NoChanges()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        return self.names.get(name, ()) if kind == "A" else ()


def env(network: NoNetwork | None = None) -> Env:
    return Env(network or NoNetwork(), lambda: 0.0, bytes, lambda low, high: low)
