"""What becomes of peers whose links are cut, slow, narrow or bad."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.scene import (
    ECHO,
    NEAR,
    call,
    direct,
    noise,
    put_edge,
    put_joined,
    put_pair,
    put_relay,
    reach,
    reserved,
    say,
    say_on,
    start_edge,
)

BULK = noise(300_000)
DROPPED = range(1, 41)
"""The handshakes of both sides, identify, the reservation, the punch, and what is said then."""


# ---- cuts --------------------------------------------------------------------------------


async def test_a_stream_outlives_a_cut_of_five_seconds(world: World) -> None:
    pair = await put_joined(world)
    connection = pair.alice.host.connections(pair.bob.host.peer_id)[0]
    stream = await connection.open_stream(ECHO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say_on, stream, BULK)
        await trio.sleep(0.1)
        pair.alice.link.is_cut = True
        await trio.sleep(5)
        pair.alice.link.is_cut = False
    await say(pair.bob, pair.alice)
    assert pair.alice.host.connections(pair.bob.host.peer_id)[0] is connection


async def test_after_a_cut_of_ten_minutes_peers_find_each_other_again(world: World) -> None:
    pair = await put_joined(world)
    stream = await pair.alice.host.open_stream(pair.bob.host.peer_id, ECHO)
    await stream.send_all(b"before")
    pair.alice.link.is_cut = True
    await trio.sleep(600)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"after")
    await stream.aclose()
    assert pair.alice.host.connections() == ()
    assert [c.peer_id for c in pair.bob.host.connections()] == [pair.relay.host.peer_id]
    pair.alice.link.is_cut = False
    await reach(pair.alice, pair.bob, within=90)
    await reserved(pair.alice)
    await direct(pair.alice, pair.bob, within=120)


async def test_a_partition_ends_and_both_sides_are_one_again(world: World) -> None:
    left, right = await put_relay(world, "left"), await put_relay(world, "right")
    both = (left.address, right.address)
    alice = await put_edge(world, "alice", *both)
    bob = await put_edge(world, "bob", *both)
    carol = await put_edge(world, "carol", *both)
    routers = world.routers
    await call(alice, bob)
    await direct(alice, bob)
    world.partition(
        [left, routers["home of alice"], routers["home of carol"]],
        [right, routers["home of bob"]],
    )
    # Who is on one side can still be called there, and who is not cannot.
    await trio.sleep(60)
    await reach(carol, alice, within=60)
    with pytest.raises(trio.TooSlowError):
        await reach(alice, bob, within=60)
    world.heal()
    for one, other in ((alice, bob), (bob, carol), (carol, alice)):
        await reach(one, other, within=90)
        await direct(one, other, within=180)


async def test_a_network_that_flaps_does_not_wear_anybody_out(world: World) -> None:
    pair = await put_joined(world)
    for _ in range(10):
        pair.alice.link.is_cut = True
        await trio.sleep(50)
        pair.alice.link.is_cut = False
        await trio.sleep(50)
    await reach(pair.alice, pair.bob, within=90)
    await reach(pair.bob, pair.alice, within=30)
    with trio.fail_after(90):
        await reserved(pair.alice)
    assert len(pair.alice.host.connections()) <= 3


# ---- bad links ---------------------------------------------------------------------------

BAD = {
    "a tenth lost": (Quality(latency=0.02, loss=0.1), NEAR),
    "a tenth lost in two places": (Quality(latency=0.02, loss=0.05),) * 2,
    "doubling": (Quality(latency=0.02, duplicate=0.1),) * 2,
    "disorderly": (Quality(latency=0.02, jitter=0.02, reorder=0.1),) * 2,
    "all of it": (Quality(latency=0.02, jitter=0.01, loss=0.03, duplicate=0.1, reorder=0.1),) * 2,
}


@pytest.mark.parametrize(("one", "other"), BAD.values(), ids=BAD)
async def test_a_hole_is_punched_and_data_whole_over_bad_links(
    world: World, one: Quality, other: Quality
) -> None:
    relay = await put_relay(world)
    alice = await put_edge(world, "alice", relay.address, link=one)
    bob = await put_edge(world, "bob", relay.address, link=other)
    # Loss can cost a whole attempt, or a dial of the relay its time: then there is another one.
    with trio.fail_after(120):
        await reserved(bob)
    await reach(alice, bob, within=120)
    await direct(alice, bob, within=240)
    await say(alice, bob, BULK)


async def test_a_relayed_stream_over_bad_links_is_whole(world: World) -> None:
    pair = await put_pair(world, "symmetric", "symmetric", link=BAD["all of it"][0])
    await call(pair.alice, pair.bob)
    assert (await say(pair.alice, pair.bob, BULK[:50_000])).is_relayed


async def test_a_second_of_latency_takes_time_and_no_more(world: World) -> None:
    slow = Quality(latency=1.0)
    pair = await put_pair(world, "symmetric", "port-restricted", link=slow)
    with trio.fail_after(30):
        await reserved(pair.bob)
    began = trio.current_time()
    connection = await call(pair.alice, pair.bob)
    assert trio.current_time() - began < 20
    await say_on(await connection.open_stream(ECHO))


async def test_a_hole_is_punched_over_a_second_of_latency(world: World) -> None:
    pair = await put_pair(world, link=Quality(latency=0.5))
    await call(pair.alice, pair.bob)
    # A round trip of 2 s, which is what both sides measure and count on.
    await direct(pair.alice, pair.bob, within=60)
    await say(pair.alice, pair.bob)


async def test_a_narrow_link_is_used_to_the_full(world: World) -> None:
    narrow = replace(NEAR, bandwidth=64_000, queue_bytes=16_000)
    pair = await put_pair(world, link=narrow)
    await call(pair.alice, pair.bob)
    await direct(pair.alice, pair.bob)
    began = trio.current_time()
    connection = await say(pair.alice, pair.bob, BULK)
    # There and back, at 8000 bytes a second, both ways at once.
    assert len(BULK) / 8000 < trio.current_time() - began < 3 * len(BULK) / 8000
    assert not connection.is_closed


# ---- each single packet ------------------------------------------------------------------


def lose(machine: Machine, number: int) -> None:
    """Lose a packet on its way out, and one on its way in."""
    machine.link.up.drop_nth(number)
    machine.link.down.drop_nth(number)


@pytest.mark.parametrize("number", DROPPED)
async def test_any_packet_of_a_call_may_be_lost(world: World, number: int) -> None:
    alice = await put_edge(world, "alice", at="open")
    bob = await put_edge(world, "bob", at="open")
    lose(alice, number)
    await alice.host.connect(bob.address)
    await say(alice, bob, noise(20_000))


@pytest.mark.parametrize("number", DROPPED)
async def test_any_packet_of_a_hole_punch_may_be_lost(world: World, number: int) -> None:
    relay = await put_relay(world)
    bob = await put_edge(world, "bob", relay.address)
    home = world.home("port-restricted", "home of alice", link=NEAR)
    await reserved(bob)
    alice = world.machine("alice", at=home)
    lose(alice, number)
    await start_edge(world, alice, relay.address)
    await alice.host.connect(bob.host.peer_id)
    await say(alice, bob)
    await direct(alice, bob)
    assert not (await say(bob, alice)).is_relayed
