"""Rules Q9 Q13 Q14 Q15: what streams of QUIC carry, and what they hold back."""

from __future__ import annotations

from typing import Literal

import pytest
import trio

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.judging import pattern
from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly, read_to_end
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.stream import QuicStream
from tests.transports.quic.quic_scene import Meeting, Peer, meeting, send_and_end

CoreName = Literal["aioquic", "qh3"]
both = pytest.mark.parametrize("core", ["aioquic", "qh3"])

LOSSY = Quality(latency=0.01, loss=0.05, reorder=0.05, duplicate=0.02)


def two_peers(world: World, part: QUIC | None = None, link: Quality | None = None) -> list[Peer]:
    return [Peer(world.machine(link=link).env, part) for _ in range(2)]


def host_of(peer: Peer) -> str:
    return next(
        ip
        for ip in peer.env.network.interface_addresses()
        if ip.count(".") == 3 and ip != "127.0.0.1"
    )


@both
async def test_both_directions_end_by_themselves(core: CoreName, world: World) -> None:
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
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
    one, two = two_peers(world, QUIC(core=core, linger=60.0), link=LOSSY)
    data = pattern("tails", 20_000)
    got: list[bytes] = []

    async def read(stream: MuxedStream) -> None:
        got.append(await read_to_end(stream))
        await stream.aclose()

    async def send(made: Meeting, stream: MuxedStream) -> None:
        await stream.send_all(data)
        await stream.aclose()

    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        async with trio.open_nursery() as reading:
            async with trio.open_nursery() as sending:
                for _ in range(100):
                    sending.start_soon(send, made, await dialled.open())
                for _ in range(100):
                    reading.start_soon(read, await accepted.next_stream())
            await dialled.capable.aclose()
    assert got == [data] * 100


async def test_a_sleeping_reader_holds_no_more_than_its_window(world: World) -> None:
    """Q13, Q14: and when it wakes nothing is lost."""
    part = QUIC(max_stream_window=1_048_576, max_connection_window=1_572_864)
    one, two = two_peers(world, part)
    data = pattern("much", 8 * 1024 * 1024)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        ours, theirs = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, ours, data)
            await trio.sleep(60)
            assert isinstance(theirs, QuicStream)
            held = sum(len(chunk) for chunk in theirs._chunks)
            assert held <= 524_288
            assert held > 400_000
            got = await read_to_end(theirs)
        assert got == data


@both
async def test_one_stalled_stream_does_not_hinder_another(core: CoreName, world: World) -> None:
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
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
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
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
    one, two = two_peers(world)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        for _ in range(10):
            ours, theirs = await stream_between(dialled, accepted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_reset, ours, bytes(2_000_000))
                await trio.sleep(1)
                await theirs.aclose()
        ours, theirs = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, ours, bytes(1_000_000))
            assert len(await read_to_end(theirs)) == 1_000_000


async def expect_reset(stream: MuxedStream, data: bytes) -> None:
    with pytest.raises(StreamReset):
        await stream.send_all(data)
    await stream.aclose()


@both
async def test_streams_can_be_opened_one_after_the_other_without_end(
    core: CoreName, world: World
) -> None:
    """Q12: each that ends makes room for another."""
    one, two = two_peers(world, QUIC(core=core, max_streams=8))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
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
    one, two = two_peers(world, QUIC(core=core), link=LOSSY)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        for _ in range(400):
            ours, theirs = await stream_between(dialled, accepted)
            await ours.aclose()
            await theirs.aclose()
        assert not dialled.ended.is_set()
        assert not accepted.ended.is_set()


@both
async def test_more_streams_than_the_remote_allows_wait(core: CoreName, world: World) -> None:
    """Q12."""
    one, two = two_peers(world, QUIC(core=core, max_streams=4))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
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
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        ours, theirs = await stream_between(dialled, accepted)
        await ours.send_all(b"all there is")
        await trio.sleep(1)
        assert isinstance(ours, QuicStream)
        ours._finish()  # As send_eof does, and no other task has had its turn since.
        await dialled.capable.aclose()
        assert await read_to_end(theirs) == b"all there is"


@both
async def test_nothing_works_after_the_end(core: CoreName, world: World) -> None:
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        ours, theirs = await stream_between(dialled, accepted)
        await theirs.send_all(b"last words")
        await trio.sleep(1)
        await accepted.capable.aclose()
        await dialled.ended.wait()
        dialled.expect_good_order("the remote closed")
        assert await read_exactly(ours, 10) == b"last words"
        with pytest.raises(StreamReset):
            await ours.receive_some()
        with pytest.raises(StreamReset):
            await ours.send_all(b"?")
        with pytest.raises(ConnectionLost):
            await dialled.open()


async def test_qh3_ends_a_stream_that_nobody_reads(world: World) -> None:
    """Q13, Deviations: that library gives credit unasked, so what piles up is cut off."""
    part = QUIC(core="qh3", max_stream_window=1_048_576, max_connection_window=1_048_576)
    one, two = two_peers(world, part)
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        ours, theirs = await stream_between(dialled, accepted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_reset, ours, bytes(8_000_000))
            await trio.sleep(60)
            with pytest.raises(StreamReset, match="out of room"):
                await theirs.receive_some()
        await stream_between(dialled, accepted)
