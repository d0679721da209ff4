"""From where connections may come whose other end waits for our first word: hole punches.

Rule: specs/dcutr.md (D15).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr, tcp_endpoint


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """The IPs of one hole punch, and the seconds that an arrival from there may be silent."""

    ips: frozenset[str]
    patience: float


class ExpectedListeners:
    """The expectations of all punches under way, up to a number."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._under_way: list[Expectation] = []

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def during(self, addresses: Sequence[Multiaddr], patience: float) -> Iterator[None]:
        """Expect arrivals from the IPs of some addresses while the block lasts.

        If there are too many such blocks already, nothing is expected for this one: a punch
        has other ways to work.
        """
        if len(self._under_way) >= self._maximum:
            yield
            return
        ips = frozenset(end.host for end in map(tcp_endpoint, addresses) if end is not None)
        expectation = Expectation(ips, patience)
        self._under_way.append(expectation)
        try:
            yield
        finally:
            self._under_way.remove(expectation)

    def patience(self, address: Multiaddr) -> float | None:
        """Return how long an arrival may be silent; None if nothing is expected from there."""
        end = tcp_endpoint(address)
        if end is None:
            return None
        return max((e.patience for e in self._under_way if end.host in e.ips), default=None)
