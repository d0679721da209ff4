"""Y20, Y21: streams of a connection share a slow line, in the simulated internet and its time.

What a line holds before it (64 KiB of queue) and the socket (128 KiB) is nobody's to share: it
is over when it was handed on. All else is the muxer's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from statistics import median

import pytest
import trio
from trio.testing import MockClock

from p2pnet import TLS, Noise, WebSocket, presets
from p2pnet.interfaces import Connection, Part, Security, Stream, Transport
from p2pnet.testing.links import Quality
from p2pnet.testing.tcp import TcpConfig
from p2pnet.testing.world import World
from p2pnet.transports import tcp
from tests.transports.websocket.web_authority import Authority

RATE = 1_000_000
"""Bytes a second; a line of 8 Mbit/s."""
LATENCY = 0.01
QUEUE = 65_536
SOCKET = 131_072
LINE = Quality(latency=LATENCY, bandwidth=8 * RATE, queue_bytes=QUEUE)
TCP = TcpConfig(send_bytes=SOCKET)
BELOW = (QUEUE + SOCKET) / RATE + 4 * LATENCY
"""Seconds that anything takes which is sent behind full buffers; and two round trips."""
ECHO, SINK, DEAF = "/echo/1", "/sink/1", "/deaf/1"
SMALL = 50
WORDS = bytes(200)


AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("a.example")
WEB = WebSocket(certificate=ISSUED.certificate, key=ISSUED.key, authorities=AUTHORITY.pem)
STACKS: dict[str, tuple[str, Part[Transport], Part[Security]]] = {
    "TCP, TLS": ("/ip4/0.0.0.0/tcp/4001", tcp.TCP(), TLS()),
    "WebSocket, Noise": ("/ip4/0.0.0.0/tcp/4001/ws", WebSocket(), Noise()),
    "WebSocket over TLS, TLS": ("/ip4/0.0.0.0/tcp/4001/tls/sni/a.example/ws", WEB, TLS()),
}


@dataclass
class Tally:
    """What arrived at the other side."""

    sunk: dict[int, int] = field(default_factory=dict)

    async def sink(self, stream: Stream) -> None:
        number = len(self.sunk)
        self.sunk[number] = 0
        async for chunk in stream:
            self.sunk[number] += len(chunk)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def be_deaf(stream: Stream) -> None:
    await trio.sleep_forever()


@pytest.fixture
async def world(autojump_clock: MockClock) -> AsyncIterator[World]:
    async with World(seed=1, tcp=TCP) as made:
        yield made


async def connected(world: World, tally: Tally) -> Connection:
    here = await world.host(presets.minimal(), link=LINE)
    there = await world.host(presets.minimal(listen=["/ip4/0.0.0.0/tcp/4001"]))
    there.host.handle(ECHO, echo)
    there.host.handle(SINK, tally.sink)
    there.host.handle(DEAF, be_deaf)
    return await here.host.connect(there.address)


async def pour(connection: Connection, protocol: str) -> None:
    stream = await connection.open_stream(protocol)
    while True:
        await stream.send_all(bytes(1_000_000))


async def ask(connection: Connection, times: list[float], count: int) -> None:
    stream = await connection.open_stream(ECHO)
    for _ in range(count):
        began = trio.current_time()
        await stream.send_all(WORDS)
        heard = 0
        while heard < len(WORDS):
            heard += len(await stream.receive_some())
        times.append(trio.current_time() - began)
    await stream.aclose()


async def echoes_beside(connection: Connection, *greedy: str, count: int = 5) -> list[float]:
    """Return how long the echoes of 50 small streams take beside greedy ones."""
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        for protocol in greedy:
            nursery.start_soon(pour, connection, protocol)
        await trio.sleep(10)
        async with trio.open_nursery() as small:
            for _ in range(SMALL):
                small.start_soon(ask, connection, times, count)
        nursery.cancel_scope.cancel()
    return times


async def test_fifty_small_streams_have_their_share_beside_greedy_ones(world: World) -> None:
    """Y20: a turn of all is 4 greedy ones of 16 KiB, and 50 small ones; it is waited for twice."""
    tally = Tally()
    connection = await connected(world, tally)
    began = trio.current_time()
    times = await echoes_beside(connection, SINK, SINK, SINK, SINK)
    turn = (4 * 16_384 + SMALL * 2 * len(WORDS)) / RATE
    assert len(times) == SMALL * 5
    assert median(times) < BELOW + turn
    assert max(times) < BELOW + 2 * turn
    # The line was not idle for all that, and those who want all of it got the same of it.
    arrived = tally.sunk.values()
    assert sum(arrived) > 0.85 * RATE * (trio.current_time() - began)
    assert max(arrived) < 1.25 * min(arrived)


@pytest.mark.parametrize("stack", STACKS)
async def test_beside_a_greedy_one_they_have_it_over_each_transport(
    stack: str, world: World
) -> None:
    """Y20: a turn is 16 KiB of the greedy one and the 50 small ones; it is waited for twice."""
    tally = Tally()
    address, transport, security = STACKS[stack]
    config = replace(presets.minimal(), transports=[transport], security=[security])
    there = await world.host(replace(config, listen=[address]))
    here = await world.host(config, link=LINE)
    there.host.handle(ECHO, echo)
    there.host.handle(SINK, tally.sink)
    began = trio.current_time()
    place = address.replace("0.0.0.0", there.addresses[0])
    connection = await here.host.connect(f"{place}/p2p/{there.host.peer_id}")
    times = await echoes_beside(connection, SINK)
    turn = (16_384 + SMALL * 2 * len(WORDS)) / RATE
    assert len(times) == SMALL * 5
    assert max(times) < BELOW + 2 * turn
    assert sum(tally.sunk.values()) > 0.85 * RATE * (trio.current_time() - began)


async def test_a_stream_that_nobody_reads_costs_the_others_nothing(world: World) -> None:
    """Y8 Y20."""
    connection = await connected(world, Tally())
    idle = await echoes_beside(connection)
    beside = await echoes_beside(connection, DEAF, DEAF)
    assert max(beside) < max(idle) + 0.02
    loaded = await echoes_beside(connection, SINK, DEAF)
    assert median(loaded) < BELOW + 0.05
