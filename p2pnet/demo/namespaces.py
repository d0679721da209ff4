"""Build a small laboratory of network namespaces: public hosts, and homes behind NATs.

It takes two steps, and neither needs root where user namespaces are permitted:

1. `reexec_command` gives the command that runs a program in a private world, where nothing
   touches the machine's own network and nothing is left behind.
2. The program builds a `Laboratory` there. Each host and router is a network namespace
   more, and the NATs are the kernel's own, set up with ``nft``::

       internet: a bridge, 11.0.0.0/16
        |-- relay    11.0.0.1
        |-- router   11.0.1.1 (masquerade) -- home LAN 192.168.1.0/24 -- alice 192.168.1.2
        `-- router   11.0.2.1 (masquerade) -- home LAN 192.168.1.0/24 -- bob   192.168.1.2

The namespaces have no name in the file system: the laboratory alone holds them open.

The module starts programs and enters namespaces, so it is an exception to the rule that
`p2pnet.core.env` is the only door to the system. Run with ``-m`` in a private world it
tries out whether a laboratory can be built there, for `check_support`.
"""

import enum
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from p2pnet.demo.delay import NEAR_PREFIX, PORT_PREFIX
from p2pnet.demo.network_namespace import entered, new_network_namespace
from p2pnet.demo.private_world import (
    TRIAL_REFUSED,
    How,
    LaboratoryError,
    Support,
    check_support,
    reexec_command,
    tool,
)

__all__ = [
    "GATEWAY",
    "PUBLIC_NETWORK",
    "How",
    "Laboratory",
    "LaboratoryError",
    "Nat",
    "Support",
    "check_support",
    "reexec_command",
]

PUBLIC_NETWORK: Final = IPv4Network("11.0.0.0/16")
"""Where public addresses come from. The prefixes for documentation and for carrier-grade
NAT would not do: libp2p does not count them as public."""

GATEWAY: Final = IPv4Address("11.0.255.254")
"""Takes whatever has no route and drops it, as the internet does with private addresses."""


class Nat(enum.Enum):
    """What a home's router does with outgoing ports and with packets nobody asked for.

    All filter by address and port. All but `SYMMETRIC` keep the port of a host, whatever
    the destination, as long as no two hosts of one home use the same port.
    """

    PORT_RESTRICTED = "drops what is unsolicited"
    REFUSING = "answers an unsolicited SYN with RST"
    SYMMETRIC = "takes another random port for each destination"


