"""A story with a cause and a remedy, made of all that a host knows. Pure.

Rules: specs/reachability.md (V20 to V23). The first finding is the one to act upon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from p2pnet.connectivity.causes import Cause, Finding
from p2pnet.connectivity.journal import NO_AIM, Aim, Entry
from p2pnet.connectivity.known import KnownAddress, Source
from p2pnet.connectivity.nat import Mapping as NatMapping
from p2pnet.connectivity.nat import Nats
from p2pnet.connectivity.verdict import Status
from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    ip_of,
    place_of,
    scope,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    DialFailed,
    PunchAttemptFailed,
    PunchStarted,
    Reachability,
)

DCUTR = "/libp2p/dcutr"
TESTING = frozenset({"/libp2p/autonat/2/dial-request", "/libp2p/autonat/1.0.0"})
"""Who serves one of these can be asked to dial back, if it is somewhere else."""
PUNCH_SECONDS = 15.0
"""In so many a peer that was called over a relay has an address and has conversed, if it can."""
UNTRIED = frozenset({Cause.RESTING, Cause.UNSUPPORTED, Cause.LEFT_OUT})
"""What says nothing of a network, as nothing was sent."""
SILENCE = frozenset({Cause.NO_ANSWER, Cause.NAME_SERVERS, Cause.NO_ROUTE}) | UNTRIED
"""What all dials end with on a machine that has lost its way to the internet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a host knows of itself."""

    now: float
    """Seconds since the host began."""
    interfaces: tuple[str, ...]
    known: tuple[KnownAddress, ...]
    nat: Nats
    reachability: Reachability
    connections: tuple[ConnectionRef, ...]
    testers: int
    """Connected peers that can be asked to dial back."""
    speaks_dcutr: bool = True
    can_punch: bool = True
    """Is a public address known that a peer could punch at?"""
    is_silent_over_udp: bool = False
    """Has somebody answered who was silent over UDP, and nobody over that?"""
    has_relay: bool
    """Is there a reservation?"""
    wants_relay: bool = False
    """Is a relay configured?"""
    relay_failures: Mapping[PeerId, Finding] = field(default_factory=dict)
    failures: tuple[Cause, ...] = ()
    """Of the dials since the last connection was opened."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say about this host, or about a peer."""

    subject: str
    state: str
    """In one line."""
    findings: tuple[Finding, ...]
    """What is wrong, the most important first; empty if nothing is."""
    story: tuple[str, ...] = ()
    """What happened, in order."""
    facts: tuple[str, ...] = ()
    """What is known of the network of this host."""

    @property
    def cause(self) -> Cause | None:
        """The cause to act upon; None if all is well."""
        return self.findings[0].cause if self.findings else None

    @property
    def remedy(self) -> str:
        """The one thing to change that would help most; empty if all is well."""
        return self.findings[0].cause.remedy if self.findings else ""

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.state}", *(f"  {fact}" for fact in self.facts)]
        for finding in self.findings:
            lines += [f"  {finding.cause.words}: {finding.detail}", f"    {finding.cause.remedy}"]
        return "\n".join(lines)


# ---- of this host ------------------------------------------------------------------------


def explain_host(situation: Situation) -> Explanation:
    """Say whether strangers can reach this host, and if not, why, and what would help (V20)."""
    state = {
        Reachability.PUBLIC: "strangers can dial this host",
        Reachability.PRIVATE: "strangers cannot dial this host",
        Reachability.UNKNOWN: "it is not known if strangers can dial this host",
    }[situation.reachability]
    if situation.reachability is not Reachability.PUBLIC and situation.has_relay:
        state += "; it can be found over its relay"
    facts = [f"NAT, {name.upper()}: {nat.words}" for name, nat in situation.nat.told]
    return Explanation("this host", state, tuple(host_findings(situation)), facts=tuple(facts))


def host_findings(situation: Situation) -> Iterator[Finding]:
    """Go from what nothing works without to what only some peers notice (V20)."""
    yield from grounds(situation)
    if situation.reachability is not Reachability.PUBLIC:
        yield from relay_failures(situation)
        yield from obstacles(situation)
        yield from missing_relay(situation)
        yield from filters(situation)
        yield from open_questions(situation)


