"""What kind of NAT this host is behind, as far as peers' words tell. Pure.

Rules: specs/reachability.md (V3 to V6, V14, V15). The words are those of RFC 4787, sections 4 and
5::

    peers see one endpoint, which is an own one           no translation
    peers see one endpoint                                endpoint-independent mapping
    peers see different ports for one port of ours        mapping depends on the destination:
                                                          a *symmetric* NAT
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

from p2pnet.connectivity.observations import Observation
from p2pnet.core.addresses import Endpoint

MAX_SERVERS = 3
"""Servers whose words on the filtering are kept: those of one round."""


class Mapping(Enum):
    """What outside endpoint a port of ours has."""

    UNKNOWN = "unknown"
    NONE = "no translation"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    DEPENDENT = "destination-dependent"
    """One of the next two: another for each address, or for each address and port."""
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


SYMMETRIC = (Mapping.DEPENDENT, Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT)


class Hairpinning(Enum):
    """Whether hosts behind a NAT reach each other, and themselves, at their outside addresses."""

    UNKNOWN = "unknown"
    YES = "yes"
    NO = "no"


class Filtering(Enum):
    """Whom a NAT or firewall lets in to a port of ours that has spoken to somebody."""

    UNKNOWN = "unknown"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


@dataclass(frozen=True, slots=True)
class NatClass:
    """One transport's NAT; what is not known yet is UNKNOWN or None."""

    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    preserves_port: bool | None = None
    """The outside port is the inside one."""
    port_step: int | None = None
    """From one mapping's port to the next one's, if that is always the same; else None."""
    observers: int = 0
    """How many networks told of it."""
    hairpinning: Hairpinning = Hairpinning.UNKNOWN

    @property
    def is_symmetric(self) -> bool:
        """True if no peer can know the port at which another would have to dial."""
        return self.mapping in SYMMETRIC

    @property
    def words(self) -> str:
        """The class in words, for people."""
        if self.mapping is Mapping.UNKNOWN:
            return "not known yet"
        names = {
            Mapping.NONE: "no NAT",
            Mapping.ENDPOINT_INDEPENDENT: "NAT with endpoint-independent mapping",
            Mapping.DEPENDENT: "symmetric NAT (another port for each destination)",
            Mapping.ADDRESS_DEPENDENT: "symmetric NAT (another port for each address)",
            Mapping.ADDRESS_AND_PORT_DEPENDENT: (
                "symmetric NAT (another port for each address and port)"
            ),
        }
        words = names[self.mapping]
        if self.filtering is not Filtering.UNKNOWN:
            words += f", {self.filtering.value} filtering"
        if self.hairpinning is not Hairpinning.UNKNOWN:
            words += ", hairpinning" if self.hairpinning is Hairpinning.YES else ", no hairpinning"
        return words


@dataclass(frozen=True, slots=True)
class Nats:
    """What kind of NAT there is for each transport: they may be treated differently."""

    tcp: NatClass = NatClass()
    udp: NatClass = NatClass()

    def of(self, transport: str) -> NatClass:
        """Return the class for ``tcp`` or ``udp``."""
        return self.udp if transport == "udp" else self.tcp

    @property
    def told(self) -> tuple[tuple[str, NatClass], ...]:
        """The transports of which anything is known; TCP in any case."""
        return (("tcp", self.tcp), *([("udp", self.udp)] if self.udp != NatClass() else []))

    @property
    def is_symmetric(self) -> bool:
        """True if it is symmetric for every transport of which its mapping is known."""
        known = [nat for _, nat in self.told if nat.mapping is not Mapping.UNKNOWN]
        return bool(known) and all(nat.is_symmetric for nat in known)


def mapping_of(observations: Iterable[Observation], own: Collection[str]) -> NatClass:
    """Tell how ports are translated; ``own`` are the IP addresses of this machine (V3).

    Only ports that several networks told of say something: a port that is dialled from once
    has one mapping, whatever the NAT.
    """
    by_port: dict[Endpoint, list[Observation]] = {}
    for each in sorted(observations, key=lambda each: each.time):
        by_port.setdefault(each.local, []).append(each)
    told = max(by_port.values(), key=lambda own: len(networks(own)), default=[])
    observers = len(networks(told))
    if not told:
        return NatClass()
    ports = [each.seen.port for each in told]
    preserves = all(each.seen.port == each.local.port for each in told)
    if all(each.seen.host in own for each in told) and preserves:
        return NatClass(Mapping.NONE, preserves_port=True, observers=observers)
    if observers < 2:
        return NatClass(preserves_port=preserves, observers=observers)
    if len(latest_ports(told)) == 1:  # V4: a NAT with several addresses may change the IP
        mapping = Mapping.ENDPOINT_INDEPENDENT
        return NatClass(mapping, preserves_port=preserves, observers=observers)
    step = step_of(ports)
    return NatClass(Mapping.DEPENDENT, preserves_port=False, port_step=step, observers=observers)


