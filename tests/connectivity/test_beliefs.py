"""All facts together. Rules V1, V2, V10, V11, V12, V13 of specs/reachability.md."""

from __future__ import annotations

from p2pnet.connectivity.beliefs import Beliefs
from p2pnet.connectivity.known import Source
from p2pnet.connectivity.nat import Filtering, Mapping
from p2pnet.connectivity.verdict import Status
from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.events import (
    AddressObserved,
    AddressTested,
    ConnectionRef,
    FilteringTested,
    PortMapped,
    Reachability,
)

PEER = PeerId(b"\x12\x20" + bytes(32))
INSIDE, OUTSIDE = parse("/ip4/192.168.0.2/tcp/4001"), parse("/ip4/5.5.5.5/tcp/4001")


def behind_nat() -> Beliefs:
    beliefs = Beliefs(confirming_observers=2)
    beliefs.listening, beliefs.interfaces = (INSIDE,), ("192.168.0.2",)
    return beliefs


def ref(number: int, *, inbound: bool = False) -> ConnectionRef:
    remote = parse(f"/ip4/8.8.8.{number}/tcp/1")
    return ConnectionRef(number, PEER, INSIDE, remote, is_inbound=inbound, is_relayed=False)


def observe(beliefs: Beliefs, number: int, address: Multiaddr, *, inbound: bool = False) -> None:
    connection = ref(number, inbound=inbound)
    beliefs.opened(connection, 0.0)
    beliefs.observed(AddressObserved(connection, address), 0.0)


def dial_back(beliefs: Beliefs, number: int, reached: bool) -> None:
    server = parse(f"/ip4/8.8.8.{number}/tcp/1")
    beliefs.tested(AddressTested(OUTSIDE, reached, PEER, server, "/test"), float(number))


def reachability(beliefs: Beliefs) -> Reachability:
    return beliefs.conclude(Reachability.UNKNOWN, 60.0).reachability


def advertised(beliefs: Beliefs) -> tuple[Multiaddr, ...]:
    return beliefs.conclude(Reachability.UNKNOWN, 60.0).advertised


def test_v13_a_host_behind_a_nat_that_nobody_can_dial_tells_only_private_addresses() -> None:
    beliefs = behind_nat()
    for number in range(3):
        observe(beliefs, number, OUTSIDE)
    assert advertised(beliefs) == (OUTSIDE, INSIDE)
    for number in range(3):
        dial_back(beliefs, number, reached=False)
    assert advertised(beliefs) == (INSIDE,)
    assert reachability(beliefs) is Reachability.PRIVATE
    assert beliefs.punch_addresses() == (OUTSIDE,)


def test_v10_a_forwarded_port_is_reachable_though_the_nat_filters() -> None:
    beliefs = behind_nat()
    beliefs.port_mapped(PortMapped("pcp", INSIDE, OUTSIDE, 3600.0))
    beliefs.filtering_tested(FilteringTested("tcp", by_stranger=False, reached=False, server=PEER))
    assert beliefs.nat().tcp.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT
    dial_back(beliefs, 1, reached=True)
    (known, _) = beliefs.conclude(Reachability.UNKNOWN, 60.0).known
    assert (known.source, known.verdict.status) == (Source.MAPPED, Status.REACHABLE)
    assert reachability(beliefs) is Reachability.PUBLIC
    beliefs.port_unmapped("pcp", INSIDE)
    assert reachability(beliefs) is Reachability.UNKNOWN


def test_v10_whom_this_host_has_dialled_is_no_stranger_and_who_comes_by_himself_is() -> None:
    beliefs = behind_nat()
    for number in range(2):
        observe(beliefs, number, OUTSIDE)
        observe(beliefs, number, OUTSIDE, inbound=True)
    assert reachability(beliefs) is Reachability.UNKNOWN
    beliefs.knocked_at(parse("/ip4/8.8.8.9/tcp/1"), 0.0)
    observe(beliefs, 9, OUTSIDE, inbound=True)
    observe(beliefs, 7, OUTSIDE, inbound=True)
    assert reachability(beliefs) is Reachability.UNKNOWN
    observe(beliefs, 6, OUTSIDE, inbound=True)
    assert reachability(beliefs) is Reachability.PUBLIC


def test_v11_a_symmetric_nat_makes_private_what_nobody_can_test() -> None:
    beliefs = behind_nat()
    for number in range(3):
        observe(beliefs, number, parse(f"/ip4/5.5.5.5/tcp/{1000 + 7 * number**2}"))
    assert beliefs.nat().is_symmetric
    assert reachability(beliefs) is Reachability.PRIVATE
    beliefs.listening = (INSIDE, parse("/ip6/2600::1/tcp/4001"))
    assert reachability(beliefs) is Reachability.UNKNOWN


