"""How a NAT behaves, in the words of RFC 4787 and RFC 5382. Rules: specs/nat.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.bindings import Remotes

HIGHEST_PORT = 65_535


class Dependence(Enum):
    """On how much of the remote's endpoint something depends (RFC 4787, 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address-and-port-dependent"


class PortChoice(Enum):
    """Which outside port a new mapping gets."""

    PRESERVING = "preserving"
    """The one it has inside, or else the next free one above."""
    SEQUENTIAL = "sequential"
    """The next free one above the last that was given."""
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatKind:
    """How a NAT behaves. The default is a good home router: it can be punched."""

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT
    ports: PortChoice = PortChoice.PRESERVING
    hairpinning: bool = False
    answers_reset: bool = False
    """Whether a SYN that may not come in is answered by RST, instead of silence."""
    refuses_simultaneous_open: bool = False
    """Whether a SYN is kept out if it comes from where an unanswered one has gone to."""
    translates: bool = True
    """False for a firewall, which filters and leaves addresses as they are."""
    udp_blocked: bool = False
    udp_seconds: float = 120.0
    tcp_seconds: float = 7440.0
    tcp_transitory_seconds: float = 240.0
    """For a connection that is not open on both sides yet, or is over."""
    refresh_inbound: bool = False
    """Whether a UDP packet from outside keeps a mapping as well."""
    max_mappings: int = 65_536
    max_sessions: int = 262_144
    first_port: int = 1024
    last_port: int = HIGHEST_PORT

    def __post_init__(self) -> None:
        if not 0 < self.first_port <= self.last_port <= HIGHEST_PORT:
            raise ValueError(f"no ports from {self.first_port} to {self.last_port}")
        if min(self.udp_seconds, self.tcp_seconds, self.tcp_transitory_seconds) <= 0:
            raise ValueError("a lifetime must be more than nothing")


def narrowed(endpoint: Endpoint, dependence: Dependence) -> Remotes:
    """Return as much of an endpoint as something depends on."""
    match dependence:
        case Dependence.ENDPOINT_INDEPENDENT:
            return ""
        case Dependence.ADDRESS:
            return endpoint.host
        case Dependence.ADDRESS_AND_PORT:
            return endpoint
