"""What a relay costs: memory for each reservation and circuit, measured on loopback.

The relay runs in a process of its own, its clients in this one. ``python -m benchmarks.relay``
takes about a minute; ``--quick`` a tenth of everybody. The last line is JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from benchmarks.server import MEMORY, serve_memory
from p2pnet import Host, HostConfig, RelayClient, Stream, open_host, presets
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.channels import hop_channel
from p2pnet.protocols.relay.dialogue import reserve
from p2pnet.protocols.relay.messages import HOP
from p2pnet.swarm.config import SwarmConfig

RESERVATIONS, CIRCUITS = 1000, 200
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
STATISTICS = "/p2pnet/bench/relay/1.0.0"
BUSY_SECONDS = 10.0
CHUNK = bytes(16_384)
ECHO = "/p2pnet/bench/echo/1.0.0"
LIMITS = RelayServer(
    max_reservations=RESERVATIONS,
    max_reservations_per_prefix=RESERVATIONS,
    max_circuits_per_prefix=CIRCUITS,
    circuit_seconds=None,
    circuit_bytes=None,
    requests_per_minute_per_prefix=1e6,
)
ROOM = SwarmConfig(max_connections=4096, high_connections=4096, low_connections=4096)
DIALS_AT_ONCE = 16


# ---- the relay ---------------------------------------------------------------------------


async def serve_relay() -> None:
    config = replace(presets.relay(listen=[LOOPBACK], limits=LIMITS), swarm=ROOM)
    async with open_host(config) as host:

        async def tell(stream: Stream) -> None:
            now = host.service(RelayServer).statistics()
            told = [now.reservations, now.circuits, now.most_buffered_bytes]
            await stream.send_all(json.dumps(told).encode())
            await stream.send_eof()

        host.handle(MEMORY, serve_memory)
        host.handle(STATISTICS, tell)
        print(host.addresses.value[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


@dataclass
class Relay:
    """The relay, as the benchmark asks it."""

    host: Host
    address: str

    async def memory(self) -> int:
        async with await self.host.open_stream(self.address, MEMORY) as stream:
            return int.from_bytes(await stream.receive_some(8), "big")

    async def statistics(self) -> list[int]:
        """Return its reservations, its circuits, and the most bytes it held for them."""
        async with await self.host.open_stream(self.address, STATISTICS) as stream:
            told: list[int] = json.loads(b"".join([chunk async for chunk in stream]))
            return told


# ---- its clients -------------------------------------------------------------------------


def client(*, relays: tuple[str, ...] = ()) -> HostConfig:
    services = [RelayClient(relays=relays, find_relays=False)]
    return replace(presets.minimal(), services=services)


@dataclass
class Crowd:
    """Hosts that stay until the benchmark is over."""

    nursery: trio.Nursery
    hosts: list[Host] = field(default_factory=list)

    async def grow(self, count: int, relay: str, *, reserving: bool) -> None:
        room = trio.CapacityLimiter(DIALS_AT_ONCE)
        async with trio.open_nursery() as joining:
            for _ in range(count):
                joining.start_soon(self._join, relay, reserving, room)

    async def _join(self, relay: str, reserving: bool, room: trio.CapacityLimiter) -> None:
        async with room:
            relays = (relay,) if reserving else ()
            self.hosts.append(await self.nursery.start(self._live, relay, relays))

    async def _live(
        self, relay: str, relays: tuple[str, ...], *, task_status: trio.TaskStatus[Host]
    ) -> None:
        async with open_host(client(relays=relays)) as host:
            host.handle(ECHO, echo)
            if relays:
                await host.addresses.wait_for(bool)
            else:
                await host.connect(relay)
            task_status.started(host)
            await trio.sleep_forever()


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def call(relay: str, source: Host, target: Host, streams: list[Stream]) -> None:
    address = f"{relay}/p2p-circuit/p2p/{target.peer_id}"
    streams.append(await source.open_stream(address, ECHO, limited="allow"))


async def reserve_at(relay: str, host: Host) -> None:
    """Reserve on the connection that is there, so that the memory is of the reservation alone."""
    connection = await host.connect(relay)
    async with await connection.open_stream(HOP) as stream:
        await reserve(hop_channel(stream), connection.peer_id)


async def chat(stream: Stream, until: float, tally: list[int]) -> None:
    """Send chunks there and back until the time is over."""
    while time.perf_counter() < until:
        await stream.send_all(CHUNK)
        left = len(CHUNK)
        while left:
            chunk = await stream.receive_some(left)
            left -= len(chunk)
            if not chunk:
                raise EOFError("the circuit ended")
        tally[0] += 2 * len(CHUNK)


async def measure(relay: Relay, crowd: Crowd, *, part: int) -> dict[str, float]:
    reservations, circuits = RESERVATIONS // part, CIRCUITS // part
    callers_wanted = reservations // 2
    await crowd.grow(20, relay.address, reserving=True)  # All code is loaded by now.
    before, began = await relay.memory(), time.perf_counter()
    await crowd.grow(callers_wanted, relay.address, reserving=False)
    connected, callers = await relay.memory(), crowd.hosts[20:]
    for caller in callers:
        await reserve_at(relay.address, caller)
    reserved = await relay.memory()
    targets = len(crowd.hosts)
    await crowd.grow(reservations - targets, relay.address, reserving=True)
    full, joined = await relay.memory(), time.perf_counter() - began
    streams: list[Stream] = []
    async with trio.open_nursery() as calling:
        for source, target in zip(callers, crowd.hosts[targets : targets + circuits], strict=False):
            calling.start_soon(call, relay.address, source, target, streams)
    idle = await relay.memory()
    tally, until = [0], time.perf_counter() + BUSY_SECONDS / part
    async with trio.open_nursery() as chatting:
        for stream in streams:
            chatting.start_soon(chat, stream, until, tally)
    busy = await relay.memory()
    held, open_, most = await relay.statistics()
    return {
        "reservations": held,
        "circuits": open_,
        "joined_per_s": round((reservations - 20) / joined, 1),
        "kb_per_connection": round((connected - before) / callers_wanted / 1000, 1),
        "kb_per_reservation": round((reserved - connected) / callers_wanted / 1000, 1),
        "kb_per_circuit": round((idle - full) / circuits / 1000, 1),
        "kb_per_busy_circuit": round((busy - full) / circuits / 1000, 1),
        "carried_mib_per_s": round(tally[0] / 2**20 / (BUSY_SECONDS / part), 1),
        "most_buffered_kb": round(most / 1000, 1),
        "relay_mb": round(busy / 1e6, 1),
    }


@asynccontextmanager
async def crowd_around(address: str) -> AsyncGenerator[tuple[Relay, Crowd], None]:
    async with open_host(presets.minimal()) as host, trio.open_nursery() as nursery:
        yield Relay(host, address), Crowd(nursery)
        nursery.cancel_scope.cancel()


async def run(address: str, part: int) -> dict[str, float]:
    async with crowd_around(address) as (relay, crowd):
        return await measure(relay, crowd, part=part)


def main(arguments: list[str]) -> None:
    if "--serve" in arguments:
        trio.run(serve_relay)
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relay", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        if server.stdout is None:
            return
        address = server.stdout.readline().decode().strip()
        result = trio.run(run, address, 10 if "--quick" in arguments else 1)
        for name, value in result.items():
            print(f"{name:20} {value:>12}")
        print(json.dumps(result), flush=True)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
