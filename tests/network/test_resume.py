"""Streams that outlive their connection, in the simulated internet: specs/resume.md."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from p2pnet import presets
from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.events import StreamMoved
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.service import FIRST_WINDOW
from p2pnet.protocols.resume.stream import ResumableStream
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import (
    BULK,
    CHUNK,
    Arrival,
    bulk,
    put_resuming,
    send_paced,
    send_until_direct,
)
from tests.network.scene import NEAR, call, direct, put_relay

MIB = 1 << 20
ROUND_TRIP = 0.16
"""Seconds over the relay: four times 20 ms of a home or the relay, there and back."""
GENEROUS = RelayServer(circuit_bytes=64 * MIB)


async def open_bulk(alice: Machine, bob: Machine, arrival: Arrival) -> Stream:
    bob.host.handle(BULK, arrival.receive)
    await trio.sleep(1)
    await call(alice, bob)
    return await alice.host.open_stream(bob.host.peer_id, BULK, limited="allow")


async def put_two(
    world: World, kind: str = "port-restricted", limits: RelayServer = GENEROUS
) -> tuple[Machine, Machine, Machine]:
    relay = await put_relay(world, limits=limits)
    alice = await put_resuming(world, "alice", relay.address, at=kind)
    bob = await put_resuming(world, "bob", relay.address, at=kind)
    return relay, alice, bob


def resent(stream: Stream) -> int:
    assert isinstance(stream, ResumableStream)
    return stream.machine.sending.resent


async def nothing_left(*machines: Machine) -> None:
    await trio.sleep(10)
    assert [machine.host.service(Resume).streams for machine in machines] == [0] * len(machines)


async def test_a_transfer_begun_over_a_relay_moves_to_the_direct_connection(world: World) -> None:
    """RS10."""
    _, alice, bob = await put_two(world)
    arrival = Arrival()
    with alice.host.subscribe(StreamMoved) as moves:
        stream = await open_bulk(alice, bob, arrival)
        assert stream.connection.is_relayed
        data = await send_until_direct(stream)
        (moved,) = moves.take_waiting()
    assert not stream.connection.is_relayed
    assert moved.connection == stream.connection.ref
    assert moved.before.is_relayed
    await arrival.complete(data, within=10)
    assert arrival.longest_stall() < ROUND_TRIP + 0.05
    assert resent(stream) == 0
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_download_moves_to_the_direct_connection_too(world: World) -> None:
    """RS10."""
    _, alice, bob = await put_two(world)
    arrival, sent = Arrival(), bytearray()

    async def serve(stream: Stream) -> None:
        sent.extend(await send_until_direct(stream))

    bob.host.handle(BULK, serve)
    await trio.sleep(1)
    await call(alice, bob)
    stream = await alice.host.open_stream(bob.host.peer_id, BULK, limited="allow")
    assert stream.connection.is_relayed
    with trio.fail_after(60):
        await arrival.receive(stream)
    await arrival.complete(bytes(sent), within=1)
    assert not stream.connection.is_relayed
    assert arrival.longest_stall() < ROUND_TRIP + 0.05
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_transfer_survives_the_restart_of_its_relay(world: World) -> None:
    """RS9."""
    relay, alice, bob = await put_two(world, "symmetric")
    arrival, data = Arrival(), bulk(2 * MIB)
    stream = await open_bulk(alice, bob, arrival)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(send_paced, stream, data, seconds=20))
        await trio.sleep(5)
        await relay.stop()
        await trio.sleep(3)
        await world.start(relay, presets.relay(limits=GENEROUS))
    await arrival.complete(data, within=60)
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_transfer_survives_the_sudden_death_of_its_relay(world: World) -> None:
    """RS9."""
    first = await put_relay(world, "first", limits=GENEROUS)
    second = await put_relay(world, "second", limits=GENEROUS)
    both = (first.address, second.address)
    alice = await put_resuming(world, "alice", *both, at="symmetric")
    bob = await put_resuming(world, "bob", *both, at="symmetric")
    arrival, data = Arrival(), bulk(2 * MIB)
    stream = await open_bulk(alice, bob, arrival)
    carrying = next(r for r in (first, second) if str(r.host.peer_id) in str(stream.connection))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(send_paced, stream, data, seconds=20))
        await trio.sleep(5)
        await carrying.power_off()
    await arrival.complete(data, within=90)
    assert 0 < resent(stream) <= FIRST_WINDOW
    await stream.aclose()
    await nothing_left(alice, bob)


@pytest.mark.parametrize(("place", "longest"), [("home", 8), ("internet", 3.5)])
@pytest.mark.parametrize("mover", ["alice", "bob"])
async def test_a_transfer_survives_a_move_to_another_network(
    world: World, mover: str, place: str, longest: float
) -> None:
    """RS9 RS13 RS16: whoever moves, the opener of the stream or the other.

    Its kernel tells of each move (V26). In the other home the machine has the private address that
    it had before: only that the connections are dead shows it (KA12).
    """
    _, alice, bob = await put_two(world)
    arrival, data = Arrival(), bulk(2 * MIB)
    stream = await open_bulk(alice, bob, arrival)
    await direct(alice, bob)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(send_paced, stream, data, seconds=20))
        await trio.sleep(5)
        assert not stream.connection.is_relayed
        another = world.home("port-restricted", "another", link=NEAR)
        world.machines[mover].move(another if place == "home" else world.internet)
    await arrival.complete(data, within=90)
    assert arrival.longest_stall() < longest
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_transfer_outlives_the_limit_of_many_circuits(world: World) -> None:
    """RS9: a relay that cuts each circuit after 128 KiB carries a MiB all the same."""
    _, alice, bob = await put_two(world, "symmetric", RelayServer(circuit_bytes=131_072))
    arrival, data = Arrival(), bulk(MIB)
    with alice.host.subscribe(StreamMoved) as moves:
        stream = await open_bulk(alice, bob, arrival)
        await stream.send_all(data)
        await stream.send_eof()
        await arrival.complete(data, within=300)
        assert len(moves.take_waiting()) >= len(data) // 131_072
    await stream.aclose()
    await nothing_left(alice, bob)


@pytest.mark.parametrize("opener", ["alice", "bob"])
@pytest.mark.parametrize(
    "limits",
    [RelayServer(circuit_bytes=MIB), RelayServer(circuit_bytes=64 * MIB, circuit_seconds=15)],
    ids=["bytes", "seconds"],
)
async def test_nothing_stands_still_when_a_circuit_has_had_its_share(
    world: World, limits: RelayServer, opener: str
) -> None:
    """RS21: alice has called, and the stream is her own or the other's."""
    relay, alice, bob = await put_two(world, "symmetric", limits)
    one, other = (alice, bob) if opener == "alice" else (bob, alice)
    arrival, data, seconds = Arrival(), bulk(4 * MIB), 40.0
    other.host.handle(BULK, arrival.receive)
    await call(alice, bob)
    await trio.sleep(1)
    with one.host.subscribe(StreamMoved) as moves:
        stream = await one.host.open_stream(other.host.peer_id, BULK, limited="allow")
        assert stream.connection.is_inbound is (one is bob)
        await send_paced(stream, data, seconds=seconds)
        await arrival.complete(data, within=10)
        assert len(moves.take_waiting()) >= 3
    between_two_pieces = seconds / (len(data) / CHUNK)
    assert arrival.longest_stall() < between_two_pieces + ROUND_TRIP + 0.05
    await trio.sleep(12)
    statistics = relay.host.service(RelayServer).statistics()
    assert statistics.circuits <= 1, "the others were closed when the stream had left them"
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_quiet_stream_always_has_a_circuit(world: World) -> None:
    """RS21: the time of one is over before that of the next, though nothing is said."""
    relay, alice, bob = await put_two(world, "symmetric", RelayServer(circuit_seconds=15))
    arrival = Arrival()
    stream = await open_bulk(alice, bob, arrival)
    await stream.send_all(b"hello")
    await trio.sleep(1)
    assert isinstance(stream, ResumableStream)
    for _ in range(1000):
        await trio.sleep(0.1)
        assert stream.machine.current is not None
    assert relay.host.service(RelayServer).statistics().circuits_opened <= 9
    await stream.send_eof()
    await arrival.complete(b"hello", within=10)
    await stream.aclose()
    await nothing_left(alice, bob)


async def test_a_relay_that_lets_nothing_through_is_not_dialled_for_ever(world: World) -> None:
    """RS20: its circuits are too small for one encrypted frame."""
    relay, alice, bob = await put_two(world, "symmetric", RelayServer(circuit_bytes=16_384))
    arrival = Arrival()
    stream = await open_bulk(alice, bob, arrival)
    began = trio.current_time()
    await stream.send_all(bytes(200_000))
    with trio.fail_after(150), pytest.raises(ConnectionLost):
        await stream.receive_some()
    assert trio.current_time() - began > 100
    await arrival.ended.wait()
    assert isinstance(arrival.error, ConnectionLost | StreamReset)
    opened = relay.host.service(RelayServer).statistics().circuits_opened
    assert opened < 70
    await stream.aclose()
    await nothing_left(alice, bob)
