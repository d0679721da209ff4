"""Can strangers dial an address of ours? Evidence in, a verdict with its reasons out. Pure.

Rules: specs/reachability.md (V7 to V12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from p2pnet.connectivity.nat import Filtering, NatClass
from p2pnet.core.addresses import Multiaddr
from p2pnet.events import Reachability

JURY = 3
"""The newest words of so many networks decide (V8)."""


STRANGERS = 2
"""So many networks must have said that they came in as strangers: one may lie (V10)."""
STRANGERS_CAME = "peers came in to whom this host had not spoken"


class Status(Enum):
    """What strangers find who dial an address."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    FILTERED = "filtered"
    """Those get through to whom this host has spoken before, and nobody else."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class DialBack:
    """One network tried to dial an address, as we asked it to."""

    time: float
    network: str
    reached: bool
    server: str
    """Who, in words."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is believed of one address."""

    status: Status = Status.UNKNOWN
    confidence: float = 0.0
    """From 0 to 1: how sure, by how many agree and how many do not."""
    reasons: tuple[str, ...] = ()
    expires: float = float("inf")
    """When it counts no more, unless it is tested again."""


@dataclass(slots=True)
class Case:
    """All that is known about one address."""

    tests: dict[str, DialBack] = field(default_factory=dict)
    """The last one of each network, oldest first."""
    strangers: dict[str, float] = field(default_factory=dict)
    """When somebody came in, by network, to whom this host had not spoken."""
    verdict: Verdict = Verdict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How long evidence counts, and how much of it is kept."""

    lifetime: float = 1800.0
    """Seconds for which the result of a test counts."""
    max_networks: int = 16
    """Results kept for an address, each of another network."""

    def __post_init__(self) -> None:
        if self.lifetime <= 0 or self.max_networks < JURY:
            raise ValueError(f"lifetime must be positive, and max_networks at least {JURY}")


class Cases:
    """The verdicts on all addresses that were tested or are candidates."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._cases: dict[Multiaddr, Case] = {}

    def record(self, address: Multiaddr, test: DialBack) -> None:
        """Take the result of a test; it replaces an earlier one of that network (V7)."""
        tests = self._cases.setdefault(address, Case()).tests
        tests.pop(test.network, None)
        tests[test.network] = test
        while len(tests) > self._weights.max_networks:
            del tests[next(iter(tests))]

    def record_stranger(self, address: Multiaddr, network: str, now: float) -> None:
        """Take that somebody got in, as he says, to whom this host had not spoken (V10)."""
        strangers = self._cases.setdefault(address, Case()).strangers
        strangers.pop(network, None)
        strangers[network] = now
        while len(strangers) > self._weights.max_networks:
            del strangers[next(iter(strangers))]

    def keep_only(self, addresses: Iterable[Multiaddr]) -> None:
        """Forget addresses that are no candidates any more (V12)."""
        wanted = set(addresses)
        self._cases = {address: case for address, case in self._cases.items() if address in wanted}

    def forget(self) -> None:
        """Begin anew, in another network (V12)."""
        self._cases.clear()

    def judge(self, address: Multiaddr, nat: NatClass, now: float) -> Verdict:
        """Return the verdict on an address, as of now."""
        case = self._cases.get(address)
        if case is None:
            return Verdict()
        too_old = now - self._weights.lifetime
        for network in [n for n, test in case.tests.items() if test.time <= too_old]:
            del case.tests[network]
        for network in [n for n, time in case.strangers.items() if time <= too_old]:
            del case.strangers[network]
        case.verdict = self._weigh(case, nat)
        return case.verdict

    def _weigh(self, case: Case, nat: NatClass) -> Verdict:
        jury = list(case.tests.values())[-JURY:]
        through = [test for test in jury if test.reached]
        failed = [test for test in jury if not test.reached]
        reasons = tuple(told(test) for test in jury)
        if not jury:
            return self._without_tests(case)
        expires = min(test.time for test in jury) + self._weights.lifetime
        if len(through) == len(failed):  # V9: two who disagree leave things as they are
            before = case.verdict
            return Verdict(before.status, before.confidence / 2, reasons, expires)
        sure = (max(len(through), len(failed)) + 1) / (len(jury) + 2)
        if len(failed) > len(through):
            return Verdict(Status.UNREACHABLE, sure, reasons, expires)
        if len(case.strangers) >= STRANGERS:
            return Verdict(Status.REACHABLE, sure, (*reasons, STRANGERS_CAME), expires)
        status, reason = through_filter(nat.filtering)  # V10
        return Verdict(status, sure, (*reasons, reason), expires)

    def _without_tests(self, case: Case) -> Verdict:
        if len(case.strangers) < STRANGERS:
            return Verdict()
        expires = max(case.strangers.values()) + self._weights.lifetime
        return Verdict(Status.REACHABLE, 0.5, (STRANGERS_CAME,), expires)


def through_filter(filtering: Filtering) -> tuple[Status, str]:
    """Tell what it means that peers got through to whom this host has spoken (V10)."""
    match filtering:
        case Filtering.ENDPOINT_INDEPENDENT:
            return Status.REACHABLE, "and strangers get through, too"
        case Filtering.ADDRESS_AND_PORT_DEPENDENT:
            return (
                Status.REACHABLE,
                "though the NAT lets nobody in by itself: the port is forwarded",
            )
        case Filtering.ADDRESS_DEPENDENT:
            return Status.FILTERED, "but strangers do not get through the NAT"
        case Filtering.UNKNOWN:
            return Status.UNKNOWN, "but it is not known yet if strangers get through, too"


def told(test: DialBack) -> str:
    return f"{test.server} {'got through' if test.reached else 'did not get through'}"


def reduce(verdicts: Mapping[Multiaddr, Verdict]) -> Reachability:
    """Make one word of all verdicts (V11)."""
    found = {verdict.status for verdict in verdicts.values()}
    if Status.REACHABLE in found:
        return Reachability.PUBLIC
    if Status.UNREACHABLE in found or Status.FILTERED in found:
        return Reachability.PRIVATE
    return Reachability.UNKNOWN
