"""The network changes, servers lie: what is believed follows the one, and not the others.

V8, V9, V10, V12 and V13 of specs/reachability.md, with the real services in simulated worlds. What
changes, changes for TCP and for UDP: each is looked at by hosts that speak nothing else.
"""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.events import Reachability
from p2pnet.testing.nat import NatKind, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.sites import Router
from p2pnet.testing.world import World
from tests.reachability.scene import BY_ADDRESS, FREE, PORT, Scene, home

NOTICED = 60
"""Seconds within which a change of the network must be noticed."""
STRICT = NatKind()
CONE = NatKind(filtering=FREE)


OVER = pytest.mark.parametrize("transport", ["tcp", "udp"])


def forward(router: Router, scene: Scene, transport: TransportName) -> None:
    """Forward the port by hand, as on the router's own page."""
    inside = Endpoint(scene.host.addresses[0], PORT)
    now = trio.current_time()
    assert router.nat.map_port(transport, inside, PORT, seconds=None, now=now) is not None


async def test_a_host_without_a_nat_is_public(world: World) -> None:
    scene = await Scene.set_up(world)
    assert await scene.becomes(Reachability.PUBLIC) < 30


async def test_a_network_of_three_is_enough(world: World) -> None:
    scene = await Scene.set_up(world, peers=2)
    assert await scene.becomes(Reachability.PUBLIC) < 30
    assert await scene.strangers_get_through()


async def test_a_network_of_three_behind_a_nat_is_enough_too(world: World) -> None:
    scene = await Scene.set_up(world, home(world, STRICT), peers=2)
    assert await scene.becomes(Reachability.PRIVATE) < 30


@OVER
async def test_a_forward_that_is_added_is_noticed(world: World, transport: TransportName) -> None:
    router = home(world, STRICT)
    scene = await Scene.over(transport, world, router)
    await scene.becomes(Reachability.PRIVATE)
    await trio.sleep(100)
    forward(router, scene, transport)
    assert await scene.becomes(Reachability.PUBLIC) < NOTICED
    assert await scene.strangers_get_through()
    router.nat.unmap_port(transport, PORT)


@OVER
async def test_a_forward_that_is_removed_is_noticed(world: World, transport: TransportName) -> None:
    router = home(world, STRICT)
    host = await Scene.over(transport, world, router)
    forward(router, host, transport)
    await host.becomes(Reachability.PUBLIC)
    await trio.sleep(100)
    router.nat.unmap_port(transport, PORT)
    assert await host.becomes(Reachability.PRIVATE) < NOTICED


@OVER
@pytest.mark.parametrize("first", [STRICT, CONE], ids=["to the good", "to the bad"])
async def test_a_move_to_another_network_is_noticed(
    world: World, first: NatKind, transport: TransportName
) -> None:
    before, after = Reachability.PRIVATE, Reachability.PUBLIC
    if first is CONE:
        before, after = after, before
    second = world.router("new home", CONE if first is STRICT else STRICT)
    scene = await Scene.over(transport, world, home(world, first))
    await scene.becomes(before)
    await trio.sleep(100)
    scene.host.move(second, clock_jump=600.0)
    with trio.fail_after(NOTICED):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_connecting, scene)
            await scene.becomes(after)
            nursery.cancel_scope.cancel()


async def keep_connecting(scene: Scene) -> None:
    """Do what an application does that wants its peers: try again."""
    while True:
        await trio.sleep(1)
        for connection in scene.host.host.connections():
            await connection.aclose()
            break
        with trio.move_on_after(5):
            await scene.connect()
            return


async def test_a_router_that_is_rebooted_changes_no_verdict_for_long(world: World) -> None:
    router = home(world, NatKind(filtering=FREE, ports=PortChoice.RANDOM))
    scene = await Scene.set_up(world, router)
    await scene.becomes(Reachability.PUBLIC)
    await trio.sleep(100)
    old = set(scene.host.host.punch_addresses())
    router.reboot()
    with trio.fail_after(NOTICED):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconnect_when_lost, scene)
            while not set(scene.host.host.punch_addresses()) - old:  # noqa: ASYNC110
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
    await scene.becomes(Reachability.PUBLIC)
    assert await scene.strangers_get_through()


async def test_over_quic_a_rebooted_router_is_noticed_though_no_connection_ends(
    world: World,
) -> None:
    """They go on from another port of the router, and peers tell of the old one while they last."""
    router = home(world, NatKind(filtering=FREE, ports=PortChoice.RANDOM))
    scene = await Scene.over("udp", world, router)
    await scene.becomes(Reachability.PUBLIC)
    await trio.sleep(100)
    old = scene.host.host.connections()
    router.reboot()
    assert await scene.becomes(Reachability.PRIVATE) < NOTICED
    assert scene.host.host.connections() == old
    assert not any("/11." in str(address) for address in scene.host.host.addresses.value)
    for connection in old:
        await connection.aclose()
    await scene.connect()
    assert await scene.becomes(Reachability.PUBLIC) < NOTICED
    assert await scene.strangers_get_through()


async def reconnect_when_lost(scene: Scene) -> None:
    while True:
        await trio.sleep(1)
        missing = [p for p in scene.peers if not scene.host.host.connections(p.host.peer_id)]
        for peer in missing:
            with trio.move_on_after(5):
                await scene.host.host.connect(peer.address)


@pytest.mark.parametrize(
    "nat", [CONE, STRICT, NatKind(filtering=BY_ADDRESS)], ids=["cone", "strict", "ADF"]
)
async def test_servers_that_lose_their_power_change_nothing(world: World, nat: NatKind) -> None:
    scene = await Scene.set_up(world, home(world, nat))
    truth = Reachability.PUBLIC if nat is CONE else Reachability.PRIVATE
    await scene.becomes(truth)
    for peer in scene.peers[:2]:
        await peer.power_off()
    with trio.move_on_after(300):
        await scene.host.host.reachability.wait_for(lambda value: value is not truth)
        pytest.fail("the verdict changed")
    for peer in scene.peers[:2]:
        peer.power_on()
