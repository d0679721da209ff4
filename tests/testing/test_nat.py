"""NAT boxes, rule by rule; the vectors of specs/nat.md show the plain cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, PortChoice, Side
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment, TransportName

INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
ADDRESS = Dependence.ADDRESS
PORT = Dependence.ADDRESS_AND_PORT

INSIDE = Endpoint("192.168.1.2", 4001)
NEIGHBOUR = Endpoint("192.168.1.3", 4001)
OUTSIDE = Endpoint("11.0.0.1", 4001)
PEER = Endpoint("11.0.0.9", 53)
OTHER_PORT = Endpoint("11.0.0.9", 54)
STRANGER = Endpoint("11.0.0.8", 53)
SYN, ACK, FIN, RST = Flags.SYN, Flags.ACK, Flags.FIN, Flags.RST


def a_nat(kind: NatKind | None = None, *addresses: str) -> Nat:
    return Nat(kind or NatKind(), outside=addresses or ("11.0.0.1",), choose=Random(1).randrange)


def udp(source: Endpoint, destination: Endpoint) -> Packet:
    return Packet(source, destination, Datagram(b"x"))


def tcp(source: Endpoint, destination: Endpoint, flags: Flags, sequence: int = 0) -> Packet:
    return Packet(source, destination, Segment(flags, sequence))


def sent(nat: Nat, packet: Packet, now: float = 0.0) -> Endpoint:
    """Send a packet from inside and return the source it has outside."""
    hop = nat.outbound(packet, now)
    assert isinstance(hop, Hop), hop
    assert hop.to is Side.OUTSIDE
    assert (hop.packet.destination, hop.packet.payload) == (packet.destination, packet.payload)
    return hop.packet.source


def comes_in(nat: Nat, packet: Packet, now: float = 0.0) -> bool:
    hop = nat.inbound(packet, now)
    return isinstance(hop, Hop) and hop.to is Side.INSIDE


def connect(nat: Nat, now: float = 0.0, inside: Endpoint = INSIDE, peer: Endpoint = PEER) -> None:
    """Open a TCP connection through a NAT that preserves ports."""
    outside = sent(nat, tcp(inside, peer, SYN), now)
    assert comes_in(nat, tcp(peer, outside, SYN | ACK), now)
    assert sent(nat, tcp(inside, peer, ACK), now) == outside


# ---- ports and addresses ---------------------------------------------------------------


def test_a_preserving_nat_wraps_to_its_first_port_where_the_wanted_ones_are_taken() -> None:
    nat = a_nat(NatKind(mapping=PORT, first_port=60_000, last_port=60_001))
    source = Endpoint("192.168.1.2", 60_001)
    ports = [sent(nat, udp(source, Endpoint("11.0.0.9", port))).port for port in (1, 2)]
    assert ports == [60_001, 60_000]
    assert nat.outbound(udp(source, STRANGER), 0.0) == Dropped("no free port")


def test_a_preserving_nat_keeps_a_port_that_it_would_not_give_itself() -> None:
    assert sent(a_nat(), udp(Endpoint("192.168.1.2", 500), PEER)) == Endpoint("11.0.0.1", 500)


def test_random_ports_are_as_chosen_and_never_given_twice() -> None:
    kind = NatKind(mapping=PORT, ports=PortChoice.RANDOM, first_port=2000, last_port=2099)
    nat = a_nat(kind)
    remotes = [Endpoint("11.0.0.9", port) for port in range(1, 101)]
    ports = [sent(nat, udp(INSIDE, remote)).port for remote in remotes]
    assert sorted(ports) == list(range(2000, 2100))
    assert ports != sorted(ports)
    again = a_nat(kind)
    assert [sent(again, udp(INSIDE, remote)).port for remote in remotes] == ports


def test_tcp_and_udp_have_ports_of_their_own() -> None:
    """NT4: the spaces are two."""
    nat = a_nat(NatKind(ports=PortChoice.SEQUENTIAL))
    assert sent(nat, udp(INSIDE, PEER)) == sent(nat, tcp(INSIDE, PEER, SYN))
    assert [mapping.transport for mapping in nat.mappings(0.0)] == ["udp", "tcp"]


def test_a_host_keeps_one_outside_address_while_it_has_mappings() -> None:
    """NT4: paired pooling."""
    addresses = [f"11.0.0.{n}" for n in range(1, 9)]
    nat = Nat(NatKind(mapping=PORT), outside=addresses, choose=Random(7).randrange)
    first = [sent(nat, udp(INSIDE, Endpoint("11.0.1.1", port))).host for port in range(1, 50)]
    other = sent(nat, udp(NEIGHBOUR, PEER)).host
    assert len(set(first)) == 1
    hosts = {sent(nat, udp(Endpoint(f"192.168.1.{n}", 1), PEER)).host for n in range(10, 60)} | {
        other
    }
    assert len(hosts) > 4
    later = [sent(nat, udp(INSIDE, PEER), 1000.0 * n).host for n in range(1, 20)]
    assert len(set(later)) > 1


def test_a_nat_without_outside_address_drops_what_it_should_translate() -> None:
    nat = Nat(NatKind(), outside=(), choose=Random(1).randrange)
    assert nat.outbound(udp(INSIDE, PEER), 0.0) == Dropped("no outside address")
    assert nat.map_port("udp", INSIDE, 4001, seconds=None, now=0.0) is None
    nat.set_outside(["2a00::1"])
    assert nat.outbound(udp(INSIDE, PEER), 0.0) == Dropped("no outside address")


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_port": 0},
        {"first_port": 9, "last_port": 8},
        {"last_port": 65_536},
        {"udp_seconds": 0.0},
        {"tcp_transitory_seconds": -1.0},
    ],
)
def test_a_kind_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"ports|lifetime"):
        NatKind(**wrong)  # type: ignore[arg-type]


# ---- lifetimes -------------------------------------------------------------------------


def test_a_udp_mapping_ends_to_the_second() -> None:
    """NT5: from the latest packet of the inside."""
    nat = a_nat(NatKind(udp_seconds=30.0))
    sent(nat, udp(INSIDE, PEER), 100.0)
    sent(nat, udp(INSIDE, PEER), 120.0)
    assert comes_in(nat, udp(PEER, OUTSIDE), 149.999)
    assert nat.expires() == 150.0
    assert nat.inbound(udp(PEER, OUTSIDE), 150.0) == Dropped("no mapping")
    assert nat.expires() is None


@pytest.mark.parametrize("filtering", list(Dependence))
def test_packets_from_outside_keep_a_mapping_only_if_the_kind_says_so(
    filtering: Dependence,
) -> None:
    """NT5: refresh_inbound."""
    for refresh, ends in ((False, 120.0), (True, 219.0)):
        nat = a_nat(NatKind(filtering=filtering, refresh_inbound=refresh))
        sent(nat, udp(INSIDE, PEER))
        assert comes_in(nat, udp(PEER, OUTSIDE), 99.0)
        assert nat.expires() == ends


def test_the_filter_forgets_a_remote_while_the_mapping_lives_on() -> None:
    """NT6: a session for each remote."""
    nat = a_nat()
    sent(nat, udp(INSIDE, PEER), 0.0)
    sent(nat, udp(INSIDE, STRANGER), 100.0)
    assert nat.inbound(udp(PEER, OUTSIDE), 130.0) == Dropped("filtered")
    assert comes_in(nat, udp(STRANGER, OUTSIDE), 219.0)
    [mapping] = nat.mappings(219.0)
    assert (mapping.transport, mapping.inside, mapping.outside) == ("udp", INSIDE, OUTSIDE)
    assert mapping.expires == 220.0


def test_a_connection_lasts_by_how_far_it_is() -> None:
    """NT8: opening, open, over."""
    nat = a_nat()
    sent(nat, tcp(INSIDE, PEER, SYN), 0.0)
    assert nat.expires() == 240.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, SYN | ACK), 1.0)
    assert nat.expires() == 241.0
    sent(nat, tcp(INSIDE, PEER, ACK), 2.0)
    assert nat.expires() == 7442.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, ACK), 7441.0)
    assert nat.expires() == 14_881.0
    sent(nat, tcp(INSIDE, PEER, FIN | ACK), 7442.0)
    assert nat.expires() == 14_882.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, FIN | ACK), 7443.0)
    assert nat.expires() == 7683.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, ACK), 7682.9)
    assert nat.inbound(tcp(PEER, OUTSIDE, ACK), 7922.9) == Dropped("no mapping")


def test_two_syns_that_meet_are_not_yet_a_connection() -> None:
    """NT8: each must have been acknowledged."""
    nat = a_nat()
    sent(nat, tcp(INSIDE, PEER, SYN))
    assert comes_in(nat, tcp(PEER, OUTSIDE, SYN))
    assert nat.expires() == 240.0
    sent(nat, tcp(INSIDE, PEER, SYN | ACK))
    assert nat.expires() == 240.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, SYN | ACK))
    assert nat.expires() == 7440.0


@pytest.mark.parametrize("outbound", [True, False])
def test_a_reset_leaves_an_open_connection_its_transitory_time(outbound: bool) -> None:
    """NT8: and then a SYN begins anew."""
    nat = a_nat()
    connect(nat)
    if outbound:
        sent(nat, tcp(INSIDE, PEER, RST), 10.0)
    else:
        assert comes_in(nat, tcp(PEER, OUTSIDE, RST), 10.0)
    assert nat.expires() == 250.0
    assert comes_in(nat, tcp(PEER, OUTSIDE, ACK), 11.0)
    assert nat.expires() == 251.0
    connect(nat, 20.0)
    assert nat.expires() == 7460.0


@pytest.mark.parametrize("outbound", [True, False])
def test_a_reset_ends_a_connection_that_was_never_open(outbound: bool) -> None:
    """NT9: from either side."""
    nat = a_nat(NatKind(filtering=INDEPENDENT))
    sent(nat, tcp(INSIDE, PEER, SYN))
    if outbound:
        assert comes_in(nat, tcp(STRANGER, OUTSIDE, SYN))
        sent(nat, tcp(INSIDE, STRANGER, RST | ACK))
        assert nat.outbound(tcp(INSIDE, STRANGER, ACK), 0.0) == Dropped("no session")
        assert [mapping.outside for mapping in nat.mappings(0.0)] == [OUTSIDE]
    else:
        assert comes_in(nat, tcp(PEER, OUTSIDE, RST | ACK))
        assert nat.mappings(0.0) == ()


def test_one_connection_that_ends_leaves_the_mapping_to_the_others() -> None:
    nat = a_nat()
    connect(nat)
    connect(nat, peer=STRANGER)
    assert comes_in(nat, tcp(PEER, OUTSIDE, RST), 1.0)
    assert not comes_in(nat, tcp(PEER, OUTSIDE, ACK), 241.0)
    assert comes_in(nat, tcp(STRANGER, OUTSIDE, ACK), 241.0)
    assert nat.inbound(tcp(PEER, OUTSIDE, ACK), 241.0) == Dropped("filtered")
    assert len(nat.mappings(241.0)) == 1


# ---- TCP filtering ---------------------------------------------------------------------


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, SYN | RST])
@pytest.mark.parametrize("answers_reset", [True, False])
def test_only_a_syn_begins_a_connection(flags: Flags, answers_reset: bool) -> None:
    """NT7 NT10: all else is dropped silently, from both sides."""
    nat = a_nat(NatKind(filtering=INDEPENDENT, answers_reset=answers_reset))
    assert nat.outbound(tcp(INSIDE, PEER, flags), 0.0) == Dropped("no mapping")
    assert nat.inbound(tcp(PEER, OUTSIDE, flags), 0.0) == Dropped("no mapping")
    sent(nat, tcp(INSIDE, PEER, SYN))
    assert nat.outbound(tcp(INSIDE, STRANGER, flags), 0.0) == Dropped("no session")
    assert nat.inbound(tcp(STRANGER, OUTSIDE, flags), 0.0) == Dropped("no session")


def test_a_filter_of_addresses_takes_a_syn_from_another_port() -> None:
    """NT6: but not any longer than there is a connection with that address."""
    nat = a_nat(NatKind(filtering=ADDRESS))
    sent(nat, tcp(INSIDE, PEER, SYN))
    assert comes_in(nat, tcp(OTHER_PORT, OUTSIDE, SYN), 100.0)
    assert nat.inbound(tcp(STRANGER, OUTSIDE, SYN), 100.0) == Dropped("filtered")
    late = Endpoint("11.0.0.9", 55)
    # The inside never answered the other port, which therefore does not count.
    assert nat.inbound(tcp(late, OUTSIDE, SYN), 240.0) == Dropped("filtered")


def test_a_syn_from_outside_is_let_in_again_until_it_is_answered() -> None:
    nat = a_nat(NatKind(filtering=INDEPENDENT))
    sent(nat, tcp(INSIDE, PEER, SYN))
    assert comes_in(nat, tcp(STRANGER, OUTSIDE, SYN))
    assert comes_in(nat, tcp(STRANGER, OUTSIDE, SYN), 1.0)
    sent(nat, tcp(INSIDE, STRANGER, SYN | ACK), 2.0)
    assert comes_in(nat, tcp(STRANGER, OUTSIDE, ACK), 3.0)
    assert nat.expires() == 7443.0


def test_the_answer_to_a_syn_is_that_of_a_closed_port() -> None:
    """NT10: RST and ACK of all that the segment held."""
    nat = a_nat(NatKind(answers_reset=True))
    syn = Packet(PEER, OUTSIDE, Segment(SYN, 2**32 - 1, data=b"early"))
    hop = nat.inbound(syn, 0.0)
    assert hop == Hop(Packet(OUTSIDE, PEER, Segment(RST | ACK, 0, 5)), Side.OUTSIDE)
    sent(nat, tcp(INSIDE, STRANGER, SYN))
    assert isinstance(nat.inbound(tcp(PEER, OUTSIDE, SYN), 0.0), Hop), "filtered, and answered"
    assert nat.inbound(udp(PEER, OUTSIDE), 0.0) == Dropped("no mapping")


def test_simultaneous_open_is_refused_only_where_the_own_syn_went() -> None:
    """NT11: another port of the same address is another connection."""
    nat = a_nat(NatKind(filtering=ADDRESS, refuses_simultaneous_open=True))
    sent(nat, tcp(INSIDE, PEER, SYN))
    refused = nat.inbound(tcp(PEER, OUTSIDE, SYN), 0.0)
    assert refused == Dropped("simultaneous open refused")
    assert comes_in(nat, tcp(OTHER_PORT, OUTSIDE, SYN))
    assert comes_in(nat, tcp(PEER, OUTSIDE, SYN | ACK))
    assert comes_in(nat, tcp(PEER, OUTSIDE, SYN)), "an old duplicate, when it is answered"


def test_who_answers_reset_does_so_to_a_syn_that_meets_a_syn() -> None:
    """NT10 NT11: what may not come in."""
    nat = a_nat(NatKind(refuses_simultaneous_open=True, answers_reset=True))
    sent(nat, tcp(INSIDE, PEER, SYN))
    hop = nat.inbound(tcp(PEER, OUTSIDE, SYN, 7), 0.0)
    assert hop == Hop(Packet(OUTSIDE, PEER, Segment(RST | ACK, 0, 8)), Side.OUTSIDE)


# ---- hairpinning -----------------------------------------------------------------------


def test_hairpinning_asks_the_filter_of_the_neighbour() -> None:
    """NT13: with the sender's outside endpoint."""
    nat = a_nat(NatKind(hairpinning=True))
    two = Endpoint("11.0.0.1", 4002)
    sent(nat, udp(INSIDE, PEER))
    assert sent(nat, udp(NEIGHBOUR, PEER)) == two
    assert nat.outbound(udp(INSIDE, two), 0.0) == Dropped("filtered")
    hop = nat.outbound(udp(NEIGHBOUR, OUTSIDE), 0.0)
    assert hop == Hop(udp(two, INSIDE), Side.INSIDE)


