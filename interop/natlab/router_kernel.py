"""What the kernel does in the namespace of a router that is a program, and what it leaves.

It answers ARP, serves the router's own address inside (for port mapping protocols, say),
answers what has no route or has run out of hops, and finds the way of what the program
sends. Packets between inside and outside it neither forwards nor answers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from p2pnet.demo.private_world import LaboratoryError, tool


def address_of(interface: str) -> IPv4Interface:
    """Give the first IPv4 address of an interface.

    Raises:
        LaboratoryError: It has none, or there is no such interface.
    """
    listed = _run([tool("ip"), "-json", "-4", "address", "show", "dev", interface])
    for entry in json.loads(listed or "[]"):
        for address in entry.get("addr_info", []):
            return IPv4Interface(f"{address['local']}/{address['prefixlen']}")
    raise LaboratoryError(f"{interface} has no IPv4 address")


class RouterKernel:
    """The kernel's part of a router between two interfaces."""

    def __init__(self, inside: str, outside: str) -> None:
        self._outside = outside
        self.inside_address = address_of(inside).ip
        self._outside_address = address_of(outside)

    @property
    def outside_address(self) -> IPv4Address:
        return self._outside_address.ip

    def take_over(self, *, translates: bool) -> None:
        """Leave to the program what is between inside and outside.

        Without translation, those inside are found from outside by proxy ARP.
        """
        self._drop()
        _set("ip_forward", "1")  # For the answers; nothing passes the rules.
        _set(f"conf/{self._outside}/promote_secondaries", "1")
        _set(f"conf/{self._outside}/proxy_arp", "0" if translates else "1")
        ip = tool("ip")
        # Else the kernel waits for a random time before such an answer.
        _run([ip, *f"ntable change name arp_cache dev {self._outside} proxy_delay 0".split()])

    def move_outside(self, address: IPv4Address) -> None:
        """Replace the address outside by another; routes stay."""
        if address == self.outside_address:
            return
        before = self._outside_address
        after = IPv4Interface((address, before.network.prefixlen))
        lines = (
            f"address add {after} dev {self._outside}",
            f"address del {before} dev {self._outside}",
        )
        _run([tool("ip"), "-batch", "-"], "\n".join(lines) + "\n")
        self._outside_address = after
        self._drop()

    def _drop(self) -> None:
        """Keep the kernel from answering or forwarding what the program has seen already."""
        rules = f"""
            table ip fabric
            delete table ip fabric
            table ip fabric {{
                chain incoming {{
                    type filter hook input priority raw; policy accept;
                    iifname "{self._outside}" meta l4proto {{ tcp, udp }} drop
                    iifname != "lo" ip daddr {self.outside_address} meta l4proto {{ tcp, udp }} drop
                }}
                chain through {{
                    type filter hook forward priority filter; policy drop;
                }}
            }}
        """
        _run([tool("nft"), "-f", "-"], rules)


def _set(name: str, value: str) -> None:
    try:
        Path("/proc/sys/net/ipv4", name).write_text(value)
    except OSError as error:
        raise LaboratoryError(f"net.ipv4.{name} cannot be set: {error}") from error


def _run(argv: Sequence[str], text: str = "") -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "; ".join(done.stderr.split("\n")).strip("; ")
        raise LaboratoryError(f"`{' '.join(argv)}` failed: {said}")
    return done.stdout