def grounds(situation: Situation) -> Iterator[Finding]:
    """What must be there before anything else can be."""
    own = [each.address for each in situation.known if each.source is Source.LISTENING]
    if not any(map(is_of_network, situation.interfaces)):
        yield Finding(Cause.NO_NETWORK, "no interface has an address but loopback")
        return
    if not own:
        yield Finding(Cause.NO_LISTENER, "it can dial, and not be dialled")
    elif all(scope(address) is Scope.LOOPBACK for address in own):
        yield Finding(Cause.LOOPBACK_ONLY, ", ".join(map(str, own)))
    if not situation.connections:
        yield from nobody(situation)


def is_of_network(text: str) -> bool:
    """Tell if an address is one with which anybody else could be reached."""
    ip = ip_address(text)
    return not (ip.is_loopback or ip.is_link_local)


def nobody(situation: Situation) -> Iterator[Finding]:
    """Say why no peer is connected; what is wrong with relays is told by itself."""
    causes = set(situation.failures) - UNTRIED
    if causes and causes <= SILENCE:
        count = len(situation.failures)
        yield Finding(Cause.OFFLINE, f"{count} dials failed since the last that worked")
    elif (
        situation.reachability is not Reachability.PUBLIC
        and not situation.wants_relay
        and not situation.relay_failures
    ):
        yield Finding(Cause.NO_PEERS, "no connection is open")


def relay_failures(situation: Situation) -> Iterator[Finding]:
    """What keeps this host from all of its relays."""
    if situation.has_relay:
        return
    yield from situation.relay_failures.values()
    if situation.wants_relay and not situation.relay_failures:
        yield Finding(Cause.RESERVING, "it is being asked for a reservation")


def obstacles(situation: Situation) -> Iterator[Finding]:
    """What is in the way of hole punches, too, or of a mapping that somebody asked for."""
    mapped = [each for each in situation.known if each.source is Source.MAPPED]
    for each in mapped:
        if scope(each.address) is not Scope.PUBLIC:
            yield Finding(Cause.CARRIER_NAT, f"the router forwards {each.address}")
        elif each.verdict.status in SHUT:
            yield Finding(Cause.MAPPING_USELESS, described(each))
        elif situation.testers and situation.reachability is Reachability.PRIVATE:
            yield Finding(Cause.TESTING, f"at {each.address}, which the router forwards")
    yield from blocked_udp(situation)
    if situation.nat.is_symmetric:
        count = max(nat.observers for _, nat in situation.nat.told)
        yield Finding(Cause.SYMMETRIC_NAT, f"{count} networks see different ports")


def blocked_udp(situation: Situation) -> Iterator[Finding]:
    """Say that UDP does not get through, if it is all that this host could be met over (V25)."""
    own = [each.address for each in situation.known if each.source is Source.LISTENING]
    is_all = {place.protocol for place in map(place_of, own) if place is not None} == {"udp"}
    if is_all and situation.is_silent_over_udp and not situation.can_punch:
        yield Finding(Cause.UDP_BLOCKED, "who was silent over it has answered over TCP")


SHUT = (Status.UNREACHABLE, Status.FILTERED)


def missing_relay(situation: Situation) -> Iterator[Finding]:
    is_private = situation.reachability is Reachability.PRIVATE
    if is_private and not (situation.has_relay or situation.wants_relay):
        yield Finding(Cause.NO_RELAY, "without one, only peers that this host dials can talk to it")


def filters(situation: Situation) -> Iterator[Finding]:
    """What keeps strangers out, and lets hole punches through."""
    if situation.nat.is_symmetric:
        return
    for each in situation.known:
        if each.source is Source.MAPPED or each.verdict.status not in SHUT:
            continue
        is_own = str(ip_of(each.address)) in situation.interfaces
        place = place_of(each.address)
        nat = situation.nat.of("tcp" if place is None else place.protocol)
        if is_own or nat.mapping is NatMapping.NONE:
            yield Finding(Cause.FIREWALL, described(each))
        elif each.verdict.status is Status.FILTERED:
            yield Finding(Cause.FILTERED, described(each))
        else:
            yield Finding(Cause.NAT, described(each))
        return


