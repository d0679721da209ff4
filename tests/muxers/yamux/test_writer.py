"""Who sends: the task that wrote, if it is little and nobody has to wait, or the writer's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.prompt import Prompt, SendNow
from p2pnet.errors import ConnectionLost
from p2pnet.interfaces import MuxedStream, Role
from p2pnet.muxers.yamux.messages import (
    DATA,
    HEADER_BYTES,
    INITIAL_WINDOW,
    SYN,
    WINDOW_UPDATE,
    encode,
)
from p2pnet.muxers.yamux.writer import CROWD, LITTLE_BYTES, PROMPT_BYTES, PROMPT_SENDS, cuts
from tests.muxers.yamux.ends import Side, running_pair, side


class PromptEnd(trio.abc.Stream, Prompt):
    """One end of a stream that takes what there is room for at once, and keeps what is left."""

    def __init__(self) -> None:
        self.other = self
        self.room = 1 << 30
        self.is_broken = False
        self.sent: list[bytes] = []
        self.senders: list[str] = []
        self._kept = b""
        self._inbox = bytearray()
        self._arrived = trio.lowlevel.ParkingLot()
        self._roomier = trio.lowlevel.ParkingLot()
        self._is_closed = False

    def prompt_sender(self) -> SendNow:
        return self._send_now

    def _send_now(self, data: bytes | bytearray) -> bool:
        if self.is_broken:
            raise trio.BrokenResourceError("it broke")
        assert not self._kept
        self._kept = self._put(bytes(data))
        return not self._kept

    def _put(self, data: bytes) -> bytes:
        part, rest = data[: self.room], data[self.room :]
        self.room -= len(part)
        if part:
            self.sent.append(part)
            self.senders.append(trio.lowlevel.current_task().name)
            self.other.take(part)
        return rest

    def take(self, data: bytes) -> None:
        self._inbox += data
        self._arrived.unpark_all()

    def give_room(self, size: int) -> None:
        self.room += size
        self._roomier.unpark_all()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = self._put(self._kept + bytes(data))
        self._kept = b""
        while rest:
            await self._roomier.park()
            rest = self._put(rest)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._inbox and not self.other._is_closed:
            await self._arrived.park()
        data = bytes(self._inbox[:max_bytes])
        del self._inbox[: len(data)]
        return data

    async def aclose(self) -> None:
        self._is_closed = True
        self._arrived.unpark_all()
        self.other._arrived.unpark_all()
        await trio.lowlevel.checkpoint()


def prompt_pair() -> tuple[PromptEnd, PromptEnd]:
    one, two = PromptEnd(), PromptEnd()
    one.other, two.other = two, one
    return one, two


@asynccontextmanager
async def dialer_and_raw() -> AsyncIterator[tuple[Side, PromptEnd, PromptEnd]]:
    """A running dialer, the stream below it, and its raw other end."""
    below, raw = prompt_pair()
    dialer = side(below, Role.DIALER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        await trio.testing.wait_all_tasks_blocked()
        yield dialer, below, raw
        await raw.aclose()
        nursery.cancel_scope.cancel()


ME = "a sender"


async def send_from_a_task(stream: MuxedStream, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data, name=ME)


async def test_a_little_is_sent_by_the_task_that_wrote_it_along_with_what_waited() -> None:
    async with dialer_and_raw() as (dialer, below, raw):
        stream = await dialer.connection.open_stream()
        await send_from_a_task(stream, b"hello")
        assert below.senders == [ME]
        syn = encode(WINDOW_UPDATE, SYN, 1, 0)
        assert await raw.receive_some() == syn + encode(DATA, 0, 1, 5) + b"hello"


async def test_much_is_left_to_the_writers_task() -> None:
    async with dialer_and_raw() as (dialer, below, _):
        stream = await dialer.connection.open_stream()
        await send_from_a_task(stream, bytes(PROMPT_BYTES + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert below.senders
        assert ME not in below.senders


async def test_the_last_bytes_of_a_frame_are_not_sent_alone() -> None:
    async with dialer_and_raw() as (dialer, below, _):
        stream = await dialer.connection.open_stream()
        await stream.send_all(bytes(INITIAL_WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        assert sum(map(len, below.sent)) > INITIAL_WINDOW
        assert min(map(len, below.sent)) > LITTLE_BYTES


@given(st.integers(0, 1 << 20), st.integers(LITTLE_BYTES, 1 << 18))
def test_pieces_are_whole_in_order_and_none_small_but_one_alone(length: int, size: int) -> None:
    pieces = list(cuts(length, size))
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
    assert pieces[-1][1] == length
    sizes = [end - start for start, end in pieces]
    assert max(sizes) <= size + LITTLE_BYTES
    assert len(sizes) == 1 or min(sizes) > LITTLE_BYTES or min(sizes) == size


async def test_after_some_in_a_row_the_writers_task_takes_a_turn() -> None:
    async with dialer_and_raw() as (dialer, below, _):
        stream = await dialer.connection.open_stream()
        for _ in range(2 * PROMPT_SENDS + 2):
            await send_from_a_task(stream, b"x")
            await trio.testing.wait_all_tasks_blocked()
        row = [True] * PROMPT_SENDS + [False]
        assert [name == ME for name in below.senders] == row * 2


async def test_what_did_not_fit_goes_first_whoever_sends_next_or_gives_up() -> None:
    async with dialer_and_raw() as (dialer, below, raw):
        stream = await dialer.connection.open_stream()
        below.room = HEADER_BYTES + HEADER_BYTES + 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_from_a_task, stream, b"hello")
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await stream.send_all(b"more")
        assert len(await raw.receive_some()) == 2 * HEADER_BYTES + 2
        below.give_room(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert await raw.receive_some() == b"llo" + encode(DATA, 0, 1, 4) + b"more"


async def test_what_did_not_fit_goes_out_though_nothing_follows_and_before_the_goodbye() -> None:
    async with dialer_and_raw() as (dialer, below, raw):
        stream = await dialer.connection.open_stream()
        below.room = HEADER_BYTES
        await stream.send_all(b"hello")
        await raw.receive_some()
        below.give_room(10)
        await trio.testing.wait_all_tasks_blocked()
        assert await raw.receive_some() == encode(DATA, 0, 1, 5)[:10]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.connection.aclose)
            await trio.testing.wait_all_tasks_blocked()
            below.give_room(1000)
            await raw.aclose()
        assert bytes(raw._inbox).startswith(encode(DATA, 0, 1, 5)[10:] + b"hello")
        assert len(raw._inbox) > 2 + 5


async def test_answers_to_one_are_sent_at_once_and_answers_to_a_crowd_together() -> None:
    async def echo(stream: MuxedStream) -> None:
        await stream.send_all(await stream.receive_some())

    below, raw = prompt_pair()
    listener = side(below, Role.LISTENER)
    async with trio.open_nursery() as nursery:
        listener.on_accept = lambda stream: nursery.start_soon(echo, stream, name=ME)
        nursery.start_soon(listener.run)
        await trio.testing.wait_all_tasks_blocked()
        for number, count in ((1, 1), (3, CROWD)):
            frames = [
                encode(DATA, SYN, each, 1) + b"x" for each in range(number, number + 2 * count, 2)
            ]
            await raw.send_all(b"".join(frames))
            await trio.testing.wait_all_tasks_blocked()
        assert len(below.sent) == 2
        assert [name == ME for name in below.senders] == [True, False]
        nursery.cancel_scope.cancel()


async def test_a_stream_that_breaks_under_a_sender_ends_the_connection_not_the_sender() -> None:
    async with dialer_and_raw() as (dialer, below, _):
        stream = await dialer.connection.open_stream()
        below.is_broken = True
        await stream.send_all(b"hello")
        with trio.fail_after(5):
            await dialer.ended.wait()
        assert isinstance(dialer.error, ConnectionLost)
        with pytest.raises(ConnectionLost):
            await stream.send_all(b"more")


async def test_many_streams_over_prompt_ends_lose_nothing() -> None:
    async def echo(stream: MuxedStream) -> None:
        async with stream:
            while data := await stream.receive_some():
                await stream.send_all(data)

    async def ask(dialer: Side, size: int) -> None:
        async with await dialer.connection.open_stream() as stream:
            await stream.send_all(bytes(size))
            await stream.send_eof()
            got = 0
            while data := await stream.receive_some():
                got += len(data)
            assert got == size

    pair = running_pair(below=prompt_pair())
    async with pair as (dialer, listener), trio.open_nursery() as handlers:
        listener.on_accept = lambda stream: handlers.start_soon(echo, stream)
        async with trio.open_nursery() as asking:
            for number in range(60):
                asking.start_soon(ask, dialer, 1 + number * 997)
        handlers.cancel_scope.cancel()