@dataclass(frozen=True, slots=True)
class _Namespace:
    """A network namespace, alive as long as ``fd`` is open."""

    fd: int
    address: IPv4Address

    @property
    def path(self) -> str:
        """Where the processes of this private world find the namespace."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"


@dataclass(frozen=True, slots=True)
class _Home:
    router: _Namespace
    lan: IPv4Interface
    free: Iterator[IPv4Address] = field(repr=False)


class Laboratory:
    """Hosts on a public network and in homes behind NATs, each a network namespace.

    Use it as a context manager, in a private world (see `reexec_command`) or as root. On
    leaving, each namespace vanishes once no process and no socket is left in it; to end the
    processes is up to who started them.

    Args:
        delay: Seconds that a packet takes from one public address to another, and half of
            that from or to one in the middle. Any at all takes a process that holds the
            packets back, and with it throughput.
        internet: Where public addresses come from; its last one is taken.
    """

    def __init__(self, *, delay: float = 0.0, internet: IPv4Network = PUBLIC_NETWORK) -> None:
        self._delay = delay
        self._network = internet
        self._gateway = internet.broadcast_address - 1
        self._hosts: dict[str, _Namespace] = {}
        self._homes: dict[str, _Home] = {}
        self._open: list[int] = []
        self._internet: _Namespace | None = None
        self._switch: subprocess.Popen[str] | None = None
        # Ends of a veth that share an index get their carrier up to a second late.
        self._indexes = itertools.count(101)

    def __enter__(self) -> Self:
        try:
            internet = self._make_namespace(self._gateway)
            _set_forwarding(internet, "0")  # A new namespace may begin as the machine does.
            own = IPv4Interface((self._gateway, self._network.prefixlen))
            if self._delay > 0:
                self._switch = _start_delaying_switch(internet, self._delay)
                self._connect(internet, None, internet, "wan")
                _ip(internet, *_device_lines("wan", own))
            else:
                _ip(internet, *_bridge_lines("wan", own))
        except BaseException:
            self._close()
            raise
        self._internet = internet
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def add_public(self, name: str, address: str, *, in_the_middle: bool = False) -> None:
        """Add a host with a public address, as far from all as others, or half as far.

        Raises:
            LaboratoryError: The name or address is taken or not usable.
        """
        port = NEAR_PREFIX if in_the_middle else PORT_PREFIX
        self._hosts[self._new_name(name)] = self._make_public("eth0", address, port=port)

    def add_home(
        self,
        name: str,
        *,
        outside: str,
        inside: str = "192.168.1.0/24",
        nat: Nat | str = Nat.PORT_RESTRICTED,
    ) -> None:
        """Add a home without hosts: a router with a public address and a private network.

        Two homes may have the same network ``inside``.

        Args:
            name: What the home, and its router, are called.
            outside: The public address.
            inside: The home's network.
            nat: What its router does; a text holds rules for ``nft -f``, in which the
                router's devices are ``wan`` and ``lan``.

        Raises:
            LaboratoryError: The name or an address is taken or not usable.
        """
        self._new_name(name)
        self._homes[name] = _make_home(self._make_public("wan", outside), inside, nat)

    def add_home_behind(
        self, provider: str, name: str, *, inside: str = "192.168.1.0/24", nat: Nat | str
    ) -> None:
        """Add a home whose router is in another home, as behind a carrier's NAT.

        Its outside is the next address of the network of ``provider``.

        Raises:
            LaboratoryError: The name is taken, or the provider is unknown or full.
        """
        self._new_name(name)
        self._homes[name] = _make_home(self._make_inner(provider, "wan"), inside, nat)

    def add_host(self, home: str, name: str) -> None:
        """Add a host to a home; it gets the next address of the home's network.

        Raises:
            LaboratoryError: The name is taken, or the home is unknown or full.
        """
        self._new_name(name)
        self._hosts[name] = self._make_inner(home, "eth0")

    def move(self, host: str, home: str) -> None:
        """Carry a host to another home, programs and sockets and all, as one does a laptop.

        It gets the next address there, which in a network of the same numbers may be the same.

        Raises:
            LaboratoryError: The host or the home is unknown, or the home full.
        """
        namespace, address = self._host(host), self._next_address(home)
        _ip(namespace, "link delete eth0")
        self._hosts[host] = replace(namespace, address=address)
        self._plug_in(home, self._hosts[host], "eth0")

    def address(self, host: str) -> str:
        """Give the address that ``host`` has itself, a private one in a home."""
        return str(self._host(host).address)

    def outside(self, home: str) -> str:
        """Give the public address of a home."""
        return str(self._homes[home].router.address)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """Give the command that runs ``argv`` on ``host``, for use in this laboratory only.

        It becomes ``argv`` by exec, so that signals reach it. A home's name stands for its
        router, here and in `entered`.
        """
        return [tool("nsenter"), f"--net={self._host(host).path}", "--", *argv]

    @contextmanager
    def entered(self, host: str) -> Iterator[None]:
        """Be on ``host`` for a while: sockets made in here belong there for good.

        It moves the calling thread, so nothing may be awaited in here.
        """
        with entered(self._host(host).fd):
            yield

    def namespace(self, host: str) -> int:
        """Give the file descriptor that holds the network namespace of ``host`` open."""
        return self._host(host).fd

    def _host(self, name: str) -> _Namespace:
        if name in self._homes:
            return self._homes[name].router
        if name not in self._hosts:
            raise LaboratoryError(f"there is no host called {name}")
        return self._hosts[name]

    def _new_name(self, name: str) -> str:
        if name in self._hosts or name in self._homes:
            raise LaboratoryError(f"{name} is there already")
        return name

    def _make_namespace(self, address: IPv4Address) -> _Namespace:
        namespace = _Namespace(new_network_namespace(), address)
        self._open.append(namespace.fd)
        _ip(namespace, "link set lo up")
        return namespace

    def _make_public(self, device: str, address: str, *, port: str = PORT_PREFIX) -> _Namespace:
        if self._internet is None:
            raise LaboratoryError("the laboratory is not open")
        own = IPv4Interface(f"{address}/{self._network.prefixlen}")
        if own not in self._network or self._is_public(own.ip):
            raise LaboratoryError(f"{address} is taken or not in {self._network}")
        namespace = self._make_namespace(own.ip)
        bridge = "wan" if self._switch is None else None
        self._connect(self._internet, bridge, namespace, device, port=port)
        _ip(namespace, *_device_lines(device, own), f"route add default via {self._gateway}")
        return namespace

    def _make_inner(self, home: str, device: str) -> _Namespace:
        namespace = self._make_namespace(self._next_address(home))
        self._plug_in(home, namespace, device)
        return namespace

    def _next_address(self, home: str) -> IPv4Address:
        if home not in self._homes:
            raise LaboratoryError(f"there is no home called {home}")
        address = next(self._homes[home].free, None)
        if address is None:
            raise LaboratoryError(f"{home} has no address left")
        return address

    def _plug_in(self, home: str, namespace: _Namespace, device: str) -> None:
        place = self._homes[home]
        self._connect(place.router, "lan", namespace, device)
        own = IPv4Interface((namespace.address, place.lan.network.prefixlen))
        _ip(namespace, *_device_lines(device, own), f"route add default via {place.lan.ip}")

    def _is_public(self, address: IPv4Address) -> bool:
        routers = [home.router for home in self._homes.values()]
        return address == self._gateway or any(
            address == taken.address for taken in (*self._hosts.values(), *routers)
        )

    def _connect(
        self,
        switch: _Namespace,
        bridge: str | None,
        namespace: _Namespace,
        device: str,
        *,
        port: str = PORT_PREFIX,
    ) -> None:
        index = next(self._indexes)
        port = f"{port}{index}"
        _ip(
            switch,
            f"link add name {port} index {index} type veth "
            f"peer name {device} index {next(self._indexes)} netns {namespace.path}",
            f"link set {port} {'nomaster' if bridge is None else f'master {bridge}'}",
            f"link set {port} addrgenmode none up",
        )

    def _close(self) -> None:
        self._internet = None
        self._hosts.clear()
        self._homes.clear()
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()
            self._switch = None
        while self._open:
            os.close(self._open.pop())


def _make_home(router: _Namespace, inside: str, nat: Nat | str) -> _Home:
    network = IPv4Network(inside)
    free = network.hosts()
    lan = IPv4Interface((next(free), network.prefixlen))
    _ip(router, *_bridge_lines("lan", lan))
    _set_forwarding(router, "1")
    _run(router, [tool("nft"), "-f", "-"], nat if isinstance(nat, str) else _NAT_RULES[nat])
    return _Home(router, lan, free)


def _bridge_lines(bridge: str, own: IPv4Interface) -> tuple[str, ...]:
    # With an address of its own a bridge keeps it when ports are added.
    station = "02:00:" + ":".join(f"{byte:02x}" for byte in own.ip.packed)
    create = f"link add name {bridge} address {station} type bridge"
    return (create, *_device_lines(bridge, own))


def _device_lines(device: str, own: IPv4Interface) -> tuple[str, ...]:
    return (
        f"link set {device} addrgenmode none up",
        f"address add {own} dev {device}",
    )


def _nat_rules(masquerade: str, refuse: str) -> str:
    # A packet that is not dropped on input leaves an entry in conntrack, after which the
    # outgoing packet no longer keeps its port. What is invalid would pass without NAT.
    return f"""
        table ip home {{
            chain outgoing {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname "wan" {masquerade}
            }}
            chain incoming {{
                type filter hook input priority filter; policy accept;
                iifname "wan" ct state established,related accept
                iifname "wan" {refuse}
            }}
            chain through {{
                type filter hook forward priority filter; policy drop;
                ct state invalid drop
                iifname "lan" accept
                ct state established,related accept
            }}
        }}
    """


_NAT_RULES: Final = {
    Nat.PORT_RESTRICTED: _nat_rules("masquerade", "drop"),
    Nat.REFUSING: _nat_rules(
        "masquerade", 'meta l4proto tcp reject with tcp reset\niifname "wan" drop'
    ),
    Nat.SYMMETRIC: _nat_rules("masquerade fully-random", "drop"),
}


def _ip(namespace: _Namespace, *lines: str) -> None:
    _run(namespace, [tool("ip"), "-batch", "-"], "\n".join(lines) + "\n")


def _run(namespace: _Namespace, argv: list[str], text: str = "") -> None:
    with entered(namespace.fd):
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "; ".join(done.stderr.split("\n")).strip("; ")
        raise LaboratoryError(f"`{' '.join((*argv, text)).strip()}` failed: {said}")


def _start_delaying_switch(internet: _Namespace, delay: float) -> subprocess.Popen[str]:
    script = str(Path(__file__).with_name("delay.py"))
    with entered(internet.fd):
        switch = subprocess.Popen(
            [sys.executable, "-I", script, str(delay)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # An interrupt from the terminal is not meant for it.
        )
    ready = switch.stdout is not None and switch.stdout.readline()
    if not ready:
        _, errors = switch.communicate()
        raise LaboratoryError(f"packets cannot be delayed: {errors.strip()}")
    return switch


def _set_forwarding(namespace: _Namespace, value: Literal["0", "1"]) -> None:
    try:
        with entered(namespace.fd):
            Path("/proc/sys/net/ipv4/ip_forward").write_text(value)
    except OSError as error:
        raise LaboratoryError(f"a namespace's forwarding cannot be set: {error}") from error


def _try_out() -> int:
    """Build one of everything that `check_support` promises."""
    try:
        with Laboratory(delay=0.001) as laboratory:
            laboratory.add_public("relay", "11.0.0.1")
            laboratory.add_home("home", outside="11.0.1.1", nat=Nat.REFUSING)
            laboratory.add_host("home", "alice")
    except LaboratoryError as error:
        sys.stdout.write(f"{error}\n")
        return TRIAL_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_try_out())
