"""Pings: is the remote alive, how long is the round trip, and does it ask too often?

idle --- nothing heard for ``interval`` ---> ping sent --- nothing for ``timeout`` ---> dead
  ^                                              |
  +----------------- any byte -------------------+
"""

from __future__ import annotations

from math import floor, inf

from p2pnet.errors import PeerSilent, ProtocolError
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.messages import ACK, MAX_UINT32, PING, PROTOCOL_ID, SYN
from p2pnet.muxers.yamux.outgoing import Outgoing

ROUND_TRIP_LIFETIME = 30.0
"""Seconds after which the measured round trip wants to be measured anew."""
RATE_PERIOD = 10.0
"""Seconds' worth of pings that a remote may send at once."""
TICKS = 30
"""In an interval. Pings leave at a tick, so that those of many idle connections share a turn."""
DIALER_TICKS = 28
"""A dialer asks sooner: the listener has heard its ping when it would ask, and one is enough."""


class Pulse:
    """Sends pings and answers them."""

    def __init__(self, outgoing: Outgoing, limits: Limits, *, is_dialer: bool, now: float) -> None:
        self.round_trip: float | None = None
        """Seconds, once measured."""
        self._outgoing = outgoing
        self._interval = limits.ping_interval
        self._usual_ticks = DIALER_TICKS if is_dialer else TICKS
        self.stay_alert(None)
        self._timeout = limits.ping_timeout
        self._heard_at = now
        self._asked_at: float | None = None
        self._proof_due = inf
        self._value = 0
        self._measured_at = -ROUND_TRIP_LIFETIME
        self._max_rate = limits.max_ping_rate
        self._allowance = self._max_rate * RATE_PERIOD
        self._allowance_at = now

    def stay_alert(self, silence: float | None) -> None:
        """Ask for a sign of life after so long a silence, in seconds; None: as ever (KA11)."""
        self._tick = self._interval / TICKS
        self._ticks = self._usual_ticks
        if silence is not None:
            self._ticks = max(1, min(self._ticks, floor(silence / self._tick)))

    def heard(self, now: float) -> None:
        """Note that bytes came, whatever they are: the remote lives."""
        self._heard_at = now
        self._proof_due = inf

    def prove_alive(self, now: float, patience: float) -> None:
        """Ask now; without a sign of life within so many seconds the remote is gone (KA12)."""
        self._proof_due = now + patience
        if not self._is_waiting:
            self._ask(now)

    @property
    def _is_waiting(self) -> bool:
        """Tell if nothing has come since it was asked for."""
        return self._asked_at is not None and self._heard_at <= self._asked_at

    def deadline(self) -> float:
        """Return when to call ``on_deadline``."""
        if self._asked_at is not None and self._heard_at <= self._asked_at:
            return min(self._asked_at + self._timeout, self._proof_due)
        return (floor(self._heard_at / self._tick) + self._ticks) * self._tick

    def on_deadline(self, now: float) -> None:
        """Ask for a sign of life (Y12).

        Raises:
            PeerSilent: if there was none since the last time it was asked for.
        """
        if now < self.deadline():
            return
        if self._asked_at is not None and self._heard_at <= self._asked_at:
            waited = now - self._asked_at
            raise PeerSilent(f"no sign of life within {waited:g} s of a ping")
        self._ask(now)

    def measure(self, now: float) -> None:
        """Ask for the round trip, if it is unknown or old, and not being asked for already."""
        if now - self._measured_at < ROUND_TRIP_LIFETIME:
            return
        if self._asked_at is None or now - self._asked_at >= ROUND_TRIP_LIFETIME:
            self._ask(now)

    def receive(self, flags: int, value: int, now: float) -> None:
        """Take a ping or the answer to one.

        Raises:
            ProtocolError: if the remote pings too often.
        """
        if flags & SYN:
            self._limit_rate(now)
            self._outgoing.control(PING, ACK, 0, value)  # Y11
        elif flags & ACK and self._asked_at is not None and value == self._value:
            self.round_trip = now - self._asked_at
            self._measured_at = now
            self._asked_at = None

    def _ask(self, now: float) -> None:
        self._value = (self._value + 1) & MAX_UINT32
        self._asked_at = now
        self._outgoing.control(PING, SYN, 0, self._value)

    def _limit_rate(self, now: float) -> None:
        refill = (now - self._allowance_at) * self._max_rate
        self._allowance = min(self._allowance + refill, self._max_rate * RATE_PERIOD) - 1
        self._allowance_at = now
        if self._allowance < 0:  # Y13
            raise ProtocolError(PROTOCOL_ID, f"more than {self._max_rate:g} pings a second")
