"""Yamux streams as trio streams."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.interfaces import MuxedStream, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.messages import (
    DATA,
    INITIAL_WINDOW,
    SYN,
    WINDOW_UPDATE,
    Header,
    encode,
)
from tests.muxers.yamux.ends import (
    Side,
    against_bytes,
    headers,
    running_pair,
    side,
    stream_pair,
)

MIB = 1_048_576
Below = tuple[trio.abc.Stream, trio.abc.Stream]


@pytest.mark.parametrize(
    "make_below", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair]
)
async def test_it_is_a_half_closeable_stream_by_trios_own_check(
    nursery: trio.Nursery, make_below: Callable[[], Below]
) -> None:
    async def make() -> tuple[MuxedStream, MuxedStream]:
        one, two = make_below()
        dialer, listener = side(one, Role.DIALER), side(two, Role.LISTENER)
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        return await stream_pair(dialer, listener)

    async def make_clogged() -> tuple[MuxedStream, MuxedStream]:
        one, two = await make()
        async with trio.open_nursery() as clogging:
            clogging.start_soon(one.send_all, bytes(2 * INITIAL_WINDOW))
            clogging.start_soon(two.send_all, bytes(2 * INITIAL_WINDOW))
            await trio.testing.wait_all_tasks_blocked()
            clogging.cancel_scope.cancel()
        return one, two

    await trio.testing.check_half_closeable_stream(make, make_clogged)
    nursery.cancel_scope.cancel()


async def test_bytes_go_both_ways_at_once() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        there, back = random.Random(1).randbytes(3 * MIB), random.Random(2).randbytes(2 * MIB)
        results: dict[str, bytes] = {}

        async def send(stream: MuxedStream, data: bytes, step: int) -> None:
            for start in range(0, len(data), step):
                await stream.send_all(memoryview(data)[start : start + step])
            await stream.send_eof()

        async def receive(stream: MuxedStream, name: str, most: int | None) -> None:
            got = bytearray()
            while chunk := await stream.receive_some(most):
                got += chunk
            results[name] = bytes(got)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, one, there, 99_991)
            nursery.start_soon(send, two, back, 1_000_003)
            nursery.start_soon(receive, two, "there", None)
            nursery.start_soon(receive, one, "back", 50_021)
        assert results == {"there": there, "back": back}


async def test_a_slow_reader_gets_every_byte(autojump_clock: trio.testing.MockClock) -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        data = random.Random(3).randbytes(2 * MIB)
        got = bytearray()

        async def send() -> None:
            await one.send_all(data)
            await one.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while chunk := await two.receive_some(9001):
                got += chunk
                await trio.sleep(20)
        assert got == data


async def test_a_reader_that_sleeps_makes_the_sender_wait_and_holds_one_window_of_memory(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = Yamux(max_stream_window=MIB)
    async with running_pair(config) as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        digest, total = hashlib.sha256(), 0
        block = random.Random(4).randbytes(MIB)

        async def send() -> None:
            for _ in range(64):
                await one.send_all(block)
            await one.send_eof()

        def held() -> int:
            sending = dialer.connection._session._outgoing
            receiving = listener.connection._session._streams[1]._inbox
            return len(sending) + sum(map(len, receiving))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for nap in (3600, 0.001, 60):
                await trio.sleep(nap)
                assert INITIAL_WINDOW - 1 <= held() <= MIB + config.max_unsent + config.max_frame
                for _ in range(100):
                    chunk = await two.receive_some(100_000)
                    digest.update(chunk)
                    total += len(chunk)
            while chunk := await two.receive_some():
                digest.update(chunk)
                total += len(chunk)
        assert total == 64 * MIB
        assert digest.digest() == hashlib.sha256(block * 64).digest()


async def test_a_stream_that_is_not_read_does_not_hold_up_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_pair() as (dialer, listener):
        stuck, _ = await stream_pair(dialer, listener)
        one, two = await stream_pair(dialer, listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck.send_all, bytes(MIB))
            for _ in range(100):
                await one.send_all(b"ping")
                assert await two.receive_some() == b"ping"
            nursery.cancel_scope.cancel()


async def test_senders_take_turns_when_the_connection_is_busy() -> None:
    """However much one wants to send, a request on another stream gets through soon."""
    async with running_pair(Yamux(max_frame=4096, max_unsent=8192)) as (dialer, listener):
        got: dict[int, int] = {}

        async def drain(stream: MuxedStream, name: int) -> None:
            while chunk := await stream.receive_some():
                got[name] = got.get(name, 0) + len(chunk)

        async with trio.open_nursery() as nursery:
            for name in range(5):
                one, two = await stream_pair(dialer, listener)
                nursery.start_soon(drain, two, name)
                nursery.start_soon(one.send_all, bytes(64 * MIB))
            while sum(got.values()) < 4 * MIB:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert min(got.values()) > max(got.values()) / 2


async def test_a_cancelled_sender_breaks_nothing_but_its_own_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        with trio.move_on_after(1):
            await one.send_all(b"x" * MIB)
        other, third = await stream_pair(dialer, listener)
        await other.send_all(b"fine")
        assert await third.receive_some() == b"fine"
        await one.send_eof()
        got = 0
        while chunk := await two.receive_some():
            assert set(chunk) == {ord("x")}
            got += len(chunk)
        assert 0 < got < MIB


async def test_a_cancelled_receiver_loses_no_byte() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        got = bytearray()
        for number in range(50):
            await one.send_all(bytes([number]) * 3)
            with trio.CancelScope() as scope:
                if number % 2:
                    scope.cancel()
                got += await two.receive_some(4)
        await one.aclose()
        while chunk := await two.receive_some():
            got += chunk
        assert got == b"".join(bytes([number]) * 3 for number in range(50))


async def test_reset_is_told_to_the_remote_and_ends_both_directions() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await one.send_all(b"void")
        one.reset(0x1007)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StreamReset, match="0x1007"):
            await two.receive_some()
        with pytest.raises(StreamReset):
            await two.send_all(b"x")
        with pytest.raises(StreamReset):
            await two.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_eof()
        one.reset()
        await two.aclose()
        assert not dialer.connection._session._streams
        assert not listener.connection._session._streams


@pytest.mark.parametrize("code", [-1, 2**32])
async def test_a_reset_code_has_32_bits(code: int) -> None:
    async with running_pair() as (dialer, listener):
        one, _ = await stream_pair(dialer, listener)
        with pytest.raises(ValueError, match="32 bits"):
            one.reset(code)


async def blocked_sender(stream: MuxedStream) -> None:
    await stream.send_all(bytes(2 * INITIAL_WINDOW))


async def blocked_receiver(stream: MuxedStream) -> None:
    await stream.receive_some()


@pytest.mark.parametrize("block", [blocked_sender, blocked_receiver])
async def test_whoever_waits_on_a_stream_is_woken_by_a_reset_from_either_end(
    block: Callable[[MuxedStream], Awaitable[None]],
) -> None:
    async with running_pair() as (dialer, listener):
        for ours, error in ((True, trio.ClosedResourceError), (False, StreamReset)):
            one, two = await stream_pair(dialer, listener)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def wait(one: MuxedStream = one, error: type[Exception] = error) -> None:
                    with pytest.raises(error):
                        await block(one)

                await trio.testing.wait_all_tasks_blocked()
                (one if ours else two).reset()


@pytest.mark.parametrize("block", [blocked_sender, blocked_receiver])
async def test_whoever_waits_on_a_stream_is_woken_when_the_connection_breaks(
    block: Callable[[MuxedStream], Awaitable[None]],
) -> None:
    async with running_pair() as (dialer, listener):
        one, _ = await stream_pair(dialer, listener)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(ConnectionLost):
                    await block(one)

            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(dialer.below)
            await listener.below.aclose()


async def test_y9_credit_is_given_while_the_reader_is_busy_with_what_it_read() -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0))
        stream = await tested.next_stream()
        await raw.send_all(encode(DATA, 0, 1, INITIAL_WINDOW) + bytes(INITIAL_WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        read = 0
        while read < INITIAL_WINDOW // 2:
            read += len(await stream.receive_some(INITIAL_WINDOW // 2 - read))
        with trio.fail_after(1):
            sent = headers(await raw.receive_some())
        assert Header(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW // 2) in sent


async def test_the_opener_of_a_stream_that_only_reads_is_heard_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_pair() as (dialer, listener):

        async def greet() -> None:
            stream = await listener.next_stream()
            await stream.send_all(b"welcome")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet)
            stream = await dialer.connection.open_stream()
            assert await stream.receive_some() == b"welcome"
    assert trio.current_time() == 0


async def test_empty_data_is_nothing() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await one.send_all(b"")
        await one.send_all(bytearray())
        await one.send_all(b"x")
        assert await two.receive_some() == b"x"


async def test_memory_of_any_item_size_can_be_sent() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await one.send_all(memoryview(b"12345678").cast("Q"))
        assert await two.receive_some() == b"12345678"


async def test_what_was_handed_over_may_be_changed_at_once() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        data = bytearray(b"before")
        await one.send_all(data)
        data[:] = b"behind"
        assert await two.receive_some() == b"before"


async def test_y16_closing_a_stream_frees_a_remote_that_waits_for_credit() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait() -> None:
                with pytest.raises(StreamReset):
                    await one.send_all(bytes(MIB))

            await trio.testing.wait_all_tasks_blocked()
            await two.aclose()


async def test_an_answer_survives_that_the_request_was_not_read_to_its_end() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await one.send_all(b"a long request")
        await two.send_all(b"no")
        await two.aclose()
        assert await one.receive_some() == b"no"
        assert await one.receive_some() == b""


async def small_ops(side_: Side, other: Side) -> tuple[int, int]:
    """Count the checkpoints of a send and a receive that need not wait."""
    one, two = await stream_pair(side_, other)
    counts = []
    for operation in (one.send_all(b"x"), two.receive_some()):
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().run_sync_soon_queue_size
        assert before == 0
        ticks = Ticks()
        trio.lowlevel.add_instrument(ticks)
        await operation
        trio.lowlevel.remove_instrument(ticks)
        counts.append(ticks.steps)
    return counts[0], counts[1]


class Ticks(trio.abc.Instrument):
    """Counts how often the task that made it goes on."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task is self._task


