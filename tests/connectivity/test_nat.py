"""Rules V3, V4, V5 and V6: what kind of NAT peers' words speak of."""

from __future__ import annotations

import pytest

from p2pnet.connectivity.nat import (
    Filtering,
    FilteringTests,
    Hairpinning,
    HairpinTests,
    Mapping,
    NatClass,
    Nats,
    NatTests,
    PairTests,
    mapping_of,
)
from p2pnet.connectivity.observations import Observation
from p2pnet.core.addresses import Endpoint, from_endpoint

HOME, OUTSIDE = "192.168.0.2", "5.5.5.5"


def words(*seen: Endpoint | int, local_port: int = 4001) -> list[Observation]:
    """Let one network after the other say where it sees this host."""
    ends = [each if isinstance(each, Endpoint) else Endpoint(OUTSIDE, each) for each in seen]
    return [
        Observation(
            float(number),
            f"8.8.8.{number}",
            Endpoint(f"8.8.8.{number}", 4001),
            Endpoint(HOME, local_port),
            end,
            from_endpoint(end),
        )
        for number, end in enumerate(ends)
    ]


def test_v3_without_a_word_nothing_is_known() -> None:
    assert mapping_of([], [HOME]) == NatClass()


def test_v3_one_network_tells_only_of_the_port() -> None:
    assert mapping_of(words(4001), [HOME]) == NatClass(preserves_port=True, observers=1)
    assert mapping_of(words(777), [HOME]) == NatClass(preserves_port=False, observers=1)


def test_v3_who_is_seen_at_its_own_address_is_behind_no_nat() -> None:
    own = Endpoint(HOME, 4001)
    found = mapping_of(words(own, own), [HOME])
    assert found == NatClass(Mapping.NONE, preserves_port=True, observers=2)
    assert found.words == "no NAT"


@pytest.mark.parametrize(("port", "preserves"), [(4001, True), (777, False)])
def test_v3_one_port_for_all_is_endpoint_independent(port: int, preserves: bool) -> None:
    found = mapping_of(words(port, port, port), [HOME])
    assert found.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert found.preserves_port is preserves
    assert not found.is_symmetric


def test_v3_a_port_for_each_is_symmetric_and_named_so() -> None:
    found = mapping_of(words(700, 900, 123), [HOME])
    assert found.mapping is Mapping.DEPENDENT
    assert found.is_symmetric
    assert found.port_step is None
    assert "symmetric" in found.words


def test_v3_ports_that_were_used_once_say_nothing_of_the_mapping() -> None:
    told = [*words(700, local_port=1), *words(900, local_port=2)]
    assert mapping_of(told, [HOME]).mapping is Mapping.UNKNOWN


def test_v4_one_liar_in_three_changes_nothing() -> None:
    assert mapping_of(words(4001, 666, 4001), [HOME]).mapping is Mapping.ENDPOINT_INDEPENDENT


def test_v4_a_nat_may_have_several_addresses() -> None:
    told = words(Endpoint(OUTSIDE, 4001), Endpoint("5.5.5.6", 4001))
    assert mapping_of(told, [HOME]).mapping is Mapping.ENDPOINT_INDEPENDENT


def test_v5_ports_in_order_have_a_step() -> None:
    assert mapping_of(words(700, 702, 704), [HOME]).port_step == 2
    assert mapping_of(words(704, 700, 702), [HOME]).port_step == 2
    assert mapping_of(words(700, 702, 705), [HOME]).port_step is None
    assert mapping_of(words(700, 702), [HOME]).port_step is None


@pytest.mark.parametrize(
    ("contacted", "stranger", "filtering"),
    [
        (None, None, Filtering.UNKNOWN),
        (True, None, Filtering.UNKNOWN),
        (None, False, Filtering.UNKNOWN),
        (False, None, Filtering.ADDRESS_AND_PORT_DEPENDENT),
        (False, False, Filtering.ADDRESS_AND_PORT_DEPENDENT),
        (True, False, Filtering.ADDRESS_DEPENDENT),
        (None, True, Filtering.ENDPOINT_INDEPENDENT),
        (True, True, Filtering.ENDPOINT_INDEPENDENT),
    ],
)
def test_v6_who_gets_through_to_a_fresh_port_tells_how_the_nat_filters(
    contacted: bool | None, stranger: bool | None, filtering: Filtering
) -> None:
    tests = FilteringTests()
    for by_stranger, reached in ((False, contacted), (True, stranger)):
        if reached is not None:
            tests.record("server", by_stranger=by_stranger, reached=reached)
    assert tests.filtering is filtering


