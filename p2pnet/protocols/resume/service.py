"""Opens and serves resumable streams, and finds them connections. Rules: specs/resume.md."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import trio

from p2pnet.core.addresses import ip_of
from p2pnet.core.bus import Subscription
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary, start_in
from p2pnet.errors import EventsMissed, ProtocolError
from p2pnet.events import (
    CircuitNearLimit,
    ConnectionClosed,
    ConnectionOpened,
    IdentifyFailed,
    NetworkChanged,
    PeerIdentified,
    StreamMoved,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost, Stream, StreamHandler
from p2pnet.protocols.resume.budget import Budget, Place, place_of
from p2pnet.protocols.resume.keeper import Entry, Keeper, Patience
from p2pnet.protocols.resume.machine import Machine, StaleMove
from p2pnet.protocols.resume.messages import (
    PROTOCOL_ID,
    SMALLEST_WINDOW,
    TOKEN_BYTES,
    Ask,
    Decoder,
    Move,
    Open,
    Why,
)
from p2pnet.protocols.resume.policy import Sought, Tokens, leash, may_move
from p2pnet.protocols.resume.stream import LASTING, ResumableStream, read_first, refuse

logger = logging.getLogger("p2pnet.resume")

FIRST_WINDOW = 262_144
FULL_SECONDS = 60.0
"""How long a peer that refused a stream as one too many is opened plain ones."""
IDENTIFY = "/ipfs/id/1.0.0"
Heard = (
    CircuitNearLimit
    | ConnectionOpened
    | ConnectionClosed
    | PeerIdentified
    | IdentifyFailed
    | NetworkChanged
)
KINDS: tuple[type[Heard], ...] = (
    CircuitNearLimit,
    ConnectionOpened,
    ConnectionClosed,
    PeerIdentified,
    IdentifyFailed,
    NetworkChanged,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Streams that move to better connections, ``/p2pnet/resume``. Needs ``Identify``."""

    direct: bool = True
    """Let the streams that begin on a direct connection outlive it, too, not only those that
    begin over a relay. That costs them about a quarter more processor time."""
    window: int = 16_777_216
    """Most bytes that a stream keeps each way, to send them again or until they are read. It
    begins with 256 KiB, and keeps more only while that is what slows it down."""
    max_bytes: int = 268_435_456
    """Most bytes that all streams together keep. Once half of them are given out to windows, none
    grows; of the last quarter new ones are small; and then it is as beyond ``max_streams``."""
    max_streams: int = 2048
    """In all; what is opened beyond is a plain stream, and what comes beyond is refused. A public
    IPv4 address or IPv6 /56 has half of all at most, and a peer elsewhere an eighth (RS23)."""
    max_streams_per_peer: int = 256
    """Each way."""
    orphan_seconds: float = 120.0
    """A stream without any connection waits so long for the next before it fails."""
    move_timeout: float = 10.0
    """Seconds for a peer to answer on another connection; one that does not is closed."""
    max_sought: int = 32
    """Peers that are dialled within a minute since they do not come back for the streams that
    they opened here, and that are not found: each says itself where."""
    identify_timeout: float = 5.0
    """The first stream to a peer waits so long at most to hear what it speaks."""
    first_pause: float = 0.5
    """Seconds between two attempts to reach a peer again; later a quarter of the time that the
    stream has stood still ..."""
    longest_pause: float = 5.0
    """... up to this."""
    farewell_timeout: float = 2.0
    """On leaving, what was written may take so long to reach the peers."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0 and setting.name != "direct":
                raise ValueError(f"{setting.name} must be positive, not {value}")
        if self.window < SMALLEST_WINDOW:
            raise ValueError(f"window must be at least {SMALLEST_WINDOW}")
        if self.max_bytes < 2 * SMALLEST_WINDOW:
            raise ValueError(f"max_bytes must be at least {2 * SMALLEST_WINDOW}")

    def build(self, kit: Kit) -> ResumeService:
        return ResumeService(self, kit.env)


class ResumeService:
    """Made by the part ``Resume``; works on its own, through ``Host.open_stream``."""

    def __init__(self, config: Resume, env: Env) -> None:
        self._config = config
        self._env = env
        self._budget = Budget(
            config.max_bytes,
            streams=config.max_streams,
            first=min(config.window, FIRST_WINDOW),
            smallest=SMALLEST_WINDOW,
            largest=config.window,
        )
        self._sought = Sought(config.max_sought)
        self._entries: dict[tuple[PeerId, bool, bytes], Entry] = {}
        self._changes = trio.lowlevel.ParkingLot()
        self._leaving = False
        self._unidentified: set[int] = set()
        """Connections on which identify has failed."""
        self._full_until: dict[PeerId, float] = {}
        """When to try again to open resumable streams to peers that had too many."""

    @property
    def streams(self) -> int:
        """How many resumable streams there are, the closed ones included that are not done."""
        return len(self._entries)

    @property
    def given_out(self) -> int:
        """Bytes that all streams may keep now; ``max_bytes`` at most."""
        return self._config.max_bytes - self._budget.left

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        self._host = host
        with host.subscribe(*KINDS) as events:
            async with trio.open_nursery() as self._handling:
                self._carrying = await self._handling.start(self._hold)
                self._keeper = Keeper(host, self._patience(), self._carrying, self._sought)
                host.handle(PROTOCOL_ID, self._serve)
                host.set_opener(self._open)
                task_status.started()
                try:
                    while True:
                        await self._hear(events)
                finally:
                    await self._say_farewell()

    def _patience(self) -> Patience:
        config = self._config
        return Patience(
            orphan=config.orphan_seconds,
            move=config.move_timeout,
            first_pause=config.first_pause,
            longest_pause=config.longest_pause,
        )

    async def _hold(self, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Hold the tasks that carry: they go on while the host takes its leave."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()

    async def _say_farewell(self) -> None:
        """Let streams that were closed come to their end, and end the others."""
        self._leaving = True
        with trio.move_on_after(self._config.farewell_timeout, shield=True):
            await trio.lowlevel.checkpoint()  # The handlers see that they are cancelled.
            for entry in tuple(self._entries.values()):
                if not entry.stream.is_closed:
                    entry.stream.reset()
            while any(entry.stream.is_carried for entry in self._entries.values()):
                await self._changes.park()
        self._carrying.cancel_scope.cancel()

    async def _hear(self, events: Subscription[Heard]) -> None:
        try:
            event = await anext(events)
        except EventsMissed:
            self._stir_all()
            return
        match event:
            case IdentifyFailed(ref):
                self._unidentified.add(ref.number)
            case ConnectionOpened() | ConnectionClosed():
                self._unidentified.discard(event.connection.number)
                self._go_on(self._host.connection(event.connection.number))
                for entry in tuple(self._entries.values()):
                    if entry.stream.peer_id == event.connection.peer_id:
                        entry.stream.stir()
            case CircuitNearLimit():
                self._renew(event)
            case NetworkChanged():
                await self._close_dead()
        self._changes.unpark_all()

    def _stir_all(self) -> None:
        for entry in tuple(self._entries.values()):
            entry.stream.stir()
        self._changes.unpark_all()

    def _renew(self, event: CircuitNearLimit) -> None:
        """Leave the circuits to a peer before their relay cuts them (RS21)."""
        is_lasting = event.limit == "seconds" and event.used >= LASTING
        there = self._host.connections(event.peer_id)
        circuit = next((each for each in there if runs_over(each, event)), None)
        if circuit is None:
            return
        entries = [each for each in self._entries.values() if each.stream.connection is circuit]
        for entry in entries:
            entry.leaves = circuit
            if event.limit == "bytes":
                entry.stream.restrain(leash(event.maximum - event.used, len(entries)))
        if not circuit.is_inbound:
            renew = partial(self._keeper.renew, is_lasting=is_lasting)
            self._handling.start_soon(renew, circuit, entries)
        for fresh in there:  # Who dialled it may have been warned first.
            self._go_on(fresh)

    def _go_on(self, fresh: Connection | None) -> None:
        """Move what is about to leave its circuit to one that the peer has dialled (RS21)."""
        if fresh is None or not (fresh.is_relayed and fresh.is_inbound):
            return
        for entry in self._entries.values():
            stream, leaves = entry.stream, entry.leaves
            if stream.peer_id != fresh.peer_id or leaves is None or leaves.is_closed:
                continue
            is_newer = fresh.ref.number > leaves.ref.number
            if stream.machine.is_opener and leaves is stream.connection and is_newer:
                entry.asked, entry.leaves = fresh, None
                stream.stir()

    async def _close_dead(self) -> None:
        """Close connections from addresses that this machine no longer has (RS16)."""
        try:
            own = set(self._env.network.interface_addresses())
        except OSError as error:  # Looking takes a descriptor.
            logger.info("cannot tell which connections this machine has left: %s", error)
            return
        for connection in self._host.connections():
            ip = None if connection.is_relayed else ip_of(connection.local_address)
            if ip is not None and str(ip) not in own:
                await connection.aclose()

    # ---- opening -------------------------------------------------------------------------

    async def _open(self, connection: Connection, protocol_ids: Sequence[str]) -> Stream:
        spoken = await self._spoken(connection, protocol_ids)
        place, window = place_of(connection.peer_id, connection.remote_address), None
        if spoken is not None and not self._has_too_many(connection.peer_id):
            window = self._budget.take(place)
        if spoken is None or window is None:
            first, *others = protocol_ids
            return await connection.open_stream(first, *others)
        try:
            muxed = await connection.open_stream(PROTOCOL_ID)
        except BaseException:
            self._budget.give_back(place, 2 * window)
            raise
        secret = self._env.random_bytes(TOKEN_BYTES)
        tokens = Tokens(secret, self._host.peer_id, connection.peer_id)
        machine = Machine(tokens, window, is_opener=True, grow=self._budget.grow)
        carrier = machine.open(spoken)
        entry = self._enter(machine, spoken, connection, place)
        start_in(self._carrying, self._keeper.carry, entry, carrier, muxed)
        return entry.stream

    async def _spoken(self, connection: Connection, protocol_ids: Sequence[str]) -> str | None:
        """Return which protocol to resume; None if it has to be a plain stream."""
        if not any(map(may_move, protocol_ids)) or self._leaving:  # RS2
            return None
        if not (self._config.direct or connection.is_relayed):  # RS19
            return None
        peer_id = connection.peer_id
        if IDENTIFY in self._host.protocols.value:
            with trio.move_on_after(self._config.identify_timeout):  # RS1
                while self._is_to_be_identified(connection):
                    await self._changes.park()
        known = self._host.peers.protocols(peer_id) or frozenset()
        spoken = next((name for name in protocol_ids if name in known), None)
        if PROTOCOL_ID not in known or spoken is None or not may_move(spoken):
            return None
        return spoken

    def _is_to_be_identified(self, connection: Connection) -> bool:
        is_known = self._host.peers.protocols(connection.peer_id) is not None
        has_failed = connection.is_closed or connection.ref.number in self._unidentified
        return not is_known and not has_failed

    def _has_too_many(self, peer_id: PeerId) -> bool:
        """Tell if this side has, or a peer had, too many streams to open another (RS15)."""
        if trio.current_time() < self._full_until.get(peer_id, 0.0):
            return True
        of_peer = [entry for key, entry in self._entries.items() if key[:2] == (peer_id, True)]
        was_refused = any(entry.stream.machine.was_one_too_many for entry in of_peer)
        return was_refused or self._is_full(peer_id, is_opener=True)

    def _is_full(self, peer_id: PeerId, *, is_opener: bool) -> bool:
        of_peer = sum(key[:2] == (peer_id, is_opener) for key in self._entries)
        return of_peer >= self._config.max_streams_per_peer  # RS15

    def _enter(
        self, machine: Machine, protocol_id: str, connection: Connection, place: Place
    ) -> Entry:
        stream = ResumableStream(machine, protocol_id, connection, self._moved)
        entry = Entry(stream)
        key = (connection.peer_id, machine.is_opener, machine.tokens.name)
        self._entries[key] = entry
        start_in(self._carrying, self._keep, key, entry, place)
        return entry

    async def _keep(self, key: tuple[PeerId, bool, bytes], entry: Entry, place: Place) -> None:
        try:
            await self._keeper.keep(entry)
        finally:
            del self._entries[key]
            machine = entry.stream.machine
            windows = machine.sending.window + machine.receiving.window
            self._budget.give_back(place, windows)
            if machine.was_one_too_many:
                self._avoid(entry.stream.peer_id)
            self._changes.unpark_all()

    def _avoid(self, peer_id: PeerId) -> None:
        """Open plain streams to a peer for a while, as it refuses others (RS15)."""
        now = trio.current_time()
        self._full_until = {peer: until for peer, until in self._full_until.items() if until > now}
        self._full_until[peer_id] = now + FULL_SECONDS

    def _moved(self, stream: ResumableStream, before: Connection) -> None:
        logger.debug("%r goes on over %r", stream, stream.connection)
        self._host.publish(StreamMoved(stream.protocol_id, before.ref, stream.connection.ref))

    # ---- serving -------------------------------------------------------------------------

    async def _serve(self, muxed: Stream) -> None:
        with trio.fail_after(self._config.move_timeout):
            decoder = Decoder()
            first = await read_first(muxed, decoder)
        match first:
            case Open():
                await self._serve_open(muxed, first, decoder)
            case Move():
                await self._serve_move(muxed, first, decoder)
            case Ask():
                await self._serve_ask(muxed, first)
            case _:  # RS5
                raise ProtocolError(PROTOCOL_ID, f"{type(first).__name__} on a new carrier")

    async def _serve_open(self, muxed: Stream, first: Open, decoder: Decoder) -> None:
        handler = self._host.handler(first.protocol)
        if handler is None or not may_move(first.protocol):
            await refuse(muxed, Why.NOT_SERVED)
            return
        tokens = Tokens(first.secret, muxed.peer_id, self._host.peer_id)
        if (muxed.peer_id, False, tokens.name) in self._entries:  # RS4
            raise ProtocolError(PROTOCOL_ID, "OPEN of a stream that is open")
        is_full = self._is_full(muxed.peer_id, is_opener=False) or self._leaving
        place = place_of(muxed.peer_id, muxed.connection.remote_address)
        window = None if is_full else self._budget.take(place)
        if window is None:
            await refuse(muxed, Why.TOO_MANY)
            return
        machine = Machine(tokens, window, is_opener=False, grow=self._budget.grow)
        carrier = machine.accept(first, decoder)
        entry = self._enter(machine, first.protocol, muxed.connection, place)
        start_in(self._handling, self._handle, entry.stream, handler)
        await entry.stream.carry(carrier, muxed)

    async def _handle(self, stream: ResumableStream, handler: StreamHandler) -> None:
        with boundary(logger, f"{stream!r}"):
            try:
                await handler(stream)
                await stream.aclose()
            except BaseException:
                stream.reset()
                raise

    async def _serve_move(self, muxed: Stream, move: Move, decoder: Decoder) -> None:
        entry = self._entries.get((muxed.peer_id, False, move.name))
        machine = None if entry is None else entry.stream.machine
        if entry is None or machine is None or machine.is_over:
            await refuse(muxed, Why.UNKNOWN)
            return
        if not machine.tokens.is_proof("move", move.number, move.proof):  # RS3
            raise ProtocolError(PROTOCOL_ID, "MOVE without proof")
        try:
            carrier = machine.answer(move, decoder)
        except StaleMove:
            await refuse(muxed, Why.STALE)
            return
        except ProtocolError as error:
            reason = error.reason
            entry.stream.fail(partial(ProtocolError, PROTOCOL_ID, reason))
            raise
        await entry.stream.carry(carrier, muxed)

    async def _serve_ask(self, muxed: Stream, ask: Ask) -> None:
        entry = self._entries.get((muxed.peer_id, True, ask.name))
        machine = None if entry is None else entry.stream.machine
        if entry is None or machine is None or machine.is_over:
            await refuse(muxed, Why.UNKNOWN)
            return
        if not machine.tokens.is_proof("ask", ask.number, ask.proof):  # RS3
            raise ProtocolError(PROTOCOL_ID, "ASK without proof")
        if ask.number >= machine.number:  # RS13
            entry.asked = muxed.connection
            entry.stream.stir()


def runs_over(connection: Connection, event: CircuitNearLimit) -> bool:
    """Tell if a connection is the circuit of which an event tells."""
    return connection.is_limited and connection.limit is event.circuit
