"""Over QUIC: a server dials where it sees the client, and is gone as soon as it is in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pnet import presets
from p2pnet.interfaces import Part, Service
from p2pnet.protocols.autonat_v1 import AutoNATv1, AutoNATv1Server
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY, Site
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from tests.protocols.autonat_v1.autonat_v1_scene import NEAR, connect, learned_by

CORES = [QUIC(), QUIC(core="qh3")]


async def put(
    world: World, name: str, quic: QUIC, part: Part[Service], at: Site | None = None
) -> Machine:
    config = presets.minimal(listen=["/ip4/0.0.0.0/udp/4001/quic-v1"], transports=[quic])
    config = replace(config, services=[*config.services, part])
    return await world.host(config, name, at=at, link=NEAR, families=IPV4_ONLY)


@pytest.mark.parametrize("kind", ["open", "full-cone", "port-restricted"])
@pytest.mark.parametrize("quic", CORES, ids=lambda quic: quic.core)
async def test_ao16_somebody_came_even_if_he_left_at_once(
    world: World, quic: QUIC, kind: str
) -> None:
    """AO9 AO16."""
    servers = [await put(world, f"server {n}", QUIC(), AutoNATv1Server()) for n in range(3)]
    home = world.home(KINDS[kind], "home", link=NEAR)
    client = await put(world, "client", quic, AutoNATv1(), at=home)
    await connect(client, *servers)
    found = await learned_by(client, 30.0)
    assert {test.server for test in found} == {server.host.peer_id for server in servers}
    assert {test.reached for test in found} == {kind != "port-restricted"}
