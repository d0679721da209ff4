"""Which of the peers that would relay are asked. Pure. Rules: specs/relay.md (R35, R36)."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr, Scope, ip_of, is_relayed, scope, unwrapped
from p2pnet.core.peer_id import PeerId

NETWORK_4, NETWORK_6 = 16, 32
"""Relays in one network of these lengths are likely to fail together."""
MAX_PLACES = 4
"""Addresses of one found relay that are remembered."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connected peer that serves hop."""

    relay: PeerId
    places: tuple[Multiaddr, ...]
    """Where it can be dialled, the one it was reached at first; never empty."""
    is_inbound: bool
    """It came to us: whom we called, we chose."""
    round_trip: float = math.inf
    """Seconds; infinity if it did not answer."""


def places_of(
    reached_at: Multiaddr, known: Sequence[Multiaddr], *, is_inbound: bool
) -> tuple[Multiaddr, ...]:
    """Choose where a peer can be dialled again.

    An address that a peer came from leads nowhere, as a rule: then only what it told counts.
    """
    told = [place for place in known if not is_relayed(place) and scope(place) is Scope.PUBLIC]
    return tuple(dict.fromkeys(told if is_inbound else [reached_at, *told]))[:MAX_PLACES]


def network_of(place: Multiaddr) -> str:
    """Return the network that a relay shares its fate with; without an IP, the address itself."""
    ip = ip_of(place)
    if ip is None:
        return str(place)
    ip = unwrapped(ip)
    length = NETWORK_6 if isinstance(ip, ipaddress.IPv6Address) else NETWORK_4
    return str(ipaddress.ip_network((ip, length), strict=False))


def choose(
    candidates: Sequence[Candidate], *, taken: Collection[str], count: int
) -> tuple[Candidate, ...]:
    """Choose so many candidates, the best first (R36).

    ``taken`` are the networks of the relays that are held already: another one is better.
    """
    ranked = sorted(candidates, key=rank)
    networks, chosen = set(taken), list[Candidate]()
    for candidate in ranked:
        network = network_of(candidate.places[0])
        if network not in networks and len(chosen) < count:
            networks.add(network)
            chosen.append(candidate)
    spare = [candidate for candidate in ranked if candidate not in chosen]
    return (*chosen, *spare)[:count]


def rank(candidate: Candidate) -> tuple[bool, bool, float, str]:
    """Put those first that anybody can dial, then those that we called, then the near ones."""
    is_public = scope(candidate.places[0]) is Scope.PUBLIC
    return not is_public, candidate.is_inbound, candidate.round_trip, str(candidate.relay)
