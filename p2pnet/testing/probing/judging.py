"""What observations say about a NAT: pure, after RFC 5780 and RFC 5382."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import P2PError
from p2pnet.testing.nat_kind import Dependence, PortChoice
from p2pnet.testing.packet import TransportName

Reaction = Literal["answered", "dropped"]

LARGEST_STEP = 1024
"""Ports further apart than this are no sequence. A NAT whose counter is in the byte order of
the wrong machine steps by 256."""


class Unmeasurable(P2PError):
    """The observers are too few, too far away or not what they should be."""


@dataclass(frozen=True, slots=True)
class Observers:
    """Three endpoints of observers: the fewest that tell all mappings apart (RFC 5780, 4.3)."""

    primary: Endpoint
    other_port: Endpoint
    """The same address, another port."""
    other_address: Endpoint

    @classmethod
    def among(cls, endpoints: Sequence[Endpoint]) -> Observers:
        """Choose three; the first given is the primary one.

        Raises:
            ValueError: if no other has its address, or all have.
        """
        if not endpoints:
            raise ValueError("there are no observers")
        primary = endpoints[0]
        same = [e for e in endpoints if e.host == primary.host and e.port != primary.port]
        other = [e for e in endpoints if e.host != primary.host]
        if not same or not other:
            raise ValueError("observers are needed on two ports of one address, and on another")
        return cls(primary, same[0], other[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What stands between a host and the internet, as seen from that host."""

    transport: TransportName
    blocked: bool = False
    """No observer answered; nothing else is known then."""
    outside: Endpoint | None = None
    """The source that the primary observer saw."""
    translated: bool = False
    """False: the outside address is the host's own. There may still be a firewall."""
    mapping: Dependence | None = None
    filtering: Dependence | None = None
    preserves_port: bool = False
    port_step: int | None = None
    """How far apart the ports of mappings are that were made one after another; None if they
    are preserved or follow no rule."""
    hairpins: bool = False
    """Two sockets here can meet by their outside endpoints. False without translation."""
    unsolicited: Reaction | None = None
    """What became of a SYN to an outside port without mapping; None for UDP, where the answer
    would be one of ICMP's, and a socket hears of those only by chance."""

    @property
    def ports(self) -> PortChoice | None:
        """How outside ports are chosen."""
        if self.blocked:
            return None
        if self.preserves_port:
            return PortChoice.PRESERVING
        return PortChoice.RANDOM if self.port_step is None else PortChoice.SEQUENTIAL


def judge_mapping(primary: Endpoint, other_port: Endpoint, other_address: Endpoint) -> Dependence:
    """Tell on what the mapping of one socket depends, from what the three observers saw."""
    if primary != other_port:
        return Dependence.ADDRESS_AND_PORT
    if primary != other_address:
        return Dependence.ADDRESS
    return Dependence.ENDPOINT_INDEPENDENT


def judge_filtering(*, passes_port: bool, passes_address: bool) -> Dependence:
    """Tell on what it depends who may come in, from which probes did."""
    if passes_address:
        return Dependence.ENDPOINT_INDEPENDENT
    return Dependence.ADDRESS if passes_port else Dependence.ADDRESS_AND_PORT


def judge_step(ports: Sequence[int]) -> int | None:
    """Find the step of a sequence, some of whose members others may have got; None if none."""
    gaps = [after - before for before, after in itertools.pairwise(ports)]
    if not gaps or not all(0 < gap <= LARGEST_STEP for gap in gaps):
        return None
    step = min(gaps)
    return step if all(gap % step == 0 for gap in gaps) else None
