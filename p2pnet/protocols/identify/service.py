"""Asks every peer who it is, tells every peer who we are, and again when that changes.

Rules: specs/identify.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeVar

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.bus import Subscription
from p2pnet.core.framing import FrameDecoder
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, boundary
from p2pnet.core.version import AGENT
from p2pnet.core.watch import Watch
from p2pnet.errors import (
    ConnectionLost,
    EventsMissed,
    LimitExceeded,
    P2PError,
    ProtocolError,
    describe,
)
from p2pnet.events import (
    AddressObserved,
    ConnectionClosed,
    ConnectionOpened,
    IdentifyFailed,
    PathChanged,
    PeerIdentified,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost, Stream, Target
from p2pnet.protocols.identify.messages import (
    IDENTIFY,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    MAX_VERSION_CHARACTERS,
    PUSH,
    IdentifyMessage,
    decode_untrusted,
    frames,
)
from p2pnet.protocols.identify.policy import (
    PushLimiter,
    check_key,
    is_evidence,
    merged,
    ports_of,
    read_observed,
    sensible_addresses,
    told_addresses,
)
from p2pnet.protocols.identify.snapshot import Basis, Snapshot, basis_of
from p2pnet.protocols.identify.whereabouts import Neighbourhood

logger = logging.getLogger("p2pnet.identify")

T = TypeVar("T")

Heard = ConnectionOpened | ConnectionClosed | PathChanged
KINDS: tuple[type[Heard], ...] = (ConnectionOpened, ConnectionClosed, PathChanged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """Identify and push, ``/ipfs/id/1.0.0`` and ``/ipfs/id/push/1.0.0``."""

    agent_version: str = AGENT
    protocol_version: str = "ipfs/0.1.0"
    exchange_timeout: float = 5.0
    """Seconds for one exchange."""
    address_seconds: float = 3600.0
    """How long the addresses that a peer names are remembered ..."""
    recent_seconds: float = 900.0
    """... and at least so long after its connection ended."""
    max_addresses: int = 100
    """Addresses of one peer that are taken in."""
    max_address_bytes: int = 1500
    """Addresses of our own that are told; the least useful are left out."""
    push_delay: float = 0.2
    """Seconds to wait for further changes before they are pushed."""
    max_parallel_pushes: int = 32
    push_burst: int = 10
    """Pushes of one peer that are read at once ..."""
    push_interval: float = 5.0
    """... and then one in so many seconds; others are refused."""
    max_pushers: int = 1024
    """Peers whose pushes are counted."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float | str = getattr(self, setting.name)
            if isinstance(value, str):
                if len(value) > MAX_VERSION_CHARACTERS or not value.isprintable():
                    raise ValueError(f"{setting.name} is too long, or not printable")
            elif value <= 0:
                raise ValueError(f"{setting.name} must be positive, not {value}")
        if self.max_address_bytes > 2048:
            raise ValueError("with a max_address_bytes above 2048 not everybody could read us")

    def build(self, kit: Kit) -> IdentifyService:
        return IdentifyService(self, kit)


@dataclass(slots=True)
class Acquaintance:
    """What is known of the peer on one connection; ``settled`` once that is all there will be."""

    asked: bool = False
    settled: trio.Event = field(default_factory=trio.Event)
    told: PeerIdentified | None = None
    failure: str = ""
    ended: bool = False
    seen_at: Multiaddr | None = None
    """Where we told the peer that we see it."""
    renewed_at: float = -math.inf
    is_renewing: bool = False
    """What a change of path asks for is about to be done (I18)."""


