"""Yamux connections: running, opening, closing, breaking."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from p2pnet.errors import ConnectionLost, LimitExceeded, ProtocolError, StreamReset
from p2pnet.interfaces import MuxedStream, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.messages import (
    ACK,
    DATA,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Header,
    encode,
)
from tests.muxers.yamux.ends import (
    KIT,
    Side,
    against_bytes,
    headers,
    running_pair,
    side,
    stream_pair,
)

MIB = 1_048_576


async def echo(stream: MuxedStream) -> None:
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data)


async def ask(connection_side: Side, size: int = 3) -> None:
    async with await connection_side.connection.open_stream() as stream:
        async with trio.open_nursery() as nursery:
            # Beside the reading: an echo that nobody reads does not read on, either.
            nursery.start_soon(tell, stream, bytes(size))
            got = 0
            while data := await stream.receive_some():
                got += len(data)
        assert got == size


async def tell(stream: MuxedStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


def serve_echo(nursery: trio.Nursery, connection_side: Side) -> None:
    connection_side.on_accept = lambda stream: nursery.start_soon(echo, stream)


async def test_it_is_called_by_its_protocol_id() -> None:
    assert Yamux().build(KIT).protocol_id == "/yamux/1.0.0"


# ---- opening -----------------------------------------------------------------------------


async def test_both_sides_open_streams() -> None:
    async with running_pair() as (dialer, listener), trio.open_nursery() as nursery:
        serve_echo(nursery, dialer)
        serve_echo(nursery, listener)
        for size in (1, 1000, MIB):
            await ask(dialer, size)
            await ask(listener, size)
        nursery.cancel_scope.cancel()


async def test_five_hundred_streams_at_once() -> None:
    async with running_pair() as (dialer, listener), trio.open_nursery() as handlers:
        serve_echo(handlers, listener)
        streams = []
        for number in range(500):
            stream = await dialer.connection.open_stream()
            await stream.send_all(number.to_bytes(2))
            streams.append(stream)
        with pytest.raises(LimitExceeded, match="max_outbound_streams = 500"):
            await dialer.connection.open_stream()
        for number, stream in enumerate(streams):
            assert await stream.receive_some() == number.to_bytes(2)
            await stream.aclose()
        await ask(dialer)
        handlers.cancel_scope.cancel()


async def test_thousands_of_streams_through_a_narrow_gate() -> None:
    """Every opener that waits for an acknowledgement gets its turn."""
    config = Yamux(max_unacknowledged=4)
    async with running_pair(config) as (dialer, listener), trio.open_nursery() as handlers:
        serve_echo(handlers, listener)
        async with trio.open_nursery() as asking:
            for _ in range(300):
                asking.start_soon(ask, dialer)
        handlers.cancel_scope.cancel()


async def test_y17_an_opener_waits_for_acknowledgements_or_for_a_stream_to_be_reset() -> None:
    config = Yamux(max_unacknowledged=2)
    async with against_bytes(Role.DIALER, config) as (dialer, raw):
        first = await dialer.connection.open_stream()
        await dialer.connection.open_stream()
        opened: list[int] = []

        async def open_one(number: int) -> None:
            await dialer.connection.open_stream()
            opened.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(open_one, 2)
            await trio.testing.wait_all_tasks_blocked()
            assert opened == []
            first.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert opened == [1]
            await raw.send_all(encode(WINDOW_UPDATE, ACK, 3, 0))
        assert opened == [1, 2]


async def test_an_opener_that_fails_or_gives_up_leaves_its_turn_to_the_next() -> None:
    config = Yamux(max_unacknowledged=1, max_outbound_streams=2)
    async with against_bytes(Role.DIALER, config) as (dialer, raw):
        await dialer.connection.open_stream()
        outcomes: list[str] = []

        async def open_one() -> None:
            try:
                await dialer.connection.open_stream()
                outcomes.append("opened")
            except LimitExceeded:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(open_one)
            await trio.testing.wait_all_tasks_blocked()
            await raw.send_all(encode(WINDOW_UPDATE, ACK, 1, 0))
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == ["opened"]
            await raw.send_all(encode(WINDOW_UPDATE, ACK, 3, 0))
        assert outcomes == ["opened", "refused", "refused"]


async def test_an_opener_waits_while_the_remote_reads_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below = trio.testing.lockstep_stream_pair()
    dialer = side(below[0], Role.DIALER, Yamux(max_unsent=100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        stream = await dialer.connection.open_stream()
        for _ in range(2):
            await stream.send_all(bytes(100))
            await trio.testing.wait_all_tasks_blocked()
        # One stream has had its share; the connection is full once another has its own, too.
        await (await dialer.connection.open_stream()).send_all(bytes(100))
        with trio.move_on_after(5) as scope:
            await dialer.connection.open_stream()
        assert scope.cancelled_caught
        await below[1].receive_some()
        await (await dialer.connection.open_stream()).send_all(bytes(100))
        await stream.send_all(bytes(100))

        @nursery.start_soon
        async def wait_in_vain() -> None:
            with pytest.raises(ConnectionLost):
                await dialer.connection.open_stream()
            assert not dialer.ended.is_set()

        await trio.testing.wait_all_tasks_blocked()
        await dialer.connection.aclose()


async def test_y5_a_stream_too_many_is_reset_and_the_connection_lives() -> None:
    async with running_pair(Yamux(max_streams=2)) as (dialer, listener):
        pairs = [await stream_pair(dialer, listener) for _ in range(2)]
        extra = await dialer.connection.open_stream()
        await extra.send_all(b"hello?")
        with pytest.raises(StreamReset, match="0x1002"):
            await extra.receive_some()
        for one, two in pairs:
            await one.send_all(b"still here")
            assert await two.receive_some() == b"still here"
        await pairs[0][1].aclose()
        await stream_pair(dialer, listener)


# ---- signs of life -----------------------------------------------------------------------


@pytest.mark.parametrize(("role", "lost_at"), [(Role.DIALER, 43.0), (Role.LISTENER, 45.0)])
async def test_y12_a_silent_remote_is_lost_after_an_unanswered_ping(
    role: Role, lost_at: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with against_bytes(role) as (tested, raw):
        stream = await tested.connection.open_stream()
        with pytest.raises(ConnectionLost, match="no sign of life"):
            await stream.receive_some()
        assert trio.current_time() == lost_at
        await tested.ended.wait()
        assert isinstance(tested.error, ConnectionLost)
        assert headers(await raw.receive_some())[-1] == Header(PING, SYN, 0, 1)


async def test_y11_y12_two_idle_ends_keep_each_other_alive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running_pair() as (dialer, listener):
        one, two = await stream_pair(dialer, listener)
        await trio.sleep(10_000)
        await one.send_all(b"still there?")
        assert await two.receive_some() == b"still there?"


class Steps(trio.abc.Instrument):
    """Counts the turns of tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_y12_one_of_two_idle_ends_pings_and_the_other_sleeps_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A thousand connections do that all the time."""
    steps = Steps()
    async with running_pair():
        await trio.sleep(100)
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(3000)
        trio.lowlevel.remove_instrument(steps)
    assert steps.count / 100 < 15, "28 if both ping, and look whether they were answered"


async def test_y12_a_ping_is_answered_before_the_next_is_due(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whatever the time is that the remote would have had."""
    async with against_bytes(Role.DIALER, Yamux(ping_interval=3.0, ping_timeout=15.0)) as (_, raw):
        for number in range(1, 10):
            assert headers(await raw.receive_some()) == [Header(PING, SYN, 0, number)]
            assert trio.current_time() == pytest.approx(2.8 * number)
            await raw.send_all(encode(PING, ACK, 0, number))


