"""Connections that lead nowhere since the network is another, though it looks the same. KA12."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.interfaces import Connection
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.network.scene import NEAR

KINDS = [(TCP(), "tcp/4001"), (QUIC(), "udp/4001/quic-v1")]
SLOW = Quality(latency=0.7)
"""Seconds each way of each link: the longest way over a satellite or two."""


async def put_connected(
    world: World, part: TCP | QUIC, port: str, link: Quality = NEAR
) -> tuple[Machine, Connection]:
    config = presets.minimal(listen=[f"/ip4/0.0.0.0/{port}"], transports=[part])
    alice, bob = await world.host(config, "alice", link=link), await world.host(config, link=link)
    connection = await alice.host.connect(bob.address)
    await trio.sleep(5)
    return alice, connection


@pytest.mark.parametrize(("part", "port"), KINDS)
async def test_a_connection_that_leads_nowhere_is_missed_when_the_network_is_told_to_be_new(
    world: World, part: TCP | QUIC, port: str
) -> None:
    """KA12."""
    alice, connection = await put_connected(world, part, port)
    alice.link.is_cut = True
    await trio.sleep(1)
    alice.kernel.tell_change()
    await trio.sleep(5)
    assert not connection.is_closed
    await trio.sleep(0.5)
    assert connection.is_closed


@pytest.mark.parametrize(("part", "port"), KINDS)
async def test_a_connection_that_is_slow_outlives_any_number_of_such_news(
    world: World, part: TCP | QUIC, port: str
) -> None:
    """KA12."""
    alice, connection = await put_connected(world, part, port, SLOW)
    for _ in range(100):
        alice.kernel.tell_change()
        await trio.sleep(0.7)
    assert not connection.is_closed
