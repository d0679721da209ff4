"""Hosts in memory for the tests of services: streams with latency, dials as a test wants them.

A dial goes to whatever function a test put in its place; a connection hands each new stream to
the handler of the other host, in a task. Nothing is negotiated or encrypted.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import ne
from typing import Literal, TypeVar

import trio

from p2pnet.core.addresses import Multiaddr, parse, peer_id_of, with_peer, without_peer
from p2pnet.core.bus import EventBus, Subscription
from p2pnet.core.env import Env
from p2pnet.core.foreword import Foreword, Forewords
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.core.watch import Watch
from p2pnet.errors import (
    ConnectionLost,
    DialError,
    FailedAttempt,
    NegotiationFailed,
)
from p2pnet.events import ConnectionClosed, ConnectionOpened, ConnectionRef, Reachability
from p2pnet.interfaces import (
    AddressFinder,
    Apart,
    CircuitLimit,
    Connection,
    Kit,
    LimitedUse,
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
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.peerstore import Peerstore
from tests.protocols.memory_env import NoNetwork, NoUpgrader
from tests.protocols.memory_streams import WINDOW, MemoryStream, Pipe, RefusedStream

E = TypeVar("E")

WALL = 1_800_000_000.0
"""Unix time at the start of a test, which goes on with the clock of trio."""


@dataclass(eq=False)
class MemoryConnection:
    """One end of a connection."""

    ref: ConnectionRef
    owner: MemoryHost
    remote: MemoryHost
    latency: float
    limit: CircuitLimit | None = None
    is_closed: bool = False
    begun: list[MemoryStream] = field(default_factory=list)
    """All streams there ever were on it."""
    opened: list[str] = field(default_factory=list)
    """The protocols that were asked for at this end."""
    open_seconds: float = 0.0
    """How long it takes to open a stream."""
    security: str = "/memory"
    muxer: str = "/memory"
    opened_at: float = field(default_factory=trio.current_time)
    forewords: Forewords | None = None
    alert: float | None = None

    def stay_alert(self, silence: float | None) -> None:
        self.alert = silence

    def prove_alive(self, patience: float) -> None:
        raise NotImplementedError

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
        return sum(not stream.is_closed for stream in self.begun)

    @property
    def other_end(self) -> MemoryConnection:
        return self.remote.ends[self.ref.number]

    async def open_stream(
        self, protocol_id: str, *alternatives: str, lazy: bool = False
    ) -> MemoryStream:
        await trio.sleep(self.open_seconds)
        if self.is_closed:
            raise ConnectionLost("the connection has ended")
        self.opened.append(protocol_id)
        handler = self.remote.handlers.get(protocol_id)
        if handler is None and lazy:
            pipe = self.pipe()
            self.begun.append(RefusedStream(pipe, pipe, self, protocol_id))
            return self.begun[-1]
        if handler is None:
            raise NegotiationFailed([protocol_id, *alternatives])
        near, far = self.stream_pair(protocol_id)
        self.owner.world.nursery.start_soon(self.remote.serve, handler, far)
        return near

    def stream_pair(self, protocol_id: str = "/test") -> tuple[MemoryStream, MemoryStream]:
        """Make a stream and its far end, which nobody serves."""
        there, back = self.pipe(), self.pipe()
        near = MemoryStream(there, back, self, protocol_id)
        far = MemoryStream(back, there, self.other_end, protocol_id)
        self.begun.append(near)
        self.other_end.begun.append(far)
        return near, far

    def pipe(self) -> Pipe:
        return Pipe(self.latency, self.owner.window)

    async def aclose(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """End the connection on both sides."""
        for end in (self, self.other_end):
            if not end.is_closed:
                end.is_closed = True
                for stream in end.begun:
                    if not stream.is_closed:
                        stream.reset()
                end.owner.publish(ConnectionClosed(end.ref, "cut"))
                end.owner.changed()


@dataclass(frozen=True, slots=True)
class Dial:
    """A dial that a service asked for."""

    at: float
    addresses: tuple[str, ...]
    role: Role
    any_port: bool


class MemoryHost:
    """A ServiceHost."""

    def __init__(self, world: MemoryWorld, seed: int, address: str) -> None:
        self.world = world
        self.key = PrivateKey.from_seed(bytes([seed]) * 32)
        self.peer_id = PeerId.from_public_key(self.key.public_key)
        self.place = parse(address)
        self.window = WINDOW
        """Of the streams that are opened here, in both directions."""
        self.bus = EventBus()
        self.peers = Peerstore(SwarmConfig(), trio.current_time)
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch((with_peer(self.place, self.peer_id),))
        self.protocols: Watch[tuple[str, ...]] = Watch(())
        self.reachability = Watch(Reachability.UNKNOWN)
        self.handlers: dict[str, StreamHandler] = {}
        self.handler_errors: list[BaseException] = []
        self.ends: dict[int, MemoryConnection] = {}
        self.published: list[object] = []
        self.punchable: tuple[Multiaddr, ...] = ()
        self.foreword = Foreword()
        self.moving: dict[str, bool] = {}
        """Whether ports move, by transport."""
        self.dials: list[Dial] = []
        self.expected: list[tuple[frozenset[str], float]] = []
        """From where peers that listen may arrive now, and how long they may be silent."""
        self.on_dial: Callable[[Multiaddr, Role], Awaitable[Connection]] = refuse
        self._changed: Watch[int] = Watch(0)

    @property
    def kit(self) -> Kit:
        return Kit(self.world.env, self.key, self.peer_id, NoUpgrader(), foreword=self.foreword)

    async def start(self, service: Service) -> None:
        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await service.run(self, task_status=task_status)

        await self.world.nursery.start(run)

    async def serve(self, handler: StreamHandler, stream: MemoryStream) -> None:
        try:
            await handler(stream)
        except EXPECTED as error:
            self.handler_errors.append(error)
            stream.reset()
        else:
            await stream.aclose()

    def of_kind(self, kind: type[E]) -> list[E]:
        """Return the events of a kind that were published."""
        return [event for event in self.published if isinstance(event, kind)]

    async def wait_event(self, kind: type[E]) -> E:
        """Return the first event of a kind, past or to come."""
        with self.subscribe(kind) as events:
            for event in self.of_kind(kind):
                return event
            return await anext(events)

    def changed(self) -> None:
        self._changed.set(self._changed.value + 1)

    # ---- ServiceHost ---------------------------------------------------------------------

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        return self.punchable

    def ports_move(self, transport: Literal["tcp", "udp"]) -> bool | None:
        return self.moving.get(transport)

    def handle(self, protocol_id: str, handler: StreamHandler) -> None:
        self.handlers[protocol_id] = handler
        self.protocols.set(tuple(sorted(self.handlers)))

    def subscribe(
        self, *kinds: type[E], limit: int = 1024
    ) -> AbstractContextManager[Subscription[E]]:
        return self.bus.subscribe(*kinds, limit=min(limit, self.world.event_limit))

    def publish(self, event: object) -> None:
        self.published.append(event)
        self.bus.publish(event)

    def connections(self, peer_id: PeerId | None = None) -> tuple[MemoryConnection, ...]:
        live = [end for end in self.ends.values() if not end.is_closed]
        best_first = sorted(live, key=lambda end: end.is_relayed)
        return tuple(end for end in best_first if peer_id in (None, end.peer_id))

    def connection(self, number: int) -> MemoryConnection | None:
        end = self.ends.get(number)
        return None if end is None or end.is_closed else end

    async def connect(self, target: Target) -> Connection:
        await trio.lowlevel.checkpoint()
        peer_id, addresses = self._named(target)
        for connection in self.connections(peer_id):
            return connection
        if not addresses:
            raise DialError(peer_id, ())
        return await self.dial(peer_id, addresses)

    def _named(self, target: Target) -> tuple[PeerId, tuple[Multiaddr, ...]]:
        if str(target).startswith("/"):
            address = parse(str(target))
            peer_id = peer_id_of(address)
            assert peer_id is not None
            return peer_id, (without_peer(address),)
        peer_id = PeerId.parse(str(target))
        return peer_id, self.peers.addresses(peer_id)

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> Connection:
        texts = tuple(str(address) for address in addresses)
        self.dials.append(Dial(trio.current_time(), texts, role, any_port))
        await trio.lowlevel.checkpoint()
        return await self.reach(peer_id, addresses, role)

    async def reach(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], role: Role
    ) -> Connection:
        """Dial, once that is noted."""
        return await self.on_dial(addresses[0], role)

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        raise NotImplementedError

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        raise NotImplementedError

    async def wait_direct(self, target: Target) -> Connection:
        assert isinstance(target, PeerId)
        while True:
            for connection in self.connections(target):
                if not connection.is_relayed:
                    return connection
            await self._changed.wait_for(partial(ne, self._changed.value))

    async def open_stream(
        self, target: Target, *protocol_ids: str, limited: LimitedUse = "wait"
    ) -> Stream:
        self.world.limited_uses.append(limited)
        return await (await self.connect(target)).open_stream(*protocol_ids)

    def can_dial(self, address: Multiaddr) -> bool:
        raise NotImplementedError

    def add_transport(self, transport: Transport) -> None:
        raise NotImplementedError

    def add_finder(self, finder: AddressFinder) -> None:
        raise NotImplementedError

    def add_observer(self, observer: Observer) -> None:
        pass

    def handler(self, protocol_id: str) -> StreamHandler | None:
        return self.handlers.get(protocol_id)

    def set_opener(self, opener: StreamOpener) -> None:
        raise NotImplementedError

    async def observe(self, connection: Connection) -> Multiaddr | None:
        raise NotImplementedError

    def accept(self, pending: PendingConnection) -> None:
        raise NotImplementedError

    @contextmanager
    def expect_listeners(
        self, addresses: Sequence[Multiaddr], *, patience: float
    ) -> Iterator[None]:
        expected = frozenset(map(str, addresses)), patience
        self.expected.append(expected)
        try:
            yield
        finally:
            self.expected.remove(expected)

    def apart(
        self, *, stranger: bool, unanswered_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Apart]:
        raise NotImplementedError

    def ports_apart(self, transport: str) -> int:
        return 0

    def protect(self, peer_id: PeerId, tag: str) -> None:
        raise NotImplementedError

    def unprotect(self, peer_id: PeerId, tag: str) -> None:
        raise NotImplementedError


async def refuse(address: Multiaddr, role: Role) -> Connection:
    """Be a host that answers with RST."""
    raise refusal(address)


def refusal(address: Multiaddr, reason: str = "connection refused") -> DialError:
    from_here = parse("/ip4/0.0.0.0/tcp/0")
    return DialError(from_here, [FailedAttempt(address, ConnectionRefusedError(reason))])


async def drop(address: Multiaddr, role: Role) -> Connection:
    """Be a NAT that lets nothing through, and says nothing."""
    await trio.sleep_forever()
    raise AssertionError("unreachable")


def middle(low: float, high: float) -> float:
    return (low + high) / 2


class MemoryWorld:
    """All hosts of a test, and their tasks."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.started = trio.current_time()
        self.wall = WALL
        self.event_limit = 1024
        self.takes_forewords = False
        """Relayed connections do."""
        self.limited_uses: list[str] = []
        self.env = Env(
            network=NoNetwork(),
            wall_clock=self._wall_clock,
            random_bytes=self._counted_bytes,
            jitter=middle,
        )
        self._numbers = itertools.count(1)
        self._counts = itertools.count()

    def _wall_clock(self) -> float:
        return self.wall + trio.current_time() - self.started

    def _counted_bytes(self, length: int) -> bytes:
        return next(self._counts).to_bytes(4).rjust(length, b"\xaa")

    def host(self, seed: int, address: str) -> MemoryHost:
        return MemoryHost(self, seed, address)

    def connect(
        self,
        dialer: MemoryHost,
        listener: MemoryHost,
        *,
        relay: str | None = None,
        latency: float = 0.0,
        dialer_place: Multiaddr | None = None,
    ) -> MemoryConnection:
        """Connect two hosts, directly or over a relay; return the dialer's end."""
        here, there = dialer_place or dialer.place, listener.place
        said = b""
        if relay is not None and self.takes_forewords:
            said = dialer.foreword.to(listener.peer_id)
        if relay is not None:
            here = there = parse(relay)
        number = next(self._numbers)
        relayed = relay is not None
        outbound = ConnectionRef(number, listener.peer_id, here, there, False, relayed)
        inbound = ConnectionRef(number, dialer.peer_id, there, here, True, relayed)
        ends = ((dialer, listener, outbound), (listener, dialer, inbound))
        limit = CircuitLimit(seconds=120.0) if relay else None
        for owner, remote, ref in ends:
            end = MemoryConnection(ref, owner, remote, latency, limit)
            if relayed and owner is dialer:
                end.opened_at -= latency  # as the last word of a handshake is the dialer's
            if relayed and self.takes_forewords:
                words = (said, b"") if owner is dialer else (b"", said)
                end.forewords = Forewords(*words, round_trip=2 * latency)
            owner.ends[number] = end
        for owner, _, ref in ends:
            owner.publish(ConnectionOpened(ref))
            owner.changed()
        return dialer.ends[number]
