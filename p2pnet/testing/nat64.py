"""Stateful NAT64: hosts that have only IPv6 reach IPv4 (RFC 6146, 6052). Rules: specs/nat.md.

An IPv4 address lies in the last bits of an IPv6 address that leads to the translator::

    2001:db8::7:4001 > 64:ff9b::b00:9:53       inside
                  |
                Nat      mapping and filtering, with an IPv6 endpoint inside
                  |
    11.0.0.1:4001    > 11.0.0.9:53             outside
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from p2pnet.core.addresses import Endpoint, Scope, scope_of_ip
from p2pnet.testing.nat import Dropped, Hop, Nat, Side
from p2pnet.testing.packet import Packet

WELL_KNOWN_PREFIX = "64:ff9b::/96"
LENGTHS = (32, 40, 48, 56, 64, 96)
OCTET_U = 8
"""The octet of an address that stays zero, and is skipped (RFC 6052, 2.2)."""

NOT_TRANSLATED = Dropped("not of the nat64 prefix")
NOT_GLOBAL = Dropped("not a global address")
LOOP = Dropped("from the nat64 prefix")


class Nat64:
    """Translates between IPv6 inside and IPv4 outside, on top of a NAT's mappings.

    The NAT may serve hosts with IPv4 at the same time. Then all that is IPv4 goes through here as
    well, in and out.

    Args:
        nat: holds the mappings, and behaves as its kind says.
        prefix: of 32, 40, 48, 56, 64 or 96 bits.

    Raises:
        ValueError: if the prefix is of another length.
    """

    def __init__(self, nat: Nat, prefix: str = WELL_KNOWN_PREFIX) -> None:
        network(prefix)
        self.nat = nat
        self.prefix = prefix

    def is_for(self, host: str) -> bool:
        """Tell whether an address leads through here."""
        return extract(host, self.prefix) is not None

    def outbound(self, packet: Packet, now: float) -> Hop | Dropped:
        """Take a packet from inside."""
        if packet.source.is_ipv6:
            host = extract(packet.destination.host, self.prefix)
            if host is None:
                return NOT_TRANSLATED
            if self.is_for(packet.source.host):  # NT20: it would go round for ever.
                return LOOP
            if self.prefix == WELL_KNOWN_PREFIX and not is_global(host):  # NT20
                return NOT_GLOBAL
            packet = replace(packet, destination=Endpoint(host, packet.destination.port))
        return self._inside(self.nat.outbound(packet, now))

    def inbound(self, packet: Packet, now: float) -> Hop | Dropped:
        """Take an IPv4 packet from outside."""
        return self._inside(self.nat.inbound(packet, now))

    def _inside(self, verdict: Hop | Dropped) -> Hop | Dropped:
        """Show a sender of IPv4 to a host inside that has IPv6 (NT20)."""
        if isinstance(verdict, Dropped) or verdict.to is Side.OUTSIDE:
            return verdict
        packet = verdict.packet
        if not packet.destination.is_ipv6 or packet.source.is_ipv6:
            return verdict
        source = Endpoint(synthesize(packet.source.host, self.prefix), packet.source.port)
        return Hop(replace(packet, source=source), Side.INSIDE)


@lru_cache(maxsize=1024)
def synthesize(ipv4: str, prefix: str = WELL_KNOWN_PREFIX) -> str:
    """Make the IPv6 address by which an IPv4 address is reached, as DNS64 does (NT19).

    Raises:
        ValueError: for what is no IPv4 address, or no prefix.
    """
    net = network(prefix)
    octets = bytearray(net.network_address.packed)
    for index, octet in zip(places(net.prefixlen), IPv4Address(ipv4).packed, strict=True):
        octets[index] = octet
    return str(IPv6Address(bytes(octets)))


@lru_cache(maxsize=1024)
def extract(ipv6: str, prefix: str = WELL_KNOWN_PREFIX) -> str | None:
    """Return the IPv4 address in an IPv6 address, or None if that is not of the prefix (NT19).

    Raises:
        ValueError: for what is no IPv6 address, or no prefix.
    """
    net = network(prefix)
    address = IPv6Address(ipv6)
    if address not in net:
        return None
    return str(IPv4Address(bytes(address.packed[index] for index in places(net.prefixlen))))


@lru_cache(maxsize=1024)
def is_global(ipv4: str) -> bool:
    return scope_of_ip(IPv4Address(ipv4)) is Scope.PUBLIC


@lru_cache(maxsize=64)
def network(prefix: str) -> IPv6Network:
    net = IPv6Network(prefix)
    if net.prefixlen not in LENGTHS:
        raise ValueError(f"a NAT64 prefix has {LENGTHS} bits, not {net.prefixlen}")
    if net.network_address.packed[OCTET_U]:
        raise ValueError(f"octet {OCTET_U} of a NAT64 prefix is zero")
    return net


def places(length: int) -> list[int]:
    """Return the four octets of an IPv6 address in which an IPv4 address lies (RFC 6052, 2.2)."""
    first = length // 8
    return [index for index in range(first, 16) if index != OCTET_U][:4]
