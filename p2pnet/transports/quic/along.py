"""What a stream of QUIC sends with the next bytes, or a little later by itself (M13).

The few bytes stay with the stream until then: whatever else the connection sends meanwhile, as
an acknowledgement, would take them along too early, in a packet before that of the data.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

ALONG_SECONDS = 0.005
"""Within these the rest of what is sent together should come."""


class Holder(Protocol):
    """A stream that keeps a few bytes back."""

    def let_go(self) -> None:
        """Send them now, if they have not gone already."""
        ...


class Along:
    """Streams of a connection that keep something back, and for how long."""

    def __init__(self) -> None:
        self.until = math.inf
        self._holders: list[Holder] = []
        self._nap = trio.CancelScope()

    def add(self, holder: Holder) -> None:
        """Let go of it when a few milliseconds are over."""
        self._holders.append(holder)
        self.until = min(self.until, trio.current_time() + ALONG_SECONDS)
        self._nap.deadline = min(self._nap.deadline, self.until)

    def let_go(self, now: float) -> None:
        """Have all of it sent whose time has come, and what came after it."""
        if now >= self.until:
            self.until = math.inf
            holders, self._holders = self._holders, []
            for holder in holders:
                holder.let_go()

    def nap(self, deadline: float) -> trio.CancelScope:
        """Return the scope of a sleep that ends at a deadline, or when something is due here."""
        self._nap = trio.CancelScope(deadline=min(deadline, self.until))
        return self._nap
