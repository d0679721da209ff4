"""Two ends of yamux to test with: sessions joined by a wire, connections over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Kit, MuxedStream, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.driver import YamuxConnection
from p2pnet.muxers.yamux.machine import Event, Opened, Session
from p2pnet.muxers.yamux.messages import (
    DATA,
    HEADER_BYTES,
    WINDOW_UPDATE,
    Header,
    decode_untrusted,
    encode,
)
from p2pnet.muxers.yamux.stream_state import StreamState
from p2pnet.negotiation.upgrader import LayeredUpgrader

KEY = PrivateKey.from_seed(bytes(32))
KIT = Kit(Env.system(), KEY, PeerId.from_public_key(KEY.public_key), LayeredUpgrader())


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return encode(DATA, flags, stream_id, len(payload)) + payload


def update(stream_id: int, flags: int = 0, delta: int = 0) -> bytes:
    return encode(WINDOW_UPDATE, flags, stream_id, delta)


class End:
    """A session, what it has put on the wire, and what happened to it."""

    def __init__(self, *, is_dialer: bool, config: Yamux | None = None) -> None:
        self.session = Session(config or Yamux(), is_dialer=is_dialer, now=0.0)
        self.wire = bytearray()
        self.events: list[Event] = []
        self.streams: dict[int, StreamState] = {}

    def open(self, now: float = 0.0) -> StreamState:
        stream = self.session.open(now)
        self.streams[stream.id] = stream
        return stream

    def receive(self, data: bytes | bytearray, now: float = 0.0) -> list[Event]:
        events = self.session.receive(data, now)
        self.events += events
        for event in events:
            if isinstance(event, Opened):
                self.streams[event.stream.id] = event.stream
        return events

    def sent(self) -> list[Header]:
        """Take what the session would send; return its headers."""
        return headers(self.session.data_to_send())


def headers(data: bytes | bytearray) -> list[Header]:
    found, offset = [], 0
    while offset < len(data):
        header = decode_untrusted(data, offset)
        found.append(header)
        offset += HEADER_BYTES + (header.length if header.kind == DATA else 0)
    return found


def transfer(source: End, target: End, *, now: float = 0.0, most: int | None = None) -> int:
    """Carry bytes over, at most so many; return how many."""
    source.wire += source.session.data_to_send()
    data = bytes(source.wire[:most])
    del source.wire[: len(data)]
    if data:
        target.receive(data, now)
    return len(data)


def listener(config: Yamux | None = None) -> End:
    return End(is_dialer=False, config=config)


def session_pair(config: Yamux | None = None) -> tuple[End, End]:
    return End(is_dialer=True, config=config), listener(config)


@dataclass
class Side:
    """A running connection, and the streams its remote opened."""

    connection: YamuxConnection
    below: trio.abc.Stream
    accepted: list[MuxedStream] = field(default_factory=list)
    on_accept: Callable[[MuxedStream], None] | None = None
    error: Exception | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    arrived: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        try:
            await self.connection.run(self.accept)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.ended.set()

    def accept(self, stream: MuxedStream) -> None:
        if self.on_accept is not None:
            self.on_accept(stream)
        else:
            self.accepted.append(stream)
        self.arrived.set()
        self.arrived = trio.Event()

    async def next_stream(self) -> MuxedStream:
        while not self.accepted:
            await self.arrived.wait()
        return self.accepted.pop(0)


def side(below: trio.abc.Stream, role: Role, config: Yamux | None = None) -> Side:
    return Side((config or Yamux()).build(KIT).start(below, role), below)


@asynccontextmanager
async def running_pair(
    config: Yamux | None = None,
    *,
    below: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncIterator[tuple[Side, Side]]:
    """Two connections that run until the block is left."""
    one, two = below or trio.testing.memory_stream_pair()
    dialer, listener = side(one, Role.DIALER, config), side(two, Role.LISTENER, config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        await trio.testing.wait_all_tasks_blocked()
        yield dialer, listener
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def against_bytes(
    role: Role = Role.LISTENER, config: Yamux | None = None
) -> AsyncIterator[tuple[Side, trio.abc.HalfCloseableStream]]:
    """One running connection, and the raw other end of the stream below it."""
    ours, theirs = trio.testing.memory_stream_pair()
    tested = side(ours, role, config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        await trio.testing.wait_all_tasks_blocked()
        yield tested, theirs
        await trio.aclose_forcefully(theirs)
        nursery.cancel_scope.cancel()


async def stream_pair(dialer: Side, listener: Side) -> tuple[MuxedStream, MuxedStream]:
    """A stream the dialer opened, at both ends."""
    ours = await dialer.connection.open_stream()
    await ours.send_all(b"!")
    theirs = await listener.next_stream()
    assert await theirs.receive_some(1) == b"!"
    await theirs.send_all(b"")  # As one who has waited would: from now on each send has its turn.
    return ours, theirs
