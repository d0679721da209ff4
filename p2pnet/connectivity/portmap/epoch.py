"""A router's clock, by which one notices that it forgot all mappings. Pure. Rule PM10.

It counts the seconds since the router's table of mappings was empty::

    told     100 ---- 60 s later ---> 160    all is well
    told     100 ---- 60 s later --->   5    it was restarted, nothing is mapped any more

Clocks differ, and datagrams take their time, so some of it is forgiven.
"""

from __future__ import annotations

from dataclasses import dataclass

NAT_PMP_SLACK = 2.0
"""Seconds; and the router's clock may be slower by an eighth (RFC 6886, 3.6)."""
PCP_SLACK = 2.0
"""Seconds; and the clocks may differ by a sixteenth (RFC 6887, 8.5)."""


@dataclass(frozen=True, slots=True)
class Told:
    epoch: int
    at: float


class EpochOf:
    """The clock of one router, as one protocol tells it."""

    def __init__(self, protocol: str) -> None:
        self._is_pcp = protocol == "pcp"
        self._last: Told | None = None

    def began_anew(self, epoch: int, now: float) -> bool:
        """Take what the router said just now; True if it was restarted since it last did."""
        last, self._last = self._last, Told(epoch, now)
        if last is None:
            return False
        ours, theirs = now - last.at, epoch - last.epoch
        if not self._is_pcp:
            return theirs < ours * 7 / 8 - NAT_PMP_SLACK
        if theirs < -1:
            return True
        behind = ours + PCP_SLACK < theirs - theirs / 16
        ahead = theirs + PCP_SLACK < ours - ours / 16
        return behind or ahead
