"""Whom a server dials and for how much, and what a client makes of it. Rules: specs/autonat.md."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum

from p2pnet.core.addresses import (
    DNS_KINDS,
    Multiaddr,
    Scope,
    components,
    ip_of,
    peer_id_of,
    scope,
    scope_of_ip,
    unwrapped,
    without_peer,
)
from p2pnet.core.addresses import place_of as direct_place
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.autonat.messages import PADDING, DialResponse, DialStatus, Status

IPV6_PREFIX = 56
MINUTE = 60.0
HOUR = 3600.0


def network_of(address: Multiaddr) -> str:
    """Return the network that counts as one: an IPv4 address, or an IPv6 /56 (AN11, AN25).

    Empty if the address does not begin with an IP.
    """
    ip = ip_of(address)
    if ip is None:
        return ""
    ip = unwrapped(ip)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


def port_of(address: Multiaddr) -> tuple[str, int] | None:
    """Return the port of TCP or UDP that a direct address leads to; None if there is none."""
    place = direct_place(address)
    if place is None or place.endpoint.port == 0:
        return None
    return place.protocol, place.endpoint.port


# ---- the server --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is: what it is able and willing to dial depends on that."""

    dials: Callable[[Multiaddr], bool]
    """Whether there is a transport for an address: of TCP, QUIC, WebSocket or whatever."""
    own: frozenset[str] = frozenset()
    """IP addresses of this machine, and of the NAT before it."""
    has_ipv4: bool = True
    has_ipv6: bool = True
    allow_private: bool = False


