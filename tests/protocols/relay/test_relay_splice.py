"""The bytes of a circuit: specs/relay.md R21, R23, R32."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.interfaces import CircuitLimit
from p2pnet.protocols.relay.rates import Pace
from p2pnet.protocols.relay.splice import (
    BROKEN,
    ENDED_WELL,
    FINISHED,
    RESET,
    Means,
    Splice,
)
from tests.protocols.memory_streams import MemoryStream, receive_exactly
from tests.protocols.relay.fakes import FakeNet

UNLIMITED = CircuitLimit()
WINDOW = 1_048_576


class Bench:
    """A splice, and the streams at its far ends."""

    def __init__(
        self,
        net: FakeNet,
        limit: CircuitLimit,
        *,
        buffer_bytes: int = 65_536,
        rate: int | None = None,
        rate_in_all: int | None = None,
    ) -> None:
        source, relay, target = net.host(1), net.host(2), net.host(3)
        self.source, near_source = net.connect(source, relay).stream_pair()
        near_target, self.target = net.connect(relay, target).stream_pair()
        self.near = (near_source, near_target)
        self.splice = Splice(
            near_source,
            near_target,
            limit=limit,
            means=Means(buffer_bytes, WINDOW, rate, Pace(rate_in_all)),
        )
        self._over = trio.Event()
        net.nursery.start_soon(self._run)

    async def _run(self) -> None:
        await self.splice.run()
        self._over.set()

    async def finish(self) -> str:
        with trio.fail_after(10_000):
            await self._over.wait()
        return self.splice.reason

    @property
    def was_reset(self) -> bool:
        return all(stream.was_reset for stream in self.near)


async def read_all(stream: MemoryStream) -> bytes:
    data = b""
    async for chunk in stream:
        data += chunk
    return data


async def test_r21_each_direction_ends_by_itself(net: FakeNet, autojump_clock: MockClock) -> None:
    bench = Bench(net, UNLIMITED)
    await bench.source.send_all(b"question")
    await bench.source.send_eof()
    assert await read_all(bench.target) == b"question"
    await trio.sleep(1000)
    await bench.target.send_all(b"answer, late")
    await bench.target.send_eof()
    assert await read_all(bench.source) == b"answer, late"
    assert await bench.finish() == ENDED_WELL
    assert (bench.splice.forward.carried, bench.splice.backward.carried) == (8, 12)
    assert not bench.was_reset


async def test_r23_a_direction_carries_exactly_its_bytes(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, CircuitLimit(data_bytes=1000))
    for near, far in ((bench.source, bench.target), (bench.target, bench.source)):
        await near.send_all(b"x" * 1000)
        assert await receive_exactly(far, 1000) == b"x" * 1000
    await trio.sleep(1)
    assert not bench.splice.reason
    await bench.source.send_all(b"y")
    assert await bench.finish() == "forward: limit of 1000 bytes"
    assert bench.was_reset
    assert (bench.splice.forward.carried, bench.splice.backward.carried) == (1000, 1000)


async def test_r23_the_way_back_has_a_budget_of_its_own(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, CircuitLimit(data_bytes=10))
    await bench.target.send_all(b"x" * 11)
    assert await bench.finish() == "backward: limit of 10 bytes"
    assert bench.splice.backward.carried == 10
    assert bench.was_reset


async def test_r23_a_circuit_may_end_in_good_order_at_its_last_byte(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, CircuitLimit(data_bytes=5))
    for stream in (bench.source, bench.target):
        await stream.send_all(b"12345")
        await stream.send_eof()
    assert await bench.finish() == ENDED_WELL
    assert await read_all(bench.target) == b"12345"


async def test_r23_time_runs_out_for_busy_and_idle_circuits_alike(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    idle, busy = Bench(net, CircuitLimit(seconds=120)), Bench(net, CircuitLimit(seconds=120))

    async def talk() -> None:
        while not busy.splice.reason:
            await busy.source.send_all(b"tick")
            await busy.target.receive_some()
            await trio.sleep(7)

    net.nursery.start_soon(talk)
    for bench in (idle, busy):
        assert await bench.finish() == "time limit of 120 s"
        assert bench.was_reset
    assert trio.current_time() - started == pytest.approx(120, abs=1)


async def test_r21_a_slow_receiver_holds_its_sender_up(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED, buffer_bytes=1000)
    net.nursery.start_soon(bench.source.send_all, bytes(1_000_000))
    await trio.sleep(100)
    window = bench.source.outward.window
    # In the window of the target, in the one of the source, and one chunk between them.
    assert window - 1000 <= bench.splice.forward.carried <= window
    assert bench.target.inward.most == window
    assert bench.source.outward.most <= window
    assert await receive_exactly(bench.target, 1_000_000) == bytes(1_000_000)


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_reset_of_one_end_reaches_the_other(
    net: FakeNet, autojump_clock: MockClock, who: str
) -> None:
    bench = Bench(net, UNLIMITED)
    ended, other = (bench.source, bench.target)[:: 1 if who == "source" else -1]
    await trio.sleep(1)
    ended.reset()
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    assert "reset" in await bench.finish()
    assert bench.was_reset
    assert bench.splice.cause == RESET  # R45


async def test_r45_who_has_said_its_last_need_take_no_more(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED)
    await bench.target.send_eof()
    await trio.sleep(1)
    bench.near[1].outward.reset()
    await bench.source.send_all(b"too late")
    assert await bench.finish() == ENDED_WELL
    assert bench.splice.cause == FINISHED
    assert not bench.was_reset


@pytest.mark.parametrize("has_ended", [True, False])
async def test_r45_a_source_that_leaves_behind_its_last_word_has_finished(
    net: FakeNet, autojump_clock: MockClock, has_ended: bool
) -> None:
    source, near_source = net.connect(net.host(1), net.host(2)).stream_pair()
    near_target, _ = net.connect(net.host(3), net.host(4)).stream_pair()
    splice = Splice(near_source, near_target, limit=UNLIMITED, means=Means(100, WINDOW))
    if has_ended:
        await source.send_eof()
    with trio.move_on_after(5):
        await splice.run()
    assert splice.cause == (FINISHED if has_ended else BROKEN)


async def test_a_receiver_that_is_gone_ends_the_circuit(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED)
    bench.target.reset()
    await bench.source.send_all(b"x")
    assert "reset" in await bench.finish()
    assert bench.was_reset


async def test_a_circuit_that_is_cancelled_leaves_nothing_open(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    source, target = (
        net.connect(net.host(seed), net.host(seed + 1)).stream_pair()[0] for seed in (1, 3)
    )
    splice = Splice(source, target, limit=UNLIMITED, means=Means(100, WINDOW))
    with trio.move_on_after(5):
        await splice.run()
    assert source.was_reset
    assert target.was_reset
    assert splice.reason


async def test_r32_a_circuit_is_as_fast_as_its_rate_and_loses_nothing(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED, rate=1000)
    data = bytes(range(250)) * 400
    started = trio.current_time()
    net.nursery.start_soon(bench.source.send_all, data)
    assert await receive_exactly(bench.target, len(data)) == data
    assert trio.current_time() - started == pytest.approx(100, abs=2)
    # The way back has a pace of its own.
    await bench.target.send_all(b"x" * 100)
    assert await receive_exactly(bench.source, 100) == b"x" * 100
    assert trio.current_time() - started < 102


async def test_r32_both_directions_share_the_rate_of_the_relay(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED, buffer_bytes=500, rate_in_all=1000)
    started = trio.current_time()
    for near in (bench.source, bench.target):
        net.nursery.start_soon(near.send_all, bytes(50_000))
    for far in (bench.target, bench.source):
        assert await receive_exactly(far, 50_000) == bytes(50_000)
    assert trio.current_time() - started == pytest.approx(100, abs=2)


async def test_r21_the_relay_counts_what_it_holds_and_holds_nothing_in_the_end(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = Bench(net, UNLIMITED, buffer_bytes=1000)
    tally = bench.splice._means.tally
    net.nursery.start_soon(bench.source.send_all, bytes(1_000_000))
    await trio.sleep(100)
    assert 0 < tally.buffered <= 1000
    await receive_exactly(bench.target, 1_000_000)
    await trio.sleep(1)
    assert tally.buffered == 0
    assert tally.most_buffered <= 1000
    assert (tally.bytes_forward, tally.bytes_backward) == (1_000_000, 0)
    with trio.move_on_after(1):
        await bench.target.send_all(bytes(1_000_000))
    assert tally.buffered > 0
    bench.source.reset()
    await bench.finish()
    assert tally.buffered == 0
