"""Rules Q23 Q26 Q28: hosts whose link carries less than Ethernet, in the simulated internet."""

from __future__ import annotations

import pytest
import trio

from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.aioquic_core import AioquicCore
from p2pnet.transports.quic.connection import QuicConnection
from tests.transports.quic.quic_scene import End, Peer, meeting
from tests.transports.quic.test_quic_streams import host_of

PIECE = bytes(8_000)
HEADERS = 28


def size_of(end: End) -> int:
    connection = end.connection
    assert isinstance(connection, QuicConnection)
    assert isinstance(connection._core, AioquicCore)
    return connection._core._connection.path.size


async def send_much(dialled: End, accepted: End) -> None:
    """Sixty pieces each way, each after the one before has arrived."""
    ours, theirs = await stream_between(dialled, accepted)
    with trio.fail_after(60):
        for _ in range(60):
            for sender, receiver in ((ours, theirs), (theirs, ours)):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sender.send_all, PIECE)
                    await read_exactly(receiver, len(PIECE))


def homes(world: World, mtu: int, part: QUIC | None = None) -> tuple[Peer, Peer]:
    near = world.machine(link=Quality(latency=0.01, mtu=mtu))
    return Peer(near.env, part), Peer(world.machine(link=Quality(latency=0.01)).env, part)


@pytest.mark.parametrize("mtu", [1260, 1400, 1500])
async def test_both_ends_find_out_what_the_link_of_one_carries(mtu: int, world: World) -> None:
    """Q26: each for what it sends; the first packets fit everywhere (Q23)."""
    one, two = homes(world, mtu)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        await send_much(dialled, accepted)
        for end in (dialled, accepted):
            assert min(mtu - HEADERS, 1452) - 16 <= size_of(end) <= mtu - HEADERS


async def test_the_link_may_shrink_while_bytes_are_sent(world: World) -> None:
    """Q28: as when a host moves to a tunnel that keeps its address."""
    near = world.machine(link=Quality(latency=0.01))
    one, two = Peer(near.env), Peer(world.machine(link=Quality(latency=0.01)).env)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        await send_much(dialled, accepted)
        assert size_of(dialled) == 1452
        near.link.quality = Quality(latency=0.01, mtu=1300)
        await send_much(dialled, accepted)
        assert size_of(dialled) <= 1300 - HEADERS
        assert size_of(accepted) <= 1300 - HEADERS


async def test_a_host_may_forgo_probes(world: World) -> None:
    """Q26: with the largest size no more than the first."""
    one, two = homes(world, 1500, QUIC(max_datagram_bytes=1232))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        await send_much(dialled, accepted)
        assert size_of(dialled) == size_of(accepted) == 1232


async def test_the_fast_core_keeps_to_what_every_network_carries(world: World) -> None:
    """Q23: see the deviations."""
    one, two = homes(world, 1260, QUIC(core="qh3"))
    async with meeting(one, two, host_of(two)) as made:
        await send_much(*await made.connect())
