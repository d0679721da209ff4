"""The cause that a host names is the one that was injected. Rules V20 to V22."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.testing.world import World
from tests.connectivity import faults_of_hosts, faults_of_peers, faults_over_relays
from tests.connectivity.fault_scene import (
    TABLE,
    Fault,
    put_edge,
    put_testing_relays,
    reserved,
)


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
async def test_the_cause_named_is_the_cause_injected(world: World, fault: Fault) -> None:
    """V20 V21 V22."""
    explanation = await fault.inject(world)
    assert explanation.cause is fault.cause, str(explanation)
    assert explanation.remedy == fault.cause.remedy


def test_the_table_is_long_and_each_row_has_a_name_of_its_own() -> None:
    assert {fault.inject.__module__ for fault in TABLE} == {
        faults_of_hosts.__name__,
        faults_of_peers.__name__,
        faults_over_relays.__name__,
    }
    assert len({fault.name for fault in TABLE}) == len(TABLE) >= 40


async def test_where_nothing_is_wrong_nothing_is_named(world: World) -> None:
    """V20 V21: the control of the table."""
    relays = await put_testing_relays(world)
    config = presets.edge(relays=[relay.address for relay in relays])
    alice = await put_edge(world, "alice", config=config)
    bob = await put_edge(world, "bob", at="port-restricted", config=config)
    await reserved(bob)
    await alice.host.connect(bob.host.peer_id)
    await trio.sleep(60)
    told = alice.host.explain(), alice.host.explain(bob.host.peer_id)
    assert [(each.cause, each.remedy) for each in told] == [(None, "")] * 2
    assert told[0].state == "strangers can dial this host"
    assert told[1].state.startswith("connected directly, at ")
    assert told[1].story
