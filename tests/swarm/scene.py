"""A swarm that runs for a test, and the ways to dial it and to arrive at it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.bus import EventBus
from p2pnet.errors import DialError, describe
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import ME, PEER, THIRD, Arrival, Line, NoNetwork, Wires, env

A, B, C = (parse(f"/ip4/8.8.8.8/tcp/{n}") for n in (1, 2, 3))
ELSEWHERE = parse("/ip4/8.8.4.4/tcp/1")
CIRCUIT = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{THIRD}/p2p-circuit")
REFUSED = OSError("refused")


@asynccontextmanager
async def running(
    wires: Wires | None = None,
    config: SwarmConfig | None = None,
    network: NoNetwork | None = None,
    *,
    bus: EventBus | None = None,
) -> AsyncGenerator[Swarm, None]:
    swarm = Swarm(config or SwarmConfig(), env(network), peer_id=ME, bus=bus or EventBus())
    swarm.add_transport(wires or Wires())
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        yield swarm
        nursery.cancel_scope.cancel()


async def dial(
    swarm: Swarm, *addresses: Multiaddr, insist: Sequence[Multiaddr] = ()
) -> LiveConnection:
    return await swarm.dial_ranked(PEER, addresses, insist=frozenset(insist))


async def failure(
    swarm: Swarm, *addresses: Multiaddr, insist: Sequence[Multiaddr] = ()
) -> DialError:
    with pytest.raises(DialError) as caught:
        await dial(swarm, *addresses, insist=insist)
    return caught.value


def causes(error: DialError) -> dict[str, str]:
    return {str(attempt.address): describe(attempt.cause) for attempt in error.attempts}


async def arrive(swarm: Swarm, *lines: Line) -> list[LiveConnection]:
    for line in lines:
        swarm.accept(Arrival(line))
        await wait_all_tasks_blocked()
    return list(swarm.connections())
