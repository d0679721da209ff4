"""What becomes of peers when their relay dies, leaves or comes back."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.errors import ConnectionLost, DialError
from p2pnet.events import ConnectionClosed, ReservationFailed, ReservationLost
from p2pnet.protocols.relay import RelayServer
from p2pnet.testing.world import World
from tests.network.scene import (
    SAMPLE,
    call,
    direct,
    put_edge,
    put_joined,
    put_pair,
    put_relay,
    reach,
    reserved,
    say,
    say_on,
    start_edge,
    unreserved,
)

PING_SECONDS = 47.0
"""yamux asks after 30 s of silence, and waits for 15 s; then it closes."""
RETURN_SECONDS = 10.0
"""So soon after its return a relay is used again, however long it was away."""


async def test_a_relay_that_was_killed_is_used_again_when_it_is_back(world: World) -> None:
    pair = await put_pair(world, "symmetric", "symmetric")
    await reserved(pair.alice)
    with pair.bob.host.subscribe(ReservationLost) as lost:
        await reserved(pair.bob)
        await pair.relay.power_off()
        with trio.fail_after(PING_SECONDS):
            assert (await anext(lost)).reason == "the relay disconnected"
        await unreserved(pair.bob)
    await trio.sleep(600)
    pair.relay.power_on()
    await world.start(pair.relay, presets.relay())
    with trio.fail_after(RETURN_SECONDS):
        await reserved(pair.bob)
        await reserved(pair.alice)
    # By peer ID alone: nothing but the new reservation leads there.
    await reach(pair.alice, pair.bob, within=10)
    await reach(pair.bob, pair.alice, within=10)


async def test_a_direct_connection_outlives_the_relay(world: World) -> None:
    pair = await put_joined(world)
    connection = pair.alice.host.connections(pair.bob.host.peer_id)[0]
    await pair.relay.power_off()
    await trio.sleep(600)
    assert await say(pair.alice, pair.bob) is connection


async def test_a_relay_that_leaves_politely_is_noticed_at_once(world: World) -> None:
    pair = await put_pair(world, "symmetric", "symmetric")
    with pair.bob.host.subscribe(ReservationLost) as lost:
        await call(pair.alice, pair.bob)
        await pair.relay.stop()
        with trio.fail_after(1.0):
            await anext(lost)
    await world.start(pair.relay, presets.relay())
    with trio.fail_after(10.0):
        await unreserved(pair.alice)
        await reserved(pair.bob)
    await reach(pair.alice, pair.bob, within=30)


async def test_while_no_relay_is_there_each_failure_is_told_with_its_reason(world: World) -> None:
    pair = await put_pair(world, "symmetric", "symmetric")
    await reserved(pair.alice)
    await pair.relay.power_off()
    with pair.alice.host.subscribe(ReservationFailed) as failures:
        pauses = []
        for _ in range(10):
            failure = await anext(failures)
            assert "timed out" in failure.reason
            pauses.append(failure.retry_seconds)
    assert pauses[0] <= 1 < pauses[-1] <= 5
    with pytest.raises(DialError) as refused:
        await pair.alice.host.connect(pair.bob.host.peer_id)
    assert "timed out" in str(refused.value) or "left alone" in str(refused.value)


async def test_with_a_second_relay_a_peer_stays_reachable(world: World) -> None:
    first, second = await put_relay(world, "first"), await put_relay(world, "second")
    both = (first.address, second.address)
    alice = await put_edge(world, "alice", *both, at="symmetric")
    bob = await put_edge(world, "bob", *both, at="symmetric")
    await bob.host.addresses.wait_for(
        lambda found: sum("p2p-circuit" in str(address) for address in found) == 2
    )
    await first.power_off()
    # Nobody has noticed yet, and still there is a way at once.
    assert await reach(alice, bob, within=30) < 20


async def test_a_relayed_stream_ends_with_an_error_when_the_relay_is_killed(world: World) -> None:
    pair = await put_pair(world, "symmetric", "symmetric")
    connection = await call(pair.alice, pair.bob)
    stream = await connection.open_stream("/p2pnet/echo/1.0.0")
    await stream.send_all(b"half of ")
    assert await stream.receive_some() == b"half of "
    await pair.relay.power_off()
    with trio.fail_after(PING_SECONDS), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await stream.aclose()
    with pytest.raises(ConnectionLost):
        await connection.open_stream("/p2pnet/echo/1.0.0")


async def test_a_called_peer_that_restarts_can_be_called_again(world: World) -> None:
    pair = await put_joined(world)
    peer_id = pair.bob.host.peer_id
    with pair.alice.host.subscribe(ConnectionClosed) as closings:
        await pair.bob.power_off()
        await trio.sleep(5)
        await start_edge(world, pair.bob, pair.relay.address)
        assert pair.bob.host.peer_id == peer_id
        await reserved(pair.bob)
        with trio.fail_after(PING_SECONDS):
            while (await anext(closings)).connection.is_relayed:
                pass
    await reach(pair.alice, pair.bob, within=60)
    await direct(pair.alice, pair.bob)


async def test_a_caller_that_restarts_can_call_at_once(world: World) -> None:
    pair = await put_joined(world)
    await pair.alice.power_off()
    await start_edge(world, pair.alice, pair.relay.address)
    await pair.alice.host.connect(pair.bob.host.peer_id)
    await say(pair.alice, pair.bob)
    await direct(pair.alice, pair.bob)


async def test_a_circuit_is_cut_at_the_limit_of_the_relay_and_can_be_made_anew(
    world: World,
) -> None:
    limits = RelayServer(circuit_seconds=60, circuit_bytes=16_384)
    pair = await put_pair(world, "symmetric", "symmetric", limits=limits)
    connection = await call(pair.alice, pair.bob)
    with pytest.raises(trio.BrokenResourceError):
        await say_on(await connection.open_stream("/p2pnet/echo/1.0.0"), SAMPLE * 8)
    connection = await call(pair.alice, pair.bob)
    await say(pair.alice, pair.bob)
    await trio.sleep(61)
    assert connection.is_closed
    stream = await pair.alice.host.open_stream(
        pair.bob.host.peer_id, "/p2pnet/echo/1.0.0", limited="allow"
    )
    await say_on(stream)
