"""What a relay has done since it began, in numbers: for metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refused:
    """One way to be refused; there are few, so that counting them is bounded."""

    request: str
    """RESERVE, CONNECT, or ``request`` if it was not read."""
    status: str
    limit: str
    """The field of the config that said no; empty if none did."""


@dataclass(slots=True)
class Tally:
    """Counters that only grow, but for ``buffered``."""

    granted: int = 0
    renewed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """Reservations, by reason."""
    refused: Counter[Refused] = field(default_factory=Counter)
    opened: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    """Circuits, by what ended them: ``finished``, ``reset``, ``broken``, or the name of a limit."""
    bytes_forward: int = 0
    bytes_backward: int = 0
    buffered: int = 0
    """Bytes read from one side that the other has yet to take."""
    most_buffered: int = 0

    def hold(self, count: int) -> None:
        self.buffered += count
        self.most_buffered = max(self.most_buffered, self.buffered)

    def release(self, count: int) -> None:
        self.buffered -= count


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatistics:
    """What a relay carries now, and what it has done since it began."""

    reservations: int
    circuits: int
    """Open, or being opened."""
    buffered_bytes: int
    """Bytes read from one side of a circuit that the other has yet to take."""
    most_buffered_bytes: int
    reservations_granted: int
    reservations_renewed: int
    reservations_ended: Mapping[str, int]
    """By reason."""
    refused: Mapping[Refused, int]
    circuits_opened: int
    circuits_closed: Mapping[str, int]
    """By what ended them: ``finished``, ``reset``, ``broken``, or the name of a limit (R45)."""
    bytes_forward: int
    """From those who asked for the circuits to those who were called."""
    bytes_backward: int


def statistics_of(tally: Tally, *, reservations: int, circuits: int) -> RelayStatistics:
    """Take a snapshot."""
    return RelayStatistics(
        reservations=reservations,
        circuits=circuits,
        buffered_bytes=tally.buffered,
        most_buffered_bytes=tally.most_buffered,
        reservations_granted=tally.granted,
        reservations_renewed=tally.renewed,
        reservations_ended=dict(tally.ended),
        refused=dict(tally.refused),
        circuits_opened=tally.opened,
        circuits_closed=dict(tally.closed),
        bytes_forward=tally.bytes_forward,
        bytes_backward=tally.bytes_backward,
    )
