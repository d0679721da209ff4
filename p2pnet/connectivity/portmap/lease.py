"""One mapping over time: when the router is to be asked for it, and when it is lost. Pure.

Theory of operation: a mapping lasts as long as the router said, unless the router forgets it,
as it does when it is switched off. Not every router tells of that, so it is asked well before
half of the time is over, and at least every ``check_interval``::

             granted                          silence, sooner and sooner again
    WANTED ----------> HELD -- due: ask ----> HELD, in doubt
                        ^  |                     |  |
                        |  `-- router announces  |  `-- too often, or the time is over --> LOST
                        `----- granted ----------'

An ask is a *renewal* when between 0.3 and 0.45 of the time is over, and else a look whether the
mapping is there; what the difference is, if any, is up to the protocol.

Rules: specs/port-mapping.md (PM9, PM10, PM11).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from p2pnet.connectivity.portmap.asking import Grant
from p2pnet.connectivity.portmap.schedule import Jitter

EARLIEST_RENEWAL, LATEST_RENEWAL = 0.3, 0.45
"""Parts of the lifetime between which a mapping is asked for again."""
SHORTEST_INTERVAL = 4.0
"""Seconds between two requests for one mapping, at least (RFC 6887, 11.2.1)."""
RECOVERY_DELAY = 5.0
"""After a restart all hosts ask the router, but not all at once (RFC 6886, 3.7)."""
MAX_SILENCES = 3
"""A router that leaves so many requests in a row unanswered has gone."""


@dataclass(slots=True)
class Lease:
    """What is known of a mapping. ``due`` is when to ask; at once, to begin with."""

    check_interval: float
    jitter: Jitter
    due: float = -math.inf
    held: Grant | None = None
    _granted_at: float = -math.inf
    _renewal: float = -math.inf
    _asked_at: float = -math.inf
    _silences: int = 0

    def granted(self, grant: Grant, now: float) -> bool:
        """Take what the router grants; True if it is another outside endpoint than before."""
        is_news = self.held is None or self.held.outside != grant.outside
        if self.held is None or grant.is_fresh:
            part = self.jitter(EARLIEST_RENEWAL, LATEST_RENEWAL)
            self.held, self._granted_at = grant, now
            self._renewal = now + part * grant.seconds
        else:
            self.held = replace(self.held, outside=grant.outside)
        self._silences = 0
        self._ask_at(min(self._renewal, now + self.check_interval), now)
        return is_news

    def is_renewal(self, now: float) -> bool:
        """Tell if an ask at this time is to prolong the mapping."""
        return self.held is None or now >= self._renewal

    def asks(self, now: float) -> None:
        """Note that the router is asked."""
        self._asked_at = now

    def unanswered(self, now: float) -> bool:
        """Take that the router did not answer; True if the mapping is lost by that."""
        self._silences += 1
        self._ask_at(now + SHORTEST_INTERVAL * 2 ** (self._silences - 1), now)
        if self.held is None or self._silences >= MAX_SILENCES:
            return True
        return now >= self._granted_at + self.held.seconds

    def nudge(self, now: float) -> None:
        """Ask soon: the router may have forgotten the mapping."""
        self._renewal = min(self._renewal, now)
        self._ask_at(min(self.due, now + self.jitter(0.0, RECOVERY_DELAY)), now)

    def _ask_at(self, time: float, now: float) -> None:
        self.due = max(time, now, self._asked_at + SHORTEST_INTERVAL)
