"""Which server is asked about which address, and when. Pure.

Rules: specs/autonat.md (AN25 to AN28).

::

    new address --settled--> round: servers of three networks are asked at once
                               |            ^
             three have said so|            | one contradicts the majority
                               v            |
                             one server every 30 s, the one used longest ago
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

from p2pnet.core.addresses import Multiaddr, ip_of
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.autonat.policy import MINUTE, Outcome

T = TypeVar("T")

JURY = 3
"""The newest results of so many networks make a majority."""
MAX_NETWORKS = 16
"""Networks whose results are kept, for each address."""
MAX_TRIED = 64
"""When so many networks were tried, they may be tried again."""


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that can be asked now."""

    peer_id: PeerId
    network: str
    """Servers of one network count as one."""
    is_ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """One server is to dial one address."""

    address: Multiaddr
    server: Server
    case: int = 0
    """Of which case of this address: the result of an earlier one says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often addresses are tested, and servers asked."""

    settle_seconds: float = 1.0
    recheck_interval: float = 30.0
    max_addresses: int = 8
    max_parallel: int = 3
    """Addresses tested at the same time."""
    requests_per_minute: int = 5
    """To one server. go-libp2p's allow 12."""
    rejected_rest: float = 120.0
    lied_rest: float = 3600.0
    first_rest: float = 5.0
    longest_rest: float = 300.0
    max_resting: int = 1024

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0:
                raise ValueError(f"{setting.name} must be positive, not {value}")


@dataclass(slots=True)
class Case:
    """What is going on about one address."""

    number: int
    since: float
    results: dict[str, bool] = field(default_factory=dict)
    """The last one of each network, oldest first."""
    fresh: set[str] = field(default_factory=set)
    """Networks that have said something in this round ..."""
    tried: set[str] = field(default_factory=set)
    """... and those that were asked to."""
    pending: set[str] = field(default_factory=set)
    asked: dict[str, float] = field(default_factory=dict)
    """When each network was asked last."""
    avoided: dict[PeerId, float] = field(default_factory=dict)
    """Servers that will not dial this address, and until when they are not asked again."""
    recheck_at: float = math.inf

    @property
    def missing(self) -> int:
        """How many more networks must be asked in this round."""
        return JURY - len(self.fresh) - len(self.pending)

    def majority(self) -> bool | None:
        """Return what most of the newest results say; None if there is no majority."""
        jury = Counter(list(self.results.values())[-JURY:])
        if jury[True] == jury[False]:
            return None
        return jury[True] > jury[False]

    def begin(self, network: str, now: float) -> None:
        """Note that a server is asked."""
        if len(self.tried) >= MAX_TRIED:
            self.tried.clear()
        self.tried.add(network)
        self.pending.add(network)
        put(self.asked, network, now)

    def record(self, network: str, *, reached: bool) -> None:
        """Take a result; begin another round if it is against the majority (AN27)."""
        before = self.majority()
        put(self.results, network, reached)
        is_recheck = network in self.fresh or len(self.fresh) >= JURY
        if is_recheck and before is not None and before is not reached:
            self.fresh.clear()
            self.tried = {network, *self.pending}
        self.fresh.add(network)
        if len(self.fresh) > MAX_NETWORKS:
            self.fresh = set(list(self.results)[-JURY:])


def put(table: dict[str, T], network: str, value: T) -> None:
    """Write down something as the newest; the oldest gives way."""
    table.pop(network, None)
    table[network] = value
    if len(table) > MAX_NETWORKS:
        del table[next(iter(table))]


@dataclass(slots=True)
class Rest:
    until: float
    failures: int = 0


