"""The rules that make the kernel a NAT: what they hold, as text. What they do: interop."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from interop.natlab.kernel import SEQUENTIAL_PORTS, Router, rules, settings, shortcomings
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.nat_kind import Dependence, NatKind, PortChoice

ROUTER = Router("11.0.1.1", IPv4Network("192.168.1.0/24"))


def chain(text: str, name: str) -> list[str]:
    """Give the rules of one chain."""
    _, _, rest = text.partition(f"chain {name} {{\n")
    return [line.strip() for line in rest.split("\n}")[0].splitlines()]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_kernel_can_be_every_named_kind(kind: str) -> None:
    for nat in ALL_KINDS[kind].nats:
        assert shortcomings(nat) == ()
        text = rules(nat, ROUTER)
        assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("mapping", "key"),
    [
        (Dependence.ENDPOINT_INDEPENDENT, "ipv4_addr . inet_service"),
        (Dependence.ADDRESS, "ipv4_addr . inet_service . ipv4_addr"),
        (Dependence.ADDRESS_AND_PORT, "ipv4_addr . inet_service . ipv4_addr . inet_service"),
    ],
)
def test_mapping_is_by_as_much_of_the_remote_as_it_depends_on(
    mapping: Dependence, key: str
) -> None:
    text = rules(NatKind(mapping=mapping), ROUTER)
    for transport in ("tcp", "udp"):
        assert f"map {transport}_mapped {{ type {key} : inet_service;" in text


def test_who_may_come_in_is_noted_only_where_flows_do_not_tell() -> None:
    by_flow = NatKind(filtering=Dependence.ADDRESS_AND_PORT)
    assert "_allowed" not in rules(by_flow, ROUTER)
    assert len(chain(rules(by_flow, ROUTER), "incoming")) == 1
    assert "_allowed" not in rules(NatKind(filtering=Dependence.ENDPOINT_INDEPENDENT), ROUTER)
    assert "set udp_allowed { type inet_service . ipv4_addr;" in rules(
        NatKind(filtering=Dependence.ADDRESS), ROUTER
    )
    assert "_allowed drop" in rules(replace(by_flow, hairpinning=True), ROUTER)


def test_sequential_ports_are_counted_by_a_table() -> None:
    nat = NatKind(ports=PortChoice.SEQUENTIAL, first_port=5000)
    (_, choice) = chain(rules(nat, ROUTER), "tcp_translate")
    assert f"numgen inc mod {SEQUENTIAL_PORTS} map {{ 0 : 5000, 1 : 5001," in choice
    narrow = replace(nat, last_port=5001)
    assert "numgen inc mod 2 map { 0 : 5000, 1 : 5001 }" in rules(narrow, ROUTER)


def test_ports_stay_in_their_range() -> None:
    nat = NatKind(ports=PortChoice.RANDOM, first_port=2000, last_port=3000)
    assert chain(rules(nat, ROUTER), "udp_translate")[-1].endswith(": 2000-3000 fully-random")


def test_router_says_nothing_to_what_is_unsolicited_unless_it_is_to_answer() -> None:
    silent = rules(NatKind(), ROUTER)
    assert "reject" not in silent
    assert "policy drop" in chain(silent, "for_the_router")[0]
    answering = rules(NatKind(answers_reset=True), ROUTER)
    assert "reject with tcp reset" in chain(answering, "for_the_router")[-1]


def test_firewall_translates_nothing() -> None:
    for filtering in Dependence:
        text = rules(NatKind(translates=False, filtering=filtering), ROUTER)
        assert "nat" not in text.replace("natlab", "")
        assert ("_known accept" in text) is (filtering is not Dependence.ADDRESS_AND_PORT)


def test_lifetimes_are_set() -> None:
    nat = NatKind(udp_seconds=30, tcp_seconds=600, tcp_transitory_seconds=60)
    text = rules(nat, ROUTER)
    assert "timeout 30s" in text
    assert "timeout 600s" in text
    found = settings(nat)
    assert found["netfilter/nf_conntrack_udp_timeout_stream"] == 30
    assert found["netfilter/nf_conntrack_tcp_timeout_established"] == 600
    assert found["netfilter/nf_conntrack_tcp_timeout_syn_sent"] == 60


@pytest.mark.parametrize(
    "nat",
    [
        NatKind(max_mappings=64),
        NatKind(max_sessions=64),
        NatKind(refuses_simultaneous_open=True, filtering=Dependence.ADDRESS),
        NatKind(hairpinning=True, answers_reset=True),
    ],
)
def test_kernel_owns_up_to_what_it_cannot_do(nat: NatKind) -> None:
    assert len(shortcomings(nat)) == 1