def test_two_neighbours_connect_over_their_outside_endpoints() -> None:
    """NT13: TCP as well, with simultaneous open."""
    nat = a_nat(NatKind(hairpinning=True))
    two = Endpoint("11.0.0.1", 4002)
    sent(nat, tcp(INSIDE, PEER, SYN))
    sent(nat, tcp(NEIGHBOUR, PEER, SYN))
    assert nat.outbound(tcp(INSIDE, two, SYN), 0.0) == Dropped("filtered")
    hop = nat.outbound(tcp(NEIGHBOUR, OUTSIDE, SYN), 0.0)
    assert hop == Hop(tcp(two, INSIDE, SYN), Side.INSIDE)
    hop = nat.outbound(tcp(INSIDE, two, SYN | ACK), 0.0)
    assert hop == Hop(tcp(OUTSIDE, NEIGHBOUR, SYN | ACK), Side.INSIDE)


def test_a_reset_comes_back_to_the_host_inside_that_was_refused() -> None:
    """NT13: where it asked for an outside port that nobody has."""
    nat = a_nat(NatKind(hairpinning=True, answers_reset=True))
    nobody = Endpoint("11.0.0.1", 9)
    hop = nat.outbound(tcp(INSIDE, nobody, SYN, 41), 0.0)
    assert hop == Hop(Packet(nobody, INSIDE, Segment(RST | ACK, 0, 42)), Side.INSIDE)
    assert nat.mappings(0.0) == ()


