"""Resumable streams between two hosts: what they mean, whom they serve, and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet import presets
from p2pnet.core.addresses import parse, without_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.events import ConnectionClosed, StreamMoved
from p2pnet.interfaces import Kit, Role, Secured, Stream
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Ask, Move, Open, encode
from p2pnet.protocols.resume.policy import Tokens
from p2pnet.testing.insecure import PLAINTEXT, Insecure, InsecureSecurity
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import with_resume
from tests.network.scene import ECHO, NEAR, echo, say_on

LISTEN = ("/ip4/0.0.0.0/tcp/4001",)
SECRET = b"s" * 16


async def put(world: World, name: str, resume: Resume | None) -> Machine:
    config = presets.minimal(listen=LISTEN)
    if resume is not None:
        config = with_resume(config, resume)
    machine = await world.host(config, name, link=NEAR)
    machine.host.handle(ECHO, echo)
    return machine


async def put_both(world: World, resume: Resume | None = None) -> tuple[Machine, Machine]:
    alice = await put(world, "alice", resume or Resume())
    return alice, await put(world, "bob", resume or Resume())


def count(machine: Machine) -> int:
    return machine.host.service(Resume).streams


async def open_echo(alice: Machine, bob: Machine) -> Stream:
    return await alice.host.open_stream(bob.address, ECHO)


async def test_the_first_stream_to_a_peer_is_resumable_already(world: World) -> None:
    """RS1."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    assert count(alice) == 1
    await say_on(stream)
    await trio.sleep(1)
    assert count(alice) == count(bob) == 0


async def test_to_open_takes_no_round_trip(world: World) -> None:
    """RS5."""
    alice, bob = await put_both(world)
    await say_on(await open_echo(alice, bob))
    began = trio.current_time()
    stream = await open_echo(alice, bob)
    assert trio.current_time() == began
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    assert trio.current_time() == pytest.approx(began + 0.08)
    await stream.aclose()


@dataclass(frozen=True)
class Recorded:
    """Security that keeps what is said in plain text, both ways."""

    said: tuple[bytearray, bytearray]

    def build(self, kit: Kit) -> RecordedSecurity:
        return RecordedSecurity(Insecure().build(kit), self.said)


class RecordedSecurity:
    protocol_id = PLAINTEXT

    def __init__(self, inner: InsecureSecurity, said: tuple[bytearray, bytearray]) -> None:
        self._inner = inner
        self._said = said

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        secured = await self._inner.secure(stream, role, expected=expected, muxers=muxers)
        return replace(secured, stream=RecordedStream(secured.stream, self._said))


class RecordedStream(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream, said: tuple[bytearray, bytearray]) -> None:
        self._stream = stream
        self._sent, self._received = said

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._received += data
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def play(seed: int, *, has_resume: bool, does_bob: bool = False) -> tuple[bytes, bytes]:
    """Return all bytes that a host and its peer said after identify, under the encryption."""
    said = (bytearray(), bytearray())
    async with World(seed) as world:
        config = presets.minimal(listen=LISTEN)
        ours = replace(config, security=[Recorded(said)])
        theirs = replace(config, security=[Insecure()])
        alice = await world.host(with_resume(ours) if has_resume else ours, "alice", link=NEAR)
        bob = await world.host(with_resume(theirs) if does_bob else theirs, "bob", link=NEAR)
        bob.host.handle(ECHO, echo)
        await alice.host.connect(bob.address)
        await trio.sleep(1)
        for lane in said:
            lane.clear()
        for _ in range(3):
            await say_on(await open_echo(alice, bob))
        stream = await open_echo(alice, bob)
        await stream.send_all(bytes(100_000))
        stream.reset()
        await trio.sleep(1)
        return bytes(said[0]), bytes(said[1])


async def test_with_a_peer_without_resume_the_bytes_are_the_same(
    autojump_clock: MockClock,
) -> None:
    """RS1: every byte of every stream, both ways, once both have said what they speak."""
    plain = await play(5, has_resume=False)
    assert len(plain[0]) > 100_000
    assert await play(5, has_resume=True) == plain
    assert await play(5, has_resume=True, does_bob=True) != plain


async def test_half_close_and_reset_mean_what_they_mean_elsewhere(world: World) -> None:
    """RS8 RS17."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    await stream.send_all(b"half")
    await stream.send_eof()
    assert b"".join([bytes(chunk) async for chunk in stream]) == b"half"
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"more")
    await stream.aclose()

    async def refuse(stream: Stream) -> None:
        stream.reset(7)

    bob.host.handle("/refuse", refuse)
    await trio.sleep(1)
    await say_on(await open_echo(alice, bob))
    stream = await alice.host.open_stream(bob.host.peer_id, ECHO)
    stream.reset()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    await trio.sleep(1)
    assert count(alice) == count(bob) == 0


async def cut(alice: Machine) -> None:
    for connection in alice.host.connections():
        await connection.aclose()


async def test_a_stream_carries_on_over_the_next_connection(world: World) -> None:
    """RS9."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    with bob.host.subscribe(StreamMoved) as moves:
        for number in range(20):
            await stream.send_all(bytes([number]))
            assert await stream.receive_some() == bytes([number])
            await cut(alice if number % 2 else bob)
        assert len(moves.take_waiting()) == 19
    await stream.aclose()


