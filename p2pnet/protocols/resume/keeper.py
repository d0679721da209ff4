"""Finds each stream a connection: a better one, or any other if its own is gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pnet.core.addresses import without_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, boundary, close_at_once
from p2pnet.errors import P2PError, describe
from p2pnet.interfaces import Connection, ServiceHost, Stream
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Ask, Decoder, Refuse, encode
from p2pnet.protocols.resume.policy import Sought, pause, rank
from p2pnet.protocols.resume.stream import LINGER, ResumableStream, lost

logger = logging.getLogger("p2pnet.resume")

FAREWELLS = 6
"""How often, each LINGER seconds, it is looked if a circuit that was left can be closed."""


@dataclass(eq=False, slots=True)
class Entry:
    """A stream, and what is known of the ways to carry it."""

    stream: ResumableStream
    asked: Connection | None = None
    """Where the responder asked it to move."""
    avoided: set[int] = field(default_factory=set)
    """Connections on which it could not move; the numbers of those that still live."""
    leaves: Connection | None = None
    """A circuit that is about to be cut."""
    renewed: int = -1
    """What had come and gone when it last left one."""
    dialled: trio.Event | None = None
    """Set once the next circuit is there, or will not be; None if none was ever dialled."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; see ``Resume``."""

    orphan: float
    move: float
    first_pause: float
    longest_pause: float


