"""What is believed of UDP, by peers that are connected over QUIC, beside what is of TCP.

V1, V2, V3, V6, V14 and V15 of specs/reachability.md, with the real services in simulated worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import trio

from p2pnet import presets
from p2pnet.connectivity.nat import Filtering, Hairpinning, Mapping
from p2pnet.connectivity.verdict import Status
from p2pnet.core.addresses import Multiaddr, parse, peer_id_of, place_of
from p2pnet.events import FilteringTested, Reachability
from p2pnet.host.config import HostConfig
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.sites import IPV4_ONLY, RouterSetup
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.reachability.scene import BY_PORT, FREE, LINK, Scene, home, truth

GRID = [
    NatKind(mapping=mapping, filtering=filtering, ports=ports)
    for mapping, filtering, ports in product(Dependence, Dependence, PortChoice)
]
HAIRPINNING = [replace(nat, hairpinning=True) for nat in GRID if nat.ports is PortChoice.PRESERVING]
LISTEN = ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1")
SECONDS = 30
"""So long after five peers are connected a verdict may take, on TCP and UDP together."""
MAPPINGS = {
    Dependence.ENDPOINT_INDEPENDENT: (Mapping.ENDPOINT_INDEPENDENT,),
    Dependence.ADDRESS: (Mapping.DEPENDENT,),
    Dependence.ADDRESS_AND_PORT: (Mapping.DEPENDENT,),
}


def named(nat: NatKind) -> str:
    words = [nat.mapping.value, nat.filtering.value, nat.ports.value]
    return ", ".join([*words, *(["hairpinning"] if nat.hairpinning else [])])


def with_quic(config: HostConfig, listen: Sequence[str] = LISTEN) -> HostConfig:
    return replace(config, transports=[TCP(), QUIC()], listen=listen)


async def set_up(world: World, nat: NatKind | None, *, port_mapping: bool = False) -> Scene:
    """Start a host and five peers, and connect it with all of them over QUIC, and over TCP."""
    peers = [
        await world.host(with_quic(presets.relay()), f"peer {n}", link=LINK, families=IPV4_ONLY)
        for n in range(5)
    ]
    at = None if nat is None else home(world, nat)
    if nat is not None and port_mapping:
        at = world.router("mapping", nat, setup=RouterSetup(link=LINK, port_mapping=("pcp",)))
    config = with_quic(presets.edge(port_mapping=port_mapping))
    host = await world.host(config, "host", at=at, link=LINK, families=IPV4_ONLY)
    scene = Scene(world, host, peers)
    async with trio.open_nursery() as nursery:
        for peer in peers:
            for suffix in ("tcp/4001", "udp/4001/quic-v1"):
                address = parse(f"/ip4/{peer.addresses[0]}/{suffix}")
                nursery.start_soon(host.host.dial, peer.host.peer_id, [address])
    return scene


def verdicts(scene: Scene, transport: str) -> set[Status]:
    """Return what is believed of the public addresses of a transport, if anything is."""
    known = scene.host.host.known_addresses.value
    return {
        each.verdict.status
        for each in known
        if (place := place_of(each.address)) is not None and place.protocol == transport
    } - {Status.UNKNOWN}


@pytest.mark.parametrize("nat", [*GRID, *HAIRPINNING], ids=named)
async def test_v6_udp_has_a_class_of_its_own_and_the_right_one(world: World, nat: NatKind) -> None:
    """AN30: and soon, as no transport waits for the other."""
    scene = await set_up(world, nat)
    await trio.sleep(SECONDS)
    for found in (scene.host.host.nat.value.tcp, scene.host.host.nat.value.udp):
        assert found.mapping in MAPPINGS[nat.mapping]
        assert (found.filtering is Filtering.ENDPOINT_INDEPENDENT) is (nat.filtering is FREE)
        if nat.mapping is FREE:
            assert found.filtering.value == nat.filtering.value
            assert found.preserves_port is (nat.ports is PortChoice.PRESERVING)
        if nat.mapping is FREE or nat.filtering is FREE:
            hairpinning = Hairpinning.YES if nat.hairpinning else Hairpinning.NO
            assert found.hairpinning is hairpinning
    assert scene.reachability is truth(nat)
    for transport in ("tcp", "udp"):
        reached = verdicts(scene, transport) == {Status.REACHABLE}
        assert reached is (scene.reachability is Reachability.PUBLIC)


async def test_an31_neither_a_transport_nor_a_stranger_keeps_the_others_waiting(
    world: World,
) -> None:
    """Where nobody is let in, a server takes 8 seconds to say so, one thing at a time."""
    scene = await set_up(world, NatKind(filtering=BY_PORT))
    with scene.host.host.subscribe(FilteringTested) as events:
        await trio.sleep(2 + 8 + 8)
        told = events.take_waiting()
        await trio.sleep(8 + 8 + 1)
        later = events.take_waiting()
    assert len(told) == len(later) == 6
    assert {(test.transport, test.by_stranger) for test in told} == {("tcp", False), ("udp", False)}
    assert {(test.transport, test.by_stranger) for test in later} == {("tcp", True), ("udp", True)}


async def test_v3_where_udp_is_blocked_tcp_has_its_class_still(world: World) -> None:
    nat = NatKind(filtering=FREE, udp_blocked=True)
    scene = await Scene.set_up(world, home(world, nat), config=with_quic(presets.edge()))
    await trio.sleep(SECONDS)
    assert scene.host.host.nat.value.tcp.filtering is Filtering.ENDPOINT_INDEPENDENT
    assert scene.host.host.nat.value.udp.mapping is Mapping.UNKNOWN


async def test_v13_addresses_of_both_transports_are_tested_and_advertised(world: World) -> None:
    scene = await set_up(world, NatKind(filtering=FREE))
    await trio.sleep(SECONDS)
    assert verdicts(scene, "tcp") == verdicts(scene, "udp") == {Status.REACHABLE}
    public = [a for a in scene.host.host.addresses.value if "/11." in str(a)]
    assert {suffix(address) for address in public} == {"tcp", "quic-v1"}


async def test_a_router_forwards_the_ports_of_both_transports(world: World) -> None:
    scene = await set_up(world, NatKind(filtering=BY_PORT), port_mapping=True)
    await trio.sleep(SECONDS)
    assert verdicts(scene, "tcp") == verdicts(scene, "udp") == {Status.REACHABLE}
    assert scene.reachability is Reachability.PUBLIC


def suffix(address: Multiaddr) -> str:
    assert peer_id_of(address) is not None
    return str(address).split("/p2p/")[0].split("/")[-1 if "quic" in str(address) else -2]
