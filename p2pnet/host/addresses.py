"""Which addresses a host advertises, and which it offers for a hole punch. Pure.

Rules: specs/addresses.md (A20 to A25). An address that one peer saw is good enough to be
punched at; it is advertised only when peers in several networks saw it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    ip_of,
    is_relayed,
    scope,
    tcp_endpoint,
    with_host,
)

MAX_OBSERVATIONS = 1024
MAX_OBSERVED = 8


@dataclass(slots=True)
class Observations:
    """What peers say of where they see this host: one word per connection (A22)."""

    by_connection: dict[int, tuple[str, Multiaddr]] = field(default_factory=dict)

    def record(self, number: int, observer: Multiaddr, address: Multiaddr) -> None:
        self.by_connection.pop(number, None)
        if len(self.by_connection) < MAX_OBSERVATIONS:
            self.by_connection[number] = (network_of(observer), address)

    def withdraw(self, number: int) -> None:
        """Forget what was said on a connection; it ended, and the address may be gone too (A23)."""
        self.by_connection.pop(number, None)

    def keep_only(self, numbers: Iterable[int]) -> None:
        alive = set(numbers)
        for number in [n for n in self.by_connection if n not in alive]:
            del self.by_connection[number]

    def seen(self, *, observers: int) -> tuple[Multiaddr, ...]:
        """Return the addresses that so many different networks saw, the most seen first."""
        networks: dict[Multiaddr, set[str]] = {}
        for network, address in self.by_connection.values():
            networks.setdefault(address, set()).add(network)
        enough = [address for address, by in networks.items() if len(by) >= observers]
        enough.sort(key=lambda address: (-len(networks[address]), str(address)))
        return tuple(enough[:MAX_OBSERVED])


def network_of(observer: Multiaddr) -> str:
    """Return the network an observer counts for: its IPv4 address, or its IPv6 /56 (A22)."""
    ip = ip_of(observer)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 56), strict=False))
    return str(ip)


def expand(listen: Sequence[Multiaddr], interfaces: Sequence[str]) -> tuple[Multiaddr, ...]:
    """Replace the unspecified address by those of the interfaces (A20)."""
    expanded: list[Multiaddr] = []
    for address in listen:
        endpoint = tcp_endpoint(address)
        if endpoint is None or not endpoint.is_unspecified:
            expanded.append(address)
            continue
        expanded += [with_host(address, ip) for ip in interfaces if (":" in ip) == endpoint.is_ipv6]
    return tuple(dict.fromkeys(expanded))


def advertised(
    *,
    listen: Sequence[Multiaddr],
    announced: Sequence[Multiaddr],
    observed: Sequence[Multiaddr],
    circuits: Sequence[Multiaddr],
) -> tuple[Multiaddr, ...]:
    """Put together what is told to others, the most useful first (A21)."""
    every = dict.fromkeys([*announced, *listen, *observed, *circuits])
    return tuple(sorted(every, key=usefulness))


def usefulness(address: Multiaddr) -> int:
    if is_relayed(address):
        return 3
    return {Scope.PUBLIC: 0, Scope.PRIVATE: 1}.get(scope(address), 2)


def worth_punching(
    *, listen: Sequence[Multiaddr], announced: Sequence[Multiaddr], observed: Sequence[Multiaddr]
) -> tuple[Multiaddr, ...]:
    """Return direct addresses for a hole punch: public ones, seen ones first (A24)."""
    every = dict.fromkeys([*observed, *announced, *listen])
    return tuple(
        address
        for address in every
        if not is_relayed(address) and (address in observed or scope(address) is Scope.PUBLIC)
    )
