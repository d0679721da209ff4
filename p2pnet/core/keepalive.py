"""How long a quiet connection may stay silent before it has to say something. Pure.

Rules: specs/keepalive.md.

::

    seconds   0            12.75      15         20                       30
              |--- silence ---|- drawn -|         |                        |
              last heard       a ping is sent     shortest lifetime of a   idle timeout
                               and answered       mapping that is held     of QUIC

A mapping is kept by what is sent from inside. Who pings keeps its own, and the answer keeps
that of the other side.
"""

from __future__ import annotations

LONGEST_SILENCE = 15.0
"""Seconds: a quarter less than the shortest lifetime that is held (KA1)."""
SPREAD = 0.15
"""The part by which a connection may be earlier than that (KA2)."""


def silence(longest: float, idle_timeout: float, drawn: float) -> float:
    """Return after how many seconds without a word to ping; ``drawn`` is from 0 to 1.

    Never longer than ``longest`` (KA1), nor than half of ``idle_timeout`` (KA3).
    """
    return min(longest, idle_timeout / 2) * (1 - SPREAD * drawn)  # KA2
