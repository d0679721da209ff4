"""Which ports are foreseen, of what was seen of a few fresh ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint, parse, place_of
from p2pnet.protocols.dcutr.policy import is_astray
from p2pnet.protocols.dcutr.prediction import (
    HIGHEST_PORT,
    MAX_DRIFT,
    MAX_SPREAD,
    Forecast,
    Offering,
    Sample,
    follow_no_rule,
    foresee,
    wants_another,
    with_predicted,
)

HOST = "11.0.0.1"
OBSERVED = [parse(f"/ip4/{HOST}/tcp/1024")]
PORTS = st.integers(min_value=1, max_value=HIGHEST_PORT)


def seen(*ports: int, transport: str = "tcp", host: str = HOST) -> list[Sample]:
    return [Sample(transport, 1, Endpoint(host, port)) for port in ports]


@given(st.permutations([0, 1, 2]), st.integers(2, 60_000), st.integers(1, MAX_SPREAD // 2))
def test_a_step_is_seen_in_whatever_order_the_answers_come(
    order: list[int], first: int, step: int
) -> None:
    """D16."""
    samples = seen(*(first + number * step for number in order))
    assert foresee(samples, OBSERVED) == Forecast("tcp", HOST, first + 2 * step, step)


def test_others_may_take_a_port_in_between() -> None:
    """D16."""
    assert foresee(seen(2000, 2001, 2003), OBSERVED) == Forecast("tcp", HOST, 2003, 1)


def test_distances_without_a_common_measure_are_no_rule() -> None:
    """D16."""
    assert foresee(seen(2000, 2002, 2005), OBSERVED) is None


def test_two_samples_are_too_few_and_so_is_one_port_three_times() -> None:
    """D16."""
    assert foresee(seen(2000, 2001), OBSERVED) is None
    assert foresee(seen(2000, 2000, 2001), OBSERVED) is None


def test_samples_at_two_addresses_say_nothing() -> None:
    """D16: One that lies cannot have others dial a third party."""
    mixed = [*seen(2000, 2001), *seen(2002, host="11.0.0.2")]
    assert foresee(mixed, [*OBSERVED, parse("/ip4/11.0.0.2/tcp/1024")]) is None


def test_where_a_host_is_seen_by_tcp_says_nothing_of_udp() -> None:
    """D16."""
    assert foresee(seen(2000, 2001, 2002, transport="udp"), OBSERVED) is None


@pytest.mark.parametrize("count", [3, 5])
def test_random_ports_hardly_ever_show_a_rule(count: int) -> None:
    """D16."""
    chance = random.Random(6)
    found = [
        foresee(seen(*(chance.randrange(1024, HIGHEST_PORT) for _ in range(count))), OBSERVED)
        for _ in range(20_000)
    ]
    assert sum(forecast is not None for forecast in found) <= 1


@given(
    st.integers(2000, 60_000),
    st.integers(1, MAX_SPREAD // 3),
    PORTS,
    st.permutations([0, 1, 2]),
    st.integers(0, 2),
)
def test_one_odd_sample_hides_no_rule(
    first: int, step: int, odd: int, order: list[int], place: int
) -> None:
    """D16: a fresh port that the NAT still knew has the port outside that it had before."""
    rule = [first + number * step for number in range(3)]
    assume(not first - MAX_SPREAD <= odd <= rule[-1] + MAX_SPREAD)
    ports = [rule[number] for number in order[:2]]
    ports.insert(place, odd)
    assert foresee(seen(*ports), OBSERVED) is None
    assert wants_another(seen(*ports))
    after = rule[order[2]]
    assert foresee(seen(*ports, after), OBSERVED) == Forecast("tcp", HOST, rule[-1], step)
    assert not follow_no_rule(seen(*ports, after))


def test_no_more_samples_are_taken_than_may_show_a_rule() -> None:
    """D16."""
    assert not wants_another(seen(2000, 2001, 2002))
    assert not wants_another(seen(2000, 9000, 40_000))
    assert not wants_another(seen(2000, 2001))
    assert wants_another(seen(2000, 2001, 9000, 9001))
    assert not wants_another(seen(2000, 2001, 9000, 9001, 40_000))
    assert not wants_another([*seen(2000, 2001), *seen(9000, host="11.0.0.2")])
    keeps = [Sample("tcp", port, Endpoint(HOST, port)) for port in (2000, 40_000)]
    assert wants_another([*keeps, Sample("tcp", 9000, Endpoint(HOST, 1024))])


@pytest.mark.parametrize(
    ("port", "is_wanted"),
    [(1024, False), (1025, True), (1024 + MAX_DRIFT, True), (1025 + MAX_DRIFT, False)],
)
def test_one_sample_ahead_of_where_peers_see_this_host_may_be_the_only_one_that_is_not_odd(
    port: int, *, is_wanted: bool
) -> None:
    """D16."""
    samples = seen(9000, port, 40_000)
    assert wants_another(samples, OBSERVED) is is_wanted
    assert not wants_another(samples, [parse(f"/ip4/{HOST}/udp/1024/quic-v1")])
    assert not wants_another(samples, [parse("/ip4/11.0.0.2/tcp/1024")])
    assert not wants_another([*samples, *seen(9500, 50_000)], OBSERVED)


def test_samples_that_follow_no_rule_are_told_from_those_that_are_missing() -> None:
    """D29."""
    assert follow_no_rule(seen(2000, 40_000, 9000))
    assert follow_no_rule([*seen(2000, 2001), *seen(2002, host="11.0.0.2")])
    assert not follow_no_rule(seen(2000, 40_000))
    assert not follow_no_rule(seen(2000, 2004, 2002))
    kept = [Sample("tcp", port, Endpoint(HOST, port)) for port in (2000, 40_000, 9000)]
    assert not follow_no_rule(kept)


@given(PORTS, st.integers(1, MAX_SPREAD), st.integers(1, 4), st.integers(1, 8))
def test_what_is_predicted_is_a_port_and_no_more_than_was_asked(
    last: int, step: int, attempt: int, count: int
) -> None:
    """D17."""
    ports = Forecast("tcp", HOST, last, step).ports(attempt, count)
    assert len(ports) <= count
    assert all(last < port <= HIGHEST_PORT and (port - last) % step == 0 for port in ports)


def test_attempts_follow_each_other_without_a_gap() -> None:
    """D17."""
    forecast = Forecast("tcp", HOST, 2000, 1)
    offered = [port for attempt in (1, 2, 3) for port in forecast.ports(attempt, 6)]
    assert offered == list(range(2001, 2019))


def test_an_offer_keeps_to_its_maximum_with_what_is_predicted_in_front() -> None:
    """D8 D17."""
    candidates = [parse(f"/ip4/{HOST}/tcp/{1024 + number}") for number in range(16)]
    offer = with_predicted(candidates, [Forecast("tcp", HOST, 2000, 1)], Offering(1, 6, 16))
    assert len(offer) == 16
    assert [str(address).rsplit("/", 1)[1] for address in offer[:6]] == [
        str(port) for port in range(2001, 2007)
    ]


def offered_ports(forecast: Forecast, attempt: int, count: int, *, initiator: bool) -> list[int]:
    astray = is_astray(attempt, initiator=initiator)
    offering = Offering(attempt, count, 16, astray=astray)
    offer = with_predicted(OBSERVED, [forecast], offering)
    places = map(place_of, offer[:count])
    return [place.endpoint.port for place in places if place is not None]


@pytest.mark.parametrize(
    ("count", "late"),
    [
        *((6, late) for late in [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (-1, 0), (-2, 0)]),
        *((3, late) for late in [(0, 0), (0, 1), (1, 0)]),
    ],
)
def test_two_who_foresee_meet_in_the_second_attempt_if_both_were_mistaken(
    count: int, late: tuple[int, int]
) -> None:
    """D17 D18: whoever is how many ports further than it thought."""
    met = []
    for attempt in (1, 2):
        offers = [
            offered_ports(Forecast("tcp", HOST, last, 1), attempt, count, initiator=initiator)
            for last, initiator in ((2000, True), (3000, False))
        ]
        first = 1 + count * (attempt - 1)
        pairs = [
            {(last + late[side] + first + n, port) for n, port in enumerate(offers[1 - side])}
            for side, last in enumerate((2000, 3000))
        ]
        met.append(len(pairs[0] & {(there, here) for here, there in pairs[1]}))
    assert met[0] == (count if late == (0, 0) else 0)
    assert met[1] > 0


@pytest.mark.parametrize("count", range(1, 9))
def test_another_order_leaves_no_port_out(count: int) -> None:
    """D17."""
    ports = range(2001, 2001 + count)
    assert sorted(Offering(2, count, 16, astray=True).ordered(ports)) == list(ports)


def test_without_a_forecast_an_offer_is_what_it_was() -> None:
    """D17: Nothing else changes on the wire."""
    candidates = [parse(f"/ip4/{HOST}/tcp/{1024 + number}") for number in range(4)]
    assert with_predicted(candidates, (), Offering(1, 6, 16)) == tuple(candidates)
