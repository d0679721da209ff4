"""What peers say of where they see this host, and what that says of the NAT. Pure.

Rules: specs/addresses.md (A22, A23), specs/reachability.md (V1 to V5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pnet.core.addresses import (
    Endpoint,
    Multiaddr,
    ip_of,
    tcp_endpoint,
)

MAX_OBSERVATIONS = 1024
MAX_OBSERVED = 8


@dataclass(frozen=True, slots=True)
class Observation:
    """What one peer said on one connection."""

    time: float
    network: str
    """Of the observer, see ``network_of``."""
    observer: Endpoint
    local: Endpoint
    """Our end of the connection, as this machine sees it."""
    seen: Endpoint
    """The same end, as the peer sees it."""
    address: Multiaddr


@dataclass(slots=True)
class Observations:
    """The last word of each connection that lives."""

    by_connection: dict[int, Observation] = field(default_factory=dict)

    def record(self, number: int, observation: Observation) -> None:
        """Take the word of a connection; it replaces an earlier one (V1)."""
        self.by_connection.pop(number, None)
        if len(self.by_connection) < MAX_OBSERVATIONS:
            self.by_connection[number] = observation

    def withdraw(self, number: int) -> None:
        """Forget what was said on a connection; it ended, and the address may be gone too (A23)."""
        self.by_connection.pop(number, None)

    def keep_only(self, numbers: Iterable[int]) -> None:
        alive = set(numbers)
        for number in [n for n in self.by_connection if n not in alive]:
            del self.by_connection[number]

    def seen(self, *, observers: int) -> tuple[Multiaddr, ...]:
        """Return the addresses that so many different networks saw, the most seen first (A22)."""
        networks: dict[Multiaddr, set[str]] = {}
        for each in self.by_connection.values():
            networks.setdefault(each.address, set()).add(each.network)
        enough = [address for address, by in networks.items() if len(by) >= observers]
        enough.sort(key=lambda address: (-len(networks[address]), str(address)))
        return tuple(enough[:MAX_OBSERVED])


def read_observation(
    *, time: float, local: Multiaddr, remote: Multiaddr, address: Multiaddr
) -> Observation | None:
    """Make an observation of what a peer said; None if it says nothing of a NAT (V2).

    That is so if its transport or family is not that of the connection: it is about another one.
    """
    ends = tcp_endpoint(local), tcp_endpoint(remote), tcp_endpoint(address)
    own, observer, seen = ends
    if own is None or observer is None or seen is None or own.is_ipv6 != seen.is_ipv6:
        return None
    return Observation(time, network_of(remote), observer, own, seen, address)


def network_of(observer: Multiaddr) -> str:
    """Return the network an observer counts for: its IPv4 address, or its IPv6 /56 (A22)."""
    ip = ip_of(observer)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 56), strict=False))
    return str(ip)
