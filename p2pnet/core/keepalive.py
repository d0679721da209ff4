"""How long a quiet connection may stay silent before it has to say something. Pure.

Rules: specs/keepalive.md.

::

    seconds   0            12.75      15         20                       30
              |--- silence ---|- drawn -|         |                        |
              last heard       a ping is sent     shortest lifetime of a   who owes an answer
                               and answered       mapping that is held     is gone
                               as long as nothing is known of the NAT

A mapping is kept by what is sent from inside. Who pings keeps its own, and the answer keeps
that of the other side: whoever may be silent for less pings for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LONGEST_SILENCE = 15.0
"""Seconds: a quarter less than the shortest lifetime that is held unlearned (KA1)."""
SPREAD = 0.15
"""The part by which a connection may be earlier than that (KA2)."""
DRAWN_BY_DIALER, DRAWN_BY_LISTENER = (0.6, 1.0), (0.0, 0.4)
"""Between which numbers each end draws one: the end that dialled is the first to ping (KA2)."""
SETTLING = 60.0
"""Seconds in which a connection is not silent for longer than that, whatever was learned (KA5)."""
RELAXED = 5.0
"""So many times our patience is the idle timeout that a remote is told (KA3)."""


def silence(longest: float, idle_timeout: float, drawn: float) -> float:
    """Return after how many seconds without a word to ping; ``drawn`` is from 0 to 1 (KA2).

    Never longer than ``longest`` (KA1), nor than half of ``idle_timeout`` (KA3).
    """
    return min(longest, idle_timeout / 2) * (1 - SPREAD * drawn)  # KA2


class Pace:
    """What was learned of the network a host is in: how long its connections may be silent."""

    def __init__(self) -> None:
        self._learned: dict[bool, float] = {}

    def learned(self, *, is_ipv6: bool) -> float | None:
        """Return how many seconds that is for a family; None if nobody knows (KA6)."""
        return self._learned.get(is_ipv6)

    def learn(self, seconds: float, *, is_ipv6: bool) -> None:
        self._learned[is_ipv6] = seconds

    def forget(self) -> None:
        """Begin anew, in another network (KA10)."""
        self._learned.clear()


@dataclass(slots=True)
class Hush:
    """A time in which a connection does not ping, and whether it was silent in it (KA8)."""

    until: float
    broken_at: float = math.inf
    """When the first datagram came, or went."""

    def broken(self, now: float) -> None:
        if now < self.until:
            self.broken_at = min(self.broken_at, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What the pulses of a host's connections have in common."""

    pace: Pace
    fixed: float | None
    """Seconds of silence after which to ping, whatever was learned; None goes by that."""
    patience: float
    """Seconds of silence after which a peer that owes an answer is gone."""


class Pulse:
    """Says when a connection has to ping, and when its peer is gone."""

    def __init__(self, habits: Habits, *, is_ipv6: bool, drawn: float) -> None:
        self._habits = habits
        self._is_ipv6 = is_ipv6
        self._drawn = drawn
        self._began_at = self._heard_at = self._quiet_since = self._owed_since = math.inf
        self._hush: Hush | None = None
        self.alert: float | None = None
        """Somebody wants to know soon if the peer is gone: after so long a silence (KA11)."""
        self._is_asked = False
        self._proof_due = math.inf

    def heard(self, now: float) -> None:
        """Take that something came."""
        self._began_at = min(self._began_at, now)
        self._heard_at = self._quiet_since = now
        self._owed_since = self._proof_due = math.inf
        if self._hush is not None:
            self._hush.broken(now)

    def pinged(self, now: float) -> None:
        self._quiet_since = now
        self._is_asked = False

    def prove_alive(self, now: float, patience: float) -> None:
        """Ping now; without a word within so many seconds the peer is gone (KA12)."""
        self._is_asked = True
        self._proof_due = now + patience

    def sent(self, now: float, *, is_any: bool, is_owed: bool) -> None:
        """Take that datagrams went, if ``is_any`` did, and if the peer owes an answer now."""
        self._owed_since = min(self._owed_since, now) if is_owed else math.inf
        if is_any and self._hush is not None:
            self._hush.broken(now)

    def hush(self, now: float, seconds: float) -> Hush:
        """Ping no more for so long."""
        self._hush = Hush(now + seconds)
        return self._hush

    def ping_at(self, idle_timeout: float, *, is_in_use: bool) -> float:
        """Return when to ping, with such an idle timeout agreed upon."""
        if self._is_asked:
            return self._quiet_since
        longest = self._longest(is_in_use=is_in_use)
        due = self._quiet_since + silence(longest, idle_timeout, self._drawn)
        return due if self._hush is None else max(due, self._hush.until)

    def _longest(self, *, is_in_use: bool) -> float:
        habits = self._habits
        if habits.fixed is not None:
            return habits.fixed
        unlearned = min(LONGEST_SILENCE, habits.patience / 2)
        learned = habits.pace.learned(is_ipv6=self._is_ipv6) or unlearned
        if self.alert is not None:
            return min(self.alert, unlearned, learned)
        if is_in_use or self._heard_at < self._began_at + SETTLING:  # KA5
            return min(unlearned, learned)
        return learned

    @property
    def lost_at(self) -> float:
        """When the peer is gone, unless it answers before (KA4, KA11, KA12)."""
        patience = self._habits.patience
        lost_at = self._owed_since + patience / 2
        if self.alert is None:
            lost_at = max(self._heard_at + patience, lost_at)
        return min(lost_at, self._proof_due)

    def wake_at(self, ping_at: float, now: float) -> float:
        """Return when to look again: soon enough if all that was learned is forgotten (KA10)."""
        return min(ping_at, self.lost_at, now + LONGEST_SILENCE)
