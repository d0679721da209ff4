"""What a router with port mapping allows, and the faults of real ones that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["upnp", "nat-pmp", "pcp"]
PROTOCOLS: tuple[Protocol, ...] = ("upnp", "nat-pmp", "pcp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapConfig:
    """How one router behaves; as it stands, a well-behaved one."""

    max_leases: int = 256
    max_leases_a_host: int = 64
    max_port_tries: int = 64
    """Ports tried, beginning with the one asked for; with 1 no other port is ever given."""
    first_port: int = 1024
    last_port: int = 65_535
    shortest_seconds: int = 120
    """Least lifetime of a PCP mapping (RFC 6887, 15)."""
    longest_seconds: int = 86_400
    """Most lifetime of a NAT-PMP or PCP mapping."""
    max_description: int = 256
    """Most characters of the description of a UPnP mapping."""
    max_head_bytes: int = 8_192
    max_headers: int = 64
    max_body_bytes: int = 16_384
    max_search_bytes: int = 2_048
    http_port: int = 5_000
    igd_version: Literal[1, 2] = 1

    # What real routers do besides.
    refuses: bool = False
    """Answers, and grants nothing: NOT_AUTHORIZED, and 606 of UPnP."""
    only_permanent: bool = False
    """Knows no UPnP leases that end (725)."""
    any_host: bool = False
    """UPnP and PCP clients may map ports for other hosts, too."""
    wan_ppp: bool = False
    """Offers WANPPPConnection:1 in place of WANIPConnection, as behind many DSL modems."""
    reported_address: str | None = None
    """The outside address it tells of, whatever the true one is."""
    keeps_epoch: bool = False
    """Does not begin its epoch anew after a reboot, so clients cannot tell that it was one."""
