"""From where connections may come whose other end waits for our first word: hole punches.

Rule: specs/dcutr.md (D15).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr, place_of


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
        places = map(place_of, addresses)
        ips = frozenset(place.endpoint.host for place in places if place is not None)
        expectation = Expectation(ips, patience)
        self._under_way.append(expectation)
        try:
            yield
        finally:
            self._under_way.remove(expectation)

    def patience(self, address: Multiaddr) -> float | None:
        """Return how long an arrival may be silent; None if nothing is expected from there."""
        place = place_of(address)
        if place is None:
            return None
        host = place.endpoint.host
        return max((each.patience for each in self._under_way if host in each.ips), default=None)
