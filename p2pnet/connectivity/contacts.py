"""Whom this host has spoken to: they prove nothing about whom its NAT lets in. Pure.

Rules: specs/reachability.md (V10).
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_CONTACTS = 4096
MEMORY = 7440.0
"""Seconds; so long a NAT may keep a hole in its filter open for TCP (RFC 5382, REQ-5)."""


@dataclass(slots=True)
class Contacts:
    """IP addresses to which this host has sent something, and when."""

    times: dict[str, float] = field(default_factory=dict)

    def spoke_to(self, ip: str, now: float) -> None:
        """Remember; at the limit whoever was spoken to longest ago is forgotten."""
        self.times.pop(ip, None)
        self.times[ip] = now
        while len(self.times) > MAX_CONTACTS:
            del self.times[next(iter(self.times))]

    def is_stranger(self, ip: str, now: float) -> bool:
        """Tell if nothing was sent to an IP address for so long that no hole can be left."""
        last = self.times.get(ip)
        return last is None or last + MEMORY <= now
