"""How cost grows with the work: connections, streams, sizes of messages, and delay of the line.

The server runs in a process of its own; the lines with delay are simulated, in virtual time.
``python -m benchmarks.growth`` takes a few minutes, ``--quick`` a tenth of everything. The last
line is JSON; the curves are drawn on log axes into ``benchmarks/results``. A straight line that
rises by one decade in one is cost in proportion; none may bend upward.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from math import log

import trio

from benchmarks.compare import RESULTS, plot
from benchmarks.processes import processor_seconds
from benchmarks.server import MEMORY, SINK, serve_memory, serve_sink
from p2pnet import Connection, Host, Identify, Stream, open_host, presets
from p2pnet.commands.echo import ECHO, serve_echo
from p2pnet.muxers.yamux import Yamux
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.links import Quality
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.tcp import TcpConfig
from p2pnet.testing.world import World

MIB = 1024 * 1024
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ANYWHERE = "/ip4/0.0.0.0/tcp/4001"
MANY = 20_000
ROOM = SwarmConfig(
    max_connections=MANY,
    high_connections=MANY,
    low_connections=MANY,
    max_peers=MANY,
    max_inbound_streams=500,
)
STREAMS_PER_CONNECTION = 250
CONNECTIONS = (10, 30, 100, 300, 1000, 3000, 5000)
STREAMS = (10, 30, 100, 300, 1000, 3000, 10_000)
SIZES = (1, 32, 1024, 16_384, 262_144, MIB, 4 * MIB)
ROUND_TRIPS = (0.002, 0.02, 0.08, 0.2)
GIGABIT = 125e6
QUIET_SECONDS, IDLE_SECONDS = 30.0, 60.0
"""The first pings come when a connection has been quiet for 30 s, and then every 30 s."""
IDLE_CONNECTIONS = 1000
STEEPEST = 1.2
"""Cost in proportion rises by 1 on log axes; so much more is noise."""
Points = list[tuple[float, float]]


# ---- the server --------------------------------------------------------------------------


async def serve() -> None:
    config = replace(
        presets.minimal(listen=[LOOPBACK]), swarm=ROOM, muxers=[Yamux(max_streams=512)]
    )
    async with open_host(config) as host:
        for protocol, handler in ((MEMORY, serve_memory), (ECHO, serve_echo), (SINK, serve_sink)):
            host.handle(protocol, handler)
        print(host.addresses.value[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


class Server:
    """The other end, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._pid = process.pid
        self.address = (process.stdout.readline() if process.stdout else "").strip()

    def processor_seconds(self) -> float:
        return processor_seconds(self._pid)


@contextmanager
def serving() -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.growth", "--serve"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        yield Server(process)
        if process.stdin is not None:
            process.stdin.close()


# ---- what is measured --------------------------------------------------------------------


async def resident(host: Host, server: str) -> int:
    async with await host.open_stream(server, MEMORY) as stream:
        return int.from_bytes(await stream.receive_some(8))


@asynccontextmanager
async def caller(server: str) -> AsyncGenerator[tuple[Host, Connection]]:
    async with open_host(replace(presets.minimal(), swarm=ROOM)) as host:
        connection = await host.connect(server)
        await host.service(Identify).wait_identified(connection)
        yield host, connection


async def grow_connections(server: Server, counts: tuple[int, ...]) -> dict[str, Points]:
    """Hold more and more idle connections, each of a host of its own."""
    seconds: Points = []
    memory: Points = []
    idle: Points = []
    async with AsyncExitStack() as held:
        watcher, _ = await held.enter_async_context(caller(server.address))
        before = await resident(watcher, server.address)
        began, made = time.perf_counter(), 0
        for count in counts:
            while made < count:
                await held.enter_async_context(caller(server.address))
                made += 1
            seconds.append((count, time.perf_counter() - began))
            memory.append((count, await resident(watcher, server.address) - before))
            if count == IDLE_CONNECTIONS:
                await trio.sleep(QUIET_SECONDS)
                spent = server.processor_seconds()
                await trio.sleep(IDLE_SECONDS)
                idle.append((count, (server.processor_seconds() - spent) / IDLE_SECONDS))
                began += QUIET_SECONDS + IDLE_SECONDS
    return {
        "seconds for so many connections": seconds,
        "bytes of the listener for so many idle connections": memory,
        "cores that the listener's idle connections take": idle,
    }


