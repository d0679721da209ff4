"""Callers over a relay who name addresses where nobody answers hold up nobody else (DI29, D32)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import encode, parse
from p2pnet.core.framing import encode_frame
from p2pnet.events import HolePunched, PunchStarted
from p2pnet.interfaces import Stream, StreamHandler
from p2pnet.pb import dcutr_pb2
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from p2pnet.protocols.dcutr.policy import MAX_NEIGHBOURS, MAX_TARGETS
from p2pnet.protocols.relay import RelayClient
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import NEAR, call, direct, put_edge, put_relay, reserved

CALLERS = 3
FEW = SwarmConfig(max_dials=MAX_TARGETS, max_dials_at_once=(CALLERS + 1) * MAX_TARGETS)


def silence(number: int) -> StreamHandler:
    """Answer CONNECT with as many addresses as are dialled; nobody is at any of them."""
    places = [f"/ip4/11.200.{number}.{1 + n // 2}/tcp/{1 + n % 2}" for n in range(MAX_TARGETS)]
    connect = dcutr_pb2.HolePunch(
        type="CONNECT", obs_addrs=[encode(parse(place)) for place in places]
    )

    async def answer(stream: Stream) -> None:
        await stream.send_all(encode_frame(connect.SerializeToString()))
        async for _ in stream:
            pass

    return answer


async def put_busy(world: World, relay: Machine) -> Machine:
    """Start a peer that is called by some, and is about to punch at what they named."""
    busy = await put_edge(world, "busy", relay.address, swarm=FEW, families=IPV4_ONLY)
    await reserved(busy)
    minimal = presets.minimal()
    config = replace(minimal, services=[*minimal.services, RelayClient(find_relays=False)])
    for number in range(CALLERS):
        caller = await world.host(config, f"caller {number}", link=NEAR, families=IPV4_ONLY)
        caller.host.handle(PROTOCOL_ID, silence(number))
        await caller.host.connect(f"{relay.address}/p2p-circuit/p2p/{busy.host.peer_id}")
    return busy


async def test_they_hold_up_no_other_dial(world: World) -> None:
    """DI29."""
    busy = await put_busy(world, await put_relay(world))
    config = presets.minimal(listen=["/ip4/0.0.0.0/tcp/4001"])
    public = await world.host(config, "public", link=NEAR, families=IPV4_ONLY)
    with busy.host.subscribe(PunchStarted) as started:
        for _ in range(CALLERS):
            await anext(started)
    await trio.sleep(1)  # What began stays open for ten seconds.
    began = trio.current_time()
    await busy.host.connect(public.address)
    assert trio.current_time() - began < 0.5


@pytest.mark.parametrize("calls", [True, False], ids=["calling", "called"])
async def test_they_hold_up_no_punch_with_another(world: World, calls: bool) -> None:
    """DI29 D32: Both as the initiator and as the responder."""
    relay = await put_relay(world)
    other = await put_edge(world, "other", relay.address, families=IPV4_ONLY)
    busy = await put_busy(world, relay)
    with busy.host.subscribe(PunchStarted) as started:
        for _ in range(CALLERS):
            await anext(started)
    await trio.sleep(1)
    began = trio.current_time()
    with busy.host.subscribe(HolePunched) as punched:
        await call(*((busy, other) if calls else (other, busy)))
        await direct(busy, other)
        event = await anext(punched)
    assert (event.peer_id, event.attempt) == (other.host.peer_id, 1)
    assert trio.current_time() - began < 1.5


def test_callers_alone_cannot_use_up_what_there_is_for_punches() -> None:
    """DI29 D32: What is offered, what is advertised, and neighbours."""
    of_one = MAX_TARGETS + MAX_TARGETS + MAX_NEIGHBOURS
    assert DCUtR().max_parallel * of_one < SwarmConfig().max_dials_at_once
