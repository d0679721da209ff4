"""What becomes of peers when their router forgets them, or they find themselves elsewhere."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed
from p2pnet.errors import ConnectionLost
from p2pnet.events import AddressesChanged, ConnectionClosed, ReservationFailed
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.sites import DUAL_STACK
from p2pnet.testing.world import World
from tests.network.scene import (
    ECHO,
    NEAR,
    Pair,
    direct,
    put_edge,
    put_joined,
    put_pair,
    put_relay,
    reach,
    reserved,
    say,
)

PING_SECONDS = 47.0
"""yamux asks after 30 s of silence, and waits for 15 s; then it closes."""


async def closes(pair: Pair) -> None:
    """Wait until neither peer believes in the connections that it had to the other."""
    for one, other in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        old = one.host.connections(other.host.peer_id)
        with one.host.subscribe(ConnectionClosed) as closings:
            while not all(connection.is_closed for connection in old):
                await anext(closings)


async def is_direct_again(pair: Pair) -> None:
    """Reach one another, and then without the relay, though the relayed connection came first."""
    await reach(pair.alice, pair.bob, within=90)
    await direct(pair.alice, pair.bob)
    await say(pair.bob, pair.alice)


@pytest.mark.parametrize("kind", ["port-restricted", "port-restricted-random", "firewall"])
async def test_after_a_reboot_of_the_router_peers_find_each_other_again(
    world: World, kind: str
) -> None:
    pair = await put_joined(world, kind, "port-restricted")
    stream = await pair.alice.host.open_stream(pair.bob.host.peer_id, ECHO)
    await stream.send_all(b"before")
    assert await stream.receive_some() == b"before"
    world.routers["home of alice"].reboot()
    # The router knows nothing of the connection any more, and drops it without a word.
    with trio.fail_after(PING_SECONDS):
        with pytest.raises(ConnectionLost, match="no sign of life"):
            await stream.receive_some()
        await closes(pair)
    await stream.aclose()
    await is_direct_again(pair)


async def test_a_router_with_another_address_is_noticed(world: World) -> None:
    pair = await put_joined(world)
    router = world.routers["home of alice"]
    (before,) = router.outside_addresses
    router.renumber()
    (after,) = router.outside_addresses
    with trio.fail_after(PING_SECONDS):
        await closes(pair)
    await is_direct_again(pair)
    # Nobody is told of it: the relay has found meanwhile that strangers cannot dial it.
    await pair.alice.host.known_addresses.wait_for(
        lambda found: any(after in str(known.address) for known in found)
    )
    assert not any(before in str(known.address) for known in pair.alice.host.known_addresses.value)
    assert not any(before in str(address) for address in pair.alice.host.addresses.value)
    assert any(
        after in str(connection.remote_address)
        for connection in pair.bob.host.connections(pair.alice.host.peer_id)
    )


@pytest.mark.parametrize("kind", ["open", "port-restricted", "carrier", "firewall"])
async def test_a_host_that_moves_is_found_where_it_is(world: World, kind: str) -> None:
    pair = await put_joined(world)
    before = pair.alice.addresses
    with pair.alice.host.subscribe(AddressesChanged) as changes:
        # It slept on the way; then a time server set its clock, by ten minutes.
        elsewhere = world.home(ALL_KINDS[kind], "elsewhere", link=NEAR)
        pair.alice.move(elsewhere, clock_jump=600)
        await is_direct_again(pair)
        assert pair.alice.addresses != before or kind in ("port-restricted", "carrier")
        here = f"/{pair.alice.addresses[0]}/"
        # That the reservation is lost may be told before it.
        with trio.fail_after(60):
            while not any(here in str(each) for each in (await anext(changes)).addresses):
                pass
    with trio.fail_after(120):
        await reserved(pair.alice)
    await reach(pair.bob, pair.alice, within=30)


async def test_a_clock_that_is_two_hours_wrong_is_named_and_once_right_again_forgotten(
    world: World,
) -> None:
    relay = await put_relay(world)
    alice = await put_edge(world, "alice", relay.address)
    bob = await put_edge(world, "bob", relay.address)
    await reserved(bob)
    await relay.power_off()
    alice.clock_error = 7200
    relay.power_on()
    with alice.host.subscribe(ReservationFailed) as failures:
        await world.start(relay, presets.relay())
        while "is a clock wrong?" not in (await anext(failures)).reason:
            pass
    # Whoever calls needs no reservation.
    await reach(alice, bob, within=60)
    alice.clock_error = 0
    with trio.fail_after(120):
        await reserved(alice)


async def test_a_laptop_that_wanders_between_networks_ends_up_direct(world: World) -> None:
    pair = await put_joined(world)
    for kind in ("symmetric", "carrier", "udp-blocked", "open", "port-restricted"):
        pair.alice.move(world.home(ALL_KINDS[kind], f"stop at {kind}", link=NEAR))
        await trio.sleep(20)
    await is_direct_again(pair)


async def test_a_host_without_any_network_for_half_an_hour_comes_back(world: World) -> None:
    pair = await put_joined(world)
    pair.bob.link.is_cut = True
    await trio.sleep(1800)
    assert not any(map(is_relayed, pair.bob.host.addresses.value))
    assert pair.bob.host.connections() == ()
    pair.bob.link.is_cut = False
    with trio.fail_after(75):
        await reserved(pair.bob)
    await is_direct_again(pair)


@pytest.mark.parametrize("kind", ["symmetric", "carrier-symmetric"])
async def test_where_no_hole_can_be_punched_a_move_ends_relayed(world: World, kind: str) -> None:
    pair = await put_joined(world)
    pair.alice.move(world.home(kind, "elsewhere", link=NEAR))
    pair.bob.move(world.home("symmetric", "elsewhere too", link=NEAR))
    await reach(pair.alice, pair.bob, within=180)
    with trio.move_on_after(60):
        await direct(pair.alice, pair.bob)
        raise AssertionError("no hole can be punched there")


async def test_a_host_that_gains_ipv6_tells_of_it(world: World) -> None:
    pair = await put_pair(world, "symmetric", "port-restricted")
    two = world.home("symmetric", "two families", link=NEAR, families=DUAL_STACK)
    pair.alice.move(two)
    with trio.fail_after(0.5):  # V26: its kernel tells
        await pair.alice.host.addresses.wait_for(
            lambda found: any("/ip6/2a00:" in str(address) for address in found)
        )
