"""The DCUtR conversation over a real message channel, with latency, on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.errors import ProtocolError
from p2pnet.protocols.dcutr.dialogue import MAX_WAIT, Punch, initiate, respond
from p2pnet.protocols.dcutr.messages import Connect
from p2pnet.protocols.dcutr.puncher import channel_on
from tests.protocols.memory_world import MemoryWorld

OURS = (parse("/ip4/11.0.0.1/tcp/1"),)
THEIRS = (parse("/ip4/11.0.0.2/tcp/2"),)


async def converse(
    world: MemoryWorld, latency: float, *, delay: float = 0.0
) -> tuple[Punch, Punch]:
    one, other = world.host(1, "/ip4/11.0.0.1/tcp/1"), world.host(2, "/ip4/11.0.0.2/tcp/2")
    near, far = world.connect(one, other, latency=latency).stream_pair("/test")
    punches: dict[str, Punch] = {}

    async def offer(theirs: tuple[Multiaddr, ...]) -> Connect:
        await trio.sleep(delay)
        return Connect(THEIRS)

    async def play_initiator() -> None:
        punches["initiator"] = await initiate(channel_on(near), Connect(OURS), trio.current_time)

    async def play_responder() -> None:
        punches["responder"] = await respond(channel_on(far), offer, trio.current_time)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play_initiator)
        nursery.start_soon(play_responder)
    return punches["initiator"], punches["responder"]


@pytest.mark.parametrize("latency", [0.0, 0.001, 0.05, 1.5])
async def test_both_sides_dial_at_the_same_moment(
    autojump_clock: MockClock, world: MemoryWorld, latency: float
) -> None:
    """D4."""
    initiator, responder = await converse(world, latency)
    assert initiator.at == pytest.approx(responder.at)
    assert initiator.round_trip == pytest.approx(2 * latency)
    assert responder.round_trip == pytest.approx(2 * latency)
    assert (initiator.addresses, responder.addresses) == (THEIRS, OURS)


@pytest.mark.parametrize("latency", [0.0, 0.05])
async def test_both_sides_dial_at_the_same_moment_if_the_answer_takes_time(
    autojump_clock: MockClock, world: MemoryWorld, latency: float
) -> None:
    """D4."""
    initiator, responder = await converse(world, latency, delay=0.6)
    assert initiator.at == pytest.approx(responder.at)
    assert initiator.round_trip == pytest.approx(2 * latency + 0.6)
    assert responder.round_trip == pytest.approx(2 * latency)


async def test_the_wait_after_sync_is_bounded(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D4."""
    began = trio.current_time()
    initiator, _ = await converse(world, 30.0)
    assert initiator.at == pytest.approx(began + 60.0 + MAX_WAIT)


async def test_a_stream_that_ends_early_is_a_protocol_error(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    one, other = world.host(1, "/ip4/11.0.0.1/tcp/1"), world.host(2, "/ip4/11.0.0.2/tcp/2")
    near, far = world.connect(one, other).stream_pair("/test")
    await far.send_eof()
    with pytest.raises(ProtocolError, match="without an answer"):
        await initiate(channel_on(near), Connect(OURS), trio.current_time)
