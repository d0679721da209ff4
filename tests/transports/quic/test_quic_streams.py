"""Rules Q9 Q13 Q14 Q15: what streams of QUIC carry, and what they hold back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
import trio

from p2pnet.errors import ConnectionLost, PeerLeft, StreamReset
from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.judging import pattern
from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly, read_to_end
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.stream import QuicStream
from tests.transports.quic.quic_scene import End, Peer, meeting, send_and_end

CoreName = Literal["aioquic", "qh3"]
both = pytest.mark.parametrize("core", ["aioquic", "qh3"])

LOSSY = Quality(latency=0.01, loss=0.05, reorder=0.05, duplicate=0.02)
LOSING = {"aioquic": LOSSY, "qh3": Quality(latency=0.01, loss=0.01)}
"""What each core must bear with many streams; qh3 is for lines that lose little (Deviations)."""


def two_peers(world: World, part: QUIC | None = None, link: Quality | None = None) -> list[Peer]:
    return [Peer(world.machine(link=link).env, part) for _ in range(2)]


def host_of(peer: Peer) -> str:
    return next(
        ip
        for ip in peer.env.network.interface_addresses()
        if ip.count(".") == 3 and ip != "127.0.0.1"
    )


@asynccontextmanager
async def connected(
    world: World, part: QUIC | None = None, link: Quality | None = None
) -> AsyncGenerator[tuple[End, End]]:
    """Connect two peers; yield the ends of who dialled and who was called."""
    one, two = two_peers(world, part, link)
    async with meeting(one, two, host_of(two)) as made:
        yield await made.connect()


@both
async def test_both_directions_end_by_themselves(core: CoreName, world: World) -> None:
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        ours, theirs = await stream_between(dialled, accepted)
        await send_and_end(ours, b"question")
        assert await read_to_end(theirs) == b"question"
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"more")
        await send_and_end(theirs, b"answer")
        assert await read_to_end(ours) == b"answer"


@both
async def test_a_hundred_streams_keep_their_tails_on_a_lossy_line(
    core: CoreName, world: World
) -> None:
    """Q15: what was sent before both the stream and the connection closed arrives."""
    data = pattern("tails", 20_000)
    got: list[bytes] = []

    async def read(stream: MuxedStream) -> None:
        got.append(await read_to_end(stream))
        await stream.aclose()

    async def send(stream: MuxedStream) -> None:
        await stream.send_all(data)
        await stream.aclose()

    line = LOSING[core]
    async with connected(world, QUIC(core=core, linger=60.0), line) as (dialled, accepted):
        async with trio.open_nursery() as reading:
            async with trio.open_nursery() as sending:
                for _ in range(100):
                    sending.start_soon(send, await dialled.open())
                for _ in range(100):
                    reading.start_soon(read, await accepted.next_stream())
            await dialled.capable.aclose()
    assert got == [data] * 100


@pytest.mark.parametrize(("streams", "held"), [(1, 524_288), (8, 786_432)])
async def test_sleeping_readers_hold_no_more_than_the_window(
    streams: int, held: int, world: World
) -> None:
    """Q13, Q14: one that of its stream, all together that of the connection; nothing is lost."""
    part = QUIC(max_stream_window=1_048_576, max_connection_window=1_572_864)
    async with asleep(world, part, streams) as pairs:
        kept = [sum(map(len, theirs._chunks)) for _, theirs in pairs]
        assert held * 3 // 4 < sum(kept) <= held


async def test_the_fast_core_lets_all_streams_wait_for_who_does_not_read(world: World) -> None:
    """Q13, Deviations: its library gives credit for all streams, or for none; nothing is lost."""
    part = QUIC(core="qh3", max_stream_window=1_048_576, max_connection_window=1_572_864)
    async with asleep(world, part, 8) as pairs:
        kept = [sum(map(len, theirs._chunks)) for _, theirs in pairs]
        assert 786_432 <= sum(kept) <= 1_572_864


Pairs = list[tuple[MuxedStream, QuicStream]]


@asynccontextmanager
async def asleep(world: World, part: QUIC, streams: int) -> AsyncGenerator[Pairs]:
    """Have 8 MiB sent, and read after the block; the readers sleep before and meanwhile."""
    data = pattern("much", 8 * 1024 * 1024 // streams)
    pairs: Pairs = []
    got: list[bytes] = []

    async def read(stream: MuxedStream) -> None:
        got.append(await read_to_end(stream))

    async with connected(world, part) as (dialled, accepted):
        for _ in range(streams):
            ours, theirs = await stream_between(dialled, accepted)
            assert isinstance(theirs, QuicStream)
            pairs.append((ours, theirs))
        async with trio.open_nursery() as nursery:
            for ours, _ in pairs:
                nursery.start_soon(send_and_end, ours, data)
            await trio.sleep(60)
            yield pairs
            with trio.fail_after(600):
                async with trio.open_nursery() as reading:
                    for _, theirs in pairs:
                        reading.start_soon(read, theirs)
    assert got == [data] * streams


@both
async def test_who_sleeps_is_told_that_the_connection_is_over(core: CoreName, world: World) -> None:
    """Q13: also where what has come is left in the library."""
    part = QUIC(core=core, max_stream_window=1_048_576, max_connection_window=1_048_576)
    async with connected(world, part) as (dialled, accepted):
        ours, _ = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_loss, ours, bytes(8_000_000))
            await trio.sleep(60)
            assert not accepted.ended.is_set()
            await dialled.capable.aclose()
            with trio.fail_after(2):
                await accepted.ended.wait()
        accepted.expect_good_order("the remote closed")


@both
async def test_one_stalled_stream_does_not_hinder_another(core: CoreName, world: World) -> None:
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        stalled, _ = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stalled.send_all, bytes(3_000_000))
            await trio.sleep(5)
            ours, theirs = await stream_between(dialled, accepted)
            nursery.start_soon(send_and_end, ours, b"x" * 100_000)
            assert len(await read_to_end(theirs)) == 100_000
            nursery.cancel_scope.cancel()


@both
async def test_a_reset_reaches_both_directions_of_the_remote(core: CoreName, world: World) -> None:
    """Q9: RESET_STREAM and STOP_SENDING, with the code."""
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        ours, theirs = await stream_between(dialled, accepted)
        ours.reset(0x1003)
        with pytest.raises(StreamReset, match="0x1003"):
            await theirs.receive_some()
        await trio.sleep(1)
        with pytest.raises(StreamReset, match="0x1003"):
            await theirs.send_all(b"?")
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"?")


@both
async def test_a_closed_stream_stops_a_remote_that_still_sends(
    core: CoreName, world: World
) -> None:
    """Q9: and what it sent gives its credit back."""
    part = QUIC(core=core, max_stream_window=1_048_576, max_connection_window=1_048_576)
    async with connected(world, part) as (dialled, accepted):
        for _ in range(10):
            ours, theirs = await stream_between(dialled, accepted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_reset, ours, bytes(3_000_000))
                await trio.sleep(1)
                await theirs.aclose()
        ours, theirs = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, ours, bytes(1_000_000))
            assert len(await read_to_end(theirs)) == 1_000_000


async def expect_loss(stream: MuxedStream, data: bytes) -> None:
    with pytest.raises(ConnectionLost, match="closed here"):
        await stream.send_all(data)


async def expect_reset(stream: MuxedStream, data: bytes) -> None:
    with pytest.raises(StreamReset):
        await stream.send_all(data)
    await stream.aclose()


@both
async def test_streams_can_be_opened_one_after_the_other_without_end(
    core: CoreName, world: World
) -> None:
    """Q12: each that ends makes room for another."""
    async with connected(world, QUIC(core=core, max_streams=8)) as (dialled, accepted):
        for number in range(50):
            ours, theirs = await stream_between(dialled, accepted)
            await send_and_end(ours, bytes([number]))
            assert await read_to_end(theirs) == bytes([number])
            await theirs.aclose()
            assert await read_to_end(ours) == b""
            await ours.aclose()


@both
async def test_streams_that_both_ends_close_at_once_harm_nothing(
    core: CoreName, world: World
) -> None:
    """Q9: each asks the other to stop what is over already."""
    async with connected(world, QUIC(core=core), LOSSY) as (dialled, accepted):
        for _ in range(400):
            ours, theirs = await stream_between(dialled, accepted)
            await ours.aclose()
            await theirs.aclose()
        assert not dialled.ended.is_set()
        assert not accepted.ended.is_set()


@both
async def test_more_streams_than_the_remote_allows_wait(core: CoreName, world: World) -> None:
    """Q12."""
    async with connected(world, QUIC(core=core, max_streams=4)) as (dialled, accepted):
        streams = [await stream_between(dialled, accepted) for _ in range(4)]
        with trio.move_on_after(5) as waiting:
            await dialled.open()
        assert waiting.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialled.open)
            for ours, theirs in streams:
                await ours.aclose()
                await theirs.aclose()


@both
async def test_an_end_sent_right_before_the_connection_closes_arrives(
    core: CoreName, world: World
) -> None:
    """Q15: an end carries no bytes, and yet it is waited for."""
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        ours, theirs = await stream_between(dialled, accepted)
        await ours.send_all(b"all there is")
        await trio.sleep(1)
        assert isinstance(ours, QuicStream)
        ours._finish()  # As send_eof does, and no other task has had its turn since.
        await dialled.capable.aclose()
        assert await read_to_end(theirs) == b"all there is"


@both
async def test_nothing_works_after_the_end(core: CoreName, world: World) -> None:
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        ours, theirs = await stream_between(dialled, accepted)
        await theirs.send_all(b"last words")
        await trio.sleep(1)
        await accepted.capable.aclose()
        await dialled.ended.wait()
        dialled.expect_good_order("the remote closed")
        assert await read_exactly(ours, 10) == b"last words"
        with pytest.raises(PeerLeft):
            await ours.receive_some()
        with pytest.raises(PeerLeft):
            await ours.send_all(b"?")
        with pytest.raises(ConnectionLost):
            await dialled.open()