def open_questions(situation: Situation) -> Iterator[Finding]:
    """What is not known yet, and will be, or will never be."""
    if not situation.connections or situation.reachability is not Reachability.UNKNOWN:
        return
    if situation.testers:
        peers = "one peer that can" if situation.testers == 1 else f"{situation.testers} that can"
        yield Finding(Cause.TESTING, f"by {peers}")
    else:
        yield Finding(Cause.NOT_TESTED, f"of {len(situation.connections)} connections, none")


def can_test(connection: ConnectionRef, protocols: Collection[str]) -> bool:
    """Tell if a peer can be asked to dial back: one in our own network sees nothing (V20)."""
    is_elsewhere = not connection.is_relayed and scope(connection.remote_address) is Scope.PUBLIC
    return is_elsewhere and not TESTING.isdisjoint(protocols)


def described(known: KnownAddress) -> str:
    reasons = "; ".join(known.verdict.reasons)
    return f"{known.address}: {reasons}" if reasons else str(known.address)


# ---- of a peer ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquaintance:
    """What a host knows of a peer."""

    peer_id: PeerId
    addresses: Sequence[Multiaddr]
    protocols: frozenset[str] | None
    connections: tuple[ConnectionRef, ...]
    entries: tuple[Entry, ...]
    aim: Aim = NO_AIM


def explain_peer(peer: Acquaintance, situation: Situation) -> Explanation:
    """Say how a peer is reached, or why it is not, and what would help (V21)."""
    story = tuple(str(entry) for entry in peer.entries)
    direct = [ref for ref in peer.connections if not ref.is_relayed]
    subject = f"peer {peer.peer_id}"
    if direct:
        state = f"connected directly, at {direct[0].remote_address}"
        failure = situation.relay_failures.get(peer.peer_id)
        return Explanation(subject, state, () if failure is None else (failure,), story)
    if peer.connections:
        state = f"connected over a relay, at {peer.connections[0].remote_address}"
        return Explanation(subject, state, (why_relayed(peer, situation),), story)
    last = last_word(peer.entries)
    if last is None:
        return Explanation(subject, "not connected; nobody has tried to dial it", (), story)
    if last.finding is None:
        return Explanation(subject, "not connected; this host closed the connection", (), story)
    return Explanation(subject, "not connected", (why_not(last, last.finding, situation),), story)


def last_word(entries: Sequence[Entry]) -> Entry | None:
    """Return what says why there is no connection; that an address rests says nothing (V21)."""
    told = [e for e in entries if e.kind in (DialFailed, ConnectionClosed)]
    resting = None
    for entry in reversed(told):
        if entry.finding is None or entry.finding.cause is not Cause.RESTING:
            return entry
        resting = resting or entry
    return resting


def why_not(last: Entry, finding: Finding, situation: Situation) -> Finding:
    """Say who it is that did not answer within a circuit: its relay, or the peer behind it."""
    if finding.cause is not Cause.NO_ANSWER or not last.relays:
        return finding
    connected = {ref.peer_id for ref in situation.connections if not ref.is_relayed}
    reached = connected & set(last.relays)
    return Finding(Cause.RELAY_LOST_PEER if reached else Cause.RELAY_UNREACHABLE, finding.detail)