def place_of(
    interfaces: Iterable[str],
    known: Iterable[Multiaddr],
    *,
    allow_private: bool,
    dials: Callable[[Multiaddr], bool],
) -> Place:
    """Work out where a server is from its interfaces, and the addresses known to be its own."""
    if allow_private:
        return Place(allow_private=True, dials=dials)
    here = [ipaddress.ip_address(ip.partition("%")[0]) for ip in interfaces]
    outside = [ip for address in known if (ip := ip_of(address)) is not None]
    return Place(
        own=frozenset(str(unwrapped(ip)) for ip in [*here, *outside]),
        has_ipv4=any(ip.version == 4 and not ip.is_loopback for ip in here),
        has_ipv6=any(ip.version == 6 and scope_of_ip(ip) is Scope.PUBLIC for ip in here),
        dials=dials,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """What a server will dial."""

    index: int
    address: Multiaddr
    """Without ``/p2p``."""


def choose(addresses: Sequence[Multiaddr | None], client: PeerId, place: Place) -> Choice | None:
    """Choose the first address that can and may be dialled (AN12)."""
    for index, address in enumerate(addresses):
        if address is not None and is_dialable(address, client, place):
            return Choice(index, without_peer(address))
    return None


def is_dialable(address: Multiaddr, client: PeerId, place: Place) -> bool:
    """Tell if a server may knock there: a public IP, no name, no relay, not its own (AN12)."""
    ip, port = ip_of(address), port_of(address)
    if ip is None or port is None or not place.dials(without_peer(address)):
        return False
    if unwrapped(ip) != ip or peer_id_of(address) not in (None, client):
        return False
    if not (place.has_ipv6 if ip.version == 6 else place.has_ipv4) or str(ip) in place.own:
        return False
    return scope(address) is Scope.PUBLIC or (
        place.allow_private and scope(address) in (Scope.PRIVATE, Scope.LOOPBACK)
    )


def is_foreign(address: Multiaddr, seen_at: Multiaddr) -> bool:
    """Tell if an address is at another IP than that at which the client is seen (AN13)."""
    target, client = ip_of(address), ip_of(seen_at)
    return target is None or client is None or unwrapped(target) != unwrapped(client)


class Toll(Enum):
    """What a dial at the client's own IP address costs."""

    FREE = "nothing"
    PADDED = "paid by padding, so little is to be sent"
    DATA = "data"


def toll(address: Multiaddr, *, padding: int, connected_from: Iterable[Multiaddr]) -> Toll:
    """Tell what has to be paid for a dial at the client's own IP address (AN18).

    The first datagrams of QUIC are large, and a neighbour of the client has the same address.
    """
    port = port_of(address)
    if port is not None and port[0] == "tcp":
        return Toll.FREE
    place = direct_place(address)
    if any(direct_place(remote) == place for remote in connected_from):
        return Toll.FREE
    return Toll.PADDED if padding >= PADDING else Toll.DATA


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server does at most: per minute, and at the same time."""

    per_minute: int
    per_peer: int
    per_network: int
    foreign_per_minute: int
    per_target: int
    max_parallel: int
    max_parallel_per_peer: int

    def __post_init__(self) -> None:
        for limit in fields(self):
            value: int = getattr(self, limit.name)
            if value <= 0:
                raise ValueError(f"{limit.name} must be positive, not {value}")


class Budget:
    """Counts what a server does for others (AN11). Needs no more room than ``per_minute``."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._admitted: deque[tuple[float, PeerId, str]] = deque()
        self._foreign: deque[tuple[float, str]] = deque()
        self._running: Counter[PeerId] = Counter()

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return self._running.total()

    def begin(self, peer_id: PeerId, network: str, now: float) -> str | None:
        """Count a request; or say which limit is in the way. Call ``end`` only if none was."""
        while self._admitted and self._admitted[0][0] <= now - MINUTE:
            self._admitted.popleft()
        limits = self._limits
        per_peer = sum(peer_id == peer for _, peer, _ in self._admitted)
        per_network = sum(network == other for _, _, other in self._admitted)
        for count, limit, name in (
            (len(self._admitted), limits.per_minute, "per_minute"),
            (per_peer, limits.per_peer, "per_peer"),
            (per_network, limits.per_network, "per_network"),
            (self.running, limits.max_parallel, "max_parallel"),
            (self._running[peer_id], limits.max_parallel_per_peer, "max_parallel_per_peer"),
        ):
            if count >= limit:
                return name
        self._admitted.append((now, peer_id, network))
        self._running[peer_id] += 1
        return None

    def end(self, peer_id: PeerId) -> None:
        self._running[peer_id] -= 1
        if not self._running[peer_id]:
            del self._running[peer_id]

    def begin_foreign(self, target: str, now: float) -> str | None:
        """Count a dial of somebody who is not the client; or say which limit is in the way."""
        while self._foreign and self._foreign[0][0] <= now - MINUTE:
            self._foreign.popleft()
        if len(self._foreign) >= self._limits.foreign_per_minute:
            return "foreign_per_minute"
        if sum(target == other for _, other in self._foreign) >= self._limits.per_target:
            return "per_target"
        self._foreign.append((now, target))
        return None


class Others:
    """Addresses at which somebody else than the client was found, for an hour (AN13)."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._until: OrderedDict[Multiaddr, float] = OrderedDict()

    def note(self, address: Multiaddr, now: float) -> None:
        self._until[address] = now + HOUR
        self._until.move_to_end(address)
        if len(self._until) > self._maximum:
            self._until.popitem(last=False)

    def forget(self, address: Multiaddr) -> None:
        """Take that the client was found there after all."""
        self._until.pop(address, None)

    def includes(self, address: Multiaddr, now: float) -> bool:
        return self._until.get(address, now) > now


# ---- the client --------------------------------------------------------------------------


class Outcome(Enum):
    """What a test says of the address, or of the server."""

    REACHED = "reached"
    NOT_REACHED = "not reached"
    REFUSED = "refused to dial this address"
    REJECTED = "has no time for this host"
    TOO_DEAR = "wants more data than we give"
    LIED = "says that it told a nonce, which nobody has heard"
    UNDECIDED = "gave no answer that means anything"


def judge(response: DialResponse, *, delivered: bool) -> Outcome:
    """Tell what an answer means, by whether the nonce has come (AN22)."""
    match (response.status, response.dial_status):
        case (Status.OK, DialStatus.OK):
            return Outcome.REACHED if delivered else Outcome.LIED
        case (Status.OK, DialStatus.E_DIAL_BACK_ERROR) if delivered:
            return Outcome.REACHED
        case (Status.OK, DialStatus.E_DIAL_ERROR) if not delivered:
            return Outcome.NOT_REACHED
        case (Status.E_DIAL_REFUSED, _):
            return Outcome.REFUSED
        case (Status.E_REQUEST_REJECTED, _):
            return Outcome.REJECTED
        case _:
            return Outcome.UNDECIDED


def is_consistent(tested: Multiaddr, local: Multiaddr) -> bool:
    """Tell if a dial of one address can arrive at another: the same protocols (AN24)."""
    asked, came = stack_of(tested), stack_of(local)
    if asked[0] in DNS_KINDS:
        return came[0] in ("ip4", "ip6", *DNS_KINDS) and asked[1:] == came[1:]
    return asked == came


def stack_of(address: Multiaddr) -> tuple[str, ...]:
    """Return the protocols of an address, written in one way."""
    names: list[str] = []
    for name, _ in components(address):
        names += {"wss": ["tls", "ws"], "p2p": [], "certhash": [], "sni": []}.get(name, [name])
    return tuple(names) or ("",)


class Purse:
    """What a client pays for dials, in bytes of data within an hour (AN21)."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._paid: deque[tuple[float, int]] = deque()

    def pay(self, num_bytes: int, now: float) -> bool:
        """Spend so much; False if that is too much."""
        while self._paid and self._paid[0][0] <= now - HOUR:
            self._paid.popleft()
        if sum(paid for _, paid in self._paid) + num_bytes > self.max_bytes:
            return False
        if num_bytes:
            self._paid.append((now, num_bytes))
        return True
