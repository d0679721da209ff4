"""What ``p2pnet doctor`` finds out: gathered from a host, put in fields and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from p2pnet.commands.output import Field
from p2pnet.connectivity.explain import Explanation
from p2pnet.connectivity.known import KnownAddress
from p2pnet.connectivity.nat import NatClass, Nats
from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.portmap.service import MappedPort, RouterReport
from p2pnet.connectivity.reach import Prospect, best_prospects
from p2pnet.core.addresses import Scope, scope_of_ip
from p2pnet.core.env import Network
from p2pnet.core.peer_id import PeerId
from p2pnet.events import Reachability
from p2pnet.host.host import Host
from p2pnet.protocols.relay import RelayClient

PASSING = ("evidence", "confidence", "story", "detail")
"""What is new with each test, and no news."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a machine has of a network, by its own word."""

    interfaces: tuple[str, ...]
    gateways: tuple[str, ...]
    binds_udp: bool


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that this host should be found at."""

    peer_id: PeerId
    is_held: bool
    explanation: Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is known at one moment."""

    is_complete: bool
    """There is nothing to wait for."""
    around: Surroundings
    reachability: Reachability
    explanation: Explanation
    known: tuple[KnownAddress, ...]
    nat: Nats
    routers: tuple[RouterReport, ...]
    mappings: tuple[MappedPort, ...]
    relays: tuple[Relay, ...]
    peers: tuple[tuple[PeerId, Explanation], ...]

    @property
    def prospects(self) -> tuple[Prospect, ...]:
        return best_prospects(self.nat, self.reachability)

    @property
    def can_be_found(self) -> bool:
        """Strangers can dial this host, or a relay carries them."""
        is_public = self.reachability is Reachability.PUBLIC
        return is_public or any(relay.is_held for relay in self.relays)

    @property
    def router_answers(self) -> bool | None:
        """Whether something came back over UDP; None if nobody was asked."""
        if not self.routers:
            return None
        return any(each.is_spoken for each in self.routers)


def look_around(network: Network, *, binds_udp: bool) -> Surroundings:
    """Ask the machine what network it has. Raises OSError."""
    return Surroundings(network.interface_addresses(), network.gateways(), binds_udp)


def examine(
    host: Host,
    around: Surroundings,
    *,
    relays: Sequence[PeerId],
    peers: Sequence[PeerId],
    is_complete: bool,
) -> Report:
    """Gather what a host knows now."""
    try:
        mapping = host.service(PortMapping)
        routers, mappings = mapping.routers, mapping.mappings
    except LookupError:
        routers, mappings = (), ()
    held = host.service(RelayClient).relays
    return Report(
        is_complete=is_complete,
        around=around,
        reachability=host.reachability.value,
        explanation=host.explain(),
        known=host.known_addresses.value,
        nat=host.nat.value,
        routers=routers,
        mappings=mappings,
        relays=tuple(Relay(each, each in held, host.explain(each)) for each in relays),
        peers=tuple((each, host.explain(each)) for each in peers),
    )


# ---- for programs ------------------------------------------------------------------------


def fields(report: Report) -> dict[str, Field]:
    """Put a report in fields; each of them stands in specs/cli.md (C8)."""
    return {
        "complete": report.is_complete,
        "state": report.explanation.state,
        "reachability": report.reachability.value,
        "interfaces": report.around.interfaces,
        "gateways": report.around.gateways,
        "ipv4": best_scope(report.around.interfaces, 4),
        "ipv6": best_scope(report.around.interfaces, 6),
        "udp": {"bound": report.around.binds_udp, "answered": report.router_answers},
        "addresses": [fields_of_address(each) for each in report.known],
        "nat": [fields_of_nat(*each) for each in report.nat.told],
        "routers": [
            {
                "gateway": each.gateway,
                "protocol": each.protocol,
                "found": each.is_spoken,
                "detail": each.detail,
            }
            for each in report.routers
        ],
        "mappings": [
            {
                "protocol": each.protocol,
                "address": str(each.listen_address),
                "outside": str(each.outside_address),
            }
            for each in report.mappings
        ],
        "relays": [fields_of_relay(each) for each in report.relays],
        "reach": [
            {"peers": each.kind.name.lower(), "way": each.way.name.lower(), "reason": each.reason}
            for each in report.prospects
        ],
        "findings": fields_of_findings(report.explanation),
        "remedy": report.explanation.remedy,
        "peers": [
            {
                "peer": str(peer_id),
                "state": each.state,
                "findings": fields_of_findings(each),
                "story": each.story,
            }
            for peer_id, each in report.peers
        ],
    }


