"""TCP and WebSocket share a port: what is seen of the one is known of the other.

V1 and V13 of specs/reachability.md, with the real services in simulated worlds.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.connectivity.known import Source
from p2pnet.connectivity.verdict import Status
from p2pnet.core.addresses import parse
from p2pnet.host.config import HostConfig
from p2pnet.testing.nat import Dependence, NatKind
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.tcp import TCP
from p2pnet.transports.websocket import WebSocket
from tests.reachability.scene import BY_PORT, FREE, LINK, home

LISTEN = ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001/ws")
SECONDS = 30


def with_websocket(config: HostConfig) -> HostConfig:
    return replace(config, transports=[TCP(), WebSocket()], listen=LISTEN)


@pytest.mark.parametrize("filtering", [FREE, BY_PORT])
async def test_v1_a_word_over_tcp_is_one_on_websocket_too_and_both_are_tested(
    world: World, filtering: Dependence
) -> None:
    relay, edge = with_websocket(presets.relay()), with_websocket(presets.edge())
    peers = [await world.host(relay, f"peer {n}", link=LINK, families=IPV4_ONLY) for n in range(3)]
    at = home(world, NatKind(filtering=filtering))
    host = await world.host(edge, "host", at=at, link=LINK, families=IPV4_ONLY)
    for peer in peers:
        # Over TCP, and nothing else: what is known of WebSocket is known by that.
        address = parse(f"/ip4/{peer.addresses[0]}/tcp/4001")
        await host.host.dial(peer.host.peer_id, [address])
    await trio.sleep(SECONDS)
    seen = [each for each in host.host.known_addresses.value if each.source is Source.OBSERVED]
    assert [str(each.address).split("/tcp/")[1] for each in seen] == ["4001", "4001/ws"]
    expected = Status.REACHABLE if filtering is FREE else Status.UNREACHABLE
    assert [each.verdict.status for each in seen] == [expected, expected]
    assert all(each.is_advertised is (filtering is FREE) for each in seen)
