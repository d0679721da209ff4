"""What a connection costs must not depend on how many there are: counted in calls, not in time."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.swarm import Swarm
from tests.counting import counting
from tests.swarm.fakes import PEER, Arrival, Line, Wires
from tests.swarm.scene import A, B, running

ROOM = SwarmConfig(
    max_connections=1000, high_connections=1000, low_connections=999, max_inbound_per_prefix=1000
)
FEW, MANY = 10, 200


async def fill(swarm: Swarm, numbers: range) -> None:
    """Let strangers connect."""
    for number in numbers:
        swarm.accept(Arrival(Line(PeerId(b"\x12\x20" + number.to_bytes(32)), A)))
        await wait_all_tasks_blocked()


async def test_an_arrival_costs_the_same_however_many_are_connected() -> None:
    costs = []
    async with running(config=ROOM) as swarm:
        for numbers in (range(1, FEW), range(FEW, MANY)):
            await fill(swarm, numbers)
            line = Line(PEER, B)
            with counting() as calls:
                await arrive_and_leave(swarm, line)
            costs.append(calls[0])
        assert len(swarm.connections()) == MANY - 1
    assert costs[1] <= costs[0] * 1.05


async def arrive_and_leave(swarm: Swarm, line: Line) -> None:
    swarm.accept(Arrival(line))
    await wait_all_tasks_blocked()
    (connection,) = swarm.connections(PEER)
    await connection.aclose()
    await wait_all_tasks_blocked()


async def test_an_arrival_wakes_no_dial_of_another_peer() -> None:
    wires = Wires(answers={A: (3600.0, None)})
    costs = []
    config = replace(ROOM, max_dials=1000, dial_timeout=3600.0)
    async with running(wires, config=config) as swarm, trio.open_nursery() as dials:
        for numbers in (range(1, FEW), range(FEW, MANY)):
            for number in numbers:
                peer_id = PeerId(b"\x12\x20" + bytes([9]) + number.to_bytes(31))
                dials.start_soon(dial_in_vain, swarm, peer_id)
            await wait_all_tasks_blocked()
            with counting() as calls:
                await arrive_and_leave(swarm, Line(PEER, B))
            costs.append(calls[0])
        dials.cancel_scope.cancel()
    assert costs[1] <= costs[0] * 1.05


async def dial_in_vain(swarm: Swarm, peer_id: PeerId) -> None:
    await swarm.dial_ranked(peer_id, [A], insist=frozenset([A]))
