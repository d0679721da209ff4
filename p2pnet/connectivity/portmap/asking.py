"""What is asked of a router in every protocol, and what may come of it.

Rules: specs/port-mapping.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Literal, Protocol

from p2pnet.core.addresses import Endpoint, Scope, scope_of_ip
from p2pnet.errors import P2PError

TransportName = Literal["tcp", "udp"]
ProtocolName = Literal["pcp", "nat-pmp", "upnp"]


@dataclass(frozen=True, slots=True)
class Place:
    """A router, and the address that this host has in the router's network."""

    gateway: str
    own: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A port of this host that is to be reached from outside."""

    transport: TransportName
    inside: Endpoint
    outside: Endpoint
    """What would be nice to get; the host 0.0.0.0 leaves the address to the router."""
    seconds: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a router says that it forwards."""

    outside: Endpoint
    seconds: float
    """For how long; infinite if until it is deleted."""
    epoch: int | None = None
    """Seconds since the router began to keep mappings, where the protocol tells."""
    is_fresh: bool = True
    """The seconds begin now; False if the router was only looked at."""


class NotSpoken(P2PError):
    """Nobody here speaks the protocol."""


class Unanswered(P2PError):
    """No answer came, however often the router was asked."""

    def __init__(self) -> None:
        super().__init__("the router does not answer")


class Refused(P2PError):
    """The router said no; it is to be asked again after so many seconds."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


SHORT_REFUSAL = 60.0
"""For what may be otherwise soon: no port free, no connection to the internet ..."""
LONG_REFUSAL = 1800.0
"""... and for what takes somebody who changes the router's settings."""


SHORTEST_LIFETIME = 10
"""Seconds; what lasts less cannot be kept up."""
NO_ADDRESS = "the router has no outside address"


class RouterClient(Protocol):
    """Speaks to one router in one protocol; to it, one question at a time."""

    @property
    def protocol(self) -> ProtocolName: ...

    async def map(self, wish: Wish) -> Grant:
        """Have a port forwarded, or go on being so.

        Raises:
            Refused, Unanswered, OSError: if it is not.
            ProtocolError: if the answers make no sense.
        """
        ...

    async def check(self, wish: Wish, held: Grant) -> Grant:
        """Have the router say that it still forwards a port; have it do so again if not.

        Raises:
            Refused, Unanswered, OSError, ProtocolError: as ``map``.
        """
        ...

    async def unmap(self, wish: Wish) -> None:
        """Have ``wish.outside`` forwarded no longer.

        Raises:
            Refused, Unanswered, OSError, ProtocolError: if that is not certain.
        """
        ...


def check_worth(outside_port: int, seconds: int) -> None:
    """Raise Refused if a mapping cannot be of use, though the router granted it (PM5)."""
    if outside_port == 0 or seconds < SHORTEST_LIFETIME:
        raise Refused(f"the router grants port {outside_port} for {seconds} s", SHORT_REFUSAL)


def read_outside_address(text: str) -> str | None:
    """Return an IPv4 address if somebody could be there, be it in a carrier's network (PM6)."""
    try:
        ip = IPv4Address(text.strip())
    except AddressValueError:
        return None
    return str(ip) if scope_of_ip(ip) in (Scope.PUBLIC, Scope.PRIVATE) else None


def read_ipv4(packed: bytes) -> str | None:
    """Return the IPv4 address of four bytes, as above."""
    return read_outside_address(str(IPv4Address(packed)))
