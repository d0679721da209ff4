"""Whom a server dials and how often; whom a client asks, and what it learns. Pure.

Rules: specs/autonat-v1.md.
"""

from __future__ import annotations

import errno
import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from p2pnet.core.addresses import (
    IpAddress,
    Multiaddr,
    Scope,
    components,
    encode,
    ip_of,
    is_relayed,
    peer_id_of,
    place_of,
    scope,
    unwrapped,
    with_host,
    without_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported, LimitExceeded
from p2pnet.protocols.autonat_v1.messages import DialResponse, Status

MAX_OTHERS = 2
"""Dialled beside the address at which the asker is seen: more SYNs than that would be larger than
what was asked with (AO8)."""
MAX_OFFERED = 15
"""go-libp2p looks at 16, and counts the one it sees us at."""
MAX_OFFERED_BYTES = 3072
IPV6_PREFIX = 56
WINDOW = 60.0
"""Seconds in which dial-backs are counted."""

NAMES_A_PLACE = frozenset({"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr", "p2p", "p2p-circuit"})
OUR_OWN_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


def network_of(address: Multiaddr) -> str | None:
    """Return the network that counts as one: an IPv4 address, an IPv6 /56. None without IP."""
    ip = ip_of(address)
    if ip is None:
        return None
    ip = unwrapped(ip)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


def is_usable(address: Multiaddr, *, allow_private: bool) -> bool:
    """Tell if an address is direct, begins with an IP, and can be meant for the public (AO7)."""
    if ip_of(address) is None or is_relayed(address):
        return False
    found = scope(address)
    return found is Scope.PUBLIC or (allow_private and found is not Scope.UNROUTABLE)


# ---- the server --------------------------------------------------------------------------


def targets(
    offered: Iterable[Multiaddr],
    *,
    asker: PeerId,
    observed: Multiaddr,
    own: Collection[IpAddress],
    allow_private: bool,
) -> tuple[Multiaddr, ...]:
    """Choose where to dial, without ``/p2p``: where the asker is seen, and other ports of that IP.

    Nobody may aim this host at others: that one IP, and no way on from there (AO7 to AO9). Nor
    at a neighbour's port of UDP, as the first datagrams of QUIC are large: only at his own.
    """
    ip = ip_of(observed)
    if ip is None or not is_usable(observed, allow_private=allow_private):
        return ()
    if ip in own and not allow_private:
        return ()
    found = [
        without_peer(address)
        for address in (observed, *offered)
        if ip_of(address) == ip and peer_id_of(address) in (None, asker)
        if not is_udp(address) or place_of(address) == place_of(observed)
    ]
    return tuple(filter(is_single_hop, dict.fromkeys(found)))[: 1 + MAX_OTHERS]


def is_udp(address: Multiaddr) -> bool:
    place = place_of(address)
    return place is not None and place.protocol == "udp"


def is_single_hop(address: Multiaddr) -> bool:
    """Tell if an address names one place and a port there, and no other behind it (AO7)."""
    first, *others = components(address)
    if not others or any(name in NAMES_A_PLACE for name, _ in others):
        return False
    return first[0] in ("ip4", "ip6") and all(
        int(value) > 0 for name, value in others if name in ("tcp", "udp")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How many dial-backs a server makes (AO11)."""

    per_minute: int
    per_peer: int
    """A minute."""
    per_network: int
    """A minute, for one IPv4 address or one IPv6 /56."""
    at_once: int


class DialBacks:
    """Counts the dial-backs of the last minute, and who has one under way (AO10, AO11).

    What is remembered is bounded by the allowance, however many peers ask.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._recent: deque[tuple[float, PeerId, str]] = deque()
        self._asking: set[PeerId] = set()
        self._under_way = 0

    def __len__(self) -> int:
        return self._under_way

    @property
    def remembered(self) -> int:
        """How much is kept in memory."""
        return len(self._recent) + len(self._asking)

    def admit(self, peer_id: PeerId) -> bool:
        """Let a peer ask; False if it is asking already (AO10)."""
        if peer_id in self._asking:
            return False
        self._asking.add(peer_id)
        return True

    def dismiss(self, peer_id: PeerId) -> None:
        self._asking.discard(peer_id)

    def begin(self, peer_id: PeerId, network: str, now: float) -> str | None:
        """Count a dial-back that begins; return the reason if there must be none."""
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()
        allowance = self._allowance
        if self._under_way >= allowance.at_once:
            return f"at_once = {allowance.at_once} reached"
        if len(self._recent) >= allowance.per_minute:
            return f"per_minute = {allowance.per_minute} reached"
        if sum(peer == peer_id for _, peer, _ in self._recent) >= allowance.per_peer:
            return f"per_peer = {allowance.per_peer} reached"
        if sum(place == network for _, _, place in self._recent) >= allowance.per_network:
            return f"per_network = {allowance.per_network} reached"
        self._recent.append((now, peer_id, network))
        self._under_way += 1
        return None

    def end(self) -> None:
        self._under_way -= 1


def outcome(reached: Multiaddr | None, causes: Sequence[BaseException]) -> DialResponse:
    """Say what came of the dials, of which ``causes`` holds the failures (AO13)."""
    if reached is not None:
        return DialResponse(Status.OK, "", reached)
    tried = [cause for cause in causes if not isinstance(cause, AddressUnsupported)]
    if causes and not tried:
        return DialResponse(Status.E_DIAL_REFUSED, "no transport for those addresses")
    if any(map(is_our_own_fault, tried)):
        return DialResponse(Status.E_INTERNAL_ERROR, "this host cannot dial now")
    return DialResponse(Status.E_DIAL_ERROR, "nobody answered")


def is_our_own_fault(cause: BaseException) -> bool:
    """Tell if a dial failed here, and so says nothing of the asker."""
    if isinstance(cause, OSError):
        return cause.errno in OUR_OWN_FAULT
    return isinstance(cause, LimitExceeded)


# ---- the client --------------------------------------------------------------------------


def offered(
    candidates: Iterable[Multiaddr], observed: Multiaddr | None, *, allow_private: bool
) -> tuple[Multiaddr, ...]:
    """Choose what to be dialled at, without ``/p2p``: first where the server will dial (AO15)."""
    ip = None if observed is None else ip_of(observed)
    usable = dict.fromkeys(
        without_peer(address)
        for address in candidates
        if is_usable(address, allow_private=allow_private) and is_single_hop(without_peer(address))
    )
    chosen: list[Multiaddr] = []
    room = MAX_OFFERED_BYTES
    for address in sorted(usable, key=lambda address: ip_of(address) != ip):
        room -= len(encode(address))
        if room < 0 or len(chosen) == MAX_OFFERED:
            break
        chosen.append(address)
    return tuple(chosen)


def learned(
    response: DialResponse,
    *,
    offered: Sequence[Multiaddr],
    observed: Multiaddr | None,
    own_id: PeerId,
) -> tuple[tuple[Multiaddr, bool], ...]:
    """Return which addresses the answer is about, and whether they were reached (AO16, AO17)."""
    if response.status == Status.OK and response.address is not None:
        address = response.address
        if peer_id_of(address) not in (None, own_id):
            return ()
        address = without_peer(address)
        return ((address, True),) if address in dialled(offered, observed) else ()
    if response.status == Status.E_DIAL_ERROR and observed is not None:
        reached_for = [each for each in offered if ip_of(each) == ip_of(observed)][:MAX_OTHERS]
        return tuple((each, False) for each in reached_for if was_surely_tried(each, observed))
    return ()


def dialled(offered: Sequence[Multiaddr], observed: Multiaddr | None) -> set[Multiaddr]:
    """Return all that a server may have dialled: go-libp2p puts the IP it sees into the rest."""
    found = set(offered)
    ip = None if observed is None else ip_of(observed)
    if observed is not None and ip is not None:
        found |= {with_host(address, str(ip)) for address in offered}
        found.add(without_peer(observed))
    return found


def was_surely_tried(address: Multiaddr, observed: Multiaddr) -> bool:
    """Tell if the server must dial an address: at the IP it sees, in a way that it speaks."""
    kinds, seen = ([name for name, _ in components(each)] for each in (address, observed))
    return kinds == seen and ip_of(address) == ip_of(observed)


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that may be asked."""

    peer_id: PeerId
    network: str
    dialled_us: bool
    """It came to us: then others go first, who did not choose us (AO19)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often to ask; in seconds."""

    interval: float
    """Between two requests, once ``panel`` networks have answered."""
    throttle: float
    """Between two requests to one server."""
    pause: float
    """For a server without an answer that says something."""
    panel: int
    """So many networks are asked at once in the beginning."""
    max_servers: int


@dataclass(frozen=True, slots=True)
class Asked:
    """When a server was asked last, and until when it is left alone."""

    at: float = -math.inf
    rests_until: float = -math.inf
    is_doubted: bool = False
    """It said OK and nobody came, and it has said nothing of use since."""


class Schedule:
    """Whom to ask next, and when (AO19 to AO21)."""

    def __init__(self, cadence: Cadence) -> None:
        self._cadence = cadence
        self._asked: OrderedDict[PeerId, Asked] = OrderedDict()
        self._answered: set[str] = set()
        self._offered: frozenset[Multiaddr] = frozenset()
        self._last_round = -math.inf

    def __len__(self) -> int:
        return len(self._asked)

    def offer(self, addresses: Iterable[Multiaddr]) -> None:
        """Take what is to be tested; what is new is asked about by everybody (AO20)."""
        addresses = frozenset(addresses)
        if not addresses <= self._offered:
            self._answered.clear()
        self._offered = addresses

    def due(self, servers: Sequence[Server]) -> float:
        """Return when the next request is due; infinity if nobody is there to be asked."""
        if not self._offered:
            return math.inf
        soonest = min(map(self._rested, servers), default=math.inf)
        first = min(map(self._rested, self._missing(servers)), default=math.inf)
        return min(first, max(soonest, self._last_round + self._cadence.interval))

    def choose(self, servers: Sequence[Server], now: float) -> tuple[Server, ...]:
        """Choose whom to ask now, each in another network; that counts as asked.

        In the beginning as many as are missing on the panel, later one after the other.
        """
        ready = [server for server in servers if self._rested(server) <= now]
        chosen = self._one_each(self._missing(ready), self._cadence.panel - len(self._answered))
        if not chosen and now >= self._last_round + self._cadence.interval:
            chosen = self._one_each(ready, 1)
        for server in chosen:
            until = now + self._cadence.throttle
            self._put(server.peer_id, replace(self._of(server.peer_id), at=now, rests_until=until))
            self._last_round = now
        return chosen

    def _missing(self, servers: Sequence[Server]) -> list[Server]:
        """Return those whose network has not answered yet; nobody once enough have."""
        if len(self._answered) >= self._cadence.panel:
            return []
        return [server for server in servers if server.network not in self._answered]

    def _one_each(self, servers: Iterable[Server], count: int) -> tuple[Server, ...]:
        by_network: dict[str, Server] = {}
        for server in sorted(servers, key=self._rank):
            by_network.setdefault(server.network, server)
        return tuple(by_network.values())[:count]

    def _rank(self, server: Server) -> tuple[float, bool, bytes]:
        return (self._of(server.peer_id).at, server.dialled_us, server.peer_id.to_bytes())

    def answered(self, server: Server, now: float) -> None:
        """Take that a server has said something."""
        if len(self._answered) < self._cadence.panel:
            self._answered.add(server.network)
        self._rest(server, now + self._cadence.throttle, is_doubted=False)

    def failed(self, server: Server, now: float) -> None:
        """Take that a server refused, or gave no answer that says anything (AO18)."""
        is_doubted = self._of(server.peer_id).is_doubted
        self._rest(server, now + self._cadence.pause, is_doubted=is_doubted)

    def unproven(self, server: Server, now: float) -> None:
        """Take that a server said OK and nobody came: it has a second chance (AO18)."""
        cadence, had_it = self._cadence, self._of(server.peer_id).is_doubted
        self._rest(server, now + (cadence.pause if had_it else cadence.throttle), is_doubted=True)

    def _rest(self, server: Server, until: float, *, is_doubted: bool) -> None:
        self._put(server.peer_id, Asked(self._of(server.peer_id).at, until, is_doubted))

    def _rested(self, server: Server) -> float:
        return self._of(server.peer_id).rests_until

    def _of(self, peer_id: PeerId) -> Asked:
        return self._asked.get(peer_id, Asked())

    def _put(self, peer_id: PeerId, asked: Asked) -> None:
        self._asked[peer_id] = asked
        self._asked.move_to_end(peer_id)
        if len(self._asked) > self._cadence.max_servers:
            self._asked.popitem(last=False)
