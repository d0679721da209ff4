"""Hosts, connections and streams in memory, for the services of the relay.

The streams have windows, half-close and reset like muxed ones; a connection hands each new
stream to the handler of the other host, in a task. Nothing is secured: ``FakeUpgrader`` only
lets both ends say their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import trio

from p2pnet.core.addresses import Multiaddr, parse, peer_id_of, with_peer, without_peer
from p2pnet.core.bus import EventBus, Subscription
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.core.watch import Watch
from p2pnet.errors import (
    ConnectionLost,
    DialError,
    NegotiationFailed,
    PeerIdMismatch,
    StreamReset,
)
from p2pnet.events import ConnectionClosed, ConnectionRef, Reachability
from p2pnet.interfaces import (
    AddressFinder,
    Apart,
    CapableConnection,
    CircuitLimit,
    Connection,
    Ends,
    Kit,
    LimitedUse,
    MuxedStream,
    Observer,
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
from tests.protocols.memory_env import NoNetwork

E = TypeVar("E")

WINDOW = 65_536
WALL = 1_700_000_000.0
"""Unix time at the start of a test, plus the trio clock."""


class Pipe:
    """One direction of a stream; holds at most a window of bytes."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.buffer = bytearray()
        self.ended = False
        self.broken = False
        self.most = 0
        """The most bytes that ever waited here."""
        self._changed = trio.Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while data:
            if self.broken:
                raise StreamReset("reset")
            room = self.window - len(self.buffer)
            self.buffer += data[:room]
            data = data[room:]
            self.most = max(self.most, len(self.buffer))
            self.change()
            if data:
                await self._changed.wait()

    async def receive(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.buffer and not self.ended and not self.broken:
            await self._changed.wait()
        if self.broken:
            raise StreamReset("reset")
        data = bytes(self.buffer[: max_bytes or len(self.buffer)])
        del self.buffer[: len(data)]
        self.change()
        return data

    def end(self) -> None:
        self.ended = True
        self.change()

    def shatter(self) -> None:
        self.broken = True
        self.change()


class FakeStream(Stream):
    """One end of a stream."""

    def __init__(
        self, outward: Pipe, inward: Pipe, connection: Connection, protocol_id: str
    ) -> None:
        self.outward = outward
        self.inward = inward
        self.was_reset = False
        self.is_closed = False
        self._connection = connection
        self._protocol_id = protocol_id

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def protocol_id(self) -> str:
        return self._protocol_id

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closed or self.outward.ended:
            raise trio.ClosedResourceError
        await self.outward.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.is_closed:
            raise trio.ClosedResourceError
        return await self.inward.receive(max_bytes)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.outward.broken:
            raise StreamReset("reset")
        self.outward.end()

    async def aclose(self) -> None:
        self.is_closed = True
        self.outward.end()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        self.was_reset = True
        self.is_closed = True
        self.outward.shatter()
        self.inward.shatter()


@dataclass
class FakeConnection:
    """One end of a connection between two hosts."""

    ref: ConnectionRef
    owner: FakeHost
    remote: FakeHost
    limit: CircuitLimit | None = None
    is_closed: bool = False
    live: list[FakeStream] = field(default_factory=list)
    security: str = "/fake"
    muxer: str = "/fake"
    opened_at: float = field(default_factory=trio.current_time)

    @property
    def peer_id(self) -> PeerId:
        return self.ref.peer_id

    @property
    def local_address(self) -> Multiaddr:
        return self.ref.local_address

    @property
    def remote_address(self) -> Multiaddr:
        return self.ref.remote_address

    @property
    def is_inbound(self) -> bool:
        return self.ref.is_inbound

    @property
    def is_relayed(self) -> bool:
        return self.ref.is_relayed

    @property
    def is_limited(self) -> bool:
        return self.limit is not None

    @property
    def streams(self) -> int:
        return len(self.live)

    async def open_stream(
        self, protocol_id: str, *alternatives: str, lazy: bool = False
    ) -> FakeStream:
        await trio.lowlevel.checkpoint()
        if self.is_closed:
            raise ConnectionLost("the connection has ended")
        handler = self.remote.handlers.get(protocol_id)
        if handler is None:
            raise NegotiationFailed([protocol_id, *alternatives])
        stream, far = self.stream_pair(protocol_id)
        self.remote.net.nursery.start_soon(serve, handler, far)
        return stream

    def stream_pair(self, protocol_id: str = "/test") -> tuple[FakeStream, FakeStream]:
        """Make a stream and its far end, which nobody serves."""
        there, here = Pipe(self.owner.window), Pipe(self.owner.window)
        stream = FakeStream(there, here, self, protocol_id)
        far = FakeStream(here, there, self.other_end(), protocol_id)
        self.live.append(stream)
        self.other_end().live.append(far)
        return stream, far

    def other_end(self) -> FakeConnection:
        return self.remote.ends[self.ref.number]

    async def aclose(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """End the connection, on both sides."""
        for end in (self, self.other_end()):
            if not end.is_closed:
                end.is_closed = True
                for stream in end.live:
                    stream.reset()
                end.owner.publish(ConnectionClosed(end.ref, "cut"))


async def serve(handler: StreamHandler, stream: FakeStream) -> None:
    try:
        await handler(stream)
    except EXPECTED:
        stream.reset()
    else:
        await stream.aclose()


class FakePeerBook:
    """Remembers addresses and protocols, and that is all."""

    def __init__(self) -> None:
        self.known: dict[PeerId, tuple[Multiaddr, ...]] = {}
        self.served: dict[PeerId, frozenset[str]] = {}

    def add_addresses(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, seconds: float
    ) -> None:
        self.known[peer_id] = tuple(addresses)

    def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        return self.known.get(peer_id, ())

    def set_protocols(self, peer_id: PeerId, protocols: Sequence[str]) -> None:
        self.served[peer_id] = frozenset(protocols)

    def protocols(self, peer_id: PeerId) -> frozenset[str] | None:
        return self.served.get(peer_id)

    def accept_sequence(self, peer_id: PeerId, sequence: int) -> bool:
        raise NotImplementedError


class FakeHost:
    """A ServiceHost whose network is a dictionary."""

    def __init__(self, net: FakeNet, seed: int, address: str) -> None:
        self.net = net
        self.key = PrivateKey.from_seed(bytes([seed]) * 32)
        self.peer_id = PeerId.from_public_key(self.key.public_key)
        self.place = parse(address)
        self.window = WINDOW
        self.bus = EventBus()
        self.peers = FakePeerBook()
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch((with_peer(self.place, self.peer_id),))
        self.protocols: Watch[tuple[str, ...]] = Watch(())
        self.reachability = Watch(Reachability.UNKNOWN)
        self.handlers: dict[str, StreamHandler] = {}
        self.ends: dict[int, FakeConnection] = {}
        self.transports: list[Transport] = []
        self.finders: list[AddressFinder] = []
        self.protected: set[tuple[PeerId, str]] = set()
        self.accepted: list[CapableConnection] = []
        self.refused: list[BaseException] = []
        self.pending: list[Multiaddr] = []
        """From where connections came that were to be upgraded."""
        self.dials: list[Multiaddr] = []
        self.offline = False

    @property
    def address(self) -> str:
        """The full address of this host, as text."""
        return str(with_peer(self.place, self.peer_id))

    @property
    def kit(self) -> Kit:
        return Kit(self.net.env, self.key, self.peer_id, FakeUpgrader(self.peer_id))

    async def start(self, service: Service) -> None:
        await self.net.nursery.start(self._run, service)

    async def _run(self, service: Service, *, task_status: trio.TaskStatus[None]) -> None:
        await service.run(self, task_status=task_status)

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        return ()

    def ports_move(self, transport: Literal["tcp", "udp"]) -> bool | None:
        raise NotImplementedError

    def handle(self, protocol_id: str, handler: StreamHandler) -> None:
        self.handlers[protocol_id] = handler

    def subscribe(
        self, *kinds: type[E], limit: int = 1024
    ) -> AbstractContextManager[Subscription[E]]:
        return self.bus.subscribe(*kinds, limit=limit)

    def publish(self, event: object) -> None:
        self.bus.publish(event)

    def connections(self, peer_id: PeerId | None = None) -> tuple[FakeConnection, ...]:
        live = [end for end in self.ends.values() if not end.is_closed]
        return tuple(end for end in live if peer_id in (None, end.peer_id))

    def connection(self, number: int) -> FakeConnection | None:
        return self.ends.get(number)

    async def connect(self, target: Target) -> FakeConnection:
        if isinstance(target, PeerId):
            peer_id, places = target, self.peers.addresses(target)
        else:
            address = parse(target) if isinstance(target, str) else target
            found = peer_id_of(address)
            assert found is not None
            peer_id, places = found, (without_peer(address),)
        for connection in self.connections(peer_id):
            return connection
        return await self.dial(peer_id, places)

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> FakeConnection:
        await trio.sleep(0.01)
        self.dials += addresses
        for other in self.net.hosts:
            if other.peer_id == peer_id and other.place in addresses and not other.offline:
                return self.net.link(self, other)
        raise DialError(peer_id, (), "nobody there")

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        raise NotImplementedError

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        raise NotImplementedError

    async def wait_direct(self, target: Target) -> Connection:
        raise NotImplementedError

    async def open_stream(
        self, target: Target, *protocol_ids: str, limited: LimitedUse = "wait"
    ) -> Stream:
        raise NotImplementedError

    def can_dial(self, address: Multiaddr) -> bool:
        raise NotImplementedError

    def add_transport(self, transport: Transport) -> None:
        self.transports.append(transport)

    def add_finder(self, finder: AddressFinder) -> None:
        self.finders.append(finder)

    def add_observer(self, observer: Observer) -> None:
        pass

    def handler(self, protocol_id: str) -> StreamHandler | None:
        return self.handlers.get(protocol_id)

    def set_opener(self, opener: StreamOpener) -> None:
        raise NotImplementedError

    async def observe(self, connection: Connection) -> Multiaddr | None:
        raise NotImplementedError

    def accept(self, pending: PendingConnection) -> None:
        self.pending.append(pending.remote_address)
        self.net.nursery.start_soon(self._upgrade, pending)

    async def _upgrade(self, pending: PendingConnection) -> None:
        try:
            self.accepted.append(await pending.upgrade())
        except EXPECTED as error:
            self.refused.append(error)
            await pending.aclose()

    def expect_listeners(
        self, addresses: Sequence[Multiaddr], *, patience: float
    ) -> AbstractContextManager[None]:
        raise NotImplementedError

    def apart(
        self, *, stranger: bool, unanswered_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Apart]:
        raise NotImplementedError

    def protect(self, peer_id: PeerId, tag: str) -> None:
        self.protected.add((peer_id, tag))

    def unprotect(self, peer_id: PeerId, tag: str) -> None:
        self.protected.discard((peer_id, tag))


class FakeNet:
    """All hosts of a test, the nursery of their tasks, and their clock."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.hosts: list[FakeHost] = []
        self.skew = 0.0
        self.env = Env(
            network=NoNetwork(),
            wall_clock=lambda: WALL + self.skew + trio.current_time() - self.started,
            random_bytes=bytes,
            jitter=lambda low, high: (low + high) / 2,
        )
        self.started = trio.current_time()
        self._numbers = itertools.count(1)

    def host(self, seed: int, address: str = "") -> FakeHost:
        host = FakeHost(self, seed, address or f"/ip4/10.0.{seed}.1/tcp/4001")
        self.hosts.append(host)
        return host

    def link(
        self,
        dialer: FakeHost,
        listener: FakeHost,
        *,
        relayed: bool = False,
        dialer_place: Multiaddr | None = None,
    ) -> FakeConnection:
        """Connect two hosts; return the dialer's end."""
        number = next(self._numbers)
        place = listener.place
        if relayed:
            place = parse(f"/ip4/10.9.9.9/tcp/1/p2p/{dialer.peer_id}/p2p-circuit")
        source = dialer_place or dialer.place
        there = ConnectionRef(number, dialer.peer_id, place, source, True, relayed)
        here = ConnectionRef(number, listener.peer_id, source, place, False, relayed)
        dialer.ends[number] = FakeConnection(here, dialer, listener)
        listener.ends[number] = FakeConnection(there, listener, dialer)
        return dialer.ends[number]


class FakeUpgrader:
    """Both ends say who they are, unproven and in the clear."""

    def __init__(self, peer_id: PeerId) -> None:
        self.peer_id = peer_id

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> FakeCapable:
        try:
            mine = self.peer_id.to_bytes()
            await stream.send_all(bytes([len(mine)]) + mine)
            length = (await receive_exactly(stream, 1))[0]
            answered = PeerId.decode_untrusted(await receive_exactly(stream, length))
            if expected not in (None, answered):
                raise PeerIdMismatch(expected, answered)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return FakeCapable(stream, answered, role, ends)


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        if not chunk:
            raise StreamReset("the stream ended")
        data += chunk
    return data


@dataclass
class FakeCapable:
    """An upgraded connection: its raw stream is what a test looks at."""

    stream: trio.abc.HalfCloseableStream
    peer_id: PeerId
    role: Role
    ends: Ends
    security: str = "/fake"
    muxer: str = "/fake"

    @property
    def local_address(self) -> Multiaddr:
        return self.ends.local

    @property
    def remote_address(self) -> Multiaddr:
        return self.ends.remote

    @property
    def limit(self) -> CircuitLimit | None:
        return self.ends.limit

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        raise NotImplementedError

    async def open_stream(self) -> MuxedStream:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.stream.aclose()
