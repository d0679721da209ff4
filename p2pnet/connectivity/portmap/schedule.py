"""How long to wait for an answer before a question is repeated. Pure. Rules PM7, PM8."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Jitter = Callable[[float, float], float]
"""A number between two bounds."""

NAT_PMP_FIRST = 0.25
"""Seconds (RFC 6886, 3.1)."""
PCP_FIRST = 3.0
PCP_LONGEST = 1024.0
PCP_FACTOR = 0.1
"""Each wait is longer or shorter by up to this part (RFC 6887, 8.1.1)."""


def nat_pmp_waits(tries: int) -> Iterator[float]:
    """Return the seconds to wait after each of so many datagrams: they double."""
    return (NAT_PMP_FIRST * 2**number for number in range(tries))


def pcp_waits(tries: int, jitter: Jitter) -> Iterator[float]:
    """Return the seconds to wait after each of so many datagrams, which about double."""
    wait = PCP_FIRST / 2
    for number in range(tries):
        longest = PCP_LONGEST if number else PCP_FIRST
        wait = min(2 * wait, longest) * (1 + jitter(-PCP_FACTOR, PCP_FACTOR))
        yield wait
