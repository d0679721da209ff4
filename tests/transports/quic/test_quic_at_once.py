"""Rule M13 over QUIC: receiving what is there, sending along."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2pnet.core.addresses import Endpoint
from p2pnet.interfaces import Listener, MuxedStream
from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.conformance.wires import read_exactly
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.along import ALONG_SECONDS
from p2pnet.transports.quic.connection import QuicConnection
from tests.transports.quic.quic_scene import meeting
from tests.transports.quic.test_quic_streams import CoreName, both, host_of, two_peers

LATENCY = 0.0005
ONE_WAY = 2 * LATENCY


@asynccontextmanager
async def two_ends(world: World, core: CoreName) -> AsyncGenerator[tuple[MuxedStream, MuxedStream]]:
    one, two = two_peers(world, QUIC(core=core), Quality(latency=LATENCY))
    async with meeting(one, two, host_of(two)) as made:
        ours, theirs = await stream_between(*await made.connect())
        await trio.sleep(1)
        yield ours, theirs


async def heard(stream: MuxedStream) -> tuple[bytes, float]:
    """Return what comes next, and the seconds until then."""
    began = trio.current_time()
    return bytes(await stream.receive_some()), trio.current_time() - began


@both
async def test_what_has_come_is_received_without_waiting(core: CoreName, world: World) -> None:
    async with two_ends(world, core) as (ours, theirs):
        assert ours.receive_nowait(10) is None
        await theirs.send_all(b"hello")
        await trio.sleep(1)
        assert ours.receive_nowait(2) == b"he"
        assert await ours.receive_some() == b"llo"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                ours.receive_nowait(10)
            nursery.cancel_scope.cancel()
        await theirs.send_eof()
        await trio.sleep(1)
        assert ours.receive_nowait(10) == b""
        ours.reset()
        with pytest.raises(trio.ClosedResourceError):
            ours.receive_nowait(10)


@both
async def test_a_few_bytes_go_along_with_what_is_sent_next(core: CoreName, world: World) -> None:
    async with two_ends(world, core) as (ours, theirs):
        await theirs.send_all(b"unread")
        await trio.sleep(1)
        assert ours.send_along(b"few")
        assert not ours.send_along(b"and more")
        await trio.sleep(ALONG_SECONDS / 2)
        await ours.send_all(b"more")
        assert (await heard(theirs))[0] == b"fewmore"


@both
async def test_a_few_bytes_go_by_themselves_after_a_while(core: CoreName, world: World) -> None:
    async with two_ends(world, core) as (ours, theirs):
        await theirs.send_all(b"unread")
        await trio.sleep(1)
        assert ours.send_along(b"few")
        data, seconds = await heard(theirs)
        assert data == b"few"
        assert ALONG_SECONDS <= seconds < ALONG_SECONDS + 2 * ONE_WAY


@both
@pytest.mark.parametrize("unread", [b"", b"unread"])
async def test_a_few_bytes_go_when_the_remote_has_the_word(
    core: CoreName, world: World, unread: bytes
) -> None:
    """With nothing left to read they go at once: the remote may wait for them."""
    async with two_ends(world, core) as (ours, theirs):
        if unread:
            await theirs.send_all(unread)
            await trio.sleep(1)
        assert ours.send_along(b"few")
        async with trio.open_nursery() as nursery:
            if unread:
                nursery.start_soon(read_exactly, ours, len(unread) + 1)
            data, seconds = await heard(theirs)
            assert data == b"few"
            assert seconds < 2 * ONE_WAY
            nursery.cancel_scope.cancel()


@both
async def test_a_few_bytes_go_in_front_of_the_end(core: CoreName, world: World) -> None:
    async with two_ends(world, core) as (ours, theirs):
        await theirs.send_all(b"unread")
        await trio.sleep(1)
        assert ours.send_along(b"few")
        await ours.send_eof()
        assert await read_exactly(theirs, 3) == b"few"
        assert await theirs.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            ours.send_along(b"")


async def let_in(door: Listener) -> None:
    await (await door.accept()).upgrade()


@both
async def test_a_connection_that_begins_to_run_looks_for_nothing_to_send(
    core: CoreName, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the handshake went before the dial was over."""
    one, two = two_peers(world, QUIC(core=core), Quality(latency=LATENCY))
    looks: list[float] = []

    def look(now: float) -> list[tuple[bytes, Endpoint]]:
        looks.append(now)
        return []

    async with meeting(one, two, host_of(two)) as made, trio.open_nursery() as nursery:
        nursery.start_soon(let_in, made.door)
        dialled = await one.dial(made.door.address, two)
        assert isinstance(dialled, QuicConnection)
        with monkeypatch.context() as patched:
            patched.setattr(dialled._core, "transmit", look)
            made.run(dialled)
            await trio.testing.wait_all_tasks_blocked()
        assert looks == []
        nursery.cancel_scope.cancel()


@both
async def test_nothing_goes_along_where_there_is_no_room(core: CoreName, world: World) -> None:
    async with two_ends(world, core) as (ours, _):
        assert not ours.send_along(bytes(20_000_000))