async def grow_streams(server: Server, counts: tuple[int, ...]) -> dict[str, Points]:
    """Hold more and more open streams, 250 on a connection."""
    seconds: Points = []
    memory: Points = []
    async with AsyncExitStack() as held:
        hosts = [
            await held.enter_async_context(caller(server.address))
            for _ in range(-(-counts[-1] // STREAMS_PER_CONNECTION))
        ]
        before = await resident(hosts[0][0], server.address)
        began, streams = time.perf_counter(), list[Stream]()
        for count in counts:
            while len(streams) < count:
                _, connection = hosts[len(streams) // STREAMS_PER_CONNECTION]
                stream = await connection.open_stream(ECHO)
                await stream.send_all(b"x")
                await stream.receive_some(1)
                streams.append(stream)
            seconds.append((count, time.perf_counter() - began))
            memory.append((count, await resident(hosts[0][0], server.address) - before))
        for stream in streams:
            stream.reset()
    return {
        "seconds for so many open streams": seconds,
        "bytes of the listener for so many open streams": memory,
    }


async def grow_messages(server: Server, sizes: tuple[int, ...]) -> dict[str, Points]:
    """Send larger and larger messages there and back."""
    points: Points = []
    memory: Points = []
    async with caller(server.address) as (host, connection):
        before = await resident(host, server.address)
        async with await connection.open_stream(ECHO) as stream:
            for size in sizes:
                points.append((size, min([await there_and_back(stream, size) for _ in range(7)])))
                memory.append((size, await resident(host, server.address) - before))
    return {
        "seconds for a message of so many bytes there and back": points,
        "bytes of the listener after messages of so many bytes": memory,
    }


async def there_and_back(stream: Stream, size: int) -> float:
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(size))
        received = 0
        while received < size:
            received += len(await stream.receive_some())
    return time.perf_counter() - began


async def over_delay(round_trip: float, seconds: float) -> float:
    """Return the share of a simulated gigabit that one stream fills in its last virtual second."""
    quality = Quality(latency=round_trip / 4, bandwidth=8 * GIGABIT, queue_bytes=64 * MIB, mtu=9000)
    tcp = TcpConfig(receive_bytes=64 * MIB, send_bytes=64 * MIB)
    arrived: Points = [(0.0, 0)]

    async def drain(stream: Stream) -> None:
        async for chunk in stream:
            arrived.append((trio.current_time(), arrived[-1][1] + len(chunk)))

    async with World(seed=1, tcp=tcp) as world:
        there = await world.host(
            presets.minimal(listen=[ANYWHERE]), link=quality, families=IPV4_ONLY
        )
        here = await world.host(presets.minimal(), link=quality, families=IPV4_ONLY)
        there.host.handle(SINK, drain)
        async with await here.host.open_stream(there.address, SINK) as stream:
            until = trio.current_time() + seconds
            while trio.current_time() < until:
                await stream.send_all(bytes(262_144))
            stream.reset()
    late = [entry for entry in arrived if entry[0] > arrived[-1][0] - 1.0]
    return (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0]) / GIGABIT


def grow_delays(round_trips: tuple[float, ...], seconds: float) -> dict[str, Points]:
    points: Points = []
    for round_trip in round_trips:

        async def measure(round_trip: float = round_trip) -> float:
            return await over_delay(round_trip, seconds)

        points.append((round_trip, run(measure)))
    return {"share of a gigabit that a stream fills over such a round trip": points}


def steepness(points: Points) -> float:
    """Return how a curve rises over its last decade on log axes; 1 is in proportion."""
    last, top = points[-1]
    positive = [point for point in points if point[1] > 0 and point[0] < last]
    if top <= 0 or not positive:
        return 0.0
    decade = [point for point in positive if point[0] >= last / 10]
    first, bottom = decade[0] if decade else positive[-1]
    return log(top / bottom) / log(last / first)


def judge(curves: dict[str, Points]) -> list[str]:
    """Return a line for each curve that bends upward."""
    return [
        f"bends upward: {title}: {steep:.2f} decades in one"
        for title, points in curves.items()
        if points and (steep := steepness(points)) > STEEPEST
    ]


def main(quick: bool) -> None:
    part = 4 if quick else len(CONNECTIONS)
    curves: dict[str, Points] = {}
    for grow, steps in (
        (grow_messages, SIZES),
        (grow_streams, STREAMS[:part]),
        (grow_connections, CONNECTIONS[:part]),
    ):
        with serving() as server:
            curves |= trio.run(grow, server, steps)
    curves |= grow_delays(ROUND_TRIPS[:2] if quick else ROUND_TRIPS, 1.5 if quick else 5.0)
    for title, points in curves.items():
        print(title)
        for amount, value in points:
            print(f"  {amount:>12,g}  {value:>14,.6g}")
    print("\n".join(judge(curves)) or "no curve bends upward")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "growth.json"
    path.write_text(json.dumps(curves, indent=1))
    plot(path, "benchmarks.growth_plot")
    print(json.dumps(curves))


if __name__ == "__main__":
    if "--serve" in sys.argv:
        trio.run(serve)
    else:
        main("--quick" in sys.argv)
