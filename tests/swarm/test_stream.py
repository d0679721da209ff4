"""The live stream is a trio stream, lazy or not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from p2pnet.core.addresses import parse
from p2pnet.core.bus import EventBus
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.events import ConnectionRef
from p2pnet.interfaces import Role, Stream
from p2pnet.muxers.yamux.driver import YamuxMuxer
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.negotiation.upgrader import UpgradedConnection
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.swarm import Swarm

PROTOCOL = "/test/1"
ADDRESS = parse("/ip4/127.0.0.1/tcp/1")


def make_connection(stream: trio.abc.Stream, role: Role, swarm: Swarm) -> LiveConnection:
    peer_id = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    muxed = YamuxMuxer(Limits()).start(stream, role)
    capable = UpgradedConnection(peer_id, ADDRESS, ADDRESS, "/test", "/test", None, muxed)
    ref = ConnectionRef(1, peer_id, ADDRESS, ADDRESS, role is Role.LISTENER, False)
    return LiveConnection(
        capable, ref, config=SwarmConfig(), handlers=swarm.handlers, peers=swarm.peers
    )


def make_swarm() -> Swarm:
    peer_id = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    return Swarm(SwarmConfig(), Env.system(), peer_id=peer_id, bus=EventBus())


@pytest.mark.parametrize("lazy", [False, True])
async def test_a_live_stream_passes_the_check_for_half_closeable_streams(lazy: bool) -> None:
    raw = trio.testing.memory_stream_pair()
    swarm = make_swarm()
    dialer = make_connection(raw[0], Role.DIALER, swarm)
    listener = make_connection(raw[1], Role.LISTENER, swarm)
    if lazy:
        swarm.peers.set_protocols(dialer.peer_id, [PROTOCOL])
    arrivals, arrived = trio.open_memory_channel[Stream](1)

    async def handle(stream: Stream) -> None:
        await arrivals.send(stream)
        await trio.sleep_forever()

    swarm.handlers[PROTOCOL] = handle

    async def make_pair() -> tuple[Stream, Stream]:
        ours = await dialer.open_stream(PROTOCOL)
        if lazy:
            await ours.send_all(b"")
        return ours, await arrived.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        await trio.testing.check_half_closeable_stream(make_pair, None)
        nursery.cancel_scope.cancel()


async def test_streams_are_counted_until_they_are_closed_or_reset() -> None:
    raw = trio.testing.memory_stream_pair()
    swarm = make_swarm()
    dialer = make_connection(raw[0], Role.DIALER, swarm)
    listener = make_connection(raw[1], Role.LISTENER, swarm)

    async def handle(stream: Stream) -> None:
        await trio.sleep_forever()

    swarm.handlers[PROTOCOL] = handle
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        closed = await dialer.open_stream(PROTOCOL)
        reset = await dialer.open_stream(PROTOCOL)
        assert (dialer.streams, listener.streams) == (2, 2)
        await closed.aclose()
        reset.reset()
        assert dialer.streams == 0
        nursery.cancel_scope.cancel()
