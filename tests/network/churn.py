"""A program for determinism: much goes wrong in one world, and the hash over it is printed.

``python tests/network/churn.py SEED``
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise

import trio

from p2pnet import presets
from p2pnet.testing.links import Quality
from p2pnet.testing.running import run
from p2pnet.testing.world import World
from tests.network.scene import put_edge, put_relay, reach

ROUGH = Quality(latency=0.02, jitter=0.01, loss=0.03, duplicate=0.03, reorder=0.05)


async def churn(seed: int) -> str:
    async with World(seed) as world:
        relays = [await put_relay(world, f"relay {number}", link=ROUGH) for number in range(2)]
        places = [relay.address for relay in relays]
        kinds = ("open", "port-restricted", "symmetric", "carrier")
        edges = [await put_edge(world, kind, *places, at=kind, link=ROUGH) for kind in kinds]
        async with trio.open_nursery() as nursery:
            for one, other in pairwise(edges):
                nursery.start_soon(partial(reach, one, other, within=300))
        await relays[0].power_off()
        world.routers["home of symmetric"].reboot()
        edges[1].move(world.internet)
        await trio.sleep(30)
        relays[0].power_on()
        await world.start(relays[0], presets.relay())
        await reach(edges[0], edges[1], within=120)
    return world.trace.sha256


async def main() -> str:
    return await churn(int(sys.argv[1]))


if __name__ == "__main__":
    sys.stdout.write(run(main) + "\n")
