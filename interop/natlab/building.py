"""Build a laboratory with homes of every kind, one or more hosts in each.

Public addresses: what serves all homes is in 11.0.0.0/24, and home number N has 11.0.N.1. Behind
a NAT every home has the same network, 192.168.1.0/24, and the network of a carrier is a part of
100.64.0.0/10. Behind a firewall that does not translate hosts are public, in 11.0.N.128/25.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Literal

from interop.natlab import kernel
from interop.natlab.running_fabric import RunningFabric
from p2pnet.demo.namespaces import Laboratory, LaboratoryError
from p2pnet.demo.private_world import tool
from p2pnet.testing.kinds import Kind
from p2pnet.testing.nat_kind import NatKind

Engine = Literal["kernel", "fabric"]
"""Who translates: the NAT of the kernel, or a program with the NAT of the simulation."""

HOME_NETWORK: Final = IPv4Network("192.168.1.0/24")
MAX_HOMES: Final = 254

_NO_RULES: Final = "table ip natlab {}"  # The program brings its own.


@dataclass(frozen=True, slots=True)
class Home:
    """A home as built; for a public host, the home is the host."""

    name: str
    kind: Kind
    engine: Engine
    outside: str
    """The address that the public internet sees."""
    hosts: tuple[str, ...]


class Town:
    """The homes of a laboratory, and the programs that are their routers.

    Use it as a context manager, in a private world or as root.
    """

    def __init__(self, *, delay: float = 0.0) -> None:
        self.laboratory = Laboratory(delay=delay)
        self.homes: dict[str, Home] = {}
        self.fabrics: dict[str, RunningFabric] = {}
        """The routers that are programs, by home: they can be told to change."""
        self._ending = ExitStack()

    @contextmanager
    def built(self) -> Iterator[Town]:
        """Have the laboratory for a while."""
        with self.laboratory, self._ending:
            yield self

    def add_home(
        self, name: str, kind: Kind, *, hosts: tuple[str, ...], engine: Engine = "kernel"
    ) -> Home:
        """Add a home of a kind, with its hosts.

        Raises:
            LaboratoryError: A name is taken, there is no room, or the engine cannot do it.
        """
        number = len(self.homes) + 1
        if number > MAX_HOMES:
            raise LaboratoryError(f"there is room for {MAX_HOMES} homes")
        home = Home(name, kind, engine, f"11.0.{number}.1", hosts)
        if not kind.nats:
            if len(hosts) != 1:
                raise LaboratoryError(f"{name}: a public host is one host")
            self.laboratory.add_public(hosts[0], home.outside)
        elif engine == "fabric":
            self._add_by_fabric(home, number)
        else:
            self._add_by_kernel(home, number)
        if kind.nats:
            for host in hosts:
                self.laboratory.add_host(name, host)
        self.homes[name] = home
        return home

    def _add_by_kernel(self, home: Home, number: int) -> None:
        for nat in home.kind.nats:
            for reason in kernel.shortcomings(nat):
                raise LaboratoryError(f"{home.name} needs the engine fabric: {reason}")
        *inner, outermost = home.kind.nats
        if len(inner) > 1 or (inner and not all(nat.translates for nat in home.kind.nats)):
            raise LaboratoryError(f"{home.name}: there is no such carrier")
        name = f"carrier of {home.name}" if inner else home.name
        network = _network(outermost, number, is_carrier=bool(inner))
        rules = kernel.rules(outermost, kernel.Router(home.outside, network))
        self.laboratory.add_home(name, outside=home.outside, inside=str(network), nat=rules)
        self._set(name, kernel.settings(outermost))
        if not outermost.translates:
            self._answer_for_hosts(name)
        for nat in inner:
            middle = str(network[2])  # The carrier's router has the first, the home's the next.
            rules = kernel.rules(nat, kernel.Router(middle, HOME_NETWORK))
            self.laboratory.add_home_behind(name, home.name, inside=str(HOME_NETWORK), nat=rules)
            self._set(home.name, kernel.settings(nat))

    def _add_by_fabric(self, home: Home, number: int) -> None:
        network = _network(home.kind.nats[-1], number, is_carrier=False)
        self.laboratory.add_home(
            home.name, outside=home.outside, inside=str(network), nat=_NO_RULES
        )
        router = RunningFabric(
            ("--inside", "lan", "--outside", "wan", "--kind", home.kind.name),
            placed=partial(self.laboratory.command, home.name),
        )
        self.fabrics[home.name] = self._ending.enter_context(router)

    def _answer_for_hosts(self, home: str) -> None:
        """Let the public hosts of a home be found: its router answers ARP for them."""
        self._set(home, {"ipv4/conf/wan/proxy_arp": 1})
        # Else the kernel waits for up to 0.8 s before it answers.
        change = ["ntable", "change", "name", "arp_cache", "dev", "wan", "proxy_delay", "0"]
        _run(self.laboratory.command(home, [tool("ip"), *change]))

    def _set(self, home: str, settings: Mapping[str, int]) -> None:
        with self.laboratory.entered(home):
            for path, value in settings.items():
                file = Path("/proc/sys/net", path)
                if path in kernel.OPTIONAL_SETTINGS and not file.exists():
                    continue
                try:
                    file.write_text(str(value))
                except OSError as error:
                    raise LaboratoryError(f"{path} cannot be set: {error}") from error


def _network(nat: NatKind, number: int, *, is_carrier: bool) -> IPv4Network:
    if not nat.translates:
        return IPv4Network(f"11.0.{number}.128/25")
    return IPv4Network(f"100.64.{number}.0/24") if is_carrier else HOME_NETWORK


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LaboratoryError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
