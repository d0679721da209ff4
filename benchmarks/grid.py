"""Watch verdicts on reachability for virtual days: behind which NATs do they change, and when?

One world for each mapping, filtering and choice of ports: a host that five public peers test all
the time. What is printed should be one verdict a line: who can dial it, and what its NAT is called.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product

import trio

from p2pnet import presets
from p2pnet.testing.insecure import Insecure
from p2pnet.testing.kinds import Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

LINK = Quality(latency=0.02)
LISTEN = "/ip4/0.0.0.0/tcp/4001"
SETTLING = 30.0
LOOK_INTERVAL = 1.0


async def watch(nat: NatKind, hours: float, seed: int) -> list[str]:
    """Return the verdicts that a host comes to, one after the other, with their times."""
    seconds = hours * 3600
    verdicts: list[str] = []
    async with World(seed, patience=seconds + 100) as world:
        server = replace(presets.relay(listen=[LISTEN]), security=[Insecure()])
        peers = [
            await world.host(server, f"peer {n}", link=LINK, families=IPV4_ONLY) for n in range(5)
        ]
        config = replace(presets.edge(listen=[LISTEN]), security=[Insecure()])
        home = world.home(Kind("home", (nat,)), "home", link=LINK)
        machine = await world.host(config, "host", at=home, link=LINK, families=IPV4_ONLY)
        for peer in peers:
            await machine.host.connect(peer.address)
        await trio.sleep(SETTLING)
        said = ""
        with trio.move_on_after(seconds):
            while True:
                host = machine.host
                verdict = f"{host.reachability.value.value}, {host.nat.value.tcp.words}"
                if verdict != said:
                    verdicts.append(f"{trio.current_time():.0f} s: {verdict}")
                    said = verdict
                await trio.sleep(LOOK_INTERVAL)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    kinds = [each.value for each in Dependence]
    parser.add_argument("--mapping", choices=kinds, action="append", help="only this; repeatable")
    parser.add_argument("--filtering", choices=kinds, action="append", help="only this; repeatable")
    choices = [each.value for each in PortChoice]
    parser.add_argument("--ports", choices=choices, action="append", help="only this; repeatable")
    chosen = parser.parse_args()
    found: dict[str, list[str]] = {}
    mappings = [Dependence(value) for value in chosen.mapping or kinds]
    filterings = [Dependence(value) for value in chosen.filtering or kinds]
    ports = [PortChoice(value) for value in chosen.ports or choices]
    for port_choice, mapping, filtering in product(ports, mappings, filterings):
        nat = NatKind(mapping=mapping, filtering=filtering, ports=port_choice)
        name = f"{mapping.value} mapping, {filtering.value} filtering, {port_choice.value} ports"
        began = time.perf_counter()
        found[name] = run(lambda nat=nat: watch(nat, chosen.hours, chosen.seed))
        print(f"{name}: {', '.join(found[name])} ({time.perf_counter() - began:.0f} s)", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
