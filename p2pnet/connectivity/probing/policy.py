"""Whom to ask about the NAT, and when. Pure. Rules: specs/reachability.md (V14, V15)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from p2pnet.connectivity.observations import network_of
from p2pnet.core.addresses import Endpoint, Multiaddr, Place, Scope, place_of, scope
from p2pnet.core.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class Witness:
    """A peer that can be asked, and where it can be dialled for that."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...]
    """At the IPv4 address at which it is connected, and of one transport; the likeliest first."""
    network: str
    """Witnesses of one network are one, whatever peers they claim to be (A22)."""


def witness_of(
    peer_id: PeerId,
    transport: str,
    *,
    connected_at: Multiaddr,
    dialled: bool,
    told: Iterable[Multiaddr],
) -> Witness | None:
    """Make a witness of a connected peer; None if it is of no use.

    Nobody is dialled at an IP address that is not the peer's own.
    """
    at = place_of(connected_at)
    if at is None or at.endpoint.is_ipv6 or scope(connected_at) is not Scope.PUBLIC:
        return None
    known = [*([connected_at] if dialled else []), *told]
    found: dict[Endpoint, Multiaddr] = {}
    for address in known:
        place = place_of(address)
        if place is None or place.protocol != transport or place.endpoint.port == 0:
            continue
        if place.endpoint.host == at.endpoint.host:
            found.setdefault(place.endpoint, address)
    if not found:
        return None
    return Witness(peer_id, tuple(found.values()), network_of(connected_at))


def jury(witnesses: Iterable[Witness], maximum: int) -> list[Witness]:
    """Return one witness of each network: one that can tell more, if there is one (V15)."""
    by_network: dict[str, Witness] = {}
    for witness in sorted(witnesses, key=ports_are_few):
        by_network.setdefault(witness.network, witness)
    return list(by_network.values())[:maximum]


def ports_are_few(witness: Witness) -> bool:
    return len(witness.addresses) < 2


def translated(addresses: Iterable[Multiaddr], own: Collection[str]) -> Iterator[Multiaddr]:
    """Return those addresses of ours that only a NAT can have given us: public, and not own."""
    for address in addresses:
        place = place_of(address)
        if place is None or place.endpoint.is_ipv6 or scope(address) is not Scope.PUBLIC:
            continue
        if place.endpoint.host not in own:
            yield address


def place_outside(seen: Multiaddr | None, transport: str) -> Place | None:
    """Return where a witness sees a port of ours; None if it cannot be there (V14).

    A witness has a public IPv4 address, and sees no other kind. Who names one of this host's
    own network, or of this machine, would have it dial there.
    """
    place = None if seen is None else place_of(seen)
    if seen is None or place is None or place.protocol != transport:
        return None
    if place.endpoint.is_ipv6 or place.endpoint.port == 0 or scope(seen) is not Scope.PUBLIC:
        return None
    return place


def only_one(addresses: Sequence[Multiaddr], transport: str) -> Multiaddr | None:
    """Return the address of a transport, if all of them are at one endpoint (V14).

    Of several, it is not known which of them strangers get through to.
    """
    by_place = {place: each for each in addresses if (place := place_of(each)) is not None}
    of_transport = [each for place, each in by_place.items() if place.protocol == transport]
    return of_transport[0] if len(of_transport) == 1 else None


@dataclass(slots=True)
class Agenda:
    """When the NAT is probed: soon after it shows, again if nothing came of it, then rarely."""

    settle_seconds: float
    retry_seconds: float
    interval: float
    max_failures: int = 7
    """After so many in vain, it is as rare as after one that told something."""
    due: float = math.inf
    is_under_way: bool = False
    _failures: int = 0
    _is_open: bool = False

    def nat_shows(self, now: float) -> None:
        """Take that somebody sees this host at an address that is not its own."""
        if self._failures == 0 and math.isinf(self.due) and not self.is_under_way:
            self.due = now + self.settle_seconds

    def opened(self, now: float) -> None:
        """Take that strangers get through, as is known now: there is one more thing to try."""
        if not self._is_open:
            self._is_open = True
            if not self.is_under_way:
                self.due = min(self.due, now + self.settle_seconds)

    def begins(self) -> None:
        self.is_under_way, self.due = True, math.inf

    def ended(self, now: float, *, useful: bool) -> None:
        """Take what came of a probe."""
        self.is_under_way = False
        if useful:
            self._failures, self.due = 0, now + self.interval
            return
        self._failures = min(self._failures + 1, self.max_failures)
        pause = self.retry_seconds * 2.0 ** (self._failures - 1)
        self.due = now + (self.interval if self._failures == self.max_failures else pause)

    def restart(self) -> None:
        """Begin anew, in another network."""
        self.due, self._failures, self._is_open, self.is_under_way = math.inf, 0, False, False

    def is_busy(self, now: float) -> bool:
        """Tell if a probe is under way, or about to begin."""
        return self.is_under_way or self.due <= now + self.settle_seconds
