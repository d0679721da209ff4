"""Hosts of which nobody has seen the port that they listen on, when it is time to punch (D8)."""

from __future__ import annotations

import trio

from p2pnet import presets
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import NEAR, call, direct


async def put_quic_with_relay_at_tcp(world: World) -> tuple[Machine, Machine]:
    relay = await world.host(speaking("quic", presets.relay()), "relay", link=NEAR)
    at_tcp = [str(a) for a in relay.host.addresses.value if "/ip4/11." in str(a)]
    config = speaking("quic", presets.edge(relays=[a for a in at_tcp if "/tcp/" in a]))
    alice, bob = [
        await world.host(
            config,
            name,
            at=world.home(ALL_KINDS["port-restricted"], f"home of {name}", link=NEAR),
            link=Quality(latency=0.0),
            families=IPV4_ONLY,
        )
        for name in ("alice", "bob")
    ]
    return alice, bob


async def test_a_host_that_listens_by_quic_and_knows_relays_by_tcp(world: World) -> None:
    alice, bob = await put_quic_with_relay_at_tcp(world)
    await trio.sleep(5.0)
    assert not alice.host.punch_addresses()
    await call(alice, bob)
    connection = await direct(alice, bob, within=10.0)
    assert "/quic-v1" in str(connection.remote_address)
    assert len(alice.host.punch_addresses()) == 1
