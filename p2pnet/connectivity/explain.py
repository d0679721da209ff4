"""A story with a cause and a remedy, made of all that a host knows. Pure.

Rules: specs/reachability.md (V20 to V23). The first finding is the one to act upon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from p2pnet.connectivity.causes import Cause, Finding, cause_of
from p2pnet.connectivity.journal import Entry
from p2pnet.connectivity.known import KnownAddress, Source
from p2pnet.connectivity.nat import Mapping as NatMapping
from p2pnet.connectivity.nat import NatClass
from p2pnet.connectivity.verdict import Status
from p2pnet.core.addresses import Multiaddr, Scope, ip_of, scope
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError
from p2pnet.events import (
    ConnectionRef,
    DialFailed,
    PunchAttemptFailed,
    Reachability,
    ReservationFailed,
)

DCUTR = "/libp2p/dcutr"
TESTING = frozenset({"/libp2p/autonat/2/dial-request", "/libp2p/autonat/1.0.0"})
"""Who serves one of these can be asked to dial back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a host knows of itself."""

    interfaces: tuple[str, ...]
    known: tuple[KnownAddress, ...]
    nat: NatClass
    reachability: Reachability
    connections: tuple[ConnectionRef, ...]
    testers: int
    """Connected peers that can be asked to dial back."""
    has_relay: bool
    """Is there a reservation?"""
    relay_failures: Mapping[PeerId, ReservationFailed] = field(default_factory=dict)
    failed_dials: tuple[DialError, ...] = ()
    """Those since the last connection was opened."""


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

    @property
    def cause(self) -> Cause | None:
        """The cause to act upon; None if all is well."""
        return self.findings[0].cause if self.findings else None


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
    return Explanation("this host", state, tuple(host_findings(situation)))


def host_findings(situation: Situation) -> Iterator[Finding]:
    yield from grounds(situation)
    if situation.reachability is not Reachability.PUBLIC:
        yield from obstacles(situation)
        yield from relay_findings(situation)


def grounds(situation: Situation) -> Iterator[Finding]:
    """What must be there before anything else can be."""
    own = [each.address for each in situation.known if each.source is Source.LISTENING]
    outside = [ip for ip in situation.interfaces if not ip.startswith("127.") and ip != "::1"]
    if not outside:
        yield Finding(Cause.NO_NETWORK, "no interface has an address but loopback")
    elif not own:
        yield Finding(Cause.NO_LISTENER, "it can dial, and not be dialled")
    elif all(scope(address) is Scope.LOOPBACK for address in own):
        yield Finding(Cause.LOOPBACK_ONLY, ", ".join(map(str, own)))
    if not situation.connections:
        yield no_peers(situation)


def no_peers(situation: Situation) -> Finding:
    errors = [attempt.cause for error in situation.failed_dials for attempt in error.attempts]
    errors += [f.error for f in situation.relay_failures.values() if f.error is not None]
    causes = {cause_of(error) for error in errors}
    if causes and causes <= {Cause.NO_ANSWER, Cause.NAME_SERVERS, Cause.NO_ROUTE}:
        return Finding(Cause.OFFLINE, f"{len(errors)} dials failed since the last that worked")
    return Finding(Cause.NO_PEERS, "no connection is open")


def obstacles(situation: Situation) -> Iterator[Finding]:
    """What keeps strangers out."""
    for each in situation.known:
        if each.source is Source.MAPPED and scope(each.address) is not Scope.PUBLIC:
            yield Finding(Cause.CARRIER_NAT, f"the router forwards {each.address}")
        elif each.source is Source.MAPPED and each.verdict.status is Status.UNREACHABLE:
            yield Finding(Cause.MAPPING_USELESS, described(each))
    yield from nat_findings(situation)
    is_open = situation.connections and situation.reachability is Reachability.UNKNOWN
    if is_open and not situation.testers:
        yield Finding(Cause.NOT_TESTED, f"of {len(situation.connections)} connections, none")


def nat_findings(situation: Situation) -> Iterator[Finding]:
    nat = situation.nat
    if nat.is_symmetric:
        yield Finding(Cause.SYMMETRIC_NAT, f"{nat.observers} networks see different ports")
        return
    for each in situation.known:
        if each.verdict.status is Status.FILTERED:
            yield Finding(Cause.FILTERED, described(each))
            return
        if each.verdict.status is Status.UNREACHABLE and each.source is not Source.MAPPED:
            own = ip_of(each.address)
            is_own = str(own) in situation.interfaces or nat.mapping is NatMapping.NONE
            yield Finding(Cause.FIREWALL if is_own else Cause.NAT, described(each))
            return


def relay_findings(situation: Situation) -> Iterator[Finding]:
    if situation.has_relay:
        return
    for relay, failure in situation.relay_failures.items():
        cause = Cause.UNKNOWN if failure.error is None else cause_of(failure.error)
        if cause is Cause.NOTHING_IN_COMMON:
            cause = Cause.NO_RELAY_SERVICE
        elif isinstance(failure.error, DialError) or cause is Cause.NO_ANSWER:
            cause = Cause.RELAY_UNREACHABLE
        yield Finding(cause, f"relay {relay}: {failure.reason}")
    if not situation.relay_failures:
        yield Finding(Cause.NO_RELAY, "without one, only peers that this host dials can talk to it")


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


def explain_peer(peer: Acquaintance, situation: Situation) -> Explanation:
    """Say how a peer is reached, or why it is not, and what would help (V21)."""
    story = tuple(str(entry) for entry in peer.entries)
    direct = [ref for ref in peer.connections if not ref.is_relayed]
    subject = f"peer {peer.peer_id}"
    if direct:
        return Explanation(subject, f"connected directly, at {direct[0].remote_address}", (), story)
    if peer.connections:
        state = f"connected over a relay, at {peer.connections[0].remote_address}"
        return Explanation(subject, state, (why_relayed(peer, situation),), story)
    finding = why_not_connected(peer)
    if finding is None:
        return Explanation(subject, "not connected; nobody has tried to dial it", (), story)
    return Explanation(subject, "not connected", (finding,), story)


def why_not_connected(peer: Acquaintance) -> Finding | None:
    for entry in reversed(peer.entries):
        match entry.event:
            case DialFailed(error=error):
                causes = [(cause_of(a.cause), str(a)) for a in error.attempts]
                cause = cause_of(error)
                return Finding(cause, next((text for c, text in causes if c is cause), error.hint))
    return None


def why_relayed(peer: Acquaintance, situation: Situation) -> Finding:
    """Say why a relayed connection did not become a direct one (V22)."""
    if peer.protocols is not None and DCUTR not in peer.protocols:
        return Finding(Cause.NO_DCUTR, "identify does not name it")
    failures = [e.event for e in peer.entries if isinstance(e.event, PunchAttemptFailed)]
    if not failures:
        return Finding(Cause.UNKNOWN, "no hole punch has ended yet")
    error, reason = failures[-1].error, failures[-1].reason
    cause = Cause.PUNCH_UNANSWERED if error is None else cause_of(error)
    if cause in (Cause.NO_PUNCH_ADDRESS, Cause.NOTHING_IN_COMMON, Cause.HUNG_UP):
        return Finding(cause, reason)
    if situation.nat.is_symmetric:
        return Finding(Cause.OWN_SYMMETRIC, reason)
    if situation.nat.mapping in (NatMapping.ENDPOINT_INDEPENDENT, NatMapping.NONE):
        return Finding(Cause.PEER_SYMMETRIC, reason)
    return Finding(Cause.PUNCH_UNANSWERED, reason)
