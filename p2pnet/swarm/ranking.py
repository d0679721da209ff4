"""In which order, and how far apart, the addresses of a peer are dialled. Pure.

Rules: specs/connections.md (S10 to S13), after Happy Eyeballs (RFC 8305).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pnet.core.addresses import Multiaddr, Scope, components, is_relayed, scope

PUBLIC_STEP = 0.25
PRIVATE_STEP = 0.03
RELAY_DELAY = 0.5


@dataclass(frozen=True, slots=True)
class Attempt:
    """Dial ``address`` so many seconds after the first one, or when all before it failed."""

    delay: float
    address: Multiaddr


def rank(addresses: Sequence[Multiaddr]) -> list[Attempt]:
    """Order the dials to one peer: direct before relayed, IPv6 then IPv4, staggered."""
    unique = list(dict.fromkeys(addresses))
    relayed = [address for address in unique if is_relayed(address)]
    direct = [address for address in unique if not is_relayed(address)]
    private = [address for address in direct if scope(address) is not Scope.PUBLIC]
    public = [address for address in direct if scope(address) is Scope.PUBLIC]
    attempts = [
        *stagger(private, start=0.0, step=PRIVATE_STEP),
        *stagger(public, start=0.0, step=PUBLIC_STEP),  # S11
        *stagger(relayed, start=RELAY_DELAY if direct else 0.0, step=PUBLIC_STEP),  # S12
    ]
    return sorted(attempts, key=lambda attempt: attempt.delay)


def stagger(addresses: Sequence[Multiaddr], *, start: float, step: float) -> list[Attempt]:
    """Put one address of each family first, IPv6 before IPv4, and the others behind (S10)."""
    first: dict[str, Multiaddr] = {}
    others: list[Multiaddr] = []
    for address in sorted(addresses, key=preference):
        family = components(address)[0][0]
        if family in first:
            others.append(address)
        else:
            first[family] = address
    heads = [Attempt(start + step * place, address) for place, address in enumerate(first.values())]
    behind = start + step * len(heads)
    return heads + [Attempt(behind, address) for address in others]


def preference(address: Multiaddr) -> tuple[int, int, str]:
    """IPv6 first; then the lowest port: the one a person chose rather than a NAT."""
    parts = components(address)
    port = next((int(value) for name, value in parts if name in ("tcp", "udp")), 0)
    return (0 if parts[0][0] in ("ip6", "dns6") else 1, port, str(address))