async def test_y12_who_is_told_to_be_alert_wakes_from_the_longer_nap(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """KA11."""
    async with against_bytes(Role.DIALER) as (tested, raw):
        await trio.sleep(2.5)
        tested.connection.stay_alert(8.0)
        assert headers(await raw.receive_some()) == [Header(PING, SYN, 0, 1)]
        assert trio.current_time() == 8.0
        await raw.send_all(encode(PING, ACK, 0, 1))
        await trio.sleep(0.1)
        tested.connection.stay_alert(None)
        await raw.receive_some()
        assert trio.current_time() == 36.0


async def test_y13_a_flood_of_pings_ends_the_connection() -> None:
    async with against_bytes(config=Yamux(max_ping_rate=1.0)) as (tested, raw):
        await raw.send_all(encode(PING, SYN, 0, 0) * 11)
        await raw.send_eof()
        await tested.ended.wait()
        assert isinstance(tested.error, ProtocolError)


# ---- load --------------------------------------------------------------------------------


async def test_two_ends_that_both_send_more_than_fits_do_not_wait_for_each_other() -> None:
    """Below is a pipe without any buffer: a reader that wrote would never read again."""
    async with running_pair(below=trio.testing.lockstep_stream_pair()) as (dialer, listener):
        one, two = await stream_pair(dialer, listener)

        async def send(stream: MuxedStream) -> None:
            await stream.send_all(bytes(2 * MIB))
            await stream.send_eof()

        async def receive(stream: MuxedStream) -> None:
            got = 0
            while data := await stream.receive_some():
                got += len(data)
            assert got == 2 * MIB

        async with trio.open_nursery() as nursery:
            for stream in (one, two):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)


