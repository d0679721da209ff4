"""Measure p2pnet against raw loopback, in a minute: client here, server in another process.

The last line is JSON.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import trio

from benchmarks.server import MEMORY, SINK
from p2pnet import Host, open_host, presets
from p2pnet.commands.echo import ECHO

MIB = 1024 * 1024
BLOCK = bytes(256 * 1024)
IDLE_CONNECTIONS = 50


async def bulk(host: Host, address: str, mib: int) -> float:
    """MiB per second of one stream, one way."""
    async with await host.open_stream(address, SINK) as stream:
        began = time.perf_counter()
        for _ in range(mib * MIB // len(BLOCK)):
            await stream.send_all(BLOCK)
        await stream.send_eof()
        await stream.receive_some(8)
        return mib / (time.perf_counter() - began)


def raw_bulk(port: int, mib: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        began = time.perf_counter()
        for _ in range(mib * MIB // len(BLOCK)):
            sock.sendall(BLOCK)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(8)
        return mib / (time.perf_counter() - began)


async def echo_p50(host: Host, address: str, count: int) -> float:
    """Microseconds for 32 bytes there and back on an open stream."""
    times = []
    async with await host.open_stream(address, ECHO) as stream:
        for _ in range(count):
            began = time.perf_counter()
            await stream.send_all(BLOCK[:32])
            await stream.receive_some(32)
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def streams_per_s(host: Host, address: str, count: int) -> float:
    """New stream, 32 bytes there and back, close; one after another."""
    began = time.perf_counter()
    for _ in range(count):
        async with await host.open_stream(address, ECHO) as stream:
            await stream.send_all(BLOCK[:32])
            await stream.receive_some(32)
    return count / (time.perf_counter() - began)


async def connections_per_s(address: str, count: int) -> float:
    """Dial, secure, multiplex; one after another, each from a host of its own."""
    spent = 0.0
    for _ in range(count):
        async with open_host(presets.minimal()) as host:
            began = time.perf_counter()
            await host.connect(address)
            spent += time.perf_counter() - began
    return count / spent


async def kb_per_connection(host: Host, address: str) -> float:
    """Resident memory that an idle connection costs the server."""
    before = await memory(host, address)
    async with trio.open_nursery() as nursery:
        for _ in range(IDLE_CONNECTIONS):
            await nursery.start(hold, address)
        await trio.sleep(1)
        after = await memory(host, address)
        nursery.cancel_scope.cancel()
    return (after - before) / IDLE_CONNECTIONS / 1000


async def hold(address: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_host(presets.minimal()) as host:
        await host.connect(address)
        task_status.started()
        await trio.sleep_forever()


async def memory(host: Host, address: str) -> int:
    async with await host.open_stream(address, MEMORY) as stream:
        return int.from_bytes(await stream.receive_some(8), "big")


async def median(rounds: int, measure: Callable[[], Awaitable[float]]) -> float:
    return statistics.median([await measure() for _ in range(rounds)])


async def in_turn(
    host: Host, address: str, raw_port: int, rounds: int, mib: int
) -> tuple[list[float], list[float]]:
    """Return the bulk speed of each round, and its ratio to raw sockets.

    In turn, as the machine is not the same from one minute to the next.
    """
    await bulk(host, address, 32)
    speeds, ratios = [], []
    for _ in range(rounds):
        raw = await trio.to_thread.run_sync(raw_bulk, raw_port, mib)
        speeds.append(await bulk(host, address, mib))
        ratios.append(speeds[-1] / raw)
    return speeds, ratios


async def measure(address: str, raw_port: int) -> dict[str, float]:
    async with open_host(presets.minimal()) as host:
        speeds, ratios = await in_turn(host, address, raw_port, 3, 256)
        return {
            "bulk_mib_per_s": round(statistics.median(speeds), 1),
            "bulk_ratio_to_raw": round(statistics.median(ratios), 4),
            "echo_p50_us": round(await echo_p50(host, address, 2000), 1),
            "streams_per_s": round(await median(3, lambda: streams_per_s(host, address, 500)), 1),
            "connections_per_s": round(await connections_per_s(address, 100), 1),
            "kb_per_connection": round(await kb_per_connection(host, address), 1),
        }


@contextmanager
def serving() -> Generator[tuple[str, int], None, None]:
    """Run the other end; its address, and its port of raw sockets."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        told = json.loads(server.stdout.readline()) if server.stdout else {}
        yield told["address"], told["raw_port"]
    finally:
        server.kill()
        server.wait()


def main() -> None:
    with serving() as (address, raw_port):
        result = trio.run(measure, address, raw_port)
    for name, value in result.items():
        print(f"{name:20} {value:>12}")
    print(json.dumps(result))
