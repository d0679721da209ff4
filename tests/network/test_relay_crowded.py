"""A relay with many connections: what it carries stays. specs/relay.md R43, R44; S20."""

from __future__ import annotations

from dataclasses import replace

import trio

from p2pnet import presets
from p2pnet.events import CircuitClosed
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY, Site
from p2pnet.testing.world import World
from tests.network.scene import ECHO, NEAR, echo, put_relay, reserved

LASTING = RelayServer(circuit_seconds=None, circuit_bytes=None)
SMALL = SwarmConfig(max_connections=9, high_connections=2, low_connections=1)
"""Beside two who can be called and two who call: for two who do neither."""


async def put_peer(world: World, *relays: str, at: Site | None = None) -> Machine:
    """Put a peer that calls, and can be called at the relays it is given; it tests nothing."""
    minimal = presets.minimal()
    own = RelayClient(relays=relays, find_relays=False)
    config = replace(minimal, services=[*minimal.services, own])
    machine = await world.host(config, at=at, link=NEAR, families=IPV4_ONLY)
    machine.host.handle(ECHO, echo)
    if relays:
        await reserved(machine)
    return machine


async def talk(stream: Stream) -> None:
    await stream.send_all(b"x")
    assert await stream.receive_some() == b"x"


async def test_r43_who_comes_late_does_not_cut_the_circuits_of_others(world: World) -> None:
    config = replace(presets.relay(limits=LASTING), swarm=SMALL)
    relay = await world.host(config, "relay", link=NEAR, families=IPV4_ONLY)
    service, circuits = relay.host.service(RelayServer), list[Stream]()
    for _ in range(2):
        called, caller = await put_peer(world, relay.address), await put_peer(world)
        address = f"{relay.address}/p2p-circuit/p2p/{called.host.peer_id}"
        circuits.append(await caller.host.open_stream(address, ECHO, limited="allow"))
    idle = [await put_peer(world) for _ in range(2)]
    for machine in idle:
        await machine.host.connect(relay.address)
    await trio.sleep(SMALL.trim_grace + 1)
    with relay.host.subscribe(CircuitClosed) as ended:
        await (await put_peer(world)).host.connect(relay.address)
        await trio.sleep(5)
        assert not ended.take_waiting()
    assert service.statistics().circuits == 2
    assert not any(relay.host.connections(machine.host.peer_id) for machine in idle)
    for stream in circuits:
        await talk(stream)
        await stream.aclose()
        await stream.connection.aclose()
    await trio.sleep(SMALL.trim_grace)
    assert service.statistics().circuits == 0
    assert len(relay.host.connections()) == 5
    for _ in range(2):
        await (await put_peer(world)).host.connect(relay.address)
    await trio.sleep(5)
    assert service.statistics().reservations == 2
    assert len(relay.host.connections()) == 4, "the callers are no longer needed"


async def test_r44_one_network_has_as_many_reservations_as_the_limit_says(world: World) -> None:
    many = SwarmConfig().max_inbound_per_prefix + 2
    limits = RelayServer(max_reservations=many, max_reservations_per_prefix=many, max_circuits=1)
    relay = await put_relay(world, limits=limits)
    home = world.home("port-restricted", link=NEAR, families=IPV4_ONLY)
    for _ in range(many):
        await put_peer(world, relay.address, at=home)
    assert relay.host.service(RelayServer).reservations == many
