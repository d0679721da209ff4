"""A peer with two ports tells an address-dependent mapping from a stricter one.

V15 of specs/reachability.md, with the real services in simulated worlds.
"""

from __future__ import annotations

from itertools import product

import pytest
import trio

from p2pnet import presets
from p2pnet.connectivity.nat import Mapping
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.reachability.scene import LINK, Scene, home

SECONDS = 30
GRID = [
    NatKind(mapping=mapping, filtering=filtering, ports=ports)
    for mapping, filtering, ports in product(Dependence, Dependence, PortChoice)
]
TRUTH = {
    Dependence.ENDPOINT_INDEPENDENT: Mapping.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS: Mapping.ADDRESS_DEPENDENT,
    Dependence.ADDRESS_AND_PORT: Mapping.ADDRESS_AND_PORT_DEPENDENT,
}
TWO_PORTS = presets.relay(listen=["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4002"])


def named(nat: NatKind) -> str:
    return f"{nat.mapping.value}, {nat.filtering.value}, {nat.ports.value}"


@pytest.mark.parametrize("nat", GRID, ids=named)
async def test_v15_the_mapping_is_told_precisely_by_a_peer_with_two_ports(
    world: World, nat: NatKind
) -> None:
    scene = await Scene.set_up(world, home(world, nat), peers=4)
    other = await world.host(TWO_PORTS, "peer with two ports", link=LINK, families=IPV4_ONLY)
    await scene.host.host.connect(other.address)
    await trio.sleep(SECONDS)
    assert scene.host.host.nat.value.tcp.mapping is TRUTH[nat.mapping]


async def test_v15_without_such_a_peer_it_stays_open_on_what_the_mapping_depends(
    world: World,
) -> None:
    scene = await Scene.set_up(world, home(world, NatKind(mapping=Dependence.ADDRESS)))
    await trio.sleep(SECONDS)
    assert scene.host.host.nat.value.tcp.mapping is Mapping.DEPENDENT