class Keeper:
    """Keeps streams carried; one task for each stream."""

    def __init__(
        self, host: ServiceHost, patience: Patience, nursery: trio.Nursery, sought: Sought
    ) -> None:
        self._host = host
        self._patience = patience
        self._nursery = nursery
        self._sought = sought

    async def keep(self, entry: Entry) -> None:
        """See to one stream until it is over, has all been read, and nothing carries it."""
        stream = entry.stream
        work = self._move_on if stream.machine.is_opener else self._ask
        while not stream.machine.is_over:
            await self._wait_for_need(entry)
            if not stream.machine.is_orphaned:
                await self._improve(entry)
                continue
            deadline = stream.left_alone_at + self._patience.orphan
            with trio.CancelScope(deadline=deadline) as waiting:
                await work(entry)
            if waiting.cancelled_caught and stream.machine.is_orphaned:
                stream.fail(lost)  # RS9
        # RS15: what waits to be read counts until it is.
        await stream.wait_until(lambda: not stream.is_carried and not stream.keeps_data)

    async def _wait_for_need(self, entry: Entry) -> None:
        """Wait until the stream is over, has lost its carrier, or can have a better one."""
        stream, machine = entry.stream, entry.stream.machine

        def is_needed() -> bool:
            if machine.is_over or machine.current is None:
                return True
            return machine.is_opener and self._better(entry) is not None

        await stream.wait_until(is_needed)

    def _better(self, entry: Entry) -> Connection | None:
        """Return the connection to move to while the current one works."""
        if not entry.stream.machine.is_accepted:
            return None  # RS10: on a faster connection, MOVE would come before OPEN.
        asked = entry.asked
        if asked is not None and not asked.is_closed and asked is not entry.stream.connection:
            return asked
        best = self._best(entry)
        if best is not None and rank(best) > rank(entry.stream.connection):
            return best
        return None

    def _best(self, entry: Entry) -> Connection | None:
        """Return the best live connection that has not failed the stream yet."""
        there = self._host.connections(entry.stream.peer_id)
        entry.avoided &= {connection.ref.number for connection in there}
        fit = [c for c in there if c.ref.number not in entry.avoided]
        return max(fit, key=rank, default=None)

    def _other(self, entry: Entry) -> Connection | None:
        """Return the best connection, unless that is the one which is about to be cut."""
        best = self._best(entry)
        return None if best is entry.leaves else best

    # ---- circuits that are about to be cut -----------------------------------------------

    async def renew(
        self, connection: Connection, entries: Sequence[Entry], *, is_lasting: bool
    ) -> None:
        """Dial the next circuit while one still carries, and have its streams move there (RS21)."""
        due = [entry for entry in entries if is_lasting or entry.stream.progress > entry.renewed]
        if not due:
            return
        dialled = trio.Event()
        for entry in due:
            entry.renewed, entry.dialled = entry.stream.progress, dialled
        peer_id, address = connection.peer_id, without_peer(connection.remote_address)
        with boundary(logger, f"the next circuit to {peer_id}"):
            fresh = self._successor(connection, due)
            is_needed = fresh is None
            try:
                if fresh is None:
                    with trio.fail_after(self._patience.move):
                        fresh = await self._host.dial(peer_id, [address])
            finally:
                dialled.set()
                for entry in due:
                    entry.stream.stir()
            for entry in due:
                if entry.stream.machine.is_opener and entry.stream.connection is connection:
                    entry.asked = fresh
                    entry.stream.stir()
            with trio.move_on_after(self._patience.move):
                for entry in due:
                    await entry.stream.wait_until(partial(entry.stream.is_off, connection))
            await close_when_idle(connection)
            best = max(self._host.connections(peer_id), key=rank, default=fresh)
            if is_needed and rank(best) > rank(fresh):
                await close_when_idle(fresh)

    def _successor(self, circuit: Connection, due: Sequence[Entry]) -> Connection | None:
        """Return what may carry the streams of a circuit instead, if that is there already."""
        avoided = {number for entry in due for number in entry.avoided}
        fit = [
            connection
            for connection in self._host.connections(circuit.peer_id)
            if connection.ref.number not in avoided
            and (
                rank(connection) > rank(circuit)
                or (connection.is_relayed and connection.ref.number > circuit.ref.number)
            )
        ]
        return max(fit, key=lambda each: (rank(each), each.ref.number), default=None)

    # ---- the opener ----------------------------------------------------------------------

    async def _improve(self, entry: Entry) -> None:
        better, entry.asked = self._better(entry), None
        if better is not None and not entry.stream.machine.is_over:
            await self._move(entry, better)

    async def _move_on(self, entry: Entry) -> None:
        """Find another connection, until one carries the stream."""
        machine = entry.stream.machine
        # RS20: what the first carried shows when the second is there.
        is_hopeful = entry.stream.fruitless < 2
        while machine.is_orphaned:
            if not is_hopeful:
                await self._rest(entry)
            is_hopeful = False
            if not machine.is_orphaned:
                return
            connection = await self._connection(entry)
            if connection is not None:
                await self._move(entry, connection)

    def _pause(self, stream: ResumableStream) -> float:
        stood = trio.current_time() - stream.left_alone_at
        patience = self._patience
        return pause(stood, first=patience.first_pause, longest=patience.longest_pause)

    async def _rest(self, entry: Entry) -> None:
        """Wait until another attempt makes sense: for a time, or for a new connection."""
        stream = entry.stream
        with trio.move_on_after(self._pause(stream)):
            await stream.wait_until(
                lambda: (
                    self._best(entry) is not None
                    or entry.asked is not None
                    or stream.machine.current is not None
                    or stream.machine.is_over
                )
            )

    async def _connection(self, entry: Entry) -> Connection | None:
        if (dialled := entry.dialled) is not None:
            # RS21: that was begun before the circuit was cut. But what is there is there.
            await entry.stream.wait_until(
                lambda: dialled.is_set() or self._other(entry) is not None
            )
        asked, entry.asked = entry.asked, None
        if asked is not None and not asked.is_closed:
            return asked
        best = self._best(entry)
        if best is not None:
            return best
        stream, peer_id = entry.stream, entry.stream.peer_id
        if not (stream.machine.is_opener or self._may_seek(peer_id)):
            return None
        try:
            connection = await self._host.connect(peer_id)
        except EXPECTED as error:
            logger.debug("%r: %s", stream, describe(error))
            return None
        self._sought.found(peer_id)
        if connection.ref.number in entry.avoided:
            # RS16: nobody answered on it, and nothing better is there: it is in the way.
            await close_at_once(connection)
            return None
        return connection

    def _may_seek(self, peer_id: PeerId) -> bool:
        places = self._host.peers.addresses(peer_id)
        return self._sought.admit(peer_id, places, trio.current_time())

    async def _move(self, entry: Entry, connection: Connection) -> None:
        """Move to a connection, or learn that it can't be done there."""
        stream = entry.stream
        carrier: Carrier | None = None
        with trio.move_on_after(self._patience.move):
            try:
                muxed = await connection.open_stream(PROTOCOL_ID)
            except EXPECTED as error:
                logger.debug("%r: %s", stream, describe(error))
            else:
                carrier = stream.machine.move()
                self._nursery.start_soon(self.carry, entry, carrier, muxed)
                await stream.wait_until(partial(self._is_settled, stream, carrier))
        if carrier is None or stream.machine.current is not carrier:
            entry.avoided.add(connection.ref.number)
            if carrier is not None:
                stream.drop(carrier)

    def _is_settled(self, stream: ResumableStream, carrier: Carrier) -> bool:
        machine = stream.machine
        return machine.is_over or carrier.awaits is None or not machine.has(carrier)

    async def carry(self, entry: Entry, carrier: Carrier, muxed: Stream) -> None:
        with boundary(logger, f"a carrier of {entry.stream!r}"):
            await entry.stream.carry(carrier, muxed)

    # ---- the responder -------------------------------------------------------------------

    async def _ask(self, entry: Entry) -> None:
        """Ask the opener to come, in case it does not by itself (RS13)."""
        stream, machine = entry.stream, entry.stream.machine
        while machine.is_orphaned:
            await self._wait_for_opener(stream)
            if not machine.is_orphaned:
                return
            connection = await self._connection(entry)
            if connection is None:
                continue
            answered = False
            with trio.move_on_after(self._patience.move):
                answered = await self._ask_on(stream, connection)
            if not answered:
                entry.avoided.add(connection.ref.number)

    async def _wait_for_opener(self, stream: ResumableStream) -> None:
        machine = stream.machine
        with trio.move_on_after(self._pause(stream)):
            await stream.wait_until(lambda: not machine.is_orphaned)

    async def _ask_on(self, stream: ResumableStream, connection: Connection) -> bool:
        """Ask on one connection; tell if the other side has heard it."""
        machine = stream.machine
        proof = machine.tokens.proof("ask", machine.number)
        try:
            muxed = await connection.open_stream(PROTOCOL_ID)
        except EXPECTED:
            return False
        try:
            await muxed.send_all(encode(Ask(machine.tokens.name, machine.number, proof)))
            await muxed.send_eof()
            decoder = Decoder()
            while data := await muxed.receive_some():
                for item in decoder.feed(data):
                    if isinstance(item, Refuse):
                        machine.refused(item.why)
                        stream.stir()
            await muxed.aclose()
        except (P2PError, trio.BrokenResourceError):
            muxed.reset()
            return False
        except BaseException:
            muxed.reset()
            raise
        return True


async def close_when_idle(connection: Connection) -> None:
    """Close a circuit that is not needed any more, unless something else runs over it for long."""
    for _ in range(FAREWELLS):
        await trio.sleep(LINGER)
        if not connection.streams:
            await connection.aclose()
            return
