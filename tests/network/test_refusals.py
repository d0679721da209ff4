"""Punching between NATs that answer RST, when the peers do not begin at quite the same moment."""

from __future__ import annotations

import pytest

from p2pnet.events import HolePunched
from p2pnet.testing.links import Quality
from p2pnet.testing.running import run
from p2pnet.testing.world import World
from tests.network.scene import call, direct, put_edge, put_relay

UNSTEADY = Quality(latency=0.04, jitter=0.03)
"""Of the relay: how far apart the beginnings are is more than the direct way takes."""
CLOSE = Quality(latency=0.001)
RESET = "port-restricted-reset"


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_with_a_far_relay_meet_in_the_first_attempt(seed: int) -> None:
    """D10: The pauses suit the direct way."""

    async def punch() -> HolePunched:
        async with World(seed) as world:
            relay = await put_relay(world, link=UNSTEADY)
            alice = await put_edge(world, "alice", relay.address, at=RESET, link=CLOSE)
            bob = await put_edge(world, "bob", relay.address, at=RESET, link=CLOSE)
            with bob.host.subscribe(HolePunched) as punched:
                await call(alice, bob)
                await direct(alice, bob)
                return await anext(punched)

    punched = run(punch)
    assert punched.attempt == 1
    assert punched.seconds < 1.5