# ---- limits and forgetting -------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_nat_holds_no_more_than_it_may(transport: TransportName) -> None:
    """NT14: expired ones make room first."""
    nat = a_nat(NatKind(max_mappings=2, max_sessions=3, udp_seconds=240.0))
    packet: Callable[[Endpoint, Endpoint], Packet] = (
        udp if transport == "udp" else lambda source, remote: tcp(source, remote, SYN)
    )
    third = Endpoint("192.168.1.4", 4001)
    sent(nat, packet(INSIDE, PEER), 0.0)
    sent(nat, packet(NEIGHBOUR, PEER), 1.0)
    assert nat.outbound(packet(third, PEER), 2.0) == Dropped("mapping table full")
    sent(nat, packet(INSIDE, STRANGER), 2.0)
    assert nat.outbound(packet(INSIDE, OTHER_PORT), 2.0) == Dropped("session table full")
    assert nat.map_port(transport, third, 80, seconds=None, now=2.0) is None
    assert nat.map_port(transport, INSIDE, 4001, seconds=None, now=2.0) is None
    sent(nat, packet(third, PEER), 241.0)
    assert len(nat.mappings(241.0)) == 2


def test_strangers_cannot_fill_the_table_beyond_its_limit() -> None:
    """NT14: an open filter lets each SYN begin a session."""
    nat = a_nat(NatKind(filtering=INDEPENDENT, max_sessions=10))
    sent(nat, tcp(INSIDE, PEER, SYN))
    remotes = [Endpoint("11.0.0.9", port) for port in range(1000, 1020)]
    let_in = [comes_in(nat, tcp(remote, OUTSIDE, SYN)) for remote in remotes]
    assert let_in == [True] * 9 + [False] * 11
    refused = nat.inbound(tcp(remotes[-1], OUTSIDE, SYN), 0.0)
    assert refused == Dropped("session table full")


