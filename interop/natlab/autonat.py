"""AutoNAT in public and behind NATs: clients, each in a home of its own, ask servers in public.

Runs in a private world (see ``p2pnet.demo.namespaces``). Arguments: cells, each as
``version:client:server:transport:place``, such as ``v2:p2pnet:go:quic:nat``. For each cell prints
what the client printed, with the cell, and with the addresses that it is expected to learn about.
A server is there for both transports; a client listens at, and dials, those of its cell.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self

import trio

from interop.processes import Line, PeerFailed, dialled, serving
from p2pnet.demo.namespaces import Laboratory
from p2pnet.demo.private_world import tool

Place = Literal["public", "nat"]
PLACES: Final[dict[str, Place]] = {"public": "public", "nat": "nat"}

PORT: Final = 4001
TRANSPORTS: Final = {"tcp": f"tcp/{PORT}", "quic": f"udp/{PORT}/quic-v1"}
CLIENTS_AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 90
"""Some have to ask twice, and wait for half a minute between ..."""
SLOW_TIMEOUT_SECONDS: Final = 240
"""... but go-libp2p by version 1, where the first question came to nothing, a minute and a half."""

MANY: Final = {"v1": 2, "v2": 6}
"""Servers for a client of others. go-libp2p asks each once in two minutes, believes in an outside
address when four have seen it, and in a verdict when there are two more for it than against it."""
SEES_ONE_ADDRESS: Final = "rust"
"""Has only those tested at which it was seen."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One client, and whom it asks."""

    version: str
    client: str
    server: str
    transport: str
    place: Place

    @classmethod
    def parse(cls, text: str) -> Self:
        version, client, server, transport, place = text.split(":")
        return cls(version, client, server, transport, PLACES[place])

    def __str__(self) -> str:
        parts = self.version, self.client, self.server, self.transport, self.place
        return ":".join(parts)

    def at(self, ip: str) -> str:
        return multiaddr(ip, self.transport)

    @property
    def servers(self) -> int:
        """How many servers the client needs to say something."""
        return 1 if self.client == "p2pnet" else MANY[self.version]

    @property
    def patience(self) -> int:
        """Seconds for the client to learn of its addresses."""
        is_slow = (self.version, self.client) == ("v1", "go")
        return SLOW_TIMEOUT_SECONDS if is_slow else TIMEOUT_SECONDS

    @property
    def has_two_addresses(self) -> bool:
        """Tell if another IP address is tested, too: to have that one dialled costs data."""
        wide = self.version == "v2" and self.client != SEES_ONE_ADDRESS
        return wide and self.place == "public"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a client is."""

    host: str
    listen: tuple[str, ...]
    outside: tuple[str, ...]
    """What the servers are to dial."""


class Locations:
    """Has a place for each server, and for the client of each cell."""

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self._servers = 0
        self._homes = 0

    def place(self, host: str) -> partial[list[str]]:
        return partial(self._laboratory.command, host)

    def add_server(self, host: str) -> str:
        """Add a public host; return its IP address."""
        self._servers += 1
        ip = f"11.0.0.{self._servers}"
        self._laboratory.add_public(host, ip)
        return ip

    def add_client(self, cell: Cell) -> Location:
        """Add a host, public or behind a NAT of its own."""
        self._homes += 1
        host, first, second = str(cell), f"11.0.{self._homes}.1", f"11.0.{self._homes}.2"
        if cell.place == "nat":
            self._laboratory.add_home(f"home of {host}", outside=first)
            self._laboratory.add_host(f"home of {host}", host)
            return Location(host, (cell.at("0.0.0.0"),), (cell.at(first),))
        self._laboratory.add_public(host, first)
        if not cell.has_two_addresses:
            return Location(host, (cell.at(first),), (cell.at(first),))
        change = [tool("ip"), "address", "add", f"{second}/16", "dev", "eth0"]
        subprocess.run(self._laboratory.command(host, change), check=True)
        both = (cell.at(first), cell.at(second))
        return Location(host, both, both)


def multiaddr(ip: str, transport: str) -> str:
    return f"/ip4/{ip}/{TRANSPORTS[transport]}"


# ---- servers -----------------------------------------------------------------------------


class Servers:
    """Those that are running, and why others are not."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], list[tuple[str, str]]] = {}
        """The IP address and the peer ID of each."""
        self._failures: dict[tuple[str, str], str] = {}

    def addresses(self, cell: Cell) -> list[str]:
        """Return whom to ask. Raises PeerFailed."""
        group = (cell.server, cell.version)
        if group in self._failures:
            raise PeerFailed(self._failures[group])
        running = self._running[group][: cell.servers]
        return [f"{cell.at(ip)}/p2p/{peer_id}" for ip, peer_id in running]

    async def start(
        self, nursery: trio.Nursery, cells: Iterable[Cell], locations: Locations
    ) -> None:
        """Have as many of each kind as the most demanding cell needs."""
        counts: dict[tuple[str, str], int] = {}
        for cell in cells:
            group = (cell.server, cell.version)
            counts[group] = max(counts.get(group, 0), cell.servers)
        async with trio.open_nursery() as starting:
            for group, count in counts.items():
                self._running[group] = []
                for number in range(count):
                    host = f"{' '.join(group)} server {number}"
                    ip = locations.add_server(host)
                    run = partial(self._run, group, placed=locations.place(host), ip=ip)
                    starting.start_soon(nursery.start, run)

    async def _run(
        self,
        group: tuple[str, str],
        *,
        placed: partial[list[str]],
        ip: str,
        task_status: trio.TaskStatus[None],
    ) -> None:
        kind, version = group
        listen = ",".join(multiaddr(ip, transport) for transport in TRANSPORTS)
        settings = {"LISTEN": listen, "AUTONAT": f"{version}-server"}
        try:
            async with serving(kind, "listen", placed=placed, **settings) as running:
                self._running[group].append((ip, running.peer_id))
                task_status.started()
                await trio.sleep_forever()
        except PeerFailed as failure:
            self._failures[group] = str(failure)
            task_status.started()


# ---- clients -----------------------------------------------------------------------------


async def ask(cell: Cell, servers: Servers, location: Location, locations: Locations) -> Line:
    """Run a client until it knows of all its addresses; return its line."""
    try:
        line = await dialled(
            cell.client,
            placed=locations.place(location.host),
            LISTEN=",".join(location.listen),
            TARGET=",".join(servers.addresses(cell)),
            AUTONAT=f"{cell.version}-client",
            VERDICTS=str(len(location.outside)),
            TIMEOUT_SECONDS=str(cell.patience),
        )
    except PeerFailed as failure:
        line = {"error": str(failure)}
    return {**line, "cell": str(cell), "outside": list(location.outside)}


async def run(laboratory: Laboratory, cells: Sequence[Cell]) -> None:
    locations, servers, limit = (
        Locations(laboratory),
        Servers(),
        trio.CapacityLimiter(CLIENTS_AT_ONCE),
    )

    async def run_one(cell: Cell) -> None:
        async with limit:
            line = await ask(cell, servers, locations.add_client(cell), locations)
        print(json.dumps(line), flush=True)

    async with trio.open_nursery() as running:
        await servers.start(running, cells, locations)
        async with trio.open_nursery() as asking:
            for cell in cells:
                asking.start_soon(run_one, cell)
        running.cancel_scope.cancel()


def main(*names: str) -> None:
    with Laboratory() as laboratory:
        trio.run(run, laboratory, [Cell.parse(name) for name in names])


if __name__ == "__main__":
    main(*sys.argv[1:])
