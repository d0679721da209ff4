"""Every mapping, filtering and choice of ports: is the verdict right, soon, and for good?

V3, V6, V8, V10 and V11 of specs/reachability.md, with the real services in simulated worlds.
"""

from __future__ import annotations

from itertools import product

import pytest
import trio

from p2pnet.connectivity.nat import Filtering, Mapping
from p2pnet.connectivity.verdict import Status
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.world import World
from tests.reachability.scene import FREE, Scene, home, truth

GRID = [
    NatKind(mapping=mapping, filtering=filtering, ports=ports)
    for mapping, filtering, ports in product(Dependence, Dependence, PortChoice)
]
SECONDS = 30
"""So long after five peers are connected a verdict may take."""
LONG = 1200.0
"""Virtual seconds for which no verdict may change; ``benchmarks.grid`` does a day of it."""


def named(nat: NatKind) -> str:
    return f"{nat.mapping.value}, {nat.filtering.value}, {nat.ports.value}"


@pytest.mark.parametrize("nat", GRID, ids=named)
async def test_the_verdict_is_right_within_half_a_minute(world: World, nat: NatKind) -> None:
    scene = await Scene.set_up(world, home(world, nat))
    await trio.sleep(SECONDS)
    assert scene.reachability is truth(nat)
    known = scene.host.host.known_addresses.value
    statuses = {each.verdict.status for each in known} - {Status.UNKNOWN}
    assert (statuses == {Status.REACHABLE}) is (truth(nat).value == "public"), known
    assert await scene.strangers_get_through() is (truth(nat).value == "public")


@pytest.mark.parametrize("nat", GRID, ids=named)
async def test_the_nat_is_called_what_it_is(world: World, nat: NatKind) -> None:
    scene = await Scene.set_up(world, home(world, nat))
    await trio.sleep(SECONDS)
    found = scene.host.host.nat.value.tcp
    assert found.is_symmetric is (nat.mapping is not FREE)
    if nat.mapping is FREE:
        assert found.mapping is Mapping.ENDPOINT_INDEPENDENT
        assert found.preserves_port is (nat.ports is PortChoice.PRESERVING)
        assert found.filtering.value == nat.filtering.value
    else:
        # What a port looks like to one peer, no other can dial: a filter cannot be told apart.
        assert (found.filtering is Filtering.ENDPOINT_INDEPENDENT) is (nat.filtering is FREE)
    if nat.ports is PortChoice.SEQUENTIAL and found.is_symmetric:
        assert found.port_step == 1


@pytest.mark.parametrize("nat", GRID[::3], ids=named)
async def test_the_verdict_does_not_change_without_a_reason(world: World, nat: NatKind) -> None:
    scene = await Scene.set_up(world, home(world, nat))
    await trio.sleep(SECONDS)
    with trio.move_on_after(LONG):
        await scene.host.host.reachability.wait_for(lambda value: value is not truth(nat))
        pytest.fail(f"{scene.reachability} after {trio.current_time()} s")
