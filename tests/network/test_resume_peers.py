"""Resumable streams between two hosts: what they mean, whom they serve, and their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import parse, without_peer
from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.events import ConnectionClosed, StreamMoved
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayClient
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Ask, Move, Open, encode
from p2pnet.protocols.resume.policy import Tokens
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import count, open_echo, put, put_both
from tests.network.scene import ECHO, NEAR, echo, put_relay, reserved, say_on

SECRET = b"s" * 16


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


async def test_a_stream_does_not_move_before_the_other_side_knows_it(world: World) -> None:
    """RS10: the direct connection is there while OPEN is still on its way over a far relay."""
    relay = await put_relay(world, link=Quality(latency=0.5))
    machines = []
    for name in ("alice", "bob"):
        config = presets.minimal(listen=["/ip4/0.0.0.0/tcp/4001"])
        services = [*config.services, RelayClient(relays=[relay.address]), Resume()]
        machine = await world.host(replace(config, services=services), name, link=NEAR)
        machine.host.handle(ECHO, echo)
        machines.append(machine)
    alice, bob = machines
    await reserved(bob)
    await alice.host.connect(f"{relay.address}/p2p-circuit/p2p/{bob.host.peer_id}")
    await trio.sleep(5)
    stream = await alice.host.open_stream(bob.host.peer_id, ECHO, limited="allow")
    assert stream.connection.is_relayed
    await stream.send_all(b"hello")
    began = trio.current_time()
    await alice.host.dial(bob.host.peer_id, [without_peer(parse(bob.address))])
    assert trio.current_time() - began < 0.5, "before OPEN can have come"
    assert await stream.receive_some() == b"hello"
    await trio.sleep(5)
    assert not stream.connection.is_relayed
    await say_on(stream)


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
