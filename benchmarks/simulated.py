"""Measure the simulated internet: wall seconds per virtual hour, and memory per host.

``churn``: hosts behind NATs of all kinds come, meet, talk and go, for a day. ``crowd``: a
thousand hosts with the insecure test security reserve at ten relays, and each calls another.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import psutil
import trio

from p2pnet import DCUtR, Identify, RelayClient, RelayServer, presets
from p2pnet.core.tasks import EXPECTED
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Stream
from p2pnet.testing.insecure import Insecure
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

ECHO = "/p2pnet/echo/1.0.0"
HOUR = 3600.0
LINK = Quality(latency=0.02)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


class Tally:
    """What came of the calls."""

    def __init__(self) -> None:
        self.calls = self.failed = self.direct = 0

    async def call(self, caller: Machine, called: Machine) -> None:
        """Reach a peer by its ID, and send it a kilobyte to send back."""
        self.calls += 1
        try:
            with trio.fail_after(60):
                peer = called.host.peer_id
                await caller.host.connect(peer)
                async with await caller.host.open_stream(peer, ECHO, limited="allow") as stream:
                    await stream.send_all(bytes(1024))
                    await stream.send_eof()
                    received = sum([len(chunk) async for chunk in stream])
                self.failed += received != 1024
                self.direct += not caller.host.connections(peer)[0].is_relayed
        except (*EXPECTED, LookupError):
            # Who is called may have gone a moment ago; a day has many such moments.
            self.failed += 1


async def life(
    world: World, machine: Machine, config: HostConfig, others: list[Machine], tally: Tally
) -> None:
    """Be there for an hour or so, call somebody every half an hour, be away, and again."""
    chance = Random(f"{world.seed} life of {machine.name}")
    await trio.sleep(chance.uniform(0, 60))
    while True:
        await world.start(machine, config)
        machine.host.handle(ECHO, echo)
        with trio.move_on_after(chance.expovariate(1 / HOUR)):
            while True:
                await trio.sleep(chance.expovariate(2 / HOUR))
                there = [other for other in others if other is not machine and other.is_running]
                if there:
                    await tally.call(machine, chance.choice(there))
        if chance.random() < 0.5:
            await machine.stop()
        else:
            await machine.power_off()
        await trio.sleep(chance.expovariate(1 / 600))
        machine.power_on()


async def churn(hosts: int, homes: int, hours: float, seed: int) -> dict[str, float]:
    """Let hosts come and go behind NATs of all kinds."""
    tally = Tally()
    async with World(seed, patience=hours * HOUR + 60) as world:
        server = replace(presets.relay(), services=[Identify(), RelayServer()])
        relays = [await world.host(server, f"relay {n}", link=LINK) for n in range(2)]
        # Who is tested by nobody sends far less, and more of it because somebody came or went.
        services = [Identify(), RelayClient(relays=[relay.address for relay in relays]), DCUtR()]
        config = replace(presets.edge(), services=services)
        kinds = list(KINDS.values())[1:12]
        sites = [world.home(kinds[n % len(kinds)], f"home {n}", link=LINK) for n in range(homes)]
        machines = [
            world.machine(f"host {n}", at=sites[n % homes], families=IPV4_ONLY)
            for n in range(hosts)
        ]
        with trio.move_on_after(hours * HOUR):
            async with trio.open_nursery() as lives:
                for machine in machines:
                    lives.start_soon(life, world, machine, config, machines, tally)
        packets = world.trace.packets
    return {
        "virtual_hours": hours,
        "packets": packets,
        "calls": tally.calls,
        "calls_failed": tally.failed,
        "calls_ended_direct": tally.direct,
    }


async def crowd(hosts: int, relays: int, seed: int) -> dict[str, float]:
    """Let a crowd reserve at a few relays, and each host call another that has the same one."""
    tally = Tally()
    async with World(seed) as world:
        config = replace(presets.relay(), security=[Insecure()])
        between = [await world.host(config, f"relay {n}", link=LINK) for n in range(relays)]
        machines = [
            world.machine(
                f"host {number}",
                at=world.home("port-restricted", f"home {number}", link=LINK),
                families=IPV4_ONLY,
            )
            for number in range(hosts)
        ]

        async def join(number: int) -> None:
            own = presets.edge(relays=[between[number % relays].address])
            await world.start(machines[number], replace(own, security=[Insecure()]))
            machines[number].host.handle(ECHO, echo)

        async with trio.open_nursery() as nursery:
            for number in range(hosts):
                nursery.start_soon(join, number)
        await trio.sleep(10)
        resident = psutil.Process().memory_info().rss
        pairs = [(machine, machines[(n + relays) % hosts]) for n, machine in enumerate(machines)]
        async with trio.open_nursery() as nursery:
            for caller, called in pairs:
                nursery.start_soon(tally.call, caller, called)
        await trio.sleep(30)
        ended, packets = trio.current_time(), world.trace.packets
        best = [a.host.connections(b.host.peer_id)[:1] for a, b in pairs]
    return {
        "virtual_hours": round(ended / HOUR, 4),
        "packets": packets,
        "calls": tally.calls,
        "calls_failed": tally.failed,
        "calls_direct": sum(not connection.is_relayed for found in best for connection in found),
        "resident_mb_when_joined": resident // 2**20,
    }


def measured(
    name: str, hosts: int, main: Callable[[], Awaitable[dict[str, float]]]
) -> dict[str, float]:
    """Run one of them, and print what it took."""
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    found = run(main)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["wall_seconds"] = round(seconds, 1)
    found["wall_seconds_per_virtual_hour"] = round(seconds / found["virtual_hours"], 2)
    found["kb_per_host"] = round((peak - before) / hosts / 1024)
    for key, value in found.items():
        print(f"{name:6} {key:32} {value}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated")
    parser.add_argument("--only", choices=["churn", "crowd"])
    parser.add_argument("--hours", type=float, default=24.0, help="virtual hours of the churn")
    parser.add_argument(
        "--hosts", type=int, default=100, help="of the churn, behind 0.4 homes each"
    )
    parser.add_argument("--crowd", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    if chosen.only != "crowd":
        homes = max(1, chosen.hosts * 2 // 5)
        found["churn"] = measured(
            "churn", chosen.hosts, lambda: churn(chosen.hosts, homes, chosen.hours, chosen.seed)
        )
    if chosen.only != "churn":
        found["crowd"] = measured(
            "crowd",
            chosen.crowd,
            lambda: crowd(chosen.crowd, max(1, chosen.crowd // 100), chosen.seed),
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