def test_the_heap_does_not_grow_with_connections_that_begin_and_end_in_place() -> None:
    nat = a_nat()
    for turn in range(1000):
        connect(nat, float(turn))
        sent(nat, tcp(INSIDE, PEER, RST), float(turn))
    assert len(nat._bindings._heap) < 100
    assert nat.expires() == 999.0 + 240.0
    assert nat.mappings(999.0 + 240.0) == ()


@pytest.mark.parametrize("lose", [Nat.reset, lambda nat: nat.set_outside(["11.0.0.2"])])
def test_a_reboot_and_a_new_address_lose_everything(lose: Callable[[Nat], None]) -> None:
    """NT18: forwards too."""
    nat = a_nat(NatKind(ports=PortChoice.SEQUENTIAL))
    outside = sent(nat, udp(INSIDE, PEER))
    assert nat.map_port("tcp", INSIDE, 80, seconds=None, now=0.0)
    lose(nat)
    assert nat.mappings(0.0) == ()
    assert nat.expires() is None
    assert nat.inbound(udp(PEER, outside), 0.0) == Dropped("no mapping")
    assert nat.inbound(tcp(PEER, Endpoint("11.0.0.1", 80), SYN), 0.0) == Dropped("no mapping")
    assert sent(nat, udp(NEIGHBOUR, PEER)).port == outside.port, "it counts anew"