async def test_a_remote_that_never_reads_is_dropped_before_it_fills_our_memory() -> None:
    """Y14: each of its frames wants an answer, and no answer ever leaves."""
    below = trio.testing.lockstep_stream_pair()
    tested = side(below[0], Role.LISTENER, Yamux(max_streams=1, max_control=1200, grace=0.01))
    held = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tested.run)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            for number in range(100_000):
                await below[1].send_all(encode(WINDOW_UPDATE, SYN, 2 * number + 1, 0))
                held = max(held, len(tested.connection._session._outgoing))
        await tested.ended.wait()
        assert isinstance(tested.error, ProtocolError)
        assert 0 < held < 1300


class Torrent(trio.abc.ReceiveStream):
    """Has something to read at once, and then at once again, and never lets others run."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._chunks:
            return self._chunks.pop()
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_many_small_frames_at_once_let_other_tasks_run() -> None:
    chunk = encode(WINDOW_UPDATE, 0, 7, 1) * 100
    sink, _ = trio.testing.memory_stream_one_way_pair()
    tested = side(trio.StapledStream(sink, Torrent([chunk] * 60)), Role.LISTENER)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while not tested.ended.is_set():
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(tested.run)
    assert tested.error is None
    assert turns >= 20


async def test_a_stream_refused_at_once_needs_no_waking_for_what_came_with_it() -> None:
    async with against_bytes() as (tested, raw):
        tested.on_accept = lambda stream: stream.reset(9)
        await raw.send_all(
            encode(WINDOW_UPDATE, SYN, 1, 0) + encode(DATA, 0, 1, 1) + b"x" + encode(1, 0, 1, 5)
        )
        assert headers(await raw.receive_some())[1] == Header(WINDOW_UPDATE, RST, 1, 9)


async def test_a_stream_reset_before_it_was_sent_is_never_half_known() -> None:
    """SYN goes before RST, or the remote would be left with a stream that has no end."""
    async with running_pair() as (dialer, listener):
        stream = await dialer.connection.open_stream()
        stream.reset()
        theirs = await listener.next_stream()
        with pytest.raises(StreamReset):
            await theirs.receive_some()


async def test_resetting_needs_no_waiting_and_reaches_the_remote() -> None:
    async with against_bytes() as (tested, raw):
        await raw.send_all(encode(WINDOW_UPDATE, SYN, 1, 0))
        (await tested.next_stream()).reset(5)
        sent = headers(await raw.receive_some())
        assert sent == [Header(WINDOW_UPDATE, ACK, 1, 0), Header(WINDOW_UPDATE, RST, 1, 5)]
