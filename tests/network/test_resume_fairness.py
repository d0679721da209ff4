"""Resumable streams of honest peers beside those of many keys in one hand. RS23."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.interfaces import Stream
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Open, encode
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import Site
from p2pnet.testing.world import World
from tests.network.resuming import count, open_echo, put
from tests.network.scene import ECHO, NEAR

MIB = 1 << 20
KEYS = 4
STREAMS = 64
"""Of each key: together much more than there is room for."""


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "orphans"])
@pytest.mark.parametrize("is_at_home", [True, False], ids=["one place", "four places"])
async def test_who_has_many_keys_leaves_room_for_others(
    world: World, is_at_home: bool, is_live: bool
) -> None:
    """RS23: keys cost nothing, and neither do streams that nobody uses."""
    alice, early, lost = [await put(world, name, Resume()) for name in ("alice", "early", "lost")]
    bob = await put(world, "bob", Resume(max_bytes=32 * MIB))
    live, orphan = await open_echo(early, bob), await open_echo(lost, bob)
    for stream in (live, orphan):
        await speak(stream)
    lost.link.is_cut = True
    for end in (lost.host.connections(), bob.host.connections(lost.host.peer_id)):
        for connection in end:
            await connection.aclose()
    home = world.home(ALL_KINDS["port-restricted"], "home of mallory") if is_at_home else None
    await hoard(world, bob, home, is_live=is_live)
    began = trio.current_time()
    for _ in range(8):
        await speak(await open_echo(alice, bob))
    assert count(alice) == 8, "none of them is plain"
    await speak(live)
    lost.link.is_cut = False
    await speak(orphan)
    assert trio.current_time() < began + 60, "what was hoarded is there still"


async def hoard(world: World, bob: Machine, home: Site | None, *, is_live: bool) -> None:
    """Open many streams with each of a few keys, and leave them idle, or without a carrier."""
    for number in range(KEYS):
        config = presets.minimal(listen=())
        mallory = await world.host(config, f"mallory {number}", at=home, link=NEAR)
        connection = await mallory.host.connect(bob.address)
        for index in range(STREAMS):
            carrier = await connection.open_stream(PROTOCOL_ID)
            await carrier.send_all(encode(Open(index.to_bytes(16), 65536, ECHO)))
        await trio.sleep(1)
        if not is_live:
            await connection.aclose()
            await mallory.stop()


async def speak(stream: Stream) -> None:
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
