"""NAT64: addresses in addresses, and packets that change their family."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, Side
from p2pnet.testing.nat64 import LENGTHS, Nat64, extract, synthesize
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment

INSIDE = Endpoint("2a00:1::2", 4001)
NEIGHBOUR = Endpoint("2a00:1::3", 4001)
PEER = Endpoint("11.0.0.9", 53)
PEER_IN_IPV6 = Endpoint("64:ff9b::b00:9", 53)
OUTSIDE = Endpoint("11.0.0.1", 4001)


def a_nat64(kind: NatKind | None = None, prefix: str = "64:ff9b::/96") -> Nat64:
    nat = Nat(kind or NatKind(), outside=["11.0.0.1"], choose=Random(1).randrange)
    return Nat64(nat, prefix)


def udp(source: Endpoint, destination: Endpoint) -> Packet:
    return Packet(source, destination, Datagram(b"x"))


@given(st.ip_addresses(v=4), st.sampled_from(LENGTHS), st.integers(0, 2**96 - 1))
def test_what_is_put_into_an_address_comes_out_again(ipv4: object, length: int, bits: int) -> None:
    """NT19: under any prefix, with a zero octet in its place."""
    value = bits >> (96 - length) << (128 - length) if length < 96 else bits << 32
    value &= ~(0xFF << 56)
    groups = ":".join(f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))
    prefix = f"{groups}/{length}"
    ipv6 = synthesize(str(ipv4), prefix)
    assert extract(ipv6, prefix) == str(ipv4)
    assert extract("::1", "64:ff9b::/96") is None


@pytest.mark.parametrize(
    "prefix",
    ["64:ff9b::/95", "64:ff9b::/128", "64:ff9b::1/96", "2a00:0:0:0:100::/96", "x", "1.2.3.4/8"],
)
def test_a_prefix_of_another_kind_is_refused(prefix: str) -> None:
    """NT19."""
    with pytest.raises(ValueError, match=r"prefix|bits|expected"):
        a_nat64(prefix=prefix)


def test_what_is_no_ipv4_address_is_not_embedded() -> None:
    with pytest.raises(ValueError, match="Expected 4 octets"):
        synthesize("64:ff9b::1")


def test_a_prefix_of_ones_own_reaches_any_address() -> None:
    """NT20: only the well-known one is for public addresses."""
    box = a_nat64(prefix="2a00:64::/96")
    hop = box.outbound(udp(INSIDE, Endpoint(synthesize("192.168.7.7", box.prefix), 1)), 0.0)
    assert hop == Hop(udp(OUTSIDE, Endpoint("192.168.7.7", 1)), Side.OUTSIDE)
    assert box.is_for("2a00:64::1")
    assert not box.is_for("64:ff9b::1")


def test_a_connection_goes_both_ways() -> None:
    """NT20: TCP, with the rules of NAT."""
    box = a_nat64()
    syn = Segment(Flags.SYN, 1)
    assert box.inbound(Packet(PEER, OUTSIDE, syn), 0.0) == Dropped("no mapping")
    hop = box.outbound(Packet(INSIDE, PEER_IN_IPV6, syn), 0.0)
    assert hop == Hop(Packet(OUTSIDE, PEER, syn), Side.OUTSIDE)
    answer = Segment(Flags.SYN | Flags.ACK, 1)
    hop = box.inbound(Packet(PEER, OUTSIDE, answer), 0.0)
    assert hop == Hop(Packet(PEER_IN_IPV6, INSIDE, answer), Side.INSIDE)


def test_a_refused_syn_is_answered_in_ipv4() -> None:
    """NT20: by RST, as the kind has it."""
    box = a_nat64(NatKind(answers_reset=True))
    hop = box.inbound(Packet(PEER, OUTSIDE, Segment(Flags.SYN, 1)), 0.0)
    reset = Segment(Flags.RST | Flags.ACK, 0, 2)
    assert hop == Hop(Packet(OUTSIDE, PEER, reset), Side.OUTSIDE)


def test_two_hosts_inside_meet_by_hairpinning() -> None:
    """NT20: they see each other under the prefix."""
    box = a_nat64(NatKind(hairpinning=True, filtering=Dependence.ENDPOINT_INDEPENDENT))
    box.outbound(udp(INSIDE, PEER_IN_IPV6), 0.0)
    hop = box.outbound(udp(NEIGHBOUR, Endpoint(synthesize("11.0.0.1"), 4001)), 0.0)
    seen = Endpoint(synthesize("11.0.0.1"), 4002)
    assert hop == Hop(udp(seen, INSIDE), Side.INSIDE)


def test_hosts_with_ipv4_share_the_nat() -> None:
    """NT20: its ports are for both."""
    box = a_nat64(NatKind(hairpinning=True, filtering=Dependence.ENDPOINT_INDEPENDENT))
    four = Endpoint("192.168.1.2", 4001)
    box.outbound(udp(INSIDE, PEER_IN_IPV6), 0.0)
    hop = box.outbound(udp(four, PEER), 0.0)
    second = Endpoint("11.0.0.1", 4002)
    assert hop == Hop(udp(second, PEER), Side.OUTSIDE)
    assert box.inbound(udp(PEER, second), 0.0) == Hop(udp(PEER, four), Side.INSIDE)
    hop = box.outbound(udp(four, OUTSIDE), 0.0)
    assert hop == Hop(udp(Endpoint(synthesize("11.0.0.1"), 4002), INSIDE), Side.INSIDE)
