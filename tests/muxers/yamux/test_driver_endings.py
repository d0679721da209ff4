"""How yamux connections are closed, and how they break."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from p2pnet.errors import ConnectionLost, ProtocolError, SecurityError, StreamReset
from p2pnet.interfaces import MuxedStream, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.messages import (
    DATA,
    GO_AWAY,
    PING,
    SYN,
    WINDOW_UPDATE,
    Header,
    encode,
)
from tests.core.passing_on import PassingOn
from tests.muxers.yamux.ends import (
    against_bytes,
    headers,
    running_pair,
    side,
    stream_pair,
)

MIB = 1_048_576


# ---- ending ------------------------------------------------------------------------------


async def test_closing_one_end_ends_both_in_good_order() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await one.send_all(b"last words")
        await one.send_eof()
        await dialer.connection.aclose()
        await listener.ended.wait()
        assert (dialer.error, listener.error) == (None, None)
        assert [await two.receive_some(), await two.receive_some()] == [b"last words", b""]
        with pytest.raises(ConnectionLost):
            await two.send_all(b"x")
        for end in (dialer, listener):
            with pytest.raises(ConnectionLost):
                await end.connection.open_stream()
        await dialer.connection.aclose()
        await listener.connection.aclose()


async def test_both_ends_may_close_at_the_same_time() -> None:
    with trio.fail_after(0.5):
        async with running_pair(below=trio.testing.lockstep_stream_pair()) as (dialer, listener):
            await stream_pair(dialer, listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dialer.connection.aclose)
                nursery.start_soon(dialer.connection.aclose)
                nursery.start_soon(listener.connection.aclose)
        assert (dialer.error, listener.error) == (None, None)


async def test_a_cancelled_connection_says_goodbye_too() -> None:
    ours, raw = trio.testing.memory_stream_pair()
    tested = side(ours, Role.LISTENER)
    async with trio.open_nursery() as running:

        @running.start_soon
        async def hang_up() -> None:
            with trio.CancelScope(shield=True):
                assert headers(await raw.receive_some()) == [Header(GO_AWAY, 0, 0, 0)]
                assert not tested.ended.is_set()
                await raw.send_eof()

        running.start_soon(tested.run)
        await trio.testing.wait_all_tasks_blocked()
        running.cancel_scope.cancel()
    assert tested.ended.is_set()
    assert await raw.receive_some() == b""


async def test_a_connection_cancelled_before_it_ran_says_goodbye_and_closes() -> None:
    ours, raw = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side(ours, Role.LISTENER, Yamux(grace=0.01)).run)
    assert headers(await raw.receive_some()) == [Header(GO_AWAY, 0, 0, 0)]
    assert await raw.receive_some() == b""


async def test_y19_a_goodbye_to_a_remote_that_never_closes_takes_the_grace_and_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with against_bytes(config=Yamux(grace=2.0)) as (tested, raw):
        began = trio.current_time()
        await tested.connection.aclose()
        assert trio.current_time() - began == 2.0
        assert headers(await raw.receive_some()) == [Header(GO_AWAY, 0, 0, 0)]
        assert await raw.receive_some() == b""


async def test_closing_when_cancelled_closes_without_waiting_for_the_remote(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with against_bytes() as (tested, raw):
        with trio.CancelScope() as scope:
            scope.cancel()
            await tested.connection.aclose()
        await tested.ended.wait()
        assert trio.current_time() == 0
        assert headers(await raw.receive_some()) == [Header(GO_AWAY, 0, 0, 0)]
        assert await raw.receive_some() == b""


async def test_a_connection_that_never_ran_says_goodbye_and_runs_no_more() -> None:
    ours, raw = trio.testing.memory_stream_pair()
    tested = side(ours, Role.DIALER)
    stream = await tested.connection.open_stream()
    await stream.send_all(b"early")
    await tested.connection.aclose()
    await tested.connection.aclose()
    kinds = [header.kind for header in headers(await raw.receive_some())]
    assert kinds == [WINDOW_UPDATE, DATA, GO_AWAY]
    assert await raw.receive_some() == b""
    await tested.run()
    assert tested.error is None
    with pytest.raises(ConnectionLost):
        await stream.receive_some()


async def test_closing_a_connection_that_never_ran_closes_even_when_cancelled() -> None:
    ours, raw = trio.testing.memory_stream_pair()
    tested = side(ours, Role.DIALER)
    with trio.CancelScope() as scope:
        scope.cancel()
        await tested.connection.aclose()
    assert scope.cancelled_caught
    assert await raw.receive_some() == b""


async def test_it_runs_only_once() -> None:
    async with running_pair() as (dialer, _):
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await dialer.connection.run(dialer.accept)


async def test_what_goes_wrong_in_accepting_is_not_hidden() -> None:
    async with against_bytes() as (tested, raw):

        def refuse(_: MuxedStream) -> None:
            raise KeyError("a bug")

        tested.on_accept = refuse
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0))
        await raw.send_eof()
        await tested.ended.wait()
        assert isinstance(tested.error, KeyError)


# ---- breaking ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 0x1006, 2**32 - 1])
async def test_y15_a_remote_that_goes_away_ends_the_connection_in_good_order(code: int) -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0) + encode(GO_AWAY, 0, 0, code))
        await tested.ended.wait()
        assert tested.error is None
        assert await raw.receive_some() == b""
        with pytest.raises(ConnectionLost, match=f"{code:#x}"):
            await tested.accepted[0].receive_some()


class Sticky(PassingOn):
    """A stream that takes its time to close."""

    async def aclose(self) -> None:
        try:
            await trio.sleep(0.5)
        finally:
            await super().aclose()


async def test_a_connection_is_over_as_soon_as_its_remote_has_said_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Though it takes a while until the stream below is closed."""
    ours, raw = trio.testing.memory_stream_pair()
    tested = side(Sticky(ours), Role.LISTENER, Yamux(grace=1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        await trio.testing.wait_all_tasks_blocked()
        assert not tested.connection.is_over
        await raw.send_all(encode(GO_AWAY, 0, 0, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert not tested.ended.is_set()
        assert tested.connection.is_over
        with pytest.raises(ConnectionLost):
            await tested.connection.open_stream()


@pytest.mark.parametrize("code", [1, 2])
async def test_y15_a_remote_that_complains_breaks_the_connection(code: int) -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(encode(GO_AWAY, 0, 0, code))
        await tested.ended.wait()
        assert isinstance(tested.error, ConnectionLost)
        assert f"code {code}" in str(tested.error)


async def test_y15_hanging_up_with_open_streams_is_a_loss_and_without_is_good_order() -> None:
    for streams, expected in ((1, ConnectionLost), (0, type(None))):
        async with against_bytes() as (tested, raw):
            for _ in range(streams):
                await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0))
            await raw.send_eof()
            await tested.ended.wait()
            assert isinstance(tested.error, expected)
            for stream in tested.accepted:
                with pytest.raises(ConnectionLost):
                    await stream.receive_some()


async def test_hanging_up_within_a_frame_is_a_loss() -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(bytes(5))
        await raw.send_eof()
        await tested.ended.wait()
        assert isinstance(tested.error, ConnectionLost)


async def test_y19_a_remote_that_breaks_a_rule_is_told_so() -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0) + b"\7" * 100)
        assert headers(await raw.receive_some())[-1] == Header(GO_AWAY, 0, 0, 1)
        await raw.send_all(b"\7" * 100)
        await raw.send_eof()
        await tested.ended.wait()
        assert isinstance(tested.error, ProtocolError)


