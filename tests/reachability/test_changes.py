"""The network changes, servers lie: what is believed follows the one, and not the others.

V8, V9, V10, V12, V13 and V16 of specs/reachability.md, with the real services in simulated worlds.
What changes, changes for TCP and for UDP: each is looked at by hosts that speak nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest
import trio

from p2pnet.core.addresses import Endpoint, Scope, without_peer
from p2pnet.events import Reachability
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.identify import Identify, IdentifyService
from p2pnet.protocols.identify.messages import IdentifyMessage
from p2pnet.protocols.identify.snapshot import Snapshot
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.sites import Router
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from tests.reachability.scene import (
    BY_ADDRESS,
    EDGE_QUIC,
    FREE,
    PORT,
    SERVER_QUIC,
    Scene,
    home,
    truth,
)

CoreName = Literal["aioquic", "qh3"]

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


@pytest.mark.parametrize("core", get_args(CoreName))
@pytest.mark.parametrize("filtering", Dependence)
async def test_over_quic_a_rebooted_router_is_noticed_though_no_connection_ends(
    world: World, core: CoreName, filtering: Dependence
) -> None:
    """Q29, Q30, I18: they go on from another port of the router, and peers tell of that one."""
    nat = NatKind(filtering=filtering, ports=PortChoice.RANDOM)
    router, quic = home(world, nat), QUIC(core=core)
    scene = await Scene.set_up(
        world,
        router,
        config=replace(EDGE_QUIC, transports=[quic]),
        server=replace(SERVER_QUIC, transports=[quic]),
    )
    host = scene.host.host
    await scene.becomes(truth(nat))
    await trio.sleep(100)
    connections, before = host.connections(), host.punch_addresses()
    router.reboot()
    with trio.fail_after(NOTICED):
        while set(host.punch_addresses() or before) & set(before):  # noqa: ASYNC110
            await trio.sleep(1)
        await scene.becomes(truth(nat))
    await trio.sleep(60)
    assert scene.reachability is truth(nat)
    advertised = {without_peer(address) for address in host.addresses.value}
    assert not advertised & set(before)
    assert bool(advertised & set(host.punch_addresses())) is (filtering is FREE)
    assert set(connections) <= set(host.connections())
    assert await scene.strangers_get_through() is (filtering is FREE)


class FirstSeen(Snapshot):
    """Says as long as a connection lasts where the peer was seen when it began."""

    def __init__(self, kit: Kit, config: Identify) -> None:
        super().__init__(
            kit,
            agent_version="stubborn",
            protocol_version=config.protocol_version,
            max_address_bytes=config.max_address_bytes,
        )
        self._first: dict[int, bytes | None] = {}

    def message_for(
        self, host: ServiceHost, connection: Connection, told_to: Scope
    ) -> IdentifyMessage:
        message = super().message_for(host, connection, told_to)
        first = self._first.setdefault(connection.ref.number, message.observed_address)
        return replace(message, observed_address=first)


class Stubborn(Identify):
    def build(self, kit: Kit) -> IdentifyService:
        service = super().build(kit)
        service._snapshot = FirstSeen(kit, self)
        return service


async def test_a_peer_that_tells_of_the_port_before_the_reboot_is_believed_no_more(
    world: World,
) -> None:
    """V16: as go-libp2p does; on a new connection it tells what it sees."""
    router = home(world, NatKind(filtering=FREE, ports=PortChoice.RANDOM))
    services = [Stubborn() if isinstance(s, Identify) else s for s in SERVER_QUIC.services]
    server = replace(SERVER_QUIC, services=services)
    scene = await Scene.set_up(world, router, config=EDGE_QUIC, server=server)
    host = scene.host.host
    await scene.becomes(Reachability.PUBLIC)
    await trio.sleep(100)
    connections = host.connections()
    router.reboot()
    with trio.fail_after(NOTICED):
        while host.punch_addresses():  # noqa: ASYNC110
            await trio.sleep(1)
    await trio.sleep(300)
    assert not host.punch_addresses()
    assert scene.reachability is not Reachability.PUBLIC
    assert set(connections) <= set(host.connections())
    for connection in connections[:3]:
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