async def test_an_operation_that_need_not_wait_has_one_checkpoint() -> None:
    async with running_pair() as (dialer, listener):
        assert await small_ops(dialer, listener) == (1, 1)


async def test_who_has_waited_answers_without_another_turn_once() -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, b"question")
            assert await two.receive_some() == b"question"
        ticks = Ticks()
        trio.lowlevel.add_instrument(ticks)
        await two.send_all(b"answer")
        assert ticks.steps == 0
        await two.send_all(b"more")
        assert ticks.steps == 1
        trio.lowlevel.remove_instrument(ticks)
        with trio.CancelScope() as scope:
            scope.cancel()
            await two.send_all(b"never sent")
        assert scope.cancelled_caught
        assert await one.receive_some(10) == b"answermore"


async def test_who_begins_to_handle_a_stream_has_had_its_turn() -> None:
    async with running_pair() as (dialer, listener):
        one = await dialer.connection.open_stream()
        await one.send_all(b"question")
        two = await listener.next_stream()
        await trio.testing.wait_all_tasks_blocked()
        ticks = Ticks()
        trio.lowlevel.add_instrument(ticks)
        assert await two.receive_some(4) == b"ques"
        await two.send_all(b"answer")
        assert ticks.steps == 0
        assert await two.receive_some() == b"tion"
        await two.send_all(b"more")
        assert ticks.steps == 2
        trio.lowlevel.remove_instrument(ticks)