def test_a_new_address_is_used_from_then_on() -> None:
    """NT18."""
    nat = a_nat()
    sent(nat, udp(INSIDE, PEER))
    nat.set_outside(["11.0.0.2", "2a00::1"])
    assert sent(nat, udp(INSIDE, PEER)) == Endpoint("11.0.0.2", 4001)


# ---- firewalls and IPv6 ----------------------------------------------------------------


@pytest.mark.parametrize("filtering", list(Dependence))
@pytest.mark.parametrize("hosts", [("11.0.0.2", "11.0.0.9"), ("2a00:1::2", "2a00:9::1")])
def test_a_firewall_filters_and_changes_nothing(
    filtering: Dependence, hosts: tuple[str, str]
) -> None:
    """NT15: without outside addresses of its own."""
    kind = NatKind(translates=False, filtering=filtering, mapping=PORT, answers_reset=True)
    nat = Nat(kind, outside=(), choose=Random(1).randrange)
    inside, peer = Endpoint(hosts[0], 4001), Endpoint(hosts[1], 53)
    assert nat.inbound(udp(peer, inside), 0.0) == Dropped("no mapping")
    assert isinstance(nat.inbound(tcp(peer, inside, SYN), 0.0), Hop)
    assert sent(nat, udp(inside, peer)) == inside
    assert nat.inbound(udp(peer, inside), 0.0) == Hop(udp(peer, inside), Side.INSIDE)
    other = Endpoint(peer.host, 54)
    assert comes_in(nat, udp(other, inside)) is (filtering is not PORT)
    assert len(nat.mappings(0.0)) == 1


