"""A slow line is no dead one. Y12 of specs/yamux.md."""

from __future__ import annotations

import trio

from p2pnet import presets
from p2pnet.interfaces import Stream
from p2pnet.testing.links import Quality
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

SINK = "/sink/1"
NARROW = Quality(latency=0.02, bandwidth=64_000, queue_bytes=16_000)
BULK = bytes(1_500_000)


async def test_an_upload_over_a_narrow_line_is_not_taken_for_silence(world: World) -> None:
    received = 0
    ended = trio.Event()

    async def sink(stream: Stream) -> None:
        nonlocal received
        async for chunk in stream:
            received += len(chunk)
        ended.set()

    config = presets.minimal(listen=["/ip4/0.0.0.0/tcp/4001"])
    alice = await world.host(config, "alice", link=NARROW, families=IPV4_ONLY)
    bob = await world.host(config, "bob", link=NARROW, families=IPV4_ONLY)
    bob.host.handle(SINK, sink)
    async with await alice.host.open_stream(bob.address, SINK) as stream:
        await stream.send_all(BULK)
        await stream.send_eof()
        with trio.fail_after(600):
            await ended.wait()
    assert received == len(BULK)
