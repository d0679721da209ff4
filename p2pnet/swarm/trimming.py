"""Which connections to close when there are too many. Pure. Rule: specs/connections.md (S20)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """What matters of a connection when some have to go."""

    number: int
    age: float
    streams: int
    is_protected: bool
    is_relayed: bool
    is_inbound: bool


def choose(
    connections: Sequence[Candidate], *, low: int, high: int, grace: float
) -> tuple[int, ...]:
    """Return the numbers of the connections to close, down to ``low``, if more than ``high``.

    The protected are not counted, and stay, as do the young. Of the others go first those without
    streams, then the relayed, then the inbound, then the youngest: the oldest have shown their
    worth.
    """
    counted = [c for c in connections if not c.is_protected]
    if len(counted) <= high:
        return ()
    expendable = [c for c in counted if c.age >= grace]
    expendable.sort(key=lambda c: (c.streams, not c.is_relayed, not c.is_inbound, c.age))
    return tuple(c.number for c in expendable[: len(counted) - low])