def networks(observations: Iterable[Observation]) -> set[str]:
    return {each.network for each in observations}


def latest_ports(told: Iterable[Observation]) -> set[int]:
    """Return the ports in the last word of each network that does not stand alone (V4).

    One observer in three may lie, or may have been dialled before the NAT was rebooted.
    """
    last = {each.network: each.seen.port for each in told}
    counts: dict[int, int] = {}
    for port in last.values():
        counts[port] = counts.get(port, 0) + 1
    most = max(counts.values())
    if 2 * most > len(last):
        return {port for port, count in counts.items() if count == most}
    return set(counts)


def step_of(ports: list[int]) -> int | None:
    """Return the distance from one mapping's port to the next one's, if it is always the same (V5).

    In the order of the ports: who dials many at once hears from them in any order.
    """
    distinct = sorted(set(ports))
    steps = {later - earlier for earlier, later in pairwise(distinct)}
    return steps.pop() if len(steps) == 1 and len(distinct) > 2 else None


@dataclass(slots=True)
class FilteringTests:
    """The last word of each server on fresh ports; most of them decide, as one may lie (V6)."""

    contacted: dict[str, bool] = field(default_factory=dict)
    """Did it get through, from another port, to a port that had spoken to it?"""
    stranger: dict[str, bool] = field(default_factory=dict)
    """Did it get through to a port that had not?"""

    def record(self, server: str, *, by_stranger: bool, reached: bool) -> None:
        words = self.stranger if by_stranger else self.contacted
        words.pop(server, None)
        words[server] = reached
        while len(words) > MAX_SERVERS:
            del words[next(iter(words))]

    @property
    def filtering(self) -> Filtering:
        contacted, stranger = most(self.contacted), most(self.stranger)
        if stranger:
            return Filtering.ENDPOINT_INDEPENDENT
        if contacted is False:
            return Filtering.ADDRESS_AND_PORT_DEPENDENT
        if contacted and stranger is False:
            return Filtering.ADDRESS_DEPENDENT
        return Filtering.UNKNOWN


def most(words: dict[str, bool]) -> bool | None:
    """Return what most say; None if as many say the one as the other."""
    through = sum(words.values())
    return None if 2 * through == len(words) else 2 * through > len(words)


@dataclass(slots=True)
class HairpinTests:
    """Whether this host got through to itself at outside addresses of its own (V14)."""

    fresh: bool | None = None
    """At a fresh port that had knocked at where the dial came from."""
    open: bool | None = None
    """At an address at which strangers get through."""

    def record(self, *, is_fresh: bool, reached: bool) -> None:
        if is_fresh:
            self.fresh = reached
        else:
            self.open = reached

    def hairpinning(self, mapping: Mapping, filtering: Filtering) -> Hairpinning:
        """Tell what follows, with a NAT that else is such."""
        if self.fresh or self.open:
            return Hairpinning.YES
        # Nobody can knock at a port that is another for each destination: if a filter asks for
        # it, that is reason enough for nobody to get through.
        has_a_door = (
            mapping is Mapping.ENDPOINT_INDEPENDENT or filtering is Filtering.ENDPOINT_INDEPENDENT
        )
        if self.open is False or (self.fresh is False and has_a_door):
            return Hairpinning.NO
        return Hairpinning.UNKNOWN


@dataclass(slots=True)
class PairTests:
    """Whether peers saw one port of ours alike from two ports of theirs; most decide (V15)."""

    same: dict[str, bool] = field(default_factory=dict)
    """The last word of each peer."""

    def record(self, server: str, *, same: bool) -> None:
        self.same.pop(server, None)
        self.same[server] = same
        while len(self.same) > MAX_SERVERS:
            del self.same[next(iter(self.same))]

    def refine(self, mapping: Mapping) -> Mapping:
        """Tell on what a mapping depends that is known to depend on something."""
        same = most(self.same)
        if mapping is not Mapping.DEPENDENT or same is None:
            return mapping
        return Mapping.ADDRESS_DEPENDENT if same else Mapping.ADDRESS_AND_PORT_DEPENDENT


@dataclass(slots=True)
class NatTests:
    """All tests of the NAT, for one transport."""

    filtering: FilteringTests = field(default_factory=FilteringTests)
    hairpins: HairpinTests = field(default_factory=HairpinTests)
    pairs: PairTests = field(default_factory=PairTests)

    def add_to(self, told: NatClass) -> NatClass:
        """Add what the tests say to what peers told of the mapping."""
        filtering = self.filtering.filtering
        hairpinning = self.hairpins.hairpinning(told.mapping, filtering)
        mapping = self.pairs.refine(told.mapping)
        return replace(told, mapping=mapping, filtering=filtering, hairpinning=hairpinning)
