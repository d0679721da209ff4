"""The cause that a host names is the one that was injected. Rules V20 to V22."""

from __future__ import annotations

import pytest

from p2pnet.testing.world import World
from tests.connectivity import faults_of_hosts, faults_of_peers
from tests.connectivity.fault_scene import TABLE, Fault


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
    }
    assert len({fault.name for fault in TABLE}) == len(TABLE) >= 40