def test_ipv4_and_ipv6_do_not_mix_in_one_box() -> None:
    """NT15: one is translated, the other filtered."""
    nat = a_nat(NatKind(ports=PortChoice.SEQUENTIAL))
    six = Endpoint("2a00:1::2", 4001)
    assert sent(nat, udp(INSIDE, PEER)) == Endpoint("11.0.0.1", 1024)
    assert sent(nat, udp(six, Endpoint("2a00:9::1", 53))) == six


# ---- forwards --------------------------------------------------------------------------


def test_anyone_comes_in_by_a_forward_and_is_answered_from_it() -> None:
    """NT16: even through a symmetric NAT."""
    nat = a_nat(NatKind(mapping=PORT, ports=PortChoice.RANDOM))
    outside = nat.map_port("udp", INSIDE, 80, seconds=None, now=0.0)
    assert outside == Endpoint("11.0.0.1", 80)
    assert nat.inbound(udp(STRANGER, outside), 1e6) == Hop(udp(STRANGER, INSIDE), Side.INSIDE)
    assert sent(nat, udp(INSIDE, STRANGER), 1e6) == outside
    assert sent(nat, udp(INSIDE, PEER), 1e6) == outside
    assert sent(nat, udp(NEIGHBOUR, PEER), 1e6) != outside
    assert nat.expires() == math.inf


def test_a_forward_ends_in_time_or_is_renewed() -> None:
    """NT16."""
    nat = a_nat()
    outside = nat.map_port("tcp", INSIDE, 80, seconds=60.0, now=0.0)
    assert outside
    assert nat.map_port("tcp", INSIDE, 80, seconds=60.0, now=50.0) == outside
    assert comes_in(nat, tcp(PEER, outside, SYN), 109.9)
    assert nat.map_port("tcp", INSIDE, 80, seconds=None, now=109.9) == outside
    assert nat.map_port("tcp", INSIDE, 80, seconds=10.0, now=110.0) == outside
    assert nat.inbound(tcp(STRANGER, outside, SYN), 120.0) == Dropped("filtered")


def test_a_connection_survives_the_forward_by_which_it_came() -> None:
    """NT16: strangers no longer come in."""
    nat = a_nat(NatKind(mapping=PORT))
    outside = nat.map_port("tcp", INSIDE, 80, seconds=None, now=0.0)
    assert outside
    assert comes_in(nat, tcp(PEER, outside, SYN))
    assert sent(nat, tcp(INSIDE, PEER, SYN | ACK)) == outside
    assert comes_in(nat, tcp(PEER, outside, ACK))
    assert nat.unmap_port("tcp", 80)
    assert not nat.unmap_port("tcp", 80)
    assert sent(nat, tcp(INSIDE, PEER, ACK), 1.0) == outside
    assert comes_in(nat, tcp(PEER, outside, ACK), 1.0)
    assert nat.inbound(tcp(STRANGER, outside, SYN), 1.0) == Dropped("filtered")
    assert nat.map_port("tcp", NEIGHBOUR, 80, seconds=None, now=1.0) is None