async def test_the_responder_asks_if_the_opener_cannot_dial(world: World) -> None:
    """RS13."""
    alice, bob = await put_both(world)
    # Alice serves nothing that Bob could be dialled at: her stream comes from his dial.
    bob.host.handle("/hold", trio_forever)
    await bob.host.connect(alice.address)
    await trio.sleep(1)
    stream = await alice.host.open_stream(bob.host.peer_id, ECHO)
    await stream.send_all(b"a")
    assert await stream.receive_some() == b"a"
    alice.link.is_cut = True
    await cut(bob)
    await cut(alice)
    await trio.sleep(10)
    alice.link.is_cut = False
    await stream.send_all(b"b")
    with trio.fail_after(60):
        assert await stream.receive_some() == b"b"
    await stream.aclose()


async def trio_forever(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_a_stream_that_finds_no_connection_fails_at_both_ends(world: World) -> None:
    """RS9."""
    alice, bob = await put_both(world, Resume(orphan_seconds=30))
    errors: list[BaseException] = []

    async def hold(stream: Stream) -> None:
        try:
            await stream.receive_some()
        except ConnectionLost as error:
            errors.append(error)

    bob.host.unhandle(ECHO)
    bob.host.handle(ECHO, hold)
    stream = await open_echo(alice, bob)
    await trio.sleep(1)
    alice.link.is_cut = True
    await cut(bob)
    await cut(alice)
    began = trio.current_time()
    with pytest.raises(ConnectionLost):
        await stream.receive_some()
    assert trio.current_time() - began == pytest.approx(30, abs=1)
    await trio.sleep(5)
    assert errors
    alice.link.is_cut = False
    assert count(alice) == count(bob) == 0


async def test_a_reset_without_a_connection_is_told_with_the_next(world: World) -> None:
    """RS14."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    await stream.send_all(b"a")
    await stream.receive_some()
    assert count(bob) == 1
    alice.link.is_cut = True
    await cut(bob)
    await cut(alice)
    stream.reset()
    await trio.sleep(1)
    alice.link.is_cut = False
    await trio.sleep(30)
    assert count(alice) == count(bob) == 0


async def test_beyond_the_bounds_streams_are_plain(world: World) -> None:
    """RS15."""
    alice, bob = await put_both(world, Resume(max_streams_per_peer=2))
    streams = [await open_echo(alice, bob) for _ in range(4)]
    assert count(alice) == 2
    for stream in streams:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


async def test_what_comes_beyond_the_bounds_is_refused(world: World) -> None:
    """RS15."""
    alice = await put(world, "alice", Resume())
    bob = await put(world, "bob", Resume(max_streams_per_peer=1))
    first = await open_echo(alice, bob)
    await first.send_all(b"hello")
    assert await first.receive_some() == b"hello"
    second = await open_echo(alice, bob)
    with pytest.raises(StreamReset, match="keeps no more"):
        await second.receive_some()
    await first.aclose()


async def test_on_leaving_what_was_written_is_sent(world: World) -> None:
    """RS18."""
    alice, bob = await put_both(world)
    got = bytearray()

    async def collect(stream: Stream) -> None:
        async for chunk in stream:
            got.extend(chunk)

    bob.host.unhandle(ECHO)
    bob.host.handle(ECHO, collect)
    stream = await open_echo(alice, bob)
    await stream.send_all(bytes(300_000))
    await stream.aclose()
    await alice.stop()
    assert len(got) == 300_000


Frames = Callable[[Machine, Machine], list[Open | Move | Ask]]


def forged(alice: Machine, bob: Machine) -> list[Open | Move | Ask]:
    name = Tokens(SECRET, alice.host.peer_id, bob.host.peer_id).name
    return [Open(SECRET, 65536, ECHO), Move(name, 1, bytes(16), 0, 65536, False)]


def twice(alice: Machine, bob: Machine) -> list[Open | Move | Ask]:
    return [Open(SECRET, 65536, ECHO), Open(SECRET, 65536, ECHO)]


@pytest.mark.parametrize("frames", [forged, twice])
async def test_a_wrong_proof_and_a_second_opening_are_reset(world: World, frames: Frames) -> None:
    """RS3 RS4."""
    alice, bob = await put_both(world)
    connection = await alice.host.connect(bob.address)
    first, second = frames(alice, bob)
    carrier = await connection.open_stream(PROTOCOL_ID)
    await carrier.send_all(encode(first))
    assert (await carrier.receive_some())[:1] == b"\x02"
    other = await connection.open_stream(PROTOCOL_ID)
    await other.send_all(encode(second))
    with pytest.raises(StreamReset):
        await other.receive_some()
    carrier.reset()


async def test_the_proof_of_one_peer_is_worth_nothing_in_the_hands_of_another(
    world: World,
) -> None:
    """RS3 RS14."""
    alice, bob = await put_both(world)
    carol = await put(world, "carol", Resume())
    tokens = Tokens(SECRET, alice.host.peer_id, bob.host.peer_id)
    carrier = await (await alice.host.connect(bob.address)).open_stream(PROTOCOL_ID)
    await carrier.send_all(encode(Open(SECRET, 65536, ECHO)))
    await carrier.receive_some()
    thief = await (await carol.host.connect(bob.address)).open_stream(PROTOCOL_ID)
    await thief.send_all(encode(Move(tokens.name, 1, tokens.proof("move", 1), 0, 65536, False)))
    assert await thief.receive_some() == b"\x03\x01\x03"
    await thief.aclose()
    carrier.reset()


async def ask(responder: Machine, opener: Machine, frame: Ask) -> bytes:
    """Ask over the newest connection; return the answer, all of it."""
    peer_id = opener.host.peer_id
    newest = max(responder.host.connections(peer_id), key=lambda c: c.ref.number)
    muxed = await newest.open_stream(PROTOCOL_ID)
    await muxed.send_all(encode(frame))
    await muxed.send_eof()
    return b"".join([bytes(chunk) async for chunk in muxed])


async def test_to_ask_for_an_unknown_stream_is_refused(world: World) -> None:
    """RS13 RS14."""
    alice, bob = await put_both(world)
    await bob.host.connect(alice.address)
    assert await ask(bob, alice, Ask(bytes(16), 0, bytes(16))) == b"\x03\x01\x03"


async def test_to_ask_takes_a_proof(world: World) -> None:
    """RS3 RS13: that of a move is none."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    await stream.send_all(b"a")
    await stream.receive_some()
    tokens = tokens_of(alice)
    with pytest.raises(StreamReset):
        await ask(bob, alice, Ask(tokens.name, 0, tokens.proof("move", 0)))
    await stream.aclose()


async def test_the_opener_moves_where_it_is_asked_to_but_not_by_an_old_request(
    world: World,
) -> None:
    """RS13."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    await stream.send_all(b"a")
    await stream.receive_some()
    first, tokens = stream.connection, tokens_of(alice)
    request = Ask(tokens.name, 0, tokens.proof("ask", 0))
    second = await alice.host.dial(bob.host.peer_id, [without_peer(parse(bob.address))])
    await trio.sleep(1)
    assert await ask(bob, alice, request) == b""
    await trio.sleep(1)
    assert stream.connection is second
    third = await alice.host.dial(bob.host.peer_id, [without_peer(parse(bob.address))])
    await trio.sleep(1)
    assert await ask(bob, alice, request) == b""
    await trio.sleep(1)
    assert stream.connection is second
    assert len({first, second, third}) == 3
    await stream.aclose()


def tokens_of(machine: Machine) -> Tokens:
    (entry,) = machine.host.service(Resume)._entries.values()
    return entry.stream.machine.tokens


@pytest.mark.parametrize("protocol_id", ["/ipfs/ping/1.0.0", "/nobody/serves/it"])
async def test_what_is_not_served_here_is_refused(world: World, protocol_id: str) -> None:
    """RS2."""
    alice, bob = await put_both(world)
    carrier = await (await alice.host.connect(bob.address)).open_stream(PROTOCOL_ID)
    await carrier.send_all(encode(Open(SECRET, 65536, protocol_id)))
    assert await carrier.receive_some() == b"\x03\x01\x01"
    await carrier.aclose()


async def test_a_connection_on_which_no_move_is_answered_is_closed(world: World) -> None:
    """RS16: the network swallows everything, and neither end has noticed."""
    alice, bob = await put_both(world)
    stream = await open_echo(alice, bob)
    await stream.send_all(b"a")
    await stream.receive_some()
    service = alice.host.service(Resume)
    (entry,) = service._entries.values()
    alice.link.is_cut = True
    current = entry.stream.machine.current
    assert current is not None
    entry.stream.drop(current)
    with alice.host.subscribe(ConnectionClosed) as closings, trio.fail_after(15):
        await anext(closings)
    alice.link.is_cut = False
    await stream.send_all(b"b")
    with trio.fail_after(60):
        assert await stream.receive_some() == b"b"
    await stream.aclose()
