"""Who ends a hole punch takes no connection back that the peer uses already (DI28, Q20)."""

from __future__ import annotations

import pytest
import trio

from p2pnet import QUIC, TCP, presets
from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.tasks import bare_exceptions
from p2pnet.interfaces import Role
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import ECHO, echo, say_on

LINK = Quality(latency=0.1)
PORT = 4001
OVER_TCP, OVER_QUIC = f"tcp/{PORT}", f"udp/{PORT}/quic-v1"


async def put(world: World, name: str) -> Machine:
    listen = [f"/ip4/0.0.0.0/{transport}" for transport in (OVER_TCP, OVER_QUIC)]
    config = presets.edge(listen=listen, transports=[TCP(), QUIC()])
    machine = await world.host(config, name, link=LINK, families=IPV4_ONLY)
    machine.host.handle(ECHO, echo)
    return machine


def place(machine: Machine, transport: str) -> Multiaddr:
    return parse(f"/ip4/{machine.addresses[0]}/{transport}")


@pytest.mark.parametrize("transport", [OVER_TCP, OVER_QUIC], ids=["tcp", "quic"])
async def test_a_connection_that_the_peer_has_outlives_the_punch_that_made_it(
    world: World, transport: str
) -> None:
    """DI28 Q20: who dials in the role of the listener is ready half a round trip later."""
    alice, bob = await put(world, "alice"), await put(world, "bob")
    punch = trio.CancelScope()

    async def punch_as_listener() -> None:
        with punch:
            there = [place(alice, transport)]
            await bob.host.dial(alice.host.peer_id, there, role=Role.LISTENER)

    async def dial_plainly() -> None:
        if transport == OVER_QUIC:
            await alice.host.dial(bob.host.peer_id, [place(bob, OVER_QUIC)])

    with bare_exceptions(), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with alice.host.expect_listeners([place(bob, OVER_TCP)], patience=0.05):
                nursery.start_soon(punch_as_listener)
                nursery.start_soon(dial_plainly)
                direct = await alice.host.wait_direct(bob.host.peer_id)
                assert not bob.host.connections(alice.host.peer_id)
                punch.cancel()
                await say_on(await direct.open_stream(ECHO))
    assert not direct.is_closed
