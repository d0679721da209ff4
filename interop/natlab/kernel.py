"""Rules for ``nft`` that make a Linux router the NAT that a `NatKind` describes.

The kernel's own NAT decides per flow: a mapping that outlives the flow, filtering by less than
address and port, and hairpinning are not among its ideas. So the rules keep tables beside it,
which packets fill as they pass, one of each for TCP and for UDP::

    mapped    inside endpoint [+ remote address [+ remote port]]  ->  outside port
    incoming  outside port                                        ->  inside endpoint
    allowed   outside port + remote address [+ remote port]

    first packet of a flow, going out          packet nobody inside began a flow for
      in `mapped`?   take that port              filter by nothing:  in `incoming`?
      otherwise      choose one, then            filter by address:  also in `allowed`?
                     learn what was chosen       yes: to the inside endpoint; no: drop or RST

    how much of the remote side is in `mapped` and `allowed` is the mapping and the filtering;
    filtering by address and port is what the kernel's table of flows does by itself.

The port is chosen by the kernel (preserved, random) or counted by ``numgen`` (sequential), and
learned afterwards from the flow, in both directions of look-up.

What differs from the pure NAT: flows have a clock of their own, the kernel's, which inbound
packets always refresh; a mapping for TCP lasts as long as an open connection may be silent, also
when there is none; a preserved port that is taken becomes a random one; and a random port may,
once in thousands of mappings, be one that another mapping has. Only IPv4 is translated. What is
not possible at all is told by `shortcomings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from p2pnet.testing.nat_kind import Dependence, NatKind, PortChoice

TRANSPORTS: Final = ("tcp", "udp")
DEFAULT_MAPPINGS: Final = NatKind().max_mappings
DEFAULT_SESSIONS: Final = NatKind().max_sessions
SEQUENTIAL_PORTS: Final = 2048
"""So many ports a router that counts them has, before it begins again."""

OPTIONAL_SETTINGS: Final = ("bridge/bridge-nf-call-iptables",)
"""What not every kernel has; one that has not does not need it."""

_ADDRESS: Final = "ipv4_addr"
_PORT: Final = "inet_service"


@dataclass(frozen=True, slots=True)
class Router:
    """Where a router stands: its outer address and the network behind its device ``lan``."""

    outside: str
    inside: IPv4Network


def shortcomings(kind: NatKind) -> tuple[str, ...]:
    """Tell why the kernel cannot be a NAT of this kind; empty if it can."""
    reasons = []
    if kind.max_mappings != DEFAULT_MAPPINGS:
        reasons.append("the kernel's NAT has no limit of its own on mappings")
    if kind.max_sessions != DEFAULT_SESSIONS:
        reasons.append("the kernel's limit on flows belongs to the machine")
    if kind.refuses_simultaneous_open and kind.filtering is not Dependence.ADDRESS_AND_PORT:
        reasons.append("simultaneous open is only refused where each flow is filtered")
    if kind.hairpinning and kind.answers_reset:
        reasons.append("a packet on its way back inside is dropped, and never answered")
    return tuple(reasons)


def settings(kind: NatKind) -> dict[str, int]:
    """Give the sysctls of the router, by path below ``/proc/sys/net``."""
    transitory = int(kind.tcp_transitory_seconds)
    return {
        "netfilter/nf_conntrack_udp_timeout": int(kind.udp_seconds),
        "netfilter/nf_conntrack_udp_timeout_stream": int(kind.udp_seconds),
        "netfilter/nf_conntrack_tcp_timeout_established": int(kind.tcp_seconds),
        "netfilter/nf_conntrack_tcp_timeout_syn_sent": transitory,
        "netfilter/nf_conntrack_tcp_timeout_syn_recv": transitory,
        "netfilter/nf_conntrack_tcp_loose": 0,  # A connection begins with a SYN.
        # Else a packet would be translated on its way into the bridge of the home, and one that
        # goes back to where it came from be lost there.
        "bridge/bridge-nf-call-iptables": 0,
        # What is sent back through the device it came from is not worth telling the sender.
        "ipv4/conf/all/send_redirects": 0,
        "ipv4/conf/lan/send_redirects": 0,
    }


def rules(kind: NatKind, router: Router) -> str:
    """Give the rules as ``nft -f`` reads them, for a router with devices ``wan`` and ``lan``."""
    lines = _translating(kind, router) if kind.translates else _firewall(kind)
    return "table ip natlab {\n" + "\n".join(lines) + "\n}\n"


# ---- a NAT ------------------------------------------------------------------------------


def _translating(kind: NatKind, router: Router) -> Iterator[str]:
    for transport in TRANSPORTS:
        yield from _tables(kind, transport)
    yield from _outgoing(kind, router)
    for transport in TRANSPORTS:
        yield from _chain(f"{transport}_translate", *_translate(kind, transport, router))
    yield from _learning(kind, router)
    yield from _incoming(kind, router)
    yield from _input(kind)
    yield from _chain(
        "through",
        "type filter hook forward priority filter; policy drop;",
        *_forward_first(kind),
        'iifname "lan" oifname "wan" accept',
        "ct state established,related accept",
        "ct status dnat accept",
    )


def _tables(kind: NatKind, transport: str) -> Iterator[str]:
    flags = f"flags dynamic,timeout; size {kind.max_mappings};"
    key = " . ".join((_ADDRESS, _PORT, *_remote_types(kind.mapping)))
    yield f"map {transport}_mapped {{ type {key} : {_PORT}; {flags} }}"
    yield f"map {transport}_incoming {{ type {_PORT} : {_ADDRESS} . {_PORT}; {flags} }}"
    if _keeps_allowed(kind):
        allowed = " . ".join((_PORT, *_remote_types(kind.filtering)))
        yield f"set {transport}_allowed {{ type {allowed}; {flags} }}"


def _keeps_allowed(kind: NatKind) -> bool:
    """Tell whether the flows are not enough to know who may come in."""
    match kind.filtering:
        case Dependence.ENDPOINT_INDEPENDENT:
            return False
        case Dependence.ADDRESS:
            return True
        case Dependence.ADDRESS_AND_PORT:
            return kind.hairpinning


def _remote_types(dependence: Dependence) -> tuple[str, ...]:
    return {
        Dependence.ENDPOINT_INDEPENDENT: (),
        Dependence.ADDRESS: (_ADDRESS,),
        Dependence.ADDRESS_AND_PORT: (_ADDRESS, _PORT),
    }[dependence]


def _remote(dependence: Dependence, direction: str) -> tuple[str, ...]:
    address, port = f"ct {direction} ip daddr", f"ct {direction} proto-dst"
    return (address, port)[: len(_remote_types(dependence))]


def _outgoing(kind: NatKind, router: Router) -> Iterator[str]:
    lines = []
    for transport in TRANSPORTS:
        jump = f"meta l4proto {transport} jump {transport}_translate"
        lines.append(f'ip saddr {router.inside} oifname "wan" {jump}')
        if kind.hairpinning:
            lines.append(f"ip saddr {router.inside} ct original ip daddr {router.outside} {jump}")
    yield from _chain(
        "outgoing",
        "type nat hook postrouting priority srcnat; policy accept;",
        *lines,
        f'ip saddr {router.inside} oifname "wan" masquerade',
    )


def _translate(kind: NatKind, transport: str, router: Router) -> Iterator[str]:
    """Choose the outside port of a new flow."""
    source = f"meta l4proto {transport} snat to {router.outside}"
    inside = ("ct original ip saddr", "ct original proto-src")
    key = " . ".join((*inside, *_remote(kind.mapping, "original")))
    yield f"{source} : {key} map @{transport}_mapped"
    a_random_one = f"{source} : {kind.first_port}-{kind.last_port} fully-random"
    match kind.ports:
        case PortChoice.PRESERVING:
            yield f"{transport} sport @{transport}_incoming {a_random_one}"
            yield f"{transport} sport {kind.first_port}-{kind.last_port} {source}"
            yield a_random_one
        case PortChoice.RANDOM:
            yield a_random_one
        case PortChoice.SEQUENTIAL:
            # By a table, for `numgen` counts in the byte order of the machine: as a port the
            # number itself would step by 256.
            count = min(SEQUENTIAL_PORTS, kind.last_port - kind.first_port + 1)
            ports = ", ".join(f"{n} : {kind.first_port + n}" for n in range(count))
            yield f"{source} : numgen inc mod {count} map {{ {ports} }}"


def _learning(kind: NatKind, router: Router) -> Iterator[str]:
    """Learn what was chosen, and refresh it; what filters hairpinning has to know it first."""
    lines: list[str] = []
    for transport in TRANSPORTS:
        # A flow has its two directions the other way round if it began outside.
        for inward, direction, outward in (
            ("original", "original", "reply"),
            ("reply", "reply", "original"),
        ):
            if kind.refresh_inbound:
                condition = f"ct {inward} ip saddr {router.inside} meta l4proto {transport}"
            else:
                condition = (
                    f"ct direction {direction} ct {inward} ip saddr {router.inside}"
                    f" meta l4proto {transport}"
                )
            lines += (
                f"{condition} {update}" for update in _updates(kind, transport, inward, outward)
            )
    yield from _chain(
        "learning",
        "type filter hook postrouting priority srcnat + 10; policy accept;",
        *lines,
        *(_hairpin_filter(kind, router) if kind.hairpinning else ()),
    )


def _updates(kind: NatKind, transport: str, inward: str, outward: str) -> Iterator[str]:
    inside = f"ct {inward} ip saddr . ct {inward} proto-src"
    outside = f"ct {outward} proto-dst"
    seconds = kind.tcp_seconds if transport == "tcp" else kind.udp_seconds
    timeout = f"timeout {int(seconds)}s"
    key = " . ".join((inside, *_remote(kind.mapping, inward)))
    yield f"update @{transport}_mapped {{ {key} {timeout} : {outside} }}"
    yield f"update @{transport}_incoming {{ {outside} {timeout} : {inside} }}"
    if _keeps_allowed(kind):
        allowed = " . ".join((outside, *_remote(kind.filtering, inward)))
        yield f"update @{transport}_allowed {{ {allowed} {timeout} }}"


def _hairpin_filter(kind: NatKind, router: Router) -> Iterator[str]:
    if not _keeps_allowed(kind):
        return
    # Seen by the one who is sent to, the remote side is the sender's own outer side.
    seen = ("ct reply ip daddr", "ct reply proto-dst")[: len(_remote_types(kind.filtering))]
    for transport in TRANSPORTS:
        key = " . ".join(("ct original proto-dst", *seen))
        yield (
            f"ct state new ct original ip saddr {router.inside}"
            f" ct original ip daddr {router.outside}"
            f" meta l4proto {transport} {key} != @{transport}_allowed drop"
        )


def _incoming(kind: NatKind, router: Router) -> Iterator[str]:
    lines = []
    for transport in TRANSPORTS:
        look_up = f"dnat ip to {transport} dport map @{transport}_incoming"
        match kind.filtering:
            case Dependence.ENDPOINT_INDEPENDENT:
                lines.append(f'iifname "wan" meta l4proto {transport} {look_up}')
            case Dependence.ADDRESS:
                sender = f"{transport} dport . ip saddr @{transport}_allowed"
                lines.append(f'iifname "wan" {sender} {look_up}')
            case Dependence.ADDRESS_AND_PORT:
                pass  # Such a packet belongs to a flow, and does not come here.
        if kind.hairpinning:
            to_ourselves = f'iifname "lan" ip daddr {router.outside} meta l4proto {transport}'
            lines.append(f"{to_ourselves} {look_up}")
    yield from _chain(
        "incoming", "type nat hook prerouting priority dstnat; policy accept;", *lines
    )


# ---- a firewall without translation ----------------------------------------------------


def _firewall(kind: NatKind) -> Iterator[str]:
    """Let in what inside endpoints asked for; with no translation, they are the outside ones."""
    known = kind.filtering is not Dependence.ADDRESS_AND_PORT
    own = " . ".join((_PORT, _ADDRESS, *_remote_types(kind.filtering)))
    learn, let_in = [], []
    for transport in TRANSPORTS if known else ():
        yield (
            f"set {transport}_known {{ type {own}; flags dynamic,timeout;"
            f" size {kind.max_mappings}; }}"
        )
        by_address = kind.filtering is Dependence.ADDRESS
        seconds = kind.tcp_seconds if transport == "tcp" else kind.udp_seconds
        sent = f"{transport} sport . ip saddr" + (" . ip daddr" if by_address else "")
        came = f"{transport} dport . ip daddr" + (" . ip saddr" if by_address else "")
        update = f"update @{transport}_known {{ {sent} timeout {int(seconds)}s }}"
        learn.append(f'iifname "lan" {update}')
        let_in.append(f"{came} @{transport}_known accept")
    yield from _input(kind)
    yield from _chain(
        "through",
        "type filter hook forward priority filter; policy drop;",
        *_forward_first(kind),
        *learn,
        'iifname "lan" accept',
        "ct state established,related accept",
        *let_in,
        *_refusal(kind),
    )


# ---- both -------------------------------------------------------------------------------


def _input(kind: NatKind) -> Iterator[str]:
    # A packet that is not dropped here leaves an entry among the flows, after which the
    # outgoing packet no longer keeps its port.
    yield from _chain(
        "for_the_router",
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        "ct state established,related accept",
        "ip protocol icmp accept",
        *_refusal(kind),
    )


def _refusal(kind: NatKind) -> Iterator[str]:
    if kind.answers_reset:
        yield f'iifname "wan" {_SYN} reject with tcp reset'


_SYN: Final = "tcp flags & (fin | syn | rst | ack) == syn"


def _forward_first(kind: NatKind) -> Iterator[str]:
    yield "ct state invalid drop"  # It would pass without translation.
    if kind.udp_blocked:
        yield "meta l4proto udp drop"
    if kind.refuses_simultaneous_open:
        # In the other direction of a flow a SYN without ACK is only seen when both began.
        yield f'iifname "wan" ct direction reply {_SYN} drop'


def _chain(name: str, *lines: str) -> Iterator[str]:
    yield f"chain {name} {{"
    yield from (f"    {line}" for line in lines)
    yield "}"