def test_a_forward_takes_nothing_from_others() -> None:
    """NT16: neither a forward nor a mapping."""
    nat = a_nat()
    assert nat.map_port("udp", INSIDE, 80, seconds=None, now=0.0)
    assert nat.map_port("udp", NEIGHBOUR, 80, seconds=None, now=0.0) is None
    assert nat.map_port("tcp", NEIGHBOUR, 80, seconds=None, now=0.0)
    assert sent(nat, udp(NEIGHBOUR, PEER)) == OUTSIDE
    assert nat.map_port("udp", INSIDE, 4001, seconds=None, now=0.0) is None
    assert nat.unmap_port("udp", 4001) is False


def test_a_forward_to_the_port_that_a_mapping_has_makes_that_permanent() -> None:
    """NT16: it is the same outside endpoint."""
    nat = a_nat()
    sent(nat, udp(INSIDE, PEER))
    assert nat.map_port("udp", INSIDE, 4001, seconds=300.0, now=0.0) == OUTSIDE
    assert comes_in(nat, udp(STRANGER, OUTSIDE))
    assert len(nat.mappings(0.0)) == 1
    assert nat.unmap_port("udp", 4001)
    assert comes_in(nat, udp(PEER, OUTSIDE))
    assert nat.inbound(udp(STRANGER, OUTSIDE), 0.0) == Dropped("filtered")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_what_is_under_way_keeps_its_port_when_a_forward_comes(
    transport: TransportName,
) -> None:
    """NT16: only what is new leaves by the forward."""
    nat = a_nat(NatKind(ports=PortChoice.SEQUENTIAL))
    first = tcp(INSIDE, PEER, SYN) if transport == "tcp" else udp(INSIDE, PEER)
    other = tcp(INSIDE, STRANGER, SYN) if transport == "tcp" else udp(INSIDE, STRANGER)
    port = sent(nat, first).port
    forward = nat.map_port(transport, INSIDE, 80, seconds=None, now=0.0)
    assert sent(nat, first).port == port
    assert sent(nat, other) == forward


def test_the_oldest_of_several_forwards_is_the_way_out() -> None:
    """NT16: one endpoint inside may have more."""
    nat = a_nat()
    one = nat.map_port("udp", INSIDE, 80, seconds=None, now=0.0)
    two = nat.map_port("udp", INSIDE, 81, seconds=None, now=0.0)
    assert one
    assert two
    assert sent(nat, udp(INSIDE, PEER)) == one
    assert comes_in(nat, udp(STRANGER, two))
    assert nat.unmap_port("udp", 80)
    assert sent(nat, udp(INSIDE, STRANGER)) == two


def test_a_nat_chooses_the_port_of_a_forward_if_asked_to() -> None:
    """NT16: port 0, which is what preserving makes of it."""
    nat = a_nat()
    assert nat.map_port("udp", INSIDE, 0, seconds=None, now=0.0) == OUTSIDE
    assert nat.map_port("udp", NEIGHBOUR, 0, seconds=None, now=0.0) == Endpoint("11.0.0.1", 4002)


def test_a_firewall_opens_only_the_port_that_the_inside_has() -> None:
    """NT15 NT16: a pinhole; two hosts may have the same one."""
    nat = Nat(NatKind(), outside=("11.0.0.1",), choose=Random(1).randrange)
    one, two = Endpoint("2a00:1::2", 4001), Endpoint("2a00:1::3", 4001)
    assert nat.map_port("tcp", one, 80, seconds=None, now=0.0) is None
    assert nat.map_port("tcp", one, 4001, seconds=None, now=0.0) == one
    assert nat.map_port("tcp", two, 0, seconds=None, now=0.0) == two
    assert comes_in(nat, tcp(Endpoint("2a00:9::1", 1), one, SYN))
    assert nat.unmap_port("tcp", 4001, inside=two)
    assert [mapping.inside for mapping in nat.mappings(0.0)] == [one]


@pytest.mark.parametrize(("port", "seconds"), [(-1, None), (65_536, None), (80, 0.0)])
def test_a_forward_that_cannot_be_is_an_error(port: int, seconds: float | None) -> None:
    with pytest.raises(ValueError, match="cannot map port"):
        a_nat().map_port("udp", INSIDE, port, seconds=seconds, now=0.0)