class Cursed(trio.abc.ReceiveStream):
    """Breaks in the midst of reading."""

    def __init__(self, chunks: list[bytes], error: Exception) -> None:
        self._chunks = chunks
        self._error = error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._chunks:
            return self._chunks.pop()
        raise self._error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (trio.BrokenResourceError("the cable broke"), ConnectionLost),
        (StreamReset("the relay left"), ConnectionLost),
        (SecurityError("somebody changed a byte"), SecurityError),
        (ProtocolError("/noise", "an empty message"), ProtocolError),
    ],
)
async def test_when_the_stream_below_breaks_all_is_lost_and_the_reason_is_told(
    error: Exception, raised: type[Exception]
) -> None:
    sink, _ = trio.testing.memory_stream_one_way_pair()
    syn = encode(WINDOW_UPDATE, SYN, 1, 0)
    tested = side(trio.StapledStream(sink, Cursed([syn], error)), Role.LISTENER)
    await tested.run()
    assert type(tested.error) is raised
    assert str(error) in str(tested.error)
    with pytest.raises(ConnectionLost, match=re.escape(str(error))):
        await tested.accepted[0].receive_some()


class BrokenPipe(trio.abc.SendStream):
    """Fails to send, as a socket does whose remote has closed."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("broken pipe")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_the_last_words_of_a_remote_are_heard_when_nothing_can_be_sent_any_more() -> None:
    raw, ours = trio.testing.memory_stream_one_way_pair()
    tested = side(trio.StapledStream(BrokenPipe(), ours), Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0) + encode(PING, SYN, 0, 0))
        await trio.testing.wait_all_tasks_blocked()
        await raw.send_all(encode(DATA, 4, 1, 4) + b"last" + encode(GO_AWAY, 0, 0, 0))
        await tested.ended.wait()
        assert tested.error is None
        assert [await tested.accepted[0].receive_some() for _ in "ab"] == [b"last", b""]


async def test_a_remote_that_takes_nothing_and_says_nothing_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, ours = trio.testing.memory_stream_one_way_pair()
    tested = side(trio.StapledStream(BrokenPipe(), ours), Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        stream = await tested.connection.open_stream()
        await stream.send_all(b"hello?")
        with pytest.raises(ConnectionLost):
            await stream.receive_some()
        await tested.ended.wait()
        assert isinstance(tested.error, ConnectionLost)
        assert "broken pipe" in str(tested.error)
        assert trio.current_time() == 1.0
