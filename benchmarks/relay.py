"""What a relay costs: memory for each reservation and circuit, measured on loopback.

The relay runs in a process of its own, its clients in this one. ``python -m benchmarks.relay``
takes about a minute; ``--quick`` a tenth of everybody. Then one circuit carries bulk over another
relay: what does its processor do, beside that of an end? The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import trio

from benchmarks.processes import processor_seconds
from benchmarks.server import MEMORY, SINK, serve_memory, serve_sink
from p2pnet import Host, HostConfig, RelayClient, Stream, open_host, presets
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.channels import hop_channel
from p2pnet.protocols.relay.dialogue import reserve
from p2pnet.protocols.relay.messages import HOP

RESERVATIONS, CIRCUITS = 1000, 200
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
STATISTICS = "/p2pnet/bench/relay/1.0.0"
BUSY_SECONDS = 10.0
CHUNK = bytes(16_384)
BULK_BYTES, BULK_ROUNDS = 256 * 2**20, 5
BLOCK = bytes(262_144)
ECHO = "/p2pnet/bench/echo/1.0.0"
LIMITS = RelayServer(
    max_reservations=RESERVATIONS,
    max_reservations_per_prefix=RESERVATIONS,
    max_circuits_per_prefix=CIRCUITS,
    circuit_seconds=None,
    circuit_bytes=None,
    requests_per_minute_per_prefix=1e6,
)
"""All clients come from one address: what is asked per network has to allow them all."""
DIALS_AT_ONCE = 16
JOINING_SECONDS = 60.0


# ---- the relay ---------------------------------------------------------------------------


async def serve_relay() -> None:
    async with open_host(presets.relay(listen=[LOOPBACK], limits=LIMITS)) as host:

        async def tell(stream: Stream) -> None:
            now = host.service(RelayServer).statistics()
            told = [now.reservations, now.circuits, now.most_buffered_bytes]
            await stream.send_all(json.dumps(told).encode())
            await stream.send_eof()

        for protocol, handler in ((MEMORY, serve_memory), (STATISTICS, tell), (SINK, serve_sink)):
            host.handle(protocol, handler)
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
            with trio.fail_after(JOINING_SECONDS):
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


async def processor_of_bulk(relay: str, pid: int) -> dict[str, float]:
    """Have bytes go to the relay itself and through it, by turns; what does the processor do?

    A relay opens what comes and seals it again; each end of a direct connection does one of the
    two, so that half of what an end does is the most that a relay can. Each end of a circuit
    does one of them twice: for the relay, and for the other end.
    """
    ends, carried, far_ends = list[float](), list[float](), list[float]()
    async with open_host(client()) as source, open_host(client(relays=(relay,))) as target:
        target.handle(SINK, serve_sink)
        await target.addresses.wait_for(bool)
        through = f"{relay}/p2p-circuit/p2p/{target.peer_id}"
        for _ in range(1 + BULK_ROUNDS):
            ours, its = await seconds_of_bulk(pid, source, relay)
            ends.append((ours + its) / 2)
            theirs, its = await seconds_of_bulk(pid, source, through)
            carried.append(its)
            far_ends.append(theirs / 2)

    def share(of: list[float]) -> float:
        pairs = zip(carried[1:], of[1:], strict=True)  # The first round warms up.
        return round(statistics.median([end / through_it for through_it, end in pairs]), 2)

    return {
        "mb_per_cpu_s_as_end": round(BULK_BYTES / 1e6 / statistics.median(ends[1:])),
        "mb_per_cpu_s_as_relay": round(BULK_BYTES / 1e6 / statistics.median(carried[1:])),
        "relay_to_end": share(ends),
        "relay_to_end_of_circuit": share(far_ends),
    }


async def seconds_of_bulk(pid: int, source: Host, address: str) -> tuple[float, float]:
    """Send bulk on a new stream; return what this process used for it, and what that one did."""
    before = time.process_time(), processor_seconds(pid)
    async with await source.open_stream(address, SINK, limited="allow") as stream:
        for _ in range(BULK_BYTES // len(BLOCK)):
            await stream.send_all(BLOCK)
        await stream.send_eof()
        await stream.receive_some(8)
    return time.process_time() - before[0], processor_seconds(pid) - before[1]


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
    ensure("reservations", held, reservations)
    ensure("circuits", open_, circuits)
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


def ensure(what: str, reached: int, wanted: int) -> None:
    """Raise RuntimeError if the relay carried less than is measured."""
    if reached < wanted:
        raise RuntimeError(f"the relay had {reached} {what} at the end, not {wanted}")


@asynccontextmanager
async def crowd_around(address: str) -> AsyncGenerator[tuple[Relay, Crowd], None]:
    async with open_host(presets.minimal()) as host, trio.open_nursery() as nursery:
        yield Relay(host, address), Crowd(nursery)
        nursery.cancel_scope.cancel()


async def run(address: str, part: int) -> dict[str, float]:
    async with crowd_around(address) as (relay, crowd):
        return await measure(relay, crowd, part=part)


@contextmanager
def serving() -> Generator[tuple[str, int], None, None]:
    """Run a relay in a process of its own; its address, and its process."""
    command = [sys.executable, "-m", "benchmarks.relay", "--serve"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as server:
        try:
            yield (server.stdout.readline() if server.stdout else "").strip(), server.pid
        finally:
            server.kill()


def main(arguments: list[str]) -> None:
    if "--serve" in arguments:
        trio.run(serve_relay)
        return
    with serving() as (address, _):
        result = trio.run(run, address, 10 if "--quick" in arguments else 1)
    with serving() as (address, pid):  # A new one: bulk leaves its traces in memory.
        result |= trio.run(processor_of_bulk, address, pid)
    for name, value in result.items():
        print(f"{name:24} {value:>12}")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
