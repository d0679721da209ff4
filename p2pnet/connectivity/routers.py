"""Which routers lead out of this network: another one, and this machine is elsewhere. Pure.

Rule: specs/reachability.md (V26).
"""

from __future__ import annotations

from collections.abc import Sequence


class Routers:
    """The best router of IPv4, and of IPv6, that was seen last."""

    def __init__(self) -> None:
        self._last: dict[bool, str] = {}
        self._now: dict[bool, str] = {}

    def look(self, gateways: Sequence[str]) -> bool:
        """Take the routers of now, the best of each family first; tell if one is another.

        That there is none now says nothing: it may be about to be replaced by itself.
        """
        best: dict[bool, str] = {}
        for gateway in gateways:
            best.setdefault(":" in gateway, gateway)
        is_another = any(self._last.get(family, now) != now for family, now in best.items())
        self._now = best
        self._last |= best
        return is_another

    def moved(self) -> None:
        """Take that this is another network: the router that comes with it is no further move."""
        self._last = dict(self._now)
