"""Watch verdicts on reachability for virtual days: behind which NATs do they change, and when?

One world for each mapping, filtering and choice of ports: a host that five public peers test all
the time, connected over TCP and over QUIC. What is printed should be one verdict a line: who can
dial the host, and what its NAT is called for TCP and for UDP. The last line is JSON. Each change is
seen, however short. ``--core qh3`` has QUIC spoken by the faster library, at both ends.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import trio

from p2pnet import presets
from p2pnet.core.addresses import parse
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.interfaces import Part, Transport
from p2pnet.protocols.autonat import AutoNAT
from p2pnet.testing.insecure import Insecure
from p2pnet.testing.kinds import Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP

LINK = Quality(latency=0.02)
SUFFIXES = {"tcp": "tcp/4001", "udp": "udp/4001/quic-v1"}
CORES = {quic.core: quic for quic in (QUIC(), QUIC(core="qh3"))}
SETTLING = 30.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at, and for how long."""

    nat: NatKind
    hours: float
    seed: int
    protocols: Sequence[str]
    """TCP, UDP or both."""
    quic: QUIC


def spoken(config: HostConfig, watched: Watched) -> HostConfig:
    """Let a host listen on each of the protocols, and skip what costs only time here."""
    protocols = watched.protocols
    transports: dict[str, Part[Transport]] = {"tcp": TCP(), "udp": watched.quic}
    return replace(
        config,
        security=[Insecure()],
        transports=[transports[name] for name in protocols],
        listen=[f"/ip4/0.0.0.0/{SUFFIXES[name]}" for name in protocols],
    )


async def watch(watched: Watched) -> list[str]:
    """Return the verdicts that a host comes to, one after the other, with their times."""
    seconds, protocols = watched.hours * 3600, watched.protocols
    verdicts: list[str] = []
    async with World(watched.seed, patience=seconds + 100) as world:
        server = without_tests_of_its_own(spoken(presets.relay(), watched))
        peers = [
            await world.host(server, f"peer {n}", link=LINK, families=IPV4_ONLY) for n in range(5)
        ]
        home = world.home(Kind("home", (watched.nat,)), "home", link=LINK)
        config = spoken(presets.edge(), watched)
        machine = await world.host(config, "host", at=home, link=LINK, families=IPV4_ONLY)
        for peer, name in product(peers, protocols):
            address = parse(f"/ip4/{peer.addresses[0]}/{SUFFIXES[name]}")
            await machine.host.dial(peer.host.peer_id, [address])
        await trio.sleep(SETTLING)
        said = ""
        with trio.move_on_after(seconds):
            while True:
                verdict = words(machine.host, protocols)
                if verdict != said:
                    verdicts.append(f"{trio.current_time():.0f} s: {verdict}")
                    said = verdict
                await something_else(machine.host)
    return verdicts


async def something_else(host: Host) -> None:
    """Wait until a host believes anything else of itself, or of its NAT."""
    reachability, nat = host.reachability.value, host.nat.value
    async with trio.open_nursery() as nursery:

        async def wait(change: Awaitable[object]) -> None:
            await change
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, host.reachability.wait_for(lambda value: value != reachability))
        nursery.start_soon(wait, host.nat.wait_for(lambda value: value != nat))


def without_tests_of_its_own(config: HostConfig) -> HostConfig:
    """Let a peer be no client of AutoNAT: nobody serves it here, and looking costs time."""
    services = [part for part in config.services if not isinstance(part, AutoNAT)]
    return replace(config, services=services)


def words(host: Host, protocols: Sequence[str]) -> str:
    """Say who can dial a host, and what its NAT is called."""
    classes = {"tcp": host.nat.value.tcp, "udp": host.nat.value.udp}
    return ", ".join(
        [host.reachability.value.value]
        + [f"{name.upper()}: {classes[name].words}" for name in protocols]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    kinds = [each.value for each in Dependence]
    parser.add_argument("--mapping", choices=kinds, action="append", help="only this; repeatable")
    parser.add_argument("--filtering", choices=kinds, action="append", help="only this; repeatable")
    choices = [each.value for each in PortChoice]
    parser.add_argument("--ports", choices=choices, action="append", help="only this; repeatable")
    parser.add_argument("--transport", choices=list(SUFFIXES), action="append", help="only this")
    parser.add_argument("--core", choices=list(CORES), default="aioquic", help="of QUIC")
    chosen = parser.parse_args()
    protocols = chosen.transport or list(SUFFIXES)
    found: dict[str, list[str]] = {}
    mappings = [Dependence(value) for value in chosen.mapping or kinds]
    filterings = [Dependence(value) for value in chosen.filtering or kinds]
    ports = [PortChoice(value) for value in chosen.ports or choices]
    for port_choice, mapping, filtering in product(ports, mappings, filterings):
        nat = NatKind(mapping=mapping, filtering=filtering, ports=port_choice)
        name = f"{mapping.value} mapping, {filtering.value} filtering, {port_choice.value} ports"
        began = time.perf_counter()
        watched = Watched(nat, chosen.hours, chosen.seed, protocols, CORES[chosen.core])
        found[name] = run(partial(watch, watched))
        print(f"{name}: {', '.join(found[name])} ({time.perf_counter() - began:.0f} s)", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
