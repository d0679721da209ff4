"""Which addresses failed lately, and until when they are left alone. Pure.

Rule: specs/dialing.md (DI3).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import P2PError

FIRST_SECONDS = 5.0
MAX_SECONDS = 300.0


class BackingOff(P2PError):
    """The address failed lately and is left alone for ``seconds`` more."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(f"left alone for {seconds:.0f} s more, it failed lately: {reason}")
        self.seconds = seconds
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Failure:
    count: int
    until: float
    reason: str


class Backoff:
    """Remembers failed addresses, at most ``limit``; the longest unused are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures: OrderedDict[tuple[PeerId, Multiaddr], Failure] = OrderedDict()

    def failed(self, peer_id: PeerId, address: Multiaddr, reason: str, now: float) -> None:
        before = self._failures.pop((peer_id, address), None)
        count = before.count + 1 if before else 0
        seconds = min(FIRST_SECONDS + count**2, MAX_SECONDS)  # DI3
        self._failures[peer_id, address] = Failure(count, now + seconds, reason)
        while len(self._failures) > self._limit:
            self._failures.popitem(last=False)

    def worked(self, peer_id: PeerId, address: Multiaddr) -> None:
        self._failures.pop((peer_id, address), None)

    def forget(self) -> None:
        """Give every address another chance (DI24)."""
        self._failures.clear()

    def check(self, peer_id: PeerId, address: Multiaddr, now: float) -> BackingOff | None:
        """Return why the address must not be dialled now; None if it may."""
        failure = self._failures.get((peer_id, address))
        if failure is None or failure.until <= now:
            return None
        return BackingOff(failure.until - now, failure.reason)
