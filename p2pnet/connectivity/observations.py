"""What peers say of where they see this host, and what that says of the NAT. Pure.

Rules: specs/addresses.md (A22, A23), specs/reachability.md (V1 to V5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from p2pnet.core.addresses import (
    Endpoint,
    Multiaddr,
    Place,
    at_endpoint,
    ip_of,
    place_of,
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
    """What others would dial to reach what was spoken on that connection."""
    transport: str = "tcp"
    """``tcp`` or ``udp``: what is spoken above it is nothing to a NAT."""

    def outside(self, listening: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
        """Return all addresses that this word gives: one for each that is listened on there (V1).

        A NAT knows of ports, and not of what is spoken at them.
        """
        there = [
            at_endpoint(address, self.seen)
            for address in listening
            if is_at(place_of(address), self.transport, self.local)
        ]
        return tuple(there) or (self.address,)


@dataclass(slots=True)
class Observations:
    """The last word of each connection that lives."""

    by_connection: dict[int, Observation] = field(default_factory=dict)
    outdated: dict[int, Endpoint] = field(default_factory=dict)
    """Where we were seen on a connection before its path changed."""

    def record(self, number: int, observation: Observation) -> None:
        """Take the word of a connection; it replaces an earlier one (V1)."""
        if self.outdated.get(number) == observation.seen:  # V16
            return
        self.outdated.pop(number, None)
        self.by_connection.pop(number, None)
        if len(self.by_connection) < MAX_OBSERVATIONS:
            self.by_connection[number] = observation

    def outdate(self, number: int) -> bool:
        """Forget what was said on a connection, and do not believe it if it is said again (V16).

        Tells if anything was said there.
        """
        observation = self.by_connection.pop(number, None)
        if observation is not None:
            self.outdated[number] = observation.seen
        return observation is not None

    def withdraw(self, number: int) -> bool:
        """Forget what was said on a connection; it ended, and the address may be gone too (A23).

        Tells if anything was said there.
        """
        self.outdated.pop(number, None)
        return self.by_connection.pop(number, None) is not None

    def seen(self, *, observers: int, listening: Sequence[Multiaddr] = ()) -> tuple[Multiaddr, ...]:
        """Return the addresses that so many different networks saw, the most seen first (A22).

        What was seen of a port holds for all that is listened on at it.
        """
        by_port: dict[tuple[str, Endpoint], list[Observation]] = {}
        for each in self.by_connection.values():
            by_port.setdefault((each.transport, each.seen), []).append(each)
        networks = {port: {each.network for each in told} for port, told in by_port.items()}
        enough = [port for port, by in networks.items() if len(by) >= observers]
        enough.sort(key=lambda port: (-len(networks[port]), *port))
        found: dict[Multiaddr, None] = {}
        for port in enough[:MAX_OBSERVED]:
            for each in by_port[port]:
                found.update(dict.fromkeys(each.outside(listening)))
        return tuple(found)


def read_observation(
    *, time: float, local: Multiaddr, remote: Multiaddr, address: Multiaddr
) -> Observation | None:
    """Make an observation of what a peer said; None if it says nothing of a NAT (V2).

    That is so if its transport or family is not that of the connection: it is about another one.
    """
    own, observer, seen = place_of(local), place_of(remote), place_of(address)
    if own is None or observer is None or seen is None or own.protocol != seen.protocol:
        return None
    if own.endpoint.is_ipv6 != seen.endpoint.is_ipv6:
        return None
    return Observation(
        time,
        network_of(remote),
        observer.endpoint,
        own.endpoint,
        seen.endpoint,
        at_endpoint(local, seen.endpoint),
        own.protocol,
    )


def is_at(place: Place | None, transport: str, local: Endpoint) -> bool:
    return place is not None and (place.protocol, place.endpoint) == (transport, local)


def network_of(observer: Multiaddr) -> str:
    """Return the network an observer counts for: its IPv4 address, or its IPv6 /56 (A22)."""
    ip = ip_of(observer)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 56), strict=False))
    return str(ip)