class IdentifyService:
    """Made by the part ``Identify``: ``await host.service(Identify).identify(peer_id)``."""

    def __init__(self, config: Identify, kit: Kit) -> None:
        self._config = config
        self._neighbourhood = Neighbourhood(kit.env.network)
        self._host: ServiceHost | None = None
        self._known: dict[int, Acquaintance] = {}
        self._pushing = trio.CapacityLimiter(config.max_parallel_pushes)
        self._snapshot = Snapshot(
            kit,
            agent_version=config.agent_version,
            protocol_version=config.protocol_version,
            max_address_bytes=config.max_address_bytes,
        )
        self._pushes = PushLimiter(
            burst=config.push_burst, interval=config.push_interval, max_peers=config.max_pushers
        )

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        self._host = host
        with host.subscribe(*KINDS) as events:
            host.handle(IDENTIFY, self._tell)
            host.handle(PUSH, self._hear_push)
            host.add_observer(self.observe)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._push_changes, basis_of(host))
                self._catch_up(nursery)
                task_status.started()
                while True:
                    await self._next(events, nursery)

    @property
    def _running(self) -> ServiceHost:
        if self._host is None:
            raise trio.ClosedResourceError("the identify service is not running")
        return self._host

    # ---- connections come and go ---------------------------------------------------------

    async def _next(self, events: Subscription[Heard], nursery: trio.Nursery) -> None:
        try:
            event = await anext(events)
        except EventsMissed:
            self._catch_up(nursery)
            return
        match event:
            case ConnectionOpened(ref):
                connection = self._running.connection(ref.number)
                if connection is not None:
                    self._meet(connection, nursery)
            case ConnectionClosed(ref):
                self._forget(ref.number)
            case PathChanged(ref, is_ours):
                self._renew(ref.number, nursery, is_ours=is_ours)

    def _catch_up(self, nursery: trio.Nursery) -> None:
        """Work out from the state what the events would have said."""
        for number in list(self._known):
            if self._running.connection(number) is None:
                self._forget(number)
        for connection in self._running.connections():
            self._meet(connection, nursery)
            self._renew(connection.ref.number, nursery, is_ours=False)

    def _meet(self, connection: Connection, nursery: trio.Nursery) -> None:
        acquaintance = self._known.setdefault(connection.ref.number, Acquaintance())
        if not acquaintance.asked:
            acquaintance.asked = True
            nursery.start_soon(self._ask, connection, acquaintance)

    def _forget(self, number: int) -> None:
        acquaintance = self._known.pop(number, None)
        if acquaintance is None:
            return
        told = acquaintance.told
        if told is not None and told.addresses:
            self._running.peers.add_addresses(
                told.connection.peer_id, told.addresses, seconds=self._config.recent_seconds
            )
        acquaintance.ended = True
        acquaintance.settled.set()

    # ---- asking --------------------------------------------------------------------------

    async def identify(self, target: Target | Connection) -> PeerIdentified:
        """Ask a peer who it is, now, connecting if need be.

        Raises:
            DialError: if it cannot be reached.
            NegotiationFailed, ProtocolError, ConnectionLost, StreamReset: if it does not say.
            trio.TooSlowError: if that takes longer than ``exchange_timeout``.
        """
        if isinstance(target, PeerId | Multiaddr | str):
            connection = await self._running.connect(target)
        else:
            connection = target
        return self._learn(connection, await self._exchange(connection), pushed=False)

    async def wait_identified(self, connection: Connection) -> PeerIdentified:
        """Return what the peer on a connection last said of itself; wait until it has.

        Raises:
            ConnectionLost: if the connection ended.
            P2PError: if the peer did not identify itself.
        """
        number = connection.ref.number
        if connection.is_closed and number not in self._known:
            raise ConnectionLost("the connection ended")
        acquaintance = self._known.setdefault(number, Acquaintance())
        await acquaintance.settled.wait()
        if acquaintance.told is not None:
            return acquaintance.told
        if acquaintance.ended:
            raise ConnectionLost("the connection ended before the peer identified itself")
        raise P2PError(f"{connection.peer_id} did not identify itself: {acquaintance.failure}")

    async def observe(self, connection: Connection) -> Multiaddr | None:
        """Ask a peer where it sees a connection, and learn nothing else from its answer.

        Raises:
            ConnectionLost, NegotiationFailed, ProtocolError, trio.TooSlowError: if it fails.
        """
        message = await self._exchange(connection)
        return read_observed(message, self._running.peer_id)

    async def _ask(self, connection: Connection, acquaintance: Acquaintance) -> None:
        with boundary(logger, lambda: f"identify of {connection.peer_id}"):
            try:
                self._learn(connection, await self._exchange(connection), pushed=False)
            except EXPECTED as error:
                acquaintance.failure = describe(error)
                acquaintance.settled.set()
                self._running.publish(IdentifyFailed(connection.ref, acquaintance.failure))
                raise

    def _renew(self, number: int, nursery: trio.Nursery, *, is_ours: bool) -> None:
        """Ask or tell again where a connection is seen, soon: its path has changed (I18)."""
        connection, acquaintance = self._running.connection(number), self._known.get(number)
        if connection is None or acquaintance is None or acquaintance.is_renewing:
            return
        if is_ours or acquaintance.seen_at not in (None, connection.remote_address):
            acquaintance.is_renewing = True
            nursery.start_soon(self._see_again, connection, acquaintance, is_ours)

    async def _see_again(
        self, connection: Connection, acquaintance: Acquaintance, is_ours: bool
    ) -> None:
        soonest = trio.current_time() + self._config.push_delay
        await trio.sleep_until(max(soonest, acquaintance.renewed_at + self._config.push_interval))
        acquaintance.is_renewing = False
        acquaintance.renewed_at = trio.current_time()
        with boundary(logger, lambda: f"identify of {connection.peer_id}, on another path"):
            if is_ours:
                self._learn(connection, await self._exchange(connection), pushed=False)
            elif acquaintance.seen_at != connection.remote_address:
                await self._push_on(connection)

    async def _exchange(self, connection: Connection) -> IdentifyMessage:
        with trio.fail_after(self._config.exchange_timeout):  # I2
            stream = await connection.open_stream(IDENTIFY)
            try:
                message = await read_messages(stream)
                await stream.aclose()
            except BaseException:
                stream.reset()
                raise
            return message

    def _learn(
        self, connection: Connection, message: IdentifyMessage, *, pushed: bool
    ) -> PeerIdentified:
        """Take in what a peer said, whole or not at all.

        Raises:
            ProtocolError: if it speaks for another peer.
        """
        host, peer_id = self._running, connection.peer_id
        check_key(message, peer_id)
        addresses = sensible_addresses(
            told_addresses(message, peer_id, host.peers.accept_sequence),
            peer_id=peer_id,
            own_id=host.peer_id,
            seen_from=self._neighbourhood.whereabouts(connection, trio.current_time()),
            maximum=self._config.max_addresses,
        )
        # I13: over a relay, a peer sees the relay.
        observed = None if connection.is_relayed else read_observed(message, host.peer_id)
        acquaintance = self._known.get(connection.ref.number, Acquaintance())
        told = merged(
            PeerIdentified(
                connection=connection.ref,
                agent_version=message.agent_version or "",
                protocol_version=message.protocol_version or "",
                protocols=message.protocols,
                addresses=addresses,
                observed_address=observed,
                pushed=pushed,
            ),
            acquaintance.told,
        )
        acquaintance.told = told
        acquaintance.settled.set()
        self._remember(told)
        host.publish(told)
        if observed is not None and is_evidence(
            observed,
            local=connection.local_address,
            remote=connection.remote_address,
            listening=ports_of(host.addresses.value),
        ):
            host.publish(AddressObserved(connection.ref, observed))
        return told

    def _remember(self, told: PeerIdentified) -> None:
        host, peer_id = self._running, told.connection.peer_id
        if told.connection.is_relayed and self._knows_directly(peer_id):  # I13
            return
        host.peers.set_protocols(peer_id, told.protocols)
        if told.addresses:
            host.peers.add_addresses(peer_id, told.addresses, seconds=self._config.address_seconds)

    def _knows_directly(self, peer_id: PeerId) -> bool:
        """Tell if the peer identified itself on a direct connection that still lives."""
        for connection in self._running.connections(peer_id):
            acquaintance = self._known.get(connection.ref.number)
            if not connection.is_relayed and acquaintance is not None and acquaintance.told:
                return True
        return False

    # ---- telling -------------------------------------------------------------------------

    async def _tell(self, stream: Stream) -> None:
        with trio.fail_after(self._config.exchange_timeout):
            await self._send(stream)

    async def _send(self, stream: Stream) -> None:
        connection = stream.connection
        acquaintance = self._known.get(connection.ref.number)
        if acquaintance is not None:
            acquaintance.seen_at = connection.remote_address
        place = self._neighbourhood.whereabouts(connection, trio.current_time())
        message = self._snapshot.message_for(self._running, connection, place)
        await stream.send_last(frames(message))

    async def _hear_push(self, stream: Stream) -> None:
        if not self._pushes.allow(stream.peer_id, trio.current_time()):  # I14
            raise LimitExceeded("push_burst", self._config.push_burst)
        with trio.fail_after(self._config.exchange_timeout):
            message = await read_messages(stream)
        self._learn(stream.connection, message, pushed=True)

    async def _push_changes(self, told: Basis) -> None:
        """Tell the connected peers, soon after what we say of ourselves changed (I16)."""
        host = self._running
        while True:
            await wait_any_change(host, told)
            await trio.sleep(self._config.push_delay)
            if basis_of(host) == told:
                continue
            told = basis_of(host)
            async with trio.open_nursery() as nursery:
                for peer_id in dict.fromkeys(c.peer_id for c in host.connections()):
                    protocols = host.peers.protocols(peer_id)
                    if protocols is None or PUSH in protocols:
                        nursery.start_soon(self._push, peer_id)

    async def _push(self, peer_id: PeerId) -> None:
        async with self._pushing:
            with boundary(logger, f"identify push to {peer_id}"):
                for connection in self._running.connections(peer_id)[:1]:
                    await self._push_on(connection)

    async def _push_on(self, connection: Connection) -> None:
        with trio.fail_after(self._config.exchange_timeout):
            stream = await connection.open_stream(PUSH)
            try:
                await self._send(stream)
                await stream.aclose()
            except BaseException:
                stream.reset()
                raise


