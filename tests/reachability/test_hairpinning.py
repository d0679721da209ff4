"""Does this host get through to itself at its outside address? Behind every NAT, and two of them.

V14 of specs/reachability.md, with the real services in simulated worlds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import product

import pytest
import trio

from p2pnet import presets
from p2pnet.connectivity.nat import Hairpinning
from p2pnet.connectivity.probing import NatProbing
from p2pnet.core.addresses import Endpoint, Multiaddr, parse
from p2pnet.events import HairpinTested
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.testing.kinds import Kind
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.packet import Packet
from p2pnet.testing.sites import IPV4_ONLY, Router
from p2pnet.testing.world import World
from tests.reachability.scene import BY_ADDRESS, BY_PORT, EDGE, FREE, LINK, PORT, Scene, home

SECONDS = 30
GRID = [
    NatKind(mapping=mapping, filtering=filtering, ports=ports, hairpinning=hairpinning)
    for mapping, filtering, ports, hairpinning in product(
        Dependence, Dependence, PortChoice, (False, True)
    )
]
CARRIER = NatKind(filtering=FREE, ports=PortChoice.SEQUENTIAL)
STRICT = NatKind(filtering=BY_PORT)


def named(nat: NatKind) -> str:
    hairpinning = "hairpinning" if nat.hairpinning else "no hairpinning"
    return f"{nat.mapping.value}, {nat.filtering.value}, {nat.ports.value}, {hairpinning}"


def truth(nat: NatKind) -> Hairpinning:
    """Tell what can be known: of a closed door with another number for each, nothing."""
    if nat.mapping is not FREE and nat.filtering is not FREE:
        return Hairpinning.UNKNOWN
    return Hairpinning.YES if nat.hairpinning else Hairpinning.NO


def believed(scene: Scene) -> Hairpinning:
    return scene.host.host.nat.value.tcp.hairpinning


@pytest.mark.parametrize("nat", GRID, ids=named)
async def test_v14_hairpinning_is_known_within_half_a_minute(world: World, nat: NatKind) -> None:
    scene = await Scene.set_up(world, home(world, nat))
    await trio.sleep(SECONDS)
    assert believed(scene) is truth(nat)
    (fact,) = scene.host.host.explain().facts
    assert ("hairpinning" in fact) is (truth(nat) is not Hairpinning.UNKNOWN)


@pytest.mark.parametrize("outer", [False, True], ids=["carrier does not", "carrier hairpins"])
@pytest.mark.parametrize("inner", [False, True], ids=["router does not", "router hairpins"])
async def test_v14_behind_two_nats_the_one_counts_at_which_packets_turn(
    world: World, inner: bool, outer: bool
) -> None:
    kinds = (replace(STRICT, hairpinning=inner), replace(CARRIER, hairpinning=outer))
    site = world.home(Kind("carrier", kinds), "home", link=LINK)
    scene = await Scene.set_up(world, site)
    await trio.sleep(SECONDS)
    assert believed(scene) is (Hairpinning.YES if outer else Hairpinning.NO)


@pytest.mark.parametrize("nat", [None, NatKind(translates=False)], ids=["open", "firewall"])
async def test_v14_without_a_nat_nothing_is_dialled(world: World, nat: NatKind | None) -> None:
    at = None if nat is None else home(world, nat)
    scene = await Scene.set_up(world, at)
    with scene.host.host.subscribe(HairpinTested) as events:
        await trio.sleep(SECONDS)
        assert events.take_waiting() == ()
    assert believed(scene) is Hairpinning.UNKNOWN


async def test_v14_two_peers_are_enough_to_see_that_it_works(world: World) -> None:
    nat = NatKind(filtering=BY_ADDRESS, hairpinning=True)
    scene = await Scene.set_up(world, home(world, nat), peers=2)
    await trio.sleep(SECONDS)
    assert believed(scene) is Hairpinning.YES


@dataclass(frozen=True)
class Lie:
    """A part whose service takes the place of Identify, and hears all peers tell one lie."""

    seen: Multiaddr

    def build(self, kit: Kit) -> Lie:
        return self

    async def observe(self, connection: Connection) -> Multiaddr:
        await trio.lowlevel.checkpoint()
        return self.seen

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        host.add_observer(self.observe)
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize(
    "seen",
    [
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/127.0.0.2/tcp/80",
        "/ip6/2600::1/tcp/80",
        "/ip4/8.8.8.8/tcp/0",
    ],
)
async def test_v14_a_peer_cannot_aim_this_host_at_its_own_network(world: World, seen: str) -> None:
    lying = replace(EDGE, services=(Lie(parse(seen)), *EDGE.services))
    scene = await Scene.set_up(world, home(world, NatKind()), config=lying, peers=2)
    with scene.host.host.subscribe(HairpinTested) as events:
        await trio.sleep(SECONDS)
        assert events.take_waiting() == ()


@pytest.mark.parametrize("networks", [1, 2])
async def test_v14_peers_of_one_network_cannot_aim_this_host_at_anybody(
    world: World, networks: int
) -> None:
    """Two peer IDs at one IP have one voice; only those of two networks are believed."""
    victim = world.machine("victim", link=LINK, families=IPV4_ONLY)
    knocks = Counter[str]()
    weigh(victim, knocks)
    dens = [world.router(f"den {n}", NatKind(filtering=FREE)) for n in range(networks)]
    peers = [await put_liar(world, dens[n % networks], PORT + n) for n in range(2)]
    lie = Lie(parse(f"/ip4/{victim.addresses[0]}/tcp/80"))
    lying = replace(EDGE, services=(lie, *EDGE.services))
    host = await world.host(lying, "host", at=home(world, NatKind()), link=LINK)
    for n, peer in enumerate(peers):
        ip = dens[n % networks].outside_addresses[0]
        await host.host.connect(f"/ip4/{ip}/tcp/{PORT + n}/p2p/{peer.host.peer_id}")
    await trio.sleep(SECONDS)
    assert len(host.host.connections()) == 2
    assert (knocks.total() > 0) is (networks == 2)
    for n in range(2):
        dens[n % networks].nat.unmap_port("tcp", PORT + n)


async def put_liar(world: World, den: Router, port: int) -> Machine:
    """Start a peer that can be dialled at a port of a router."""
    config = presets.minimal(listen=[f"/ip4/0.0.0.0/tcp/{port}"])
    peer = await world.host(config, f"peer at {port}", at=den, link=LINK, families=IPV4_ONLY)
    inside, now = Endpoint(peer.addresses[0], port), trio.current_time()
    assert den.nat.map_port("tcp", inside, port, seconds=None, now=now) is not None
    return peer


def weigh(machine: Machine, knocks: Counter[str]) -> None:
    """Count the packets that come to a machine, by where they come from."""
    deliver = machine.plug.deliver

    def counted(packet: Packet) -> None:
        knocks[packet.source.host] += 1
        deliver(packet)

    machine.plug.deliver = counted


@pytest.mark.parametrize("hairpinning", [False, True])
async def test_v14_behind_a_symmetric_nat_a_forwarded_port_tells(
    world: World, hairpinning: bool
) -> None:
    router = home(world, NatKind(mapping=Dependence.ADDRESS, hairpinning=hairpinning))
    edge = replace(
        presets.edge(listen=[f"/ip4/0.0.0.0/tcp/{PORT}"], port_mapping=False),
        announce=[f"/ip4/{router.outside_addresses[0]}/tcp/{PORT}"],
    )
    scene = await Scene.set_up(world, router, config=edge)
    forward(router, scene)
    await trio.sleep(SECONDS + SECONDS)
    assert believed(scene) is (Hairpinning.YES if hairpinning else Hairpinning.NO)
    router.nat.unmap_port("tcp", PORT)


def forward(router: Router, scene: Scene) -> None:
    inside = Endpoint(scene.host.addresses[0], PORT)
    now = trio.current_time()
    assert router.nat.map_port("tcp", inside, PORT, seconds=None, now=now) is not None


async def test_v14_in_another_network_it_is_tested_anew_and_in_the_same_one_rarely(
    world: World,
) -> None:
    second = world.router("new home", NatKind(hairpinning=False))
    scene = await Scene.set_up(world, home(world, NatKind(hairpinning=True)))
    host = scene.host.host
    with host.subscribe(HairpinTested) as events:
        await trio.sleep(NatProbing().interval - 100)
        assert len(events.take_waiting()) == 1
        assert believed(scene) is Hairpinning.YES
        scene.host.move(second, clock_jump=600.0)
        for connection in host.connections():
            await connection.aclose()
        await host.nat.wait_for(lambda nat: nat.tcp.hairpinning is Hairpinning.UNKNOWN)
        await scene.connect()
        with trio.fail_after(60):
            await host.nat.wait_for(lambda nat: nat.tcp.hairpinning is Hairpinning.NO)
