"""Rule W22: holes are punched from and to ports that serve WebSocket, too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import TCP, HostConfig, Noise, WebSocket, Yamux, presets
from p2pnet.core.addresses import is_relayed, parse
from p2pnet.core.env import Env
from p2pnet.interfaces import CapableConnection, Kit, Role
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.testing.conformance.identities import PEERS, kit_of
from p2pnet.testing.world import World
from p2pnet.transports.tcp_ports import SharedTcpPorts

SHARED = ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001/ws")


def edge(relay: str) -> HostConfig:
    config = presets.edge(relays=[relay], listen=SHARED, port_mapping=False)
    return replace(config, transports=[TCP(), WebSocket()])


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("port-restricted", "port-restricted"),
        ("full-cone", "port-restricted"),
        ("port-restricted", "full-cone"),
        ("full-cone", "full-cone"),
    ],
)
async def test_w22_peers_at_shared_ports_get_direct(world: World, one: str, another: str) -> None:
    relay = await world.host(presets.relay())
    config = edge(relay.address)
    alice = await world.host(config, at=world.home(one))
    bob = await world.host(config, at=world.home(another))
    await bob.host.addresses.wait_for(lambda own: any(is_relayed(each) for each in own))
    await alice.host.connect(bob.host.peer_id)
    direct = await alice.host.wait_direct(bob.host.peer_id)
    assert not direct.is_relayed


@pytest.mark.parametrize("form", ["", "/ws"])
@pytest.mark.parametrize("at", ["", "/ws"])
async def test_w22_who_dials_and_plays_the_listener_is_met_by_a_dialer(
    world: World, form: str, at: str
) -> None:
    """D15 at a shared port: over TCP it is silent, over WebSocket it asks and then is silent."""
    here, there = world.machine(), world.machine()
    ours, theirs = shared_kit(Role.LISTENER, here.env), shared_kit(Role.DIALER, there.env)
    base = f"/ip4/{here.addresses[0]}/tcp/4001"
    listeners = {
        "": await TCP().build(ours).listen(parse(base)),
        "/ws": await WebSocket().build(ours).listen(parse(f"{base}/ws")),
    }
    dialled: list[CapableConnection] = []

    async def dial() -> None:
        transport = WebSocket().build(theirs) if form else TCP().build(theirs)
        address = parse(base + form)
        peer_id = PEERS[Role.LISTENER]
        dialled.append(await transport.dial(address, peer_id=peer_id, role=Role.LISTENER))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        pending = await listeners[at].accept()
        accepted = await pending.upgrade(patience=0.2)
    assert accepted.peer_id == PEERS[Role.DIALER]
    assert dialled[0].peer_id == PEERS[Role.LISTENER]
    assert str(accepted.local_address) == base + form
    await accepted.aclose()
    await dialled[0].aclose()
    for listener in listeners.values():
        await listener.aclose()


def shared_kit(role: Role, env: Env) -> Kit:
    bare = kit_of(role, env)
    upgrader = LayeredUpgrader([Noise().build(bare)], [Yamux().build(bare)])
    return replace(kit_of(role, env, upgrader), tcp_ports=SharedTcpPorts(env.network))