class Schedule:
    """Asked again whenever something has happened, or ``next_time`` has come."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._numbers = 0
        self._cases: dict[Multiaddr, Case] = {}
        self._order: tuple[Multiaddr, ...] = ()
        self._rests: OrderedDict[PeerId, Rest] = OrderedDict()
        self._requests: dict[PeerId, deque[float]] = {}
        self._busy: set[PeerId] = set()

    # ---- addresses -----------------------------------------------------------------------

    def look(self, candidates: Sequence[Multiaddr], now: float) -> None:
        """Take what addresses there are, the best first; those that are gone are forgotten."""
        self._order = tuple(dict.fromkeys(candidates))[: self._pace.max_addresses]
        self._cases = {
            address: self._cases.get(address) or self._new_case(now) for address in self._order
        }

    def restart(self, now: float) -> None:
        """Begin anew, in another network: what is under way says nothing any more (AN28)."""
        self._cases = {address: self._new_case(now) for address in self._order}

    def _new_case(self, now: float) -> Case:
        self._numbers += 1
        return Case(self._numbers, since=now)

    # ---- what is to be done --------------------------------------------------------------

    def due(self, servers: Sequence[Server], now: float) -> list[Probe]:
        """Return the probes to begin now; they count as begun."""
        return list(self._begin_due(servers, now))

    def _begin_due(self, servers: Sequence[Server], now: float) -> Iterator[Probe]:
        # Addresses of which little is known go before those that are only looked at again.
        for address in sorted(self._order, key=lambda each: self._cases[each].missing <= 0):
            case = self._cases[address]
            while self._may_test(case, now):
                server = self._choose(address, case, servers, now)
                if server is None:
                    break
                case.begin(server.network, now)
                self._busy.add(server.peer_id)
                case.recheck_at = now + self._pace.recheck_interval
                self.count_request(server.peer_id, now)
                yield Probe(address, server, case.number)

    def _may_test(self, case: Case, now: float) -> bool:
        busy = sum(bool(other.pending) for other in self._cases.values())
        settled = now >= case.since + self._pace.settle_seconds
        return settled and (bool(case.pending) or busy < self._pace.max_parallel)

    def _choose(
        self, address: Multiaddr, case: Case, servers: Sequence[Server], now: float
    ) -> Server | None:
        """Return whom to ask about an address now, if anybody (AN25, AN26)."""
        able = [
            server
            for server in servers
            if server.peer_id not in self._busy
            and server.network not in case.pending
            and self._free_at(server, case) <= now
        ]
        if case.missing > 0 and (untried := [s for s in able if s.network not in case.tried]):
            return preferred(untried, address, case)
        if not case.pending and now >= case.recheck_at and able:
            return preferred(able, address, case)
        return None

    def _free_at(self, server: Server, case: Case) -> float:
        """Return from when on a server may be asked about an address."""
        rest = self._rests.get(server.peer_id)
        requests = self._requests.get(server.peer_id, deque())
        crowded = len(requests) >= self._pace.requests_per_minute
        return max(
            case.since + self._pace.settle_seconds,
            case.avoided.get(server.peer_id, 0.0),
            rest.until if rest is not None else 0.0,
            requests[-self._pace.requests_per_minute] + MINUTE if crowded else 0.0,
        )

    def next_time(self, servers: Sequence[Server], now: float) -> float:
        """Return when something else may be due, if nothing happens before."""
        times: list[float] = [math.inf]
        for case in self._cases.values():
            for server in servers:
                free_at = self._free_at(server, case)
                if case.missing <= 0 or server.network in case.tried:
                    free_at = max(free_at, case.recheck_at)
                times.append(free_at)
        return min(time for time in times if time > now)

    # ---- what has come of it -------------------------------------------------------------

    def finished(self, probe: Probe, outcome: Outcome, now: float) -> bool:
        """Take what came of a probe; False if it says nothing about the address."""
        self._busy.discard(probe.server.peer_id)
        self.rate(probe.server.peer_id, outcome, now)
        case = self._cases.get(probe.address)
        if case is None or case.number != probe.case:
            return False
        case.pending.discard(probe.server.network)
        if outcome in (Outcome.REACHED, Outcome.NOT_REACHED):
            case.record(probe.server.network, reached=outcome is Outcome.REACHED)
            return True
        if outcome in (Outcome.REFUSED, Outcome.TOO_DEAR):
            case.avoided[probe.server.peer_id] = now + self._pace.rejected_rest
        # Somebody else is asked instead, and soon.
        case.recheck_at = min(case.recheck_at, now)
        self._tidy(now)
        return False

    def dropped(self, probe: Probe) -> None:
        """Take that a probe was given up, for no fault of the server."""
        self._busy.discard(probe.server.peer_id)
        case = self._cases.get(probe.address)
        if case is not None and case.number == probe.case:
            case.pending.discard(probe.server.network)

    def _tidy(self, now: float) -> None:
        for case in self._cases.values():
            case.avoided = {peer: until for peer, until in case.avoided.items() if until > now}

    def rate(self, peer_id: PeerId, outcome: Outcome, now: float) -> None:
        """Leave a server alone for a while, if it was of no use (AN22)."""
        pace = self._pace
        match outcome:
            case Outcome.REACHED | Outcome.NOT_REACHED:
                self._rests.pop(peer_id, None)
            case Outcome.REJECTED:
                self._rest(peer_id, Rest(now + pace.rejected_rest))
            case Outcome.LIED:
                self._rest(peer_id, Rest(now + pace.lied_rest))
            case Outcome.UNDECIDED:
                failures = self._rests.get(peer_id, Rest(0.0)).failures
                seconds = min(pace.first_rest * 2.0 ** min(failures, 32), pace.longest_rest)
                self._rest(peer_id, Rest(now + seconds, failures + 1))
            case Outcome.REFUSED | Outcome.TOO_DEAR:
                pass

    def _rest(self, peer_id: PeerId, rest: Rest) -> None:
        self._rests[peer_id] = rest
        self._rests.move_to_end(peer_id)
        while len(self._rests) > self._pace.max_resting:
            self._rests.popitem(last=False)

    def is_resting(self, peer_id: PeerId, now: float) -> bool:
        rest = self._rests.get(peer_id)
        return rest is not None and rest.until > now

    def count_request(self, peer_id: PeerId, now: float) -> None:
        """Count a request to a server."""
        for peer in [peer for peer, times in self._requests.items() if times[-1] <= now - MINUTE]:
            del self._requests[peer]
        times = self._requests.setdefault(peer_id, deque(maxlen=self._pace.requests_per_minute))
        times.append(now)


def preferred(servers: Sequence[Server], address: Multiaddr, case: Case) -> Server:
    """Return the server that was used longest ago; before those that will want data (AN26)."""
    ip = ip_of(address)
    is_ipv6 = ip is not None and ip.version == 6

    def rank(server: Server) -> tuple[bool, float]:
        return server.is_ipv6 != is_ipv6, case.asked.get(server.network, -math.inf)

    return min(servers, key=rank)


class Rounds:
    """When the NAT's filtering is tested: soon, again with more servers, and then rarely (AN30)."""

    def __init__(
        self, *, settle_seconds: float, interval: float, retry_seconds: float, enough: int
    ) -> None:
        self._settle_seconds = settle_seconds
        self._interval = interval
        self._retry_seconds = self._pause = retry_seconds
        self._enough = enough
        self._had = 0
        self._at = math.inf
        self._under_way = False

    def look(self, networks: int, now: float) -> bool:
        """Take how many networks have servers; tell if a round is to begin now."""
        if min(networks, self._enough) > self._had:
            self._at = min(self._at, now + self._settle_seconds)
        if self._under_way or not networks or now < self._at:
            return False
        self._under_way = True
        self._had = min(networks, self._enough)
        self._at = math.inf
        return True

    @property
    def next_time(self) -> float:
        """When a round may be due; infinity while one is under way."""
        return math.inf if self._under_way else self._at

    def ended(self, now: float, *, useful: bool) -> None:
        """Take that the round is over."""
        self._under_way = False
        pause, self._pause = self._pause, min(2 * self._pause, self._interval)
        if useful:
            pause, self._pause = self._interval, self._retry_seconds
        self._at = min(self._at, now + pause)

    def restart(self) -> None:
        """Begin anew, in another network."""
        self._had, self._at = 0, math.inf
        self._pause = self._retry_seconds