def test_v11_what_is_configured_is_not_called_into_question() -> None:
    beliefs = behind_nat()
    observe(beliefs, 1, OUTSIDE)
    dial_back(beliefs, 1, reached=False)
    found = beliefs.conclude(Reachability.PUBLIC, 60.0)
    assert found.reachability is Reachability.PUBLIC


def test_v12_in_another_network_all_begins_anew() -> None:
    beliefs = behind_nat()
    for number in range(3):
        observe(beliefs, number, OUTSIDE)
        dial_back(beliefs, number, reached=False)
    beliefs.filtering_tested(FilteringTested("tcp", by_stranger=True, reached=True, server=PEER))
    beliefs.moved()
    assert reachability(beliefs) is Reachability.UNKNOWN
    assert beliefs.nat().tcp.filtering is Filtering.UNKNOWN


def test_v2_words_of_another_transport_are_passed_over() -> None:
    beliefs = behind_nat()
    observe(beliefs, 1, parse("/ip4/5.5.5.5/udp/4001/quic-v1"))
    assert beliefs.punch_addresses() == ()


# ---- several protocols at one port, and several transports -------------------------------

WS, QUIC = parse("/ip4/192.168.0.2/tcp/4001/ws"), parse("/ip4/192.168.0.2/udp/4001/quic-v1")
OUTSIDE_WS = parse("/ip4/5.5.5.5/tcp/4001/ws")
OUTSIDE_QUIC = parse("/ip4/5.5.5.5/udp/4001/quic-v1")


def of_quic(beliefs: Beliefs, number: int, port: int) -> None:
    remote = parse(f"/ip4/8.8.8.{number}/udp/1/quic-v1")
    connection = ConnectionRef(100 + number, PEER, QUIC, remote, False, False)
    beliefs.opened(connection, 0.0)
    seen = parse(f"/ip4/5.5.5.5/udp/{port}/quic-v1")
    beliefs.observed(AddressObserved(connection, seen), 0.0)


def test_v1_who_dials_over_tcp_sees_where_websocket_can_be_dialled() -> None:
    beliefs = behind_nat()
    beliefs.listening = (INSIDE, WS, QUIC)
    for number in range(3):
        observe(beliefs, number, OUTSIDE)
    assert beliefs.punch_addresses() == (OUTSIDE, OUTSIDE_WS)
    assert {OUTSIDE, OUTSIDE_WS} <= set(advertised(beliefs))
    for number in range(3):
        dial_back(beliefs, number, reached=False)
    assert OUTSIDE not in advertised(beliefs)
    assert OUTSIDE_WS in advertised(beliefs)  # it has a verdict of its own


def test_v10_a_stranger_at_a_port_comes_in_to_all_that_is_spoken_there() -> None:
    beliefs = behind_nat()
    beliefs.listening = (INSIDE, WS)
    for number in range(2):
        remote = ConnectionRef(
            number, PEER, INSIDE, parse(f"/ip4/8.8.8.{number}/tcp/1"), True, False
        )
        beliefs.observed(AddressObserved(remote, OUTSIDE), 0.0)
    known = {each.address: each for each in beliefs.conclude(Reachability.UNKNOWN, 60.0).known}
    for address in (OUTSIDE, OUTSIDE_WS):
        assert known[address].verdict.status is Status.REACHABLE


def test_v3_each_transport_has_its_own_class() -> None:
    beliefs = behind_nat()
    beliefs.listening = (INSIDE, QUIC)
    for number in range(3):
        observe(beliefs, number, parse(f"/ip4/5.5.5.5/tcp/{1000 + 7 * number**2}"))
        of_quic(beliefs, number, 4001)
    nats = beliefs.nat()
    assert nats.tcp.is_symmetric
    assert nats.udp.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert not nats.is_symmetric
    assert OUTSIDE_QUIC in beliefs.punch_addresses()
    assert reachability(beliefs) is Reachability.UNKNOWN
    beliefs.filtering_tested(FilteringTested("udp", by_stranger=True, reached=True, server=PEER))
    assert beliefs.nat().udp.filtering is Filtering.ENDPOINT_INDEPENDENT
    assert beliefs.nat().tcp.filtering is Filtering.UNKNOWN
    server = parse("/ip4/8.8.8.8/udp/1/quic-v1")
    for number in range(3):
        fact = AddressTested(OUTSIDE_QUIC, True, PEER, server, "/test")
        beliefs.tested(fact, float(number))
    assert reachability(beliefs) is Reachability.PUBLIC
