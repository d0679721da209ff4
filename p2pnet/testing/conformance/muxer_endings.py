"""Cases for muxers: how connections end, break, and resist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
import trio.testing

from p2pnet.core.tasks import close_at_once
from p2pnet.errors import (
    ConnectionLost,
    LimitExceeded,
    P2PError,
    ProtocolError,
    SecurityError,
    StreamReset,
    StreamTampered,
)
from p2pnet.interfaces import MuxedStream, Role
from p2pnet.testing.conformance.judging import expect, expect_raises, pattern
from p2pnet.testing.conformance.muxer_bench import (
    MAX_INBOUND,
    MIB,
    End,
    MuxerBench,
    Torrent,
)
from p2pnet.testing.conformance.running import ENDED, converse, stream_between
from p2pnet.testing.conformance.wires import (
    end,
    wire_pair,
)

GARBAGE = (
    b"\xff" * 4096,
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 20,
    *(pattern(f"garbage {number}", 4096) for number in range(8)),
)


async def has_a_protocol_id(bench: MuxerBench) -> None:
    """The protocol id is one that can be negotiated: it begins with a slash, on one line."""
    protocol_id = bench.muxer(Role.DIALER).protocol_id
    fits = protocol_id.startswith("/") and protocol_id.isprintable()
    expect(fits, f"it is {protocol_id!r}")


async def ends_in_good_order(bench: MuxerBench) -> None:
    """When one end closes, ``run`` returns at both, and both raw streams are closed."""
    for by_dialer in (True, False):
        async with bench.running() as (dialer, listener):
            await stream_between(dialer, listener)
            await (dialer if by_dialer else listener).connection.aclose()
            for one in (dialer, listener):
                await one.ended.wait()
                one.expect_good_order("one end had closed")
                expect(one.wire.is_closed, "run returned, and the raw stream is open")


async def closing_twice_is_closing(bench: MuxerBench) -> None:
    """A stream, and a connection, can be closed again, by several at once and by both ends."""
    async with bench.running() as (dialer, listener):
        for stream in await stream_between(dialer, listener):
            await stream.aclose()
            await stream.aclose()
        for stream in await stream_between(dialer, listener):
            stream.reset()
            stream.reset()
            await stream.aclose()
        await converse(*await stream_between(listener, dialer))
        async with trio.open_nursery() as nursery:
            for one in (dialer, dialer, listener):
                nursery.start_soon(one.connection.aclose)
        for one in (dialer, listener):
            await one.connection.aclose()


async def closes_even_when_cancelled(bench: MuxerBench) -> None:
    """``aclose`` closes the raw stream even if whoever called it is cancelled."""
    async with bench.running() as (dialer, listener):
        await stream_between(dialer, listener)
        dialer.may_fail = listener.may_fail = True
        await close_at_once(dialer.connection)
        await dialer.ended.wait()
        expect(dialer.wire.is_closed, "the raw stream is open")


async def closes_what_never_ran(bench: MuxerBench) -> None:
    """A connection that never ran closes its raw stream, too, and never will run."""
    for wire in wire_pair().values():
        unused = bench.end(wire)
        await unused.connection.aclose()
        expect(wire.is_closed, "the raw stream is open")
        await unused.run()
        unused.expect_good_order("it had been closed")


async def a_cancelled_run_closes(bench: MuxerBench) -> None:
    """A cancelled ``run`` closes the raw stream, and ends the remote and all streams."""
    async with bench.running() as (dialer, listener):
        ours, theirs = await stream_between(dialer, listener)
        dialer.may_fail = listener.may_fail = True
        dialer.scope.cancel()
        await dialer.ended.wait()
        expect(dialer.wire.is_closed, "the raw stream is open")
        for stream in (ours, theirs):
            with expect_raises(*ENDED, by="receiving on it"):
                await stream.receive_some()
        await listener.ended.wait()


async def nothing_works_after_the_end(bench: MuxerBench) -> None:
    """After the end nobody waits: what was waiting, and what comes, raises that it is over."""
    async with bench.running() as (dialer, listener):
        quiet = await stream_between(dialer, listener)
        torrents = [
            Torrent(stream, bytes(MIB)) for stream in await stream_between(dialer, listener)
        ]
        async with trio.open_nursery() as nursery:
            for torrent in torrents:
                nursery.start_soon(torrent.run)
            for stream in quiet:
                nursery.start_soon(expect_ended, stream.receive_some, "waiting to receive")
            await trio.testing.wait_all_tasks_blocked()
            waiting = [torrent for torrent in torrents if not torrent.has_stopped.is_set()]
            await dialer.connection.aclose()
        for torrent in waiting:
            torrent.expect_stopped_by(*ENDED, after="the end")
        for one in (dialer, listener):
            await one.ended.wait()
            await expect_ended(one.open, "opening a stream")
        for stream in quiet:
            await expect_ended(stream.receive_some, "receiving")
            await expect_ended(partial(stream.send_all, b"x"), "sending")


async def expect_ended(action: Callable[[], Awaitable[object]], what: str) -> None:
    with expect_raises(*ENDED, by=f"{what} after the end"):
        await action()


async def a_broken_stream_below_is_a_loss(bench: MuxerBench) -> None:
    """If the raw stream breaks, or ends while streams are open, ``run`` raises ConnectionLost."""
    for is_cut in (True, False):
        async with bench.running() as (dialer, listener):
            ours, _ = await stream_between(dialer, listener)
            listener.may_fail = dialer.may_fail = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_ended, ours.receive_some, "waiting to receive")
                await trio.testing.wait_all_tasks_blocked()
                if is_cut:
                    await dialer.wire.fail(trio.BrokenResourceError("the cable is cut"))
                else:
                    listener.wire.held = []
                    await listener.wire.aclose()
            await dialer.ended.wait()
            dialer.expect_error(ConnectionLost, after="the raw stream broke")
            expect(dialer.wire.is_closed, "the raw stream is open")


async def tampering_is_told(bench: MuxerBench) -> None:
    """If what came was changed on its way, ``run`` raises SecurityError."""
    async with bench.running() as (dialer, listener):
        ours, _ = await stream_between(dialer, listener)
        dialer.may_fail = listener.may_fail = True
        await dialer.wire.fail(StreamTampered("somebody changed a byte"))
        await dialer.ended.wait()
        dialer.expect_error(SecurityError, after="the raw stream was tampered with")
        await expect_ended(ours.receive_some, "receiving")


async def garbage_is_refused(bench: MuxerBench) -> None:
    """On garbage ``run`` raises ProtocolError (or SecurityError), and closes the raw stream."""
    for garbage in GARBAGE:
        for role in Role:
            tested = await receive_only(bench, role, garbage)
            head = f"{garbage[:16]!r} and more"
            tested.expect_error(ProtocolError, SecurityError, after=head)
            expect(tested.wire.is_closed, f"the raw stream is open after {head}")


async def receive_only(bench: MuxerBench, role: Role, data: bytes) -> End:
    """Run one end that receives only this, and return it once it has ended."""
    ours, theirs = wire_pair().values()
    tested = bench.end(ours, role)
    await theirs.inject(data)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        await trio.testing.wait_all_tasks_blocked()
        await end(theirs)
        await tested.ended.wait()
        await theirs.aclose()
    return tested


async def damage_is_survived(bench: MuxerBench) -> None:
    """Whatever bytes of genuine traffic are changed, ``run`` ends, and only with P2PError."""
    traffic = await record(bench)
    for at in range(len(traffic)):
        damaged = bytearray(traffic)
        damaged[at] ^= 1 << at % 8
        damaged[-at] ^= 0x80
        tested = await receive_only(bench, Role.LISTENER, bytes(damaged))
        if tested.error is not None:
            tested.expect_error(P2PError, after=f"byte {at} of the traffic was changed")


async def record(bench: MuxerBench) -> bytes:
    """Return what a dialer sends that uses a few streams in every way."""
    async with bench.running() as (dialer, listener):
        for number in range(3):
            ours, theirs = await stream_between(dialer, listener)
            await ours.send_all(bytes([number]) * 10)
            await theirs.send_all(b"yes")
            if number == 0:
                await ours.send_eof()
            elif number == 1:
                ours.reset()
            await trio.testing.wait_all_tasks_blocked()
        await dialer.connection.aclose()
    return bytes(dialer.wire.sent)


async def inbound_streams_are_bounded(bench: MuxerBench) -> None:
    """A remote that opens streams without end, though none is served, is stopped somehow."""
    async with bench.running(is_greedy=True) as (greedy, tested):
        served, remote = await stream_between(tested, greedy)
        greedy.may_fail = tested.may_fail = True
        held: list[MuxedStream] = []

        async def swamp() -> None:
            for _ in range(MAX_INBOUND):
                try:
                    held.append(await greedy.open())
                    await held[-1].send_all(b"me too")
                except (StreamReset, LimitExceeded, ConnectionLost):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(swamp)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        expect(tested.accepted < MAX_INBOUND, f"{tested.accepted} streams were let in")
        if not tested.ended.is_set():
            await converse(served, remote)
