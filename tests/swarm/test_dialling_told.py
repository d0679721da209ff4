"""Rule DI26: a dial is told as it happens."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.core.bus import EventBus
from p2pnet.errors import AddressUnsupported
from p2pnet.events import AddressFailed, DialPlanned
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import ME, PEER, Wires, env
from tests.swarm.scene import REFUSED, A, B, dial

UDP = parse("/ip4/8.8.8.8/udp/1")


async def test_di26_the_plan_comes_first_and_each_failure_when_it_happens(
    autojump_clock: MockClock,
) -> None:
    bus = EventBus()
    swarm = Swarm(SwarmConfig(), env(), peer_id=ME, bus=bus)
    swarm.add_transport(Wires({A: (0.1, REFUSED), B: (0.5, None)}))
    with bus.subscribe(DialPlanned, AddressFailed) as events:
        async with trio.open_nursery() as nursery:
            await nursery.start(swarm.run)
            began = trio.current_time()
            nursery.start_soon(dial, swarm, A, B, UDP)
            planned = await anext(events)
            assert isinstance(planned, DialPlanned)
            assert planned.peer_id == PEER
            assert planned.plan == ((0.0, A), (0.25, B))
            (left_out,) = planned.left_out
            assert left_out.address == UDP
            assert isinstance(left_out.cause, AddressUnsupported)
            failed = await anext(events)
            assert isinstance(failed, AddressFailed)
            assert failed.attempt.address == A
            assert trio.current_time() - began == pytest.approx(0.1)
            await swarm.changes.wait_for(bool)
            assert not events.take_waiting()
            nursery.cancel_scope.cancel()
