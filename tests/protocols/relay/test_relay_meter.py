"""Warnings before a circuit is cut: specs/relay.md R39."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.bus import Subscription
from p2pnet.core.peer_id import PeerId
from p2pnet.events import CircuitNearLimit
from p2pnet.interfaces import CircuitLimit
from p2pnet.protocols.relay.meter import CircuitStream, Meter
from tests.protocols.memory_streams import MemoryStream
from tests.protocols.relay.fakes import FakeNet


@dataclass
class Bench:
    """A circuit of a host to ``peer_id`` over ``relay``, and what it is warned of."""

    relay: PeerId
    peer_id: PeerId
    circuit: CircuitStream
    far: MemoryStream
    warnings: Subscription[CircuitNearLimit]


def bench_of(net: FakeNet, limit: CircuitLimit | None) -> Bench:
    host, relay, other = net.host(1), net.host(100), net.host(2)
    stream, far = net.connect(host, relay).stream_pair()
    warnings = Subscription((CircuitNearLimit,), 100)
    host.bus._readers.append(warnings)
    circuit = Meter(host, net.nursery).watch(stream, other.peer_id, limit)
    return Bench(relay.peer_id, other.peer_id, circuit, far, warnings)


@pytest.mark.parametrize("outward", [True, False])
async def test_r39_at_four_fifths_of_its_bytes_a_circuit_is_warned_of_once(
    net: FakeNet, autojump_clock: MockClock, outward: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench = bench_of(net, CircuitLimit(data_bytes=1000))
    near, far = (bench.circuit, bench.far)[:: 1 if outward else -1]

    async def pass_on(count: int) -> None:
        await near.send_all(bytes(count))
        await far.receive_some(count)

    await pass_on(799)
    # The other direction has bytes of its own.
    await far.send_all(bytes(700))
    await near.receive_some(700)
    assert bench.warnings.take_waiting() == ()
    with caplog.at_level(logging.WARNING, "p2pnet.relay"):
        await pass_on(1)
    expected = CircuitNearLimit(bench.peer_id, bench.relay, "bytes", 800, 1000)
    assert bench.warnings.take_waiting() == (expected,)
    assert "has used 800 of its 1000 bytes" in caplog.text
    await pass_on(100)
    assert bench.warnings.take_waiting() == ()


async def test_r39_at_four_fifths_of_its_time_a_circuit_is_warned_of(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = bench_of(net, CircuitLimit(seconds=120))
    started = trio.current_time()
    warning = await anext(bench.warnings)
    assert trio.current_time() - started == pytest.approx(96, abs=0.1)
    assert warning == CircuitNearLimit(bench.peer_id, bench.relay, "seconds", 96, 120)


async def test_r39_of_a_circuit_that_is_over_nobody_is_warned(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = bench_of(net, CircuitLimit(seconds=120))
    await trio.sleep(10)
    await bench.circuit.aclose()
    await trio.sleep(200)
    assert bench.warnings.take_waiting() == ()
    assert not net.nursery.child_tasks


async def test_r39_without_a_limit_there_is_nothing_to_warn_of(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    bench = bench_of(net, None)
    for _ in range(100):
        await bench.circuit.send_all(bytes(10_000))
        await bench.far.receive_some()
    await trio.sleep(10_000)
    assert bench.warnings.take_waiting() == ()
