"""The addresses of a host: where each comes from, and whether others are told of it. Pure.

Rules: specs/addresses.md (A20 to A25), specs/reachability.md (V13).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from p2pnet.connectivity.verdict import Status, Verdict
from p2pnet.core.addresses import Multiaddr, Scope, is_relayed, place_of, scope, with_host
from p2pnet.events import Reachability


class Source(Enum):
    """How this host came to think that an address is its own."""

    ANNOUNCED = "announced by its configuration"
    LISTENING = "listened on"
    MAPPED = "forwarded by the router"
    OBSERVED = "seen by peers"
    RELAY = "lent by a relay"


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address of this host, without ``/p2p``, and what is made of it."""

    address: Multiaddr
    source: Source
    verdict: Verdict
    is_advertised: bool
    because: str
    """Why it is advertised, or is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All addresses that a host has from somewhere, without ``/p2p``."""

    announced: Sequence[Multiaddr] = ()
    listening: Sequence[Multiaddr] = ()
    mapped: Sequence[Multiaddr] = ()
    observed: Sequence[Multiaddr] = ()
    """Seen by at least one network, the most seen first."""
    confirmed: Sequence[Multiaddr] = ()
    """Those of them that enough networks saw."""
    circuits: Sequence[Multiaddr] = ()

    def by_address(self) -> dict[Multiaddr, Source]:
        """Return each address once, with the source that says most about it."""
        found: dict[Multiaddr, Source] = {}
        for source, addresses in (
            (Source.ANNOUNCED, self.announced),
            (Source.LISTENING, self.listening),
            (Source.MAPPED, self.mapped),
            (Source.OBSERVED, self.observed),
            (Source.RELAY, self.circuits),
        ):
            for address in addresses:
                found.setdefault(address, source)
        return found


def expand(listen: Sequence[Multiaddr], interfaces: Sequence[str]) -> tuple[Multiaddr, ...]:
    """Replace the unspecified address by those of the interfaces (A20)."""
    expanded: list[Multiaddr] = []
    for address in listen:
        place = place_of(address)
        if place is None or not place.endpoint.is_unspecified:
            expanded.append(address)
            continue
        is_ipv6 = place.endpoint.is_ipv6
        expanded += [with_host(address, ip) for ip in interfaces if (":" in ip) == is_ipv6]
    return tuple(dict.fromkeys(expanded))


def known_addresses(
    sources: Sources, verdicts: Mapping[Multiaddr, Verdict], reachability: Reachability
) -> tuple[KnownAddress, ...]:
    """Decide which addresses others are told of; the most useful first (A21, V13)."""
    known: list[KnownAddress] = []
    for address, source in sources.by_address().items():
        verdict = verdicts.get(address, Verdict())
        told, because = decide(address, source, verdict, sources, reachability)
        known.append(KnownAddress(address, source, verdict, told, because))
    return tuple(sorted(known, key=lambda each: usefulness(each.address)))


def decide(
    address: Multiaddr,
    source: Source,
    verdict: Verdict,
    sources: Sources,
    reachability: Reachability,
) -> tuple[bool, str]:
    """Tell whether an address is advertised, and why."""
    if source is Source.RELAY:  # A25
        if reachability is Reachability.PUBLIC:
            return False, "this host can be dialled without a relay"
        return True, "a relay always finds this host"
    if source is Source.ANNOUNCED:
        return True, "the configuration says so"
    if scope(address) is not Scope.PUBLIC:
        return True, "only peers that can reach such an address are told"
    match verdict.status:
        case Status.REACHABLE:
            return True, "strangers can dial it"
        case Status.UNREACHABLE:
            return False, "strangers cannot dial it"
        case Status.FILTERED:
            return False, "only those can dial it to whom this host has spoken"
        case Status.UNKNOWN:
            return undecided(address, source, sources)


def undecided(address: Multiaddr, source: Source, sources: Sources) -> tuple[bool, str]:
    """Give an address that nobody has tested the benefit of the doubt, if it is likely (A22)."""
    if source is not Source.OBSERVED:
        return True, "nobody has tested it yet"
    if address in sources.confirmed:
        return True, "several peers see this host there, and nobody has tested it yet"
    return False, "too few peers see this host there"


def usefulness(address: Multiaddr) -> int:
    """Return the rank of an address: smaller is more useful."""
    if is_relayed(address):
        return 3
    return {Scope.PUBLIC: 0, Scope.PRIVATE: 1}.get(scope(address), 2)


def worth_punching(sources: Sources) -> tuple[Multiaddr, ...]:
    """Return direct addresses for a hole punch: public ones, the likeliest first (A24)."""
    every: Iterable[Multiaddr] = dict.fromkeys(
        [*sources.mapped, *sources.announced, *sources.observed, *sources.listening]
    )
    return tuple(
        address
        for address in every
        if not is_relayed(address)
        and (address in sources.observed or scope(address) is Scope.PUBLIC)
    )
