"""Faults of the host itself, of its network and of its relays: rows of the table."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2pnet import presets
from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.explain import Explanation
from p2pnet.core.addresses import Endpoint, from_endpoint
from p2pnet.interfaces import Kit, ServiceHost, Stream
from p2pnet.protocols.autonat import AutoNATServer
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.channels import hop_channel
from p2pnet.protocols.relay.messages import HOP, HopStatus, Status
from p2pnet.testing.kinds import KINDS, PORT_RESTRICTED
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat import Dependence, NatKind
from p2pnet.testing.sites import CARRIER_LAN, IPV4_ONLY, IPV6, Families, RouterSetup, Site
from p2pnet.testing.world import World
from tests.connectivity.fault_scene import (
    bare,
    fault,
    full,
    place,
    put_edge,
    put_public,
    put_relay,
    put_tester,
    put_testing_relays,
    reserved,
)

PORT = "/ip4/0.0.0.0/tcp/4001"
TESTED = 60.0
"""Seconds in which peers have found out who can dial a host."""
LONG = 120.0
"""Seconds in which a dead connection is noticed, and a dial or two fail."""


# ---- what must be there before anything else ---------------------------------------------


@fault(Cause.NO_NETWORK)
async def no_network(world: World) -> Explanation:
    machine = await put_edge(world, "edge", at=world.home("port-restricted"), families=IPV6)
    return machine.host.explain()


@fault(Cause.NO_NETWORK)
async def network_lost(world: World) -> Explanation:
    config = bare(presets.edge(relays=[ipv6_address(await put_relay(world))]))
    machine = await put_edge(world, "edge", families=IPV6, config=config)
    await reserved(machine)
    machine.move(world.home("port-restricted"))
    await trio.sleep(LONG)
    return machine.host.explain()


@fault(Cause.NO_LISTENER)
async def listens_nowhere(world: World) -> Explanation:
    relay = await put_relay(world)
    config = bare(presets.edge(listen=[], relays=[relay.address]))
    machine = await put_edge(world, "edge", config=config)
    await reserved(machine)
    return machine.host.explain()


@fault(Cause.LOOPBACK_ONLY)
async def listens_on_loopback_only(world: World) -> Explanation:
    relay = await put_relay(world)
    config = bare(presets.edge(listen=["/ip4/127.0.0.1/tcp/0"], relays=[relay.address]))
    machine = await put_edge(world, "edge", config=config)
    await reserved(machine)
    return machine.host.explain()


@fault(Cause.NO_PEERS)
async def knows_nobody(world: World) -> Explanation:
    machine = await put_edge(world, "edge")
    await trio.sleep(5)
    return machine.host.explain()


@fault(Cause.OFFLINE)
async def link_cut(world: World) -> Explanation:
    first, second = await put_relay(world, "first"), await put_relay(world, "second")
    machine = await put_edge(world, "edge", first, second)
    await reserved(machine)
    machine.link.is_cut = True
    await trio.sleep(LONG)
    return machine.host.explain()


@fault(Cause.OFFLINE)
async def link_cut_before_the_start(world: World) -> Explanation:
    relay = await put_relay(world)
    config = presets.edge(relays=[f"/dns4/relay.example/tcp/4001/p2p/{relay.host.peer_id}"])
    home = world.home("port-restricted", "home")
    machine = world.machine("edge", at=home)
    machine.link.is_cut = True
    await world.start(machine, bare(config))
    await trio.sleep(LONG)
    return machine.host.explain()


# ---- NATs and firewalls ------------------------------------------------------------------


async def behind(world: World, home: Site | str, *, seconds: float = TESTED) -> Explanation:
    """Explain a host in a home, with relays and everything else that it needs."""
    relays = [relay.address for relay in await put_testing_relays(world)]
    config = presets.edge(listen=[PORT], relays=relays)
    machine = await put_edge(world, "edge", at=home, config=config)
    await reserved(machine)
    await trio.sleep(seconds)
    return machine.host.explain()


@fault(Cause.SYMMETRIC_NAT)
async def symmetric_nat(world: World) -> Explanation:
    return await behind(world, "symmetric")


@fault(Cause.SYMMETRIC_NAT)
async def symmetric_nat_that_counts_ports_up(world: World) -> Explanation:
    return await behind(world, "symmetric-sequential")


@fault(Cause.SYMMETRIC_NAT)
async def symmetric_carrier(world: World) -> Explanation:
    return await behind(world, "carrier-symmetric")


@fault(Cause.FILTERED)
async def address_dependent_filtering(world: World) -> Explanation:
    return await behind(world, "address-restricted")


@fault(Cause.NAT)
async def port_restricted_nat(world: World) -> Explanation:
    return await behind(world, "port-restricted")


@fault(Cause.NAT)
async def carrier_nat_without_mapping(world: World) -> Explanation:
    return await behind(world, "carrier")


@fault(Cause.FIREWALL)
async def firewall(world: World) -> Explanation:
    return await behind(world, "firewall")


@fault(Cause.FIREWALL)
async def firewall_that_filters_addresses(world: World) -> Explanation:
    kind = NatKind(translates=False, filtering=Dependence.ADDRESS)
    return await behind(world, world.router("firewall", kind))


@fault(Cause.FIREWALL)
async def firewall_of_ipv6(world: World) -> Explanation:
    relays = [ipv6_address(relay) for relay in await put_testing_relays(world)]
    home = world.home("full-cone", families=Families(ipv4=False, ipv6=True))
    config = presets.edge(relays=relays)
    machine = await put_edge(world, "edge", at=home, families=IPV6, config=config)
    await reserved(machine)
    await trio.sleep(TESTED)
    return machine.host.explain()


def ipv6_address(machine: Machine) -> str:
    host = next(address for address in machine.addresses if ":" in address)
    return full(from_endpoint(Endpoint(host, 4001)), machine.host.peer_id)


MAPS = RouterSetup(port_mapping=("upnp", "nat-pmp", "pcp"))


@fault(Cause.CARRIER_NAT)
async def carrier_nat_behind_a_router_that_maps(world: World) -> Explanation:
    setup = RouterSetup(lan=CARRIER_LAN)
    carrier = world.router("carrier", PORT_RESTRICTED, setup=setup)
    home = world.router("home", PORT_RESTRICTED, behind=carrier, setup=MAPS)
    return await behind(world, home)


@fault(Cause.MAPPING_USELESS)
async def firewall_behind_a_router_that_maps(world: World) -> Explanation:
    strict = NatKind(translates=False, filtering=Dependence.ADDRESS_AND_PORT)
    outer = world.router("firewall of the provider", strict)
    return await behind(world, world.router("home", PORT_RESTRICTED, behind=outer, setup=MAPS))


@fault(Cause.MAPPING_USELESS)
async def symmetric_nat_that_maps_behind_a_firewall(world: World) -> Explanation:
    strict = NatKind(translates=False, filtering=Dependence.ADDRESS_AND_PORT)
    outer = world.router("firewall of the provider", strict)
    symmetric = KINDS["symmetric"].nats[0]
    home = world.router("home", symmetric, behind=outer, setup=MAPS)
    # The port that it gave each of them is tested first.
    return await behind(world, home, seconds=3 * TESTED)


@fault(Cause.NOT_TESTED)
async def nobody_can_test(world: World) -> Explanation:
    machine = await put_edge(world, "edge", await put_relay(world))
    await reserved(machine)
    await trio.sleep(LONG)
    return machine.host.explain()


@fault(Cause.NOT_TESTED)
async def who_could_test_is_in_the_same_network(world: World) -> Explanation:
    home = world.home("port-restricted", "home")
    config = bare(presets.minimal(listen=presets.RELAY_PORTS), AutoNATServer())
    tester = await world.host(config, "tester", at=home, families=IPV4_ONLY)
    machine = await put_edge(world, "edge", at=home, config=presets.edge(), families=IPV4_ONLY)
    await machine.host.connect(tester.address)
    await trio.sleep(LONG)
    return machine.host.explain()


# ---- relays ------------------------------------------------------------------------------


async def restricted(world: World, *relays: str) -> Machine:
    """Put a host that needs a relay, and three public peers who can tell it that."""
    testers = [await put_tester(world, f"tester {number}") for number in range(3)]
    config = presets.edge(relays=relays)
    machine = await put_edge(world, "edge", at="port-restricted", config=config)
    for tester in testers:
        await machine.host.connect(tester.address)
    await trio.sleep(LONG)
    return machine


@fault(Cause.NO_RELAY)
async def no_relay_configured(world: World) -> Explanation:
    return (await restricted(world)).host.explain()


@fault(Cause.RELAY_UNREACHABLE)
async def relay_switched_off(world: World) -> Explanation:
    relay = await put_relay(world)
    address = relay.address
    await relay.power_off()
    return (await restricted(world, address)).host.explain()


@fault(Cause.RELAY_UNREACHABLE)
async def relay_does_not_run(world: World) -> Explanation:
    relay = await put_relay(world)
    address = relay.address
    await relay.stop()
    return (await restricted(world, address)).host.explain()


@fault(Cause.RELAY_UNREACHABLE)
async def the_only_peer_is_a_relay_that_ended(world: World) -> Explanation:
    relay = await put_relay(world)
    machine = await put_edge(world, "edge", relay, at="port-restricted")
    await reserved(machine)
    await relay.stop()
    await trio.sleep(LONG)
    return machine.host.explain()


@fault(Cause.NO_RELAY_SERVICE)
async def relay_is_none(world: World) -> Explanation:
    peer = await put_public(world, "no relay")
    return (await restricted(world, peer.address)).host.explain()


@fault(Cause.RELAY_FULL)
async def relay_full(world: World) -> Explanation:
    relay = await put_relay(world, limits=RelayServer(max_reservations=1))
    await reserved(await put_edge(world, "other", relay))
    return (await restricted(world, relay.address)).host.explain()


@fault(Cause.RELAY_DENIES)
async def relay_denies(world: World) -> Explanation:
    config = bare(presets.minimal(listen=presets.RELAY_PORTS), DenyingRelay())
    relay = await put_public(world, "relay", config)
    return (await restricted(world, relay.address)).host.explain()


@dataclass(frozen=True)
class DenyingRelay:
    """A relay that serves others."""

    def build(self, kit: Kit) -> DenyingRelay:
        return self

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        host.handle(HOP, deny)
        task_status.started()
        await trio.sleep_forever()


async def deny(stream: Stream) -> None:
    channel = hop_channel(stream)
    await channel.receive()
    await channel.send(HopStatus(Status.PERMISSION_DENIED))


@fault(Cause.WRONG_CLOCK)
async def clock_of_the_relay_is_slow(world: World) -> Explanation:
    relay = await put_relay(world)
    relay.clock_error = -2 * 86_400.0
    return (await restricted(world, relay.address)).host.explain()


@fault(Cause.WRONG_PEER)
async def relay_has_another_key(world: World) -> Explanation:
    relay, other = await put_relay(world), await put_public(world, "other")
    address = full(place(relay.address), other.host.peer_id)
    await other.stop()
    return (await restricted(world, address)).host.explain()
