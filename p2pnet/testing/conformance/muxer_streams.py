"""Cases for muxers: streams, and the bytes on them."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import trio
import trio.testing

from p2pnet.errors import StreamReset
from p2pnet.interfaces import MuxedStream
from p2pnet.testing.conformance.judging import Broken, expect, expect_raises, pattern
from p2pnet.testing.conformance.muxer_bench import (
    MAX_UNREAD,
    MIB,
    End,
    MuxerBench,
    Torrent,
)
from p2pnet.testing.conformance.running import ENDED, converse, stream_between
from p2pnet.testing.conformance.wires import read_exactly, read_to_end, wire_pair

BLOCK_BYTES = 65_536


async def carries_both_ways(bench: MuxerBench) -> None:
    """A stream carries bytes both ways, whichever end opened it."""
    async with bench.running() as (dialer, listener):
        for opener, acceptor in ((dialer, listener), (listener, dialer)):
            ours, theirs = await stream_between(opener, acceptor)
            for _ in range(3):
                await converse(ours, theirs)


async def half_closes(bench: MuxerBench) -> None:
    """After an end said that it sends no more, its remote reads the end, and may go on sending."""
    data = pattern("half", MIB)
    async with bench.running() as (dialer, listener):
        for opener_first in (True, False):
            one, two = await stream_between(dialer, listener)
            if not opener_first:
                one, two = two, one
            await one.send_all(b"that is all")
            await one.send_eof()
            expect(await read_to_end(two) == b"that is all", "the last bytes were not the end")
            await send_and_read(two, one, data)
            await two.send_eof()
            expect(await read_to_end(one) == b"", "something came after everything")


async def send_and_read(sender: MuxedStream, receiver: MuxedStream, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, data)
        got = await read_exactly(receiver, len(data))
    expect(got == data, f"of {len(data)} bytes some arrived changed")


async def is_a_trio_stream(bench: MuxerBench) -> None:
    """A stream passes trio's own check of half-closeable streams."""
    async with trio.open_nursery() as nursery:

        async def make() -> tuple[MuxedStream, MuxedStream]:
            wires = wire_pair()
            dialer, listener = (bench.end(wire, role) for role, wire in wires.items())
            nursery.start_soon(dialer.run)
            nursery.start_soon(listener.run)
            one, two = await stream_between(dialer, listener)
            # Who has just begun to read may send once without letting others run.
            await two.send_all(b"")
            return one, two

        await trio.testing.check_half_closeable_stream(make, None)
        nursery.cancel_scope.cancel()


async def reset_ends_both_directions(bench: MuxerBench) -> None:
    """A reset ends both directions at once: the remote sees StreamReset, we ClosedResourceError."""
    async with bench.running() as (dialer, listener):
        for by_opener in (True, False):
            one, two = await stream_between(dialer, listener)
            if not by_opener:
                one, two = two, one
            await one.send_all(b"void")
            one.reset()
            with expect_raises(StreamReset, by="receiving from a stream the remote has reset"):
                await read_to_end(two)
            with expect_raises(StreamReset, by="sending on a stream the remote has reset"):
                await two.send_all(b"x")
            with expect_raises(trio.ClosedResourceError, by="receiving after a reset of ours"):
                await one.receive_some()
            with expect_raises(trio.ClosedResourceError, by="sending after a reset of ours"):
                await one.send_all(b"x")
        await converse(*await stream_between(dialer, listener))


async def reset_wakes_whoever_waits(bench: MuxerBench) -> None:
    """A reset wakes those who wait on the stream at either end."""
    async with bench.running() as (dialer, listener):
        for is_ours, error in ((True, trio.ClosedResourceError), (False, StreamReset)):
            one, two = await stream_between(dialer, listener)
            torrent = Torrent(one, bytes(BLOCK_BYTES))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(torrent.run)
                nursery.start_soon(expect_receiving, one, error)
                await trio.testing.wait_all_tasks_blocked()
                was_waiting = not torrent.has_stopped.is_set()
                (one if is_ours else two).reset()
            if was_waiting:
                torrent.expect_stopped_by(error, after="a reset")


async def expect_receiving(stream: MuxedStream, error: type[Exception]) -> None:
    with expect_raises(error, by="waiting for bytes when the reset came"):
        await stream.receive_some()


async def keeps_many_streams_apart(bench: MuxerBench) -> None:
    """A hundred streams at once lose, mix up and reorder nothing."""
    async with bench.running() as (dialer, listener), trio.open_nursery() as nursery:

        async def tell(number: int) -> None:
            stream = await dialer.open()
            await stream.send_all(number.to_bytes(2))
            data = pattern(f"stream {number}", 20_000)
            for start in range(0, len(data), 777):
                await stream.send_all(data[start : start + 777])
                await trio.lowlevel.checkpoint()
            await stream.send_eof()
            expect(await read_to_end(stream) == data[::-1], "an answer was mixed up")

        async def hear() -> None:
            stream = await listener.next_stream()
            number = int.from_bytes(await read_exactly(stream, 2))
            data = await read_to_end(stream)
            expect(data == pattern(f"stream {number}", 20_000), "streams were mixed up")
            await stream.send_all(data[::-1])
            await stream.aclose()

        for number in range(100):
            nursery.start_soon(tell, number)
            nursery.start_soon(hear)


