"""The kinds of homes that the matrix pairs: what stands between a host and the internet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from p2pnet.testing.nat_kind import Dependence, NatKind, PortChoice

INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
ADDRESS = Dependence.ADDRESS
PORT = Dependence.ADDRESS_AND_PORT


@dataclass(frozen=True, slots=True)
class Kind:
    """A home: its NATs from the host outwards; none for a public host."""

    name: str
    nats: tuple[NatKind, ...]


PORT_RESTRICTED = NatKind(mapping=INDEPENDENT, filtering=PORT)
SYMMETRIC = NatKind(mapping=PORT, filtering=PORT, ports=PortChoice.RANDOM)
CARRIER = NatKind(mapping=INDEPENDENT, filtering=INDEPENDENT, ports=PortChoice.SEQUENTIAL)


def by_name(*kinds: Kind) -> Mapping[str, Kind]:
    return MappingProxyType({kind.name: kind for kind in kinds})


KINDS = by_name(
    Kind("open", ()),
    Kind("firewall", (NatKind(translates=False, filtering=PORT),)),
    Kind("full-cone", (NatKind(mapping=INDEPENDENT, filtering=INDEPENDENT),)),
    Kind("address-restricted", (NatKind(mapping=INDEPENDENT, filtering=ADDRESS),)),
    Kind("port-restricted", (PORT_RESTRICTED,)),
    Kind("port-restricted-reset", (replace(PORT_RESTRICTED, answers_reset=True),)),
    Kind("port-restricted-random", (replace(PORT_RESTRICTED, ports=PortChoice.RANDOM),)),
    Kind("address-symmetric", (replace(SYMMETRIC, mapping=ADDRESS),)),
    Kind("symmetric", (SYMMETRIC,)),
    Kind("symmetric-sequential", (replace(SYMMETRIC, ports=PortChoice.SEQUENTIAL),)),
    Kind("carrier", (PORT_RESTRICTED, CARRIER)),
    Kind("carrier-symmetric", (PORT_RESTRICTED, SYMMETRIC)),
)
"""The 12 kinds that are everywhere, by name."""

SPECIAL_KINDS = by_name(
    Kind("udp-blocked", (replace(PORT_RESTRICTED, udp_blocked=True),)),
    Kind("no-simultaneous-open", (replace(PORT_RESTRICTED, refuses_simultaneous_open=True),)),
    Kind("symmetric-reset", (replace(SYMMETRIC, answers_reset=True),)),
    Kind("port-restricted-sequential", (replace(PORT_RESTRICTED, ports=PortChoice.SEQUENTIAL),)),
    Kind("double-nat", (PORT_RESTRICTED, PORT_RESTRICTED)),
    Kind("hairpinning", (replace(PORT_RESTRICTED, hairpinning=True),)),
)
"""Kinds that are rarer."""

ALL_KINDS: Mapping[str, Kind] = MappingProxyType({**KINDS, **SPECIAL_KINDS})

MATRIX: Mapping[str, Kind] = by_name(
    *(kind for kind in ALL_KINDS.values() if kind.name != "hairpinning")
)
"""The 17 kinds of the matrix, in its order.

Hairpinning means something only to hosts of one home, which have tests of their own.
"""
