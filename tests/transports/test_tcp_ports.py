"""Rules W20, W21, W22, W23 and W24: who shares a TCP port, and who an arrival is for."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.addresses import Endpoint, Multiaddr, from_endpoint
from p2pnet.core.env import ByteStream
from p2pnet.errors import ConnectionLost, ProtocolError
from p2pnet.interfaces import CapableConnection, Opening, PendingConnection, Role
from p2pnet.negotiation.machine import WHOLE_GREETING
from p2pnet.testing.world import World
from p2pnet.transports.tcp_ports import METHODS, PortListener, SharedTcpPorts, opening_of

GREETING = b"\x13/multistream/1.0.0\n"
REQUEST = b"GET / HTTP/1.1\r\n"
HELLO = bytes.fromhex("160301020001")
RAW, HTTP, TLS = Opening.RAW, Opening.HTTP, Opening.TLS
FIRST_WORDS = {RAW: GREETING, HTTP: REQUEST, TLS: HELLO}


# ---- the first bytes ---------------------------------------------------------------------


def test_w21_the_first_byte_of_multistream_decides_already() -> None:
    assert len(GREETING) <= WHOLE_GREETING
    assert opening_of(GREETING[:1], set(Opening)) is RAW


@pytest.mark.parametrize("opening", Opening)
def test_w21_each_kind_is_known_however_it_is_cut(opening: Opening) -> None:
    words = FIRST_WORDS[opening]
    found = [opening_of(words[:size], set(Opening)) for size in range(len(words) + 1)]
    at = found.index(opening)
    assert found == [None] * at + [opening] * (len(found) - at)


@pytest.mark.parametrize("method", METHODS)
def test_w21_every_method_of_http_is_for_who_speaks_http(method: bytes) -> None:
    assert opening_of(method + b"/", set(Opening)) is HTTP


@pytest.mark.parametrize("doors", [{RAW}, {RAW, TLS}])
def test_w21_what_nobody_listens_for_is_raw_at_once(doors: set[Opening]) -> None:
    assert opening_of(b"G", doors) is RAW
    assert opening_of(HELLO[:1], {RAW, HTTP}) is RAW


@given(st.binary(min_size=24, max_size=24))
def test_w21_a_nonce_is_decided_by_its_first_bytes(nonce: bytes) -> None:
    assert opening_of(nonce, set(Opening)) is not None


@given(st.binary(max_size=24), st.sets(st.sampled_from(Opening), min_size=1))
def test_w21_what_is_decided_stays_so(heard: bytes, doors: set[Opening]) -> None:
    found = [opening_of(heard[:size], doors) for size in range(len(heard) + 1)]
    decided = [opening for opening in found if opening is not None]
    assert len(set(decided)) <= 1
    assert found == [None] * (len(found) - len(decided)) + decided


# ---- doors -------------------------------------------------------------------------------


@dataclass
class Guest:
    """An arrival that came through a door; to upgrade it is to read what it says."""

    stream: ByteStream
    door: FakeDoor

    @property
    def remote_address(self) -> Multiaddr:
        return from_endpoint(self.stream.remote)

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        said = b""
        with trio.move_on_after(5.0 if patience is None else patience):
            while data := await self.stream.receive_some(100):
                said += data
        self.door.guests.append((said, patience))
        await trio.aclose_forcefully(self.stream)
        raise ConnectionLost("that is all")

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)


@dataclass
class FakeDoor:
    opening: Opening
    guests: list[tuple[bytes, float | None]] = field(default_factory=list)

    def address(self, local: Endpoint) -> Multiaddr:
        return from_endpoint(local)

    def pending(self, stream: ByteStream) -> Guest:
        return Guest(stream, self)


@dataclass
class Ground:
    """Two machines; at a port of the first there are doors."""

    ports: SharedTcpPorts
    end: Endpoint
    dialling: SharedTcpPorts
    there: str
    doors: dict[Opening, FakeDoor] = field(default_factory=dict)
    listeners: dict[Opening, PortListener] = field(default_factory=dict)

    async def open(self, *openings: Opening) -> None:
        for opening in openings:
            self.doors[opening] = FakeDoor(opening)
            self.listeners[opening] = await self.ports.listen(self.end, self.doors[opening])

    async def dial(self) -> ByteStream:
        return await self.dialling.dial(self.end, RAW, role=Role.DIALER, any_port=False)

    async def visit(self, words: bytes, *, at: Opening, patience: float | None = None) -> None:
        """Come and say something; whoever waits at a listener takes it in."""
        stream = await self.dial()
        async with stream:
            if words:
                await stream.send_all(words)
            pending = await self.listeners[at].accept()
            with pytest.raises(ConnectionLost):
                await pending.upgrade(patience=patience)

    async def listen_there(self, port: int, opening: Opening) -> PortListener:
        return await self.dialling.listen(Endpoint(self.there, port), FakeDoor(opening))


@pytest.fixture
async def ground(world: World) -> AsyncGenerator[Ground]:
    here, there = world.machine(), world.machine()
    ground = Ground(
        SharedTcpPorts(here.env.network),
        Endpoint(here.addresses[0], 4001),
        SharedTcpPorts(there.env.network),
        there.addresses[0],
    )
    yield ground
    for listener in ground.listeners.values():
        await listener.aclose()


@pytest.mark.parametrize("opening", Opening)
@pytest.mark.parametrize("at", Opening)
async def test_w20_w21_whoever_accepts_an_arrival_it_goes_where_it_belongs(
    ground: Ground, opening: Opening, at: Opening
) -> None:
    await ground.open(*Opening)
    await ground.visit(FIRST_WORDS[opening], at=at)
    assert ground.doors.pop(opening).guests == [(FIRST_WORDS[opening], None)]
    assert not any(door.guests for door in ground.doors.values())


async def test_w21_words_that_come_byte_by_byte_are_not_lost(ground: Ground) -> None:
    await ground.open(RAW, HTTP)
    async with await ground.dial() as stream, trio.open_nursery() as nursery:

        async def dribble() -> None:
            for byte in REQUEST:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.1)

        nursery.start_soon(dribble)
        pending = await ground.listeners[RAW].accept()
        with pytest.raises(ConnectionLost):
            await pending.upgrade()
    assert ground.doors[HTTP].guests == [(REQUEST, None)]


async def test_w20_at_a_port_of_one_kind_nothing_is_looked_at(ground: Ground) -> None:
    await ground.open(RAW)
    stream = await ground.dial()
    pending = await ground.listeners[RAW].accept()
    assert isinstance(pending, Guest)
    await pending.aclose()
    await stream.aclose()


async def test_w21_what_nobody_is_there_for_is_refused(ground: Ground) -> None:
    await ground.open(HTTP, TLS)
    async with await ground.dial() as stream:
        await stream.send_all(GREETING)
        pending = await ground.listeners[TLS].accept()
        with pytest.raises(ProtocolError, match="only HTTP and TLS"):
            await pending.upgrade()
        with pytest.raises(trio.BrokenResourceError):  # What it said was not all read.
            await stream.receive_some()


@pytest.mark.parametrize("words", [b"", b"G"])
async def test_w21_who_hangs_up_early_is_raw(ground: Ground, words: bytes) -> None:
    await ground.open(*Opening)
    stream = await ground.dial()
    if words:
        await stream.send_all(words)
    await stream.aclose()
    pending = await ground.listeners[HTTP].accept()
    with pytest.raises(ConnectionLost):
        await pending.upgrade()
    assert ground.doors[RAW].guests == [(words, None)]


@pytest.mark.parametrize(("words", "left"), [(b"", 0.0), (b"GE", 0.5)])
async def test_w22_who_is_silent_for_the_patience_of_a_punch_is_raw(
    ground: Ground, words: bytes, left: float
) -> None:
    await ground.open(*Opening)
    started = trio.current_time()
    await ground.visit(words, at=TLS, patience=0.5)
    assert ground.doors[RAW].guests == [(words, left)]
    assert trio.current_time() - started < 1.1


async def test_w22_a_dialer_keeps_its_patience(ground: Ground) -> None:
    await ground.open(*Opening)
    await ground.visit(GREETING, at=TLS, patience=0.5)
    assert ground.doors[RAW].guests == [(GREETING, 0.5)]


async def test_w22_who_is_silent_holds_up_nobody(ground: Ground) -> None:
    await ground.open(*Opening)
    silent = await ground.dial()
    held = await ground.listeners[RAW].accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upgrade_until_cancelled, held)
        await ground.visit(REQUEST, at=RAW)
        assert ground.doors[HTTP].guests
        nursery.cancel_scope.cancel()
    assert await silent.receive_some() == b""  # and is gone with its deadline
    await silent.aclose()


async def upgrade_until_cancelled(pending: PendingConnection) -> None:
    await pending.upgrade()


# ---- opening and closing -----------------------------------------------------------------


async def test_w20_a_second_listener_of_a_kind_is_refused(ground: Ground) -> None:
    await ground.open(RAW, HTTP)
    with pytest.raises(OSError, match=r"in use") as caught:
        await ground.ports.listen(ground.end, FakeDoor(HTTP))
    assert caught.value.errno == errno.EADDRINUSE


async def test_w20_of_two_that_listen_at_once_for_one_kind_one_is_refused(ground: Ground) -> None:
    await ground.open(RAW)
    refused: list[OSError] = []

    async def listen() -> None:
        try:
            await ground.open(HTTP)
        except OSError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(listen)
    assert [error.errno for error in refused] == [errno.EADDRINUSE]


async def test_w23_who_listens_while_the_port_closes_gets_a_port_that_is_open(
    ground: Ground,
) -> None:
    for _ in range(20):  # In whatever order the two come to run.
        await ground.open(RAW)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ground.open, HTTP)
            nursery.start_soon(ground.listeners[RAW].aclose)
        await ground.visit(REQUEST, at=HTTP)
        assert ground.doors[HTTP].guests == [(REQUEST, None)]
        await ground.listeners[HTTP].aclose()


async def test_w23_closing_one_listener_leaves_the_others(ground: Ground) -> None:
    await ground.open(*Opening)
    ended: list[Opening] = []

    async def wait_at(opening: Opening) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ground.listeners[opening].accept()
        ended.append(opening)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_at, RAW)
        nursery.start_soon(wait_at, HTTP)
        await wait_all_tasks_blocked()
        for opening in (RAW, HTTP):
            await ground.listeners[opening].aclose()
    assert sorted(each.name for each in ended) == ["HTTP", "RAW"]
    await ground.visit(REQUEST, at=TLS)  # Alone, it gets whoever comes.
    assert ground.doors[TLS].guests == [(REQUEST, None)]
    await ground.open(RAW)
    await ground.visit(GREETING, at=TLS)
    assert ground.doors[RAW].guests == [(GREETING, None)]


@pytest.mark.parametrize("order", [(RAW, HTTP, TLS), (TLS, HTTP, RAW)])
async def test_w23_a_port_closes_with_its_last_listener(
    ground: Ground, order: Sequence[Opening]
) -> None:
    await ground.open(*Opening)
    for opening in order:
        await ground.listeners[opening].aclose()
        await ground.listeners[opening].aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ground.listeners[opening].accept()
    with pytest.raises(OSError, match=r"refused"):
        await ground.dial()
    await ground.open(RAW)
    await ground.visit(GREETING, at=RAW)


async def test_w20_without_a_fixed_port_everybody_has_one(ground: Ground) -> None:
    anywhere = Endpoint(ground.end.host, 0)
    one = await ground.ports.listen(anywhere, FakeDoor(RAW))
    other = await ground.ports.listen(anywhere, FakeDoor(HTTP))
    assert one.address != other.address
    await one.aclose()
    await other.aclose()


# ---- dialling ----------------------------------------------------------------------------


async def test_w24_a_dial_leaves_from_the_port_of_its_kind(ground: Ground) -> None:
    await ground.open(*Opening)
    here = await ground.listen_there(4101, RAW)
    web = await ground.listen_there(4102, HTTP)
    for opening, port in ((RAW, 4101), (HTTP, 4102)):
        stream = await ground.dialling.dial(ground.end, opening, role=Role.DIALER, any_port=False)
        assert stream.local.port == port
        await stream.aclose()
    stream = await ground.dialling.dial(ground.end, TLS, role=Role.DIALER, any_port=False)
    assert stream.local.port not in (4101, 4102)
    await stream.aclose()
    await here.aclose()
    await web.aclose()
