"""What a yamux stream does without waiting: receiving what is there, sending along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

from p2pnet.interfaces import Role
from p2pnet.muxers.yamux.messages import DATA, FIN, INITIAL_WINDOW, SYN, WINDOW_UPDATE, encode
from p2pnet.muxers.yamux.outgoing import MIN_TURN
from p2pnet.muxers.yamux.stream import YamuxStream
from p2pnet.muxers.yamux.writer import ALONG_SECONDS
from tests.muxers.yamux.ends import against_bytes, running_pair, stream_pair


async def test_what_has_come_is_received_without_waiting() -> None:
    async with running_pair() as (dialer, listener):
        ours, theirs = await stream_pair(dialer, listener)
        assert ours.receive_nowait(10) is None
        await theirs.send_all(b"hello")
        await trio.testing.wait_all_tasks_blocked()
        assert ours.receive_nowait(2) == b"he"
        assert await ours.receive_some() == b"llo"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                ours.receive_nowait(10)
            nursery.cancel_scope.cancel()
        await theirs.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert ours.receive_nowait(10) == b""
        ours.reset()
        with pytest.raises(trio.ClosedResourceError):
            ours.receive_nowait(10)


async def test_a_few_bytes_go_along_with_what_is_sent_next(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with against_bytes(Role.DIALER) as (dialer, raw):
        stream = await dialer.connection.open_stream()
        await raw.send_all(encode(DATA, 0, 1, 6) + b"unread")
        await trio.testing.wait_all_tasks_blocked()
        assert stream.send_along(b"few")
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"more")
        sent = encode(WINDOW_UPDATE, SYN, 1, 0)
        sent += encode(DATA, 0, 1, 3) + b"few" + encode(DATA, 0, 1, 4) + b"more"
        assert await raw.receive_some() == sent


@pytest.mark.parametrize("unread", [b"", b"unread"])
async def test_a_few_bytes_go_when_the_remote_has_the_word(unread: bytes) -> None:
    """With nothing left to read they go by themselves: the remote may wait for them."""
    async with against_bytes(Role.DIALER) as (dialer, raw):
        stream = await dialer.connection.open_stream()
        if unread:
            await raw.send_all(encode(DATA, 0, 1, len(unread)) + unread)
            await trio.testing.wait_all_tasks_blocked()
        assert stream.send_along(b"few")
        async with trio.open_nursery() as nursery:
            if unread:
                assert await stream.receive_some() == unread
                nursery.start_soon(stream.receive_some)
            with trio.fail_after(1):
                assert (await raw.receive_some()).endswith(b"few")
            nursery.cancel_scope.cancel()


async def test_nothing_goes_along_where_there_is_no_room_or_no_stream() -> None:
    async with against_bytes(Role.DIALER) as (dialer, _):
        stream = await dialer.connection.open_stream()
        assert not stream.send_along(bytes(MIN_TURN + 1))
        await stream.send_all(bytes(INITIAL_WINDOW - 2))
        assert not stream.send_along(b"few")
        assert stream.send_along(b"fw")
        await stream.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            stream.send_along(b"")


@pytest.mark.parametrize("also", [True, False])
async def test_the_fin_behind_an_answer_goes_with_the_next_frames_or_soon(
    autojump_clock: trio.testing.MockClock, also: bool
) -> None:
    """Y22."""
    async with against_bytes(Role.DIALER) as (dialer, raw):
        stream, other = [await dialer.connection.open_stream() for _ in range(2)]
        await stream.send_all(b"question")
        await raw.receive_some()
        await raw.send_all(encode(DATA, 0, 1, 6) + b"answer")
        assert await stream.receive_some() == b"answer"
        closed = trio.current_time()
        await stream.aclose()
        with trio.move_on_after(ALONG_SECONDS / 2) as waiting:
            await raw.receive_some()
        assert waiting.cancelled_caught
        sent = encode(WINDOW_UPDATE, FIN, 1, 0)
        if also:
            await other.send_all(b"question")
            sent += encode(DATA, 0, 3, 8) + b"question"
        assert await raw.receive_some() == sent
        share = 0.5 if also else 1.0
        assert trio.current_time() - closed == pytest.approx(share * ALONG_SECONDS)


async def test_a_fin_that_somebody_may_wait_for_goes_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Y22."""

    async def ask(stream: YamuxStream) -> None:
        await stream.send_all(b"question")

    async def read(stream: YamuxStream) -> None:
        await stream.receive_some()

    scripts: dict[str, Sequence[Callable[[YamuxStream], Awaitable[None]]]] = {
        "a last word of its own": (read, ask),
        "nothing of its own": (read,),
        "an answer, and the end": (read, ask, read),
    }
    for script in scripts.values():
        async with against_bytes(Role.DIALER) as (dialer, raw):
            stream = await dialer.connection.open_stream()
            await raw.send_all(encode(DATA, FIN, 1, 6) + b"before")
            for act in script:
                await act(stream)
            await trio.testing.wait_all_tasks_blocked()
            closed = trio.current_time()
            await stream.aclose()
            sent = b""
            while not sent.endswith(encode(WINDOW_UPDATE, FIN, 1, 0)):
                sent += await raw.receive_some()
            assert trio.current_time() == closed
