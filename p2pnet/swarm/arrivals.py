"""Arrivals that have not proved who they are, and from how many places all of them come (S6, S7).

Pure. A *prefix* is a public IPv4 address or IPv6 /56: what one stranger has at hand for next to
nothing. Private addresses are none: a proxy in front of us brings many peers from a single one.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr, Scope, ip_of, is_relayed, scope, unwrapped

IPV6_PREFIX = 56


def prefix_of(address: Multiaddr) -> str | None:
    """Return the prefix that an inbound connection counts for; None for one that is not counted.

    Of a circuit the address is that of the relay.
    """
    ip = ip_of(address)
    if ip is None or is_relayed(address) or scope(address) is not Scope.PUBLIC:
        return None
    ip = unwrapped(ip)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


class Settled:
    """How many of those who have proved who they are came from each prefix (S7).

    Who has moved counts for where it came from, too: else two prefixes, by turns, were any number.
    """

    def __init__(self) -> None:
        self._of_prefix: Counter[str] = Counter()
        self._places: dict[int, tuple[str | None, str | None]] = {}
        """By number: where it came from, and where it has moved to."""

    def of_prefix(self, address: Multiaddr) -> int:
        """Return how many came from where an address is; 0 for one that is not counted."""
        prefix = prefix_of(address)
        return 0 if prefix is None else self._of_prefix[prefix]

    def add(self, number: int, address: Multiaddr) -> None:
        prefix = prefix_of(address)
        self._places[number] = (prefix, None)
        self._count(prefix, 1)

    def move(self, number: int, address: Multiaddr) -> None:
        """Take that one is elsewhere now; nothing if it was never added."""
        if number not in self._places:
            return
        origin, before = self._places[number]
        prefix = prefix_of(address)
        place = None if prefix == origin else prefix
        self._count(before, -1)
        self._count(place, 1)
        self._places[number] = (origin, place)

    def remove(self, number: int) -> None:
        """Forget one; nothing if it was never added."""
        for prefix in self._places.pop(number, ()):
            self._count(prefix, -1)

    def _count(self, prefix: str | None, change: int) -> None:
        if prefix is not None:
            self._of_prefix[prefix] += change
            if not self._of_prefix[prefix]:
                del self._of_prefix[prefix]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An arrival in its handshakes."""

    prefix: str | None
    give_up: Callable[[], None]


class Arrivals:
    """Those in their handshakes, the oldest first; the oldest gives way to the next (S6)."""

    def __init__(self, *, most: int, most_of_prefix: int, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse
        self._most = most
        self._most_of_prefix = most_of_prefix
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, number: int, address: Multiaddr, give_up: Callable[[], None]) -> None:
        """Take one in; end another, if there are too many of its prefix, or in all."""
        prefix = prefix_of(address)
        if prefix is not None:
            same = [of for of, waiting in self._waiting.items() if waiting.prefix == prefix]
            if len(same) >= self._most_of_prefix:
                self._end(same[0], "max_pending_per_prefix")
        self._waiting[number] = Waiting(prefix, give_up)
        if len(self._waiting) > self._most:
            self._end(next(iter(self._waiting)), "max_pending_inbound")

    def _end(self, number: int, limit: str) -> None:
        self._refuse(limit)
        self._waiting.pop(number).give_up()

    def remove(self, number: int) -> None:
        """Forget one whose handshakes are over."""
        self._waiting.pop(number, None)