async def wait_any_change(host: ServiceHost, told: Basis) -> None:
    """Wait until what we say of ourselves is not what was told."""
    async with trio.open_nursery() as nursery:

        async def watch(watched: Watch[T], differs: Callable[[T], bool]) -> None:
            await watched.wait_for(differs)
            nursery.cancel_scope.cancel()

        addresses, protocols = told
        nursery.start_soon(watch, host.addresses, lambda now: now != addresses)
        nursery.start_soon(watch, host.protocols, lambda now: now != protocols)


async def read_messages(stream: Stream) -> IdentifyMessage:
    """Read all messages up to the end of the stream, and put them together (I2, I3).

    Raises:
        ProtocolError: if there is none, or more or larger ones than allowed.
    """
    parts: list[bytes] = []
    decoder = FrameDecoder(MAX_MESSAGE_BYTES, IDENTIFY)
    # Nothing else follows on this stream, so all that is there is read at once.
    while len(parts) <= MAX_MESSAGES and (data := await stream.receive_some(MAX_MESSAGE_BYTES)):
        decoder.feed(data)
        while len(parts) <= MAX_MESSAGES and (part := decoder.next_frame()) is not None:
            parts.append(part)
    if not decoder.is_empty and len(parts) <= MAX_MESSAGES:
        raise ProtocolError(IDENTIFY, "the stream ended within a message")
    return decode_untrusted(parts)