def test_v6_one_server_that_lies_changes_nothing() -> None:
    tests = FilteringTests()
    for number, reached in enumerate([True, False, False]):
        tests.record(f"server {number}", by_stranger=False, reached=True)
        tests.record(f"server {number}", by_stranger=True, reached=reached)
    assert tests.filtering is Filtering.ADDRESS_DEPENDENT
    tests.record("server 3", by_stranger=True, reached=True)
    assert len(tests.stranger) == 3


# ---- V14 ---------------------------------------------------------------------------------

DOORS = [
    (mapping, filtering)
    for mapping in Mapping
    for filtering in Filtering
    if mapping is Mapping.ENDPOINT_INDEPENDENT or filtering is Filtering.ENDPOINT_INDEPENDENT
]


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("filtering", Filtering)
def test_v14_who_got_through_to_himself_is_behind_a_nat_that_hairpins(
    mapping: Mapping, filtering: Filtering
) -> None:
    tests = HairpinTests()
    assert tests.hairpinning(mapping, filtering) is Hairpinning.UNKNOWN
    tests.record(is_fresh=True, reached=False)
    no_door = (mapping, filtering) not in DOORS
    assert tests.hairpinning(mapping, filtering) is (
        Hairpinning.UNKNOWN if no_door else Hairpinning.NO
    )
    tests.record(is_fresh=False, reached=False)
    assert tests.hairpinning(mapping, filtering) is Hairpinning.NO
    tests.record(is_fresh=False, reached=True)
    assert tests.hairpinning(mapping, filtering) is Hairpinning.YES


def test_v14_each_transport_has_a_class_of_its_own_and_words_for_it() -> None:
    cone = NatClass(Mapping.ENDPOINT_INDEPENDENT, hairpinning=Hairpinning.NO)
    nats = Nats(udp=cone)
    assert nats.of("udp") is cone
    assert nats.of("tcp") == NatClass()
    assert [name for name, _ in nats.told] == ["tcp", "udp"]
    assert [name for name, _ in Nats().told] == ["tcp"]
    assert cone.words == "NAT with endpoint-independent mapping, no hairpinning"


def test_v11_a_nat_is_symmetric_if_it_is_for_all_transports_that_are_known() -> None:
    symmetric, cone = NatClass(Mapping.DEPENDENT), NatClass(Mapping.ENDPOINT_INDEPENDENT)
    assert not Nats().is_symmetric
    assert Nats(symmetric).is_symmetric
    assert Nats(symmetric, symmetric).is_symmetric
    assert not Nats(symmetric, cone).is_symmetric


# ---- V15 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words_of_peers", "mapping"),
    [
        ([], Mapping.DEPENDENT),
        ([True], Mapping.ADDRESS_DEPENDENT),
        ([False], Mapping.ADDRESS_AND_PORT_DEPENDENT),
        ([True, False], Mapping.DEPENDENT),
        ([True, False, True], Mapping.ADDRESS_DEPENDENT),
        ([True, False, False], Mapping.ADDRESS_AND_PORT_DEPENDENT),
        ([True, True, False, False, False], Mapping.ADDRESS_AND_PORT_DEPENDENT),
    ],
)
def test_v15_peers_with_two_ports_tell_on_what_the_mapping_depends(
    words_of_peers: list[bool], mapping: Mapping
) -> None:
    tests = PairTests()
    for number, same in enumerate(words_of_peers):
        tests.record(f"peer {number}", same=same)
    assert tests.refine(Mapping.DEPENDENT) is mapping
    for other in set(Mapping) - {Mapping.DEPENDENT}:
        assert tests.refine(other) is other
    refined = NatTests(pairs=tests).add_to(NatClass(Mapping.DEPENDENT))
    assert refined.mapping is mapping
    assert refined.is_symmetric
    assert "symmetric" in refined.words
