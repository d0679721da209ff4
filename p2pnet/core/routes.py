"""Which routers this machine sends to when it knows no better: the default gateways.

Linux tells in two tables of text. Elsewhere the first address of each private network is
guessed, which is right in most homes; who asks there finds out whether it is a router.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

UP_AND_GATEWAY = 0x3
"""Flags of a route: it is usable, and leads to a router."""
REJECT = 0x200
IPV4_ROUTES = Path("/proc/net/route")
IPV6_ROUTES = Path("/proc/net/ipv6_route")

Found = tuple[int, str]
"""The metric of a route, less is better, and its router."""


def gateways() -> tuple[str, ...]:
    """Return the IP addresses of the default gateways: IPv4 first, the best of each first.

    Those of IPv6 that are link-local are left out, as all addresses are that mean nothing
    without a zone.

    Raises:
        OSError: if the system does not tell.
    """
    if not IPV4_ROUTES.exists():
        return guessed(own_networks())
    found = sorted(ipv4_gateways(IPV4_ROUTES.read_text()))
    if IPV6_ROUTES.exists():
        found += sorted(ipv6_gateways(IPV6_ROUTES.read_text()))
    return tuple(dict.fromkeys(address for _, address in found))


def ipv4_gateways(table: str) -> list[Found]:
    """Read /proc/net/route, in which addresses are numbers as the processor keeps them."""
    found = []
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 8:
            continue
        _, destination, gateway, flags, _, _, metric, mask = columns[:8]
        if int(destination, 16) == int(mask, 16) == 0 and is_usable(flags):
            packed = int(gateway, 16).to_bytes(4, sys.byteorder)
            found.append((int(metric), str(ipaddress.IPv4Address(packed))))
    return found


def ipv6_gateways(table: str) -> list[Found]:
    """Read /proc/net/ipv6_route."""
    found = []
    for line in table.splitlines():
        columns = line.split()
        if len(columns) < 9:
            continue
        gateway = ipaddress.IPv6Address(int(columns[4], 16))
        is_default = int(columns[0], 16) == int(columns[1], 16) == 0
        if is_default and is_usable(columns[8]) and not gateway.is_link_local:
            found.append((int(columns[5], 16), str(gateway)))
    return found


def is_usable(flags: str) -> bool:
    return int(flags, 16) & (UP_AND_GATEWAY | REJECT) == UP_AND_GATEWAY


def own_networks() -> list[tuple[str, str]]:
    """Return address and mask of each IPv4 interface that is up."""
    up = psutil.net_if_stats()
    return [
        (address.address, address.netmask)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family.name == "AF_INET" and address.netmask and name in up and up[name].isup
    ]


def guessed(networks: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the first address of each private network, unless it is this machine itself."""
    found: dict[str, None] = {}
    for address, mask in networks:
        own = ipaddress.IPv4Interface(f"{address}/{mask}")
        if own.ip.is_private and not own.ip.is_loopback and not own.ip.is_link_local:
            first = own.network.network_address + 1
            if first != own.ip and first in own.network:
                found[str(first)] = None
    return tuple(found)
