"""From where a peer speaks, as far as this host can tell. Rule: specs/identify.md (I19).

A private address says that its owner is in a private network; but not always that it is in ours.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from p2pnet.core.addresses import Scope, ip_of, scope, unwrapped
from p2pnet.core.env import Network
from p2pnet.interfaces import Connection

CARRIERS = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598: behind a carrier's NAT are customers who have nothing to do with each other."""


LOOK_SECONDS = 1.0
"""What this machine has seen of itself holds for so long: a push goes to all peers at once."""

T = TypeVar("T")


class Look(Generic[T]):
    """A question to the system that is not asked for each peer."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._seen: T | None = None
        self._next = -math.inf

    def at(self, now: float) -> T | None:
        """Return the answer; None if there is none now."""
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            try:
                self._seen = self._ask()
            except OSError:
                self._seen = None
        return self._seen


class Neighbourhood:
    """Tells who is in the private network of this machine."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._at_carrier = Look(self._is_at_carrier)
        self._routers = Look(network.gateways)

    def whereabouts(self, connection: Connection, now: float) -> Scope:
        """Tell from where a peer, or its relay, speaks: no stranger is taken for a neighbour.

        Not if this machine cannot look, either: that takes a descriptor, and strangers who
        connect may use up all of them.
        """
        remote = connection.remote_address
        found, ip = scope(remote), ip_of(remote)
        if found is not Scope.PRIVATE or ip is None:
            return found
        ip = unwrapped(ip)
        if ip in CARRIERS:
            return found if self._at_carrier.at(now) else Scope.PUBLIC
        if connection.is_inbound and not connection.is_relayed:
            # A router that puts its own address in place of a caller's stands for anybody.
            routers = self._routers.at(now)
            if routers is None or str(ip) in routers:
                return Scope.PUBLIC
        return found

    def _is_at_carrier(self) -> bool:
        own = map(ipaddress.ip_address, self._network.interface_addresses())
        return any(each in CARRIERS for each in own)