async def carries_much(bench: MuxerBench) -> None:
    """Five MiB arrive unchanged, however small the reads, and no read gives more than asked."""
    data = pattern("much", 5 * MIB)
    digest, got = hashlib.sha256(), 0
    async with bench.running() as (dialer, listener):
        one, two = await stream_between(dialer, listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, one, data)
            while chunk := await two.receive_some(4001):
                expect(len(chunk) <= 4001, f"receive_some(4001) returned {len(chunk)} bytes")
                digest.update(chunk)
                got += len(chunk)
    expect(got == len(data), f"{got} of {len(data)} bytes arrived")
    expect(digest.digest() == hashlib.sha256(data).digest(), "some bytes were changed")


async def send_and_end(stream: MuxedStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def waits_for_slow_readers(bench: MuxerBench) -> None:
    """A remote that does not read makes the sender wait, and then loses nothing."""
    block = pattern("torrent", BLOCK_BYTES)
    async with bench.running(wire_pair(unbuffered=True)) as (dialer, listener):
        one, two = await stream_between(dialer, listener)
        torrent = Torrent(one, block)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(torrent.run)
            await trio.testing.wait_all_tasks_blocked()
            torrent.expect_waiting()
            for _ in range(MAX_UNREAD // BLOCK_BYTES):
                expect(await read_exactly(two, BLOCK_BYTES) == block, "what had waited was changed")


async def streams_do_not_hinder_one_another(bench: MuxerBench) -> None:
    """A stream that nobody reads does not hold up the others."""
    async with bench.running(wire_pair(unbuffered=True)) as (dialer, listener):
        stuck, _ = await stream_between(dialer, listener)
        one, two = await stream_between(dialer, listener)
        torrent = Torrent(stuck, pattern("stuck", BLOCK_BYTES))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(torrent.run)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                await converse(one, two)
            await send_and_read(one, two, pattern("passing", MIB))
            await converse(*await stream_between(listener, dialer))
            nursery.cancel_scope.cancel()


async def both_ends_open_at_once(bench: MuxerBench) -> None:
    """Streams that both ends open at the same moment are different streams."""
    async with bench.running() as (dialer, listener):

        async def ask(end: End, name: str) -> None:
            stream = await end.open()
            await send_and_end(stream, name.encode())
            answer = await read_to_end(stream)
            expect(answer == name.encode() * 2, f"{name} was answered {answer!r}")

        async def answer(end: End) -> None:
            stream = await end.next_stream()
            await send_and_end(stream, await read_to_end(stream) * 2)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                for end, name in ((dialer, "dialer"), (listener, "listener")):
                    nursery.start_soon(ask, end, f"{name} {number}")
                    nursery.start_soon(answer, end)
        for end in (dialer, listener):
            expect(end.accepted == 20, f"{end.accepted} streams arrived, not 20")


async def opens_without_a_round_trip(bench: MuxerBench) -> None:
    """A stream can be opened and written to before the remote has said a word."""
    wires = wire_pair()
    dialer, listener = (bench.end(wire, role) for role, wire in wires.items())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        stream = await dialer.open()
        await stream.send_all(b"early")
        nursery.start_soon(listener.run)
        got = await read_exactly(await listener.next_stream(), 5)
        expect(got == b"early", f"{got!r} arrived, not what was sent first")
        nursery.cancel_scope.cancel()


async def a_silent_stream_arrives(bench: MuxerBench) -> None:
    """A stream opened without data reaches the remote once, at the latest with its first data."""
    async with bench.running() as (dialer, listener):
        silent = await dialer.open()
        await trio.testing.wait_all_tasks_blocked()
        expect(listener.accepted <= 1, f"it arrived {listener.accepted} times")
        await silent.send_all(b"now")
        theirs = await listener.next_stream()
        expect(await read_exactly(theirs, 3) == b"now", "its first data was changed")
        await converse(silent, theirs)
        expect(listener.accepted == 1, f"it arrived {listener.accepted} times")


async def a_cancelled_sender_spoils_nothing_else(bench: MuxerBench) -> None:
    """A sender that is cancelled may break the connection, but not change what others send."""
    data = pattern("bystander", MIB)
    async with bench.running(wire_pair(unbuffered=True)) as (dialer, listener):
        cut_short = await stream_between(dialer, listener)
        one, two = await stream_between(dialer, listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_be_cancelled, cut_short[0])
            nursery.start_soon(read_only_zeros, cut_short[1])
            try:
                for start in range(0, MIB, BLOCK_BYTES):
                    await send_and_read(one, two, data[start : start + BLOCK_BYTES])
            except ENDED:
                dialer.may_fail = listener.may_fail = True
            nursery.cancel_scope.cancel()


async def send_and_be_cancelled(stream: MuxedStream) -> None:
    with suppress(*ENDED):
        for count in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_soon, nursery.cancel_scope, count)
                await stream.send_all(bytes(MIB))


async def read_only_zeros(stream: MuxedStream) -> None:
    with suppress(*ENDED):
        async for chunk in stream:
            expect(not any(chunk), "what the cancelled sender had sent was changed")


async def cancel_soon(scope: trio.CancelScope, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def a_cancelled_receiver_loses_nothing(bench: MuxerBench) -> None:
    """A receiver that is cancelled loses no byte."""
    data = pattern("patient", 2000)
    got = bytearray()
    async with bench.running() as (dialer, listener):
        one, two = await stream_between(dialer, listener)
        for start in range(0, len(data), 10):
            await one.send_all(data[start : start + 10])
            with trio.CancelScope() as scope:
                if start % 20:
                    scope.cancel()
                got += await two.receive_some(7)
        await one.send_eof()
        got += await read_to_end(two)
    if got != data:
        raise Broken(f"{len(got)} of {len(data)} bytes arrived, or they were changed")
