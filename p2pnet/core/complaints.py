"""Tells of what remotes do wrong, within bounds: nobody can fill the log by misbehaving.

All hosts of a trio run share the allowance. What is above it is still there at DEBUG.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

BURST = 50
"""Complaints that are logged as warnings at once ..."""
INTERVAL = 1.0
"""... and then one in so many seconds."""


@dataclass(slots=True)
class Allowance:
    left: float = BURST
    counted_at: float = 0.0
    untold: int = 0

    def spend(self, now: float) -> bool:
        """Use up one complaint; False if there is none left."""
        self.left = min(self.left + (now - self.counted_at) / INTERVAL, BURST)
        self.counted_at = now
        if self.left < 1:
            self.untold += 1
            return False
        self.left -= 1
        return True


_current: trio.lowlevel.RunVar[Allowance | None] = trio.lowlevel.RunVar("complaints", None)


def complain(logger: logging.Logger, complaint: str) -> None:
    """Log a complaint about a remote in one line, as a WARNING while few are made."""
    allowance = _current.get()
    if allowance is None:
        allowance = Allowance(counted_at=trio.current_time())
        _current.set(allowance)
    if not allowance.spend(trio.current_time()):
        logger.debug("misbehaving peer: %s", complaint)
        return
    if allowance.untold:
        logger.warning("%d more complaints about peers were logged at DEBUG", allowance.untold)
        allowance.untold = 0
    logger.warning("misbehaving peer: %s", complaint)