def why_relayed(peer: Acquaintance, situation: Situation) -> Finding:
    """Say why a relayed connection did not become a direct one (V22)."""
    if not situation.speaks_dcutr:
        return Finding(Cause.NO_OWN_DCUTR, "so nobody punches")
    if peer.protocols is not None and DCUTR not in peer.protocols:
        return Finding(Cause.NO_DCUTR, "identify does not name it")
    failures = [entry for entry in peer.entries if entry.kind is PunchAttemptFailed]
    if not failures:
        return why_not_begun(peer, situation)
    finding = failures[-1].finding or Finding(Cause.PUNCH_UNANSWERED, failures[-1].words)
    if finding.cause in (Cause.HUNG_UP, Cause.NO_PUNCH_ADDRESS) and not situation.can_punch:
        return no_own_address(situation)
    if finding.cause is Cause.NOTHING_IN_COMMON:
        return Finding(Cause.NO_DCUTR, finding.detail)
    if finding.cause is Cause.HUNG_UP:  # The conversation alone: the connection is there.
        detail = f"the peer, it seems, for it broke off: {finding.detail}"
        return Finding(Cause.NO_PUNCH_ADDRESS, detail)
    if finding.cause is Cause.NO_ANSWER:
        detail = f"in the conversation about a hole punch: {finding.detail}"
        return Finding(Cause.NO_ANSWER, detail)
    if finding.cause not in (Cause.PUNCH_UNANSWERED, Cause.UNKNOWN):
        return finding
    return Finding(why_unanswered(peer.aim, situation), finding.detail)


STEADY = (NatMapping.ENDPOINT_INDEPENDENT, NatMapping.NONE)
"""All see one port."""


def why_unanswered(aim: Aim, situation: Situation) -> Cause:
    """Say by the NATs at both ends why no packet came through (V22)."""
    own = {name for name, nat in situation.nat.told if nat.mapping in STEADY}
    used = {place.protocol for place in map(place_of, aim.targets) if place is not None}
    if not can_meet(aim.targets, situation):
        return Cause.NO_COMMON_WAY
    if situation.nat.is_symmetric:
        return Cause.OWN_SYMMETRIC
    if not own or is_here(aim.targets, situation):
        return Cause.PUNCH_UNANSWERED
    if not used or not used <= aim.steady:
        return Cause.PEER_SYMMETRIC
    return Cause.SIMULTANEOUS_OPEN if used == {"tcp"} <= own else Cause.PUNCH_UNANSWERED


def can_meet(targets: Sequence[Multiaddr], situation: Situation) -> bool:
    """Tell if this host listens by any transport and IP family that was punched at (V22)."""
    own = (each.address for each in situation.known if each.source is Source.LISTENING)
    here, there = ways(each for each in own if scope(each) is not Scope.LOOPBACK), ways(targets)
    return not here or not there or not here.isdisjoint(there)


def ways(addresses: Iterable[Multiaddr]) -> set[tuple[str, bool]]:
    """Return the transports of addresses, each with whether it is by IPv6."""
    places = map(place_of, addresses)
    return {(place.protocol, place.endpoint.is_ipv6) for place in places if place is not None}


def is_here(targets: Sequence[Multiaddr], situation: Situation) -> bool:
    """Tell if a peer is seen at the same public IP: its packets, and ours, do not come back in."""
    own = (each.address for each in situation.known if each.source is not Source.RELAY)
    public = {ip_of(address) for address in own if scope(address) is Scope.PUBLIC}
    return not public.isdisjoint(map(ip_of, targets))


def no_own_address(situation: Situation) -> Finding:
    """Say that this host has no public address, or what keeps it from one."""
    known = Finding(Cause.NO_PUNCH_ADDRESS, "nobody has told this host a public address")
    return next(blocked_udp(situation), known)


def why_not_begun(peer: Acquaintance, situation: Situation) -> Finding:
    """Say why there was no hole punch: it is for the side that was called to begin."""
    if not situation.can_punch:
        return no_own_address(situation)
    opened = [e.time for e in peer.entries if e.kind is ConnectionOpened]
    begun = any(e.kind is PunchStarted for e in peer.entries)
    waits = begun or peer.connections[0].is_inbound or not opened
    if waits or situation.now - opened[-1] < PUNCH_SECONDS:
        words = "it is under way" if begun else "the side that was called begins"
        return Finding(Cause.PUNCH_PENDING, words)
    return Finding(Cause.NO_PUNCH_ADDRESS, "the peer, which was called, has not begun")
