"""What kinds of peers this host gets direct connections to, and which stay relayed. Pure.

Rules: specs/reachability.md (V24). The derivation is in specs/nat.md: one side has to know
the other's port, and the other's filter has to be open for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2pnet.connectivity.nat import Filtering, Mapping, NatClass, Nats
from p2pnet.events import Reachability


class PeerKind(Enum):
    """Where a peer sits."""

    PUBLIC = "public peers"
    LENIENT = "peers whose NAT or firewall filters addresses at most"
    STRICT = "peers whose NAT or firewall filters ports, as most do"
    SYMMETRIC = "peers behind a symmetric NAT"


class Way(Enum):
    """How a connection with a peer ends up, once both know a relay."""

    DIRECT = "direct"
    RELAYED = "relayed"
    UNKNOWN = "not known yet"


BEST_FIRST = (Way.DIRECT, Way.UNKNOWN, Way.RELAYED)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What to expect of one kind of peers."""

    kind: PeerKind
    way: Way
    reason: str


def prospects(nat: NatClass, reachability: Reachability) -> tuple[Prospect, ...]:
    """Tell for each kind of peers whether a direct connection can be had (V24)."""
    return tuple(prospect(kind, nat, reachability) for kind in PeerKind)


def best_prospects(nats: Nats, reachability: Reachability) -> tuple[Prospect, ...]:
    """Tell what the best transport comes to, for each kind of peers."""
    of_each = [prospects(nat, reachability) for _, nat in nats.told]
    return tuple(
        min(kind, key=lambda each: BEST_FIRST.index(each.way))
        for kind in zip(*of_each, strict=True)
    )


def prospect(kind: PeerKind, nat: NatClass, reachability: Reachability) -> Prospect:
    if kind is PeerKind.PUBLIC:
        return Prospect(kind, Way.DIRECT, "this host dials them")
    if reachability is Reachability.PUBLIC:
        return Prospect(kind, Way.DIRECT, "they dial this host")
    if kind is PeerKind.LENIENT:
        return Prospect(kind, Way.DIRECT, "by a hole punch: they do not ask for a port")
    match nat.mapping:
        case Mapping.UNKNOWN:
            known = with_port(kind, nat)
            if known.way is without_port(kind, nat).way:
                return known
            return Prospect(kind, Way.UNKNOWN, "the NAT of this host is not known yet")
        case Mapping.DEPENDENT | Mapping.ADDRESS_DEPENDENT | Mapping.ADDRESS_AND_PORT_DEPENDENT:
            return without_port(kind, nat)
        case Mapping.NONE | Mapping.ENDPOINT_INDEPENDENT:
            return with_port(kind, nat)


def with_port(kind: PeerKind, nat: NatClass) -> Prospect:
    """Tell what comes of it if peers can know the port of this host, but filter ports."""
    if kind is PeerKind.STRICT:
        return Prospect(kind, Way.DIRECT, "by a hole punch: each knows the other's port")
    match nat.filtering:
        case Filtering.ADDRESS_AND_PORT_DEPENDENT:
            reason = "their port is unknown, and the filter of this host asks for it"
            return Prospect(kind, Way.RELAYED, reason)
        case Filtering.UNKNOWN:
            return Prospect(kind, Way.UNKNOWN, "that depends on the filter of this host")
        case Filtering.ADDRESS_DEPENDENT | Filtering.ENDPOINT_INDEPENDENT:
            reason = "by a hole punch: the filter of this host does not ask for their port"
            return Prospect(kind, Way.DIRECT, reason)


def without_port(kind: PeerKind, nat: NatClass) -> Prospect:
    """Tell what comes of it if the NAT of this host gives another port for each destination."""
    if kind is PeerKind.STRICT:
        reason = "the port of this host is unknown, and their filter asks for it"
        return Prospect(kind, Way.RELAYED, reason)
    match nat.filtering:
        case Filtering.ENDPOINT_INDEPENDENT:
            # NT24: what a third party sees is a door for all who have no other mapping here.
            return Prospect(kind, Way.DIRECT, "anyone comes in where this host was seen")
        case Filtering.UNKNOWN:
            return Prospect(kind, Way.UNKNOWN, "that depends on the filter of this host")
        case Filtering.ADDRESS_DEPENDENT | Filtering.ADDRESS_AND_PORT_DEPENDENT:
            return Prospect(kind, Way.RELAYED, "neither side can know the other's port")