def best_scope(interfaces: Iterable[str], version: int) -> str:
    """Return what the best address of a family is good for; ``none`` if there is none."""
    found = {
        scope_of_ip(ip)
        for ip in map(ip_address, interfaces)
        if ip.version == version and not (ip.is_loopback or ip.is_link_local)
    }
    best = (scope for scope in (Scope.PUBLIC, Scope.PRIVATE, Scope.UNROUTABLE) if scope in found)
    return next((scope.value for scope in best), "none")


def fields_of_address(known: KnownAddress) -> Mapping[str, Field]:
    return {
        "address": str(known.address),
        "source": known.source.name.lower(),
        "verdict": known.verdict.status.value,
        "confidence": round(known.verdict.confidence, 3),
        "evidence": known.verdict.reasons,
        "advertised": known.is_advertised,
        "because": known.because,
    }


def fields_of_nat(transport: str, nat: NatClass) -> Mapping[str, Field]:
    return {
        "transport": transport,
        "mapping": nat.mapping.value,
        "filtering": nat.filtering.value,
        "preserves_port": nat.preserves_port,
        "port_step": nat.port_step,
        "hairpinning": nat.hairpinning.value,
        "observers": nat.observers,
    }


def fields_of_relay(relay: Relay) -> Mapping[str, Field]:
    return {
        "relay": str(relay.peer_id),
        "held": relay.is_held,
        "findings": [] if relay.is_held else fields_of_findings(relay.explanation),
    }


def fields_of_findings(explanation: Explanation) -> list[Mapping[str, Field]]:
    return [
        {
            "cause": each.cause.name.lower(),
            "words": each.cause.words,
            "detail": each.detail,
            "remedy": each.cause.remedy,
        }
        for each in explanation.findings
    ]


def essence(field: Field) -> Field:
    """Leave out of fields what changes without being news."""
    match field:
        case Mapping():
            return {key: essence(value) for key, value in field.items() if key not in PASSING}
        case list():
            return [essence(value) for value in field]
        case _:
            return field


# ---- for people --------------------------------------------------------------------------


def words(report: Report) -> str:
    """Put a report in words, the verdict first and what to do last."""
    lines = [report.explanation.state, ""]
    lines += [*words_of_network(report), *words_of_helpers(report), "", "addresses"]
    for known in report.known:
        lines += words_of_address(known)
    lines += ["", "with a relay on both sides, connections become"]
    lines += [f"  {p.way.value:<14} {p.kind.value}: {p.reason}" for p in report.prospects]
    for _, peer in report.peers:
        lines += ["", str(peer), *(f"    {told}" for told in peer.story)]
    lines += words_of_findings(report)
    if not report.is_complete:
        lines += ["", "Not all is known yet; give it more time with --seconds."]
    return "\n".join(lines)


def words_of_network(report: Report) -> list[str]:
    around = report.around
    ips = [ip for ip in around.interfaces if not ip_address(ip).is_loopback]
    families = ", ".join(
        f"IPv{version} {best_scope(around.interfaces, version)}" for version in (4, 6)
    )
    udp = "a socket can be bound" if around.binds_udp else "no socket can be bound"
    if report.router_answers is not None:
        answered = "the router answers" if report.router_answers else "no router answers"
        udp += f", and {answered} over it"
    return [
        f"interfaces   {', '.join(ips) or 'none but loopback'} ({families})",
        f"router       {', '.join(around.gateways) or 'none known'}",
        f"UDP          {udp}",
        *(f"NAT, {name.upper()}     {nat.words}" for name, nat in report.nat.told),
    ]


def words_of_helpers(report: Report) -> list[str]:
    lines = [
        f"mapping      {each.protocol} at {each.gateway}: "
        + ("spoken" if each.is_spoken else f"no, {each.detail}")
        for each in report.routers
    ]
    lines += [f"mapped       {each.outside_address} by {each.protocol}" for each in report.mappings]
    for relay in report.relays:
        why = "; ".join(each.cause.words for each in relay.explanation.findings)
        state = "holds a reservation" if relay.is_held else why or "has not answered yet"
        lines.append(f"relay        {relay.peer_id}: {state}")
    return lines


def words_of_address(known: KnownAddress) -> list[str]:
    verdict = known.verdict
    sure = f" ({verdict.confidence:.0%} sure)" if verdict.confidence else ""
    advertised = "advertised" if known.is_advertised else "not advertised"
    return [
        f"  {known.address}",
        f"    {known.source.value}; {verdict.status.value}{sure}; {advertised}: {known.because}",
        *(f"    {reason}" for reason in verdict.reasons),
    ]


def words_of_findings(report: Report) -> list[str]:
    findings = report.explanation.findings
    if not findings:
        return ["", "Nothing needs to be changed."]
    lines = ["", f"What stands in the way: {findings[0].cause.words}", f"  {findings[0].detail}"]
    for finding in findings[1:]:
        lines += [f"And: {finding.cause.words}", f"  {finding.detail}"]
    return [*lines, "", f"What would help most: {report.explanation.remedy}"]
