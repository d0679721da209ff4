"""Who is told of which address of a host: private ones are for those in its own network (I17)."""

from __future__ import annotations

import trio

from p2pnet import presets
from p2pnet.core.addresses import Scope, decode_many_untrusted, scope
from p2pnet.core.envelope import open_peer_record_untrusted
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.identify.messages import IDENTIFY
from p2pnet.protocols.identify.service import read_messages
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat import NatKind
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.reachability.scene import FREE, LISTEN, Scene, home


async def told(machine: Machine, peer_id: PeerId) -> set[Scope]:
    """Return of which kinds the addresses are that a peer tells a machine when it asks."""
    (connection,) = machine.host.connections(peer_id)
    async with await connection.open_stream(IDENTIFY) as stream:
        message = await read_messages(stream)
    record = open_peer_record_untrusted(message.signed_record or b"")
    assert record.addresses == message.addresses
    return {scope(address) for address in decode_many_untrusted(message.addresses)}


async def test_v13_private_addresses_are_told_to_private_peers_only(world: World) -> None:
    router = home(world, NatKind(filtering=FREE))
    scene = await Scene.set_up(world, router)
    config = presets.minimal(listen=[LISTEN])
    neighbour = await world.host(config, "neighbour", at=router, families=IPV4_ONLY)
    own_id = scene.host.host.peer_id
    await scene.host.host.connect(neighbour.address)
    await trio.sleep(60)
    assert [await told(peer, own_id) for peer in scene.peers] == [{Scope.PUBLIC}] * 5
    assert await told(neighbour, own_id) == {Scope.PUBLIC, Scope.PRIVATE}
