"""Rules A20 to A25; the examples of what is advertised stand on specs/addresses.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.host.addresses import (
    MAX_OBSERVATIONS,
    MAX_OBSERVED,
    Observations,
    advertised,
    expand,
    network_of,
    worth_punching,
)

RELAY = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SEEN, ELSEWHERE = parse("/ip4/5.5.5.5/tcp/4001"), parse("/ip4/5.5.5.5/tcp/4002")


def observer(number: int) -> Multiaddr:
    return parse(f"/ip4/8.8.{number // 256}.{number % 256}/tcp/4001")


# ---- A20: interfaces ---------------------------------------------------------------------

INTERFACES = ("127.0.0.1", "192.168.0.2", "::1", "2600::2")


def expanded(*texts: str) -> list[str]:
    return [str(address) for address in expand([parse(text) for text in texts], INTERFACES)]


def test_a20_the_unspecified_address_becomes_those_of_its_family() -> None:
    assert expanded("/ip4/0.0.0.0/tcp/1") == ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.2/tcp/1"]
    assert expanded("/ip6/::/tcp/1") == ["/ip6/::1/tcp/1", "/ip6/2600::2/tcp/1"]


def test_a20_other_addresses_stay_and_none_comes_twice() -> None:
    assert expanded(
        "/ip4/192.168.0.2/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/0.0.0.0/udp/1/quic-v1"
    ) == [
        "/ip4/192.168.0.2/tcp/1",
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/0.0.0.0/udp/1/quic-v1",
    ]


# ---- A22, A23: observations --------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/2", True),
        ("/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.9/tcp/1", False),
        ("/ip6/2600:0:0:1::1/tcp/1", "/ip6/2600:0:0:ff::9/tcp/1", True),
        ("/ip6/2600:0:0:1::1/tcp/1", "/ip6/2600:0:0:100::1/tcp/1", False),
        (f"/p2p/{RELAY}/p2p-circuit", "/dns/a.example/tcp/1", True),
    ],
)
def test_a22_an_observer_counts_for_its_network(one: str, other: str, same: bool) -> None:
    assert (network_of(parse(one)) == network_of(parse(other))) is same


def test_a22_an_address_is_believed_when_enough_networks_saw_it() -> None:
    observations = Observations()
    observations.record(1, observer(1), SEEN)
    assert observations.seen(observers=1) == (SEEN,)
    assert observations.seen(observers=2) == ()
    observations.record(2, observer(1), SEEN)
    assert observations.seen(observers=2) == ()
    observations.record(3, observer(2), SEEN)
    assert observations.seen(observers=2) == (SEEN,)


def test_a22_each_connection_has_one_word() -> None:
    observations = Observations()
    observations.record(1, observer(1), SEEN)
    observations.record(1, observer(1), ELSEWHERE)
    assert observations.seen(observers=1) == (ELSEWHERE,)


def test_a22_the_most_seen_come_first() -> None:
    observations = Observations()
    for number, address in enumerate([ELSEWHERE, SEEN, SEEN]):
        observations.record(number, observer(number), address)
    assert observations.seen(observers=1) == (SEEN, ELSEWHERE)


def test_a22_no_more_than_so_many_addresses_are_believed() -> None:
    observations = Observations()
    for number in range(2 * MAX_OBSERVED):
        observations.record(number, observer(number), parse(f"/ip4/5.5.5.5/tcp/{number}"))
    assert len(observations.seen(observers=1)) == MAX_OBSERVED


def test_a22_no_more_than_so_many_observations_are_kept() -> None:
    observations = Observations()
    for number in range(MAX_OBSERVATIONS + 1):
        observations.record(number, observer(number), SEEN)
    assert len(observations.by_connection) == MAX_OBSERVATIONS
    observations.record(0, observer(0), ELSEWHERE)  # a word that is changed needs no room
    assert observations.by_connection[0][1] == ELSEWHERE


def test_a23_what_was_said_on_a_connection_ends_with_it() -> None:
    observations = Observations()
    for number in range(3):
        observations.record(number, observer(number), SEEN)
    observations.withdraw(0)
    observations.withdraw(0)
    assert observations.seen(observers=2) == (SEEN,)
    observations.keep_only([2, 7])
    assert observations.seen(observers=2) == ()
    assert list(observations.by_connection) == [2]


# ---- A21, A24 ----------------------------------------------------------------------------

texts = st.sampled_from(
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.0.2/tcp/1",
        "/ip4/5.5.5.5/tcp/1",
        "/ip6/2600::2/tcp/1",
        "/ip4/192.0.2.1/tcp/1",
        "/dns4/a.example/tcp/1",
        f"/ip4/6.6.6.6/tcp/1/p2p/{RELAY}/p2p-circuit",
    ]
)
some = st.lists(texts.map(parse), max_size=5)


@given(some, some, some, some)
def test_a21_all_is_advertised_once_and_relayed_addresses_last(
    listen: list[Multiaddr],
    announced: list[Multiaddr],
    observed: list[Multiaddr],
    circuits: list[Multiaddr],
) -> None:
    told = advertised(listen=listen, announced=announced, observed=observed, circuits=circuits)
    assert set(told) == {*listen, *announced, *observed, *circuits}
    assert len(set(told)) == len(told)
    relayed = ["p2p-circuit" in str(address) for address in told]
    assert relayed == sorted(relayed)


@given(some, some, some)
def test_a24_a_hole_is_punched_at_direct_public_or_seen_addresses(
    listen: list[Multiaddr], announced: list[Multiaddr], observed: list[Multiaddr]
) -> None:
    offered = worth_punching(listen=listen, announced=announced, observed=observed)
    for address in {*listen, *announced, *observed}:
        direct = "p2p-circuit" not in str(address)
        public = str(address).startswith(("/ip4/5.", "/ip6/2600", "/dns4"))
        assert (address in offered) is (direct and (public or address in observed))


def test_a24_seen_addresses_come_first() -> None:
    public = parse("/ip4/5.5.5.5/tcp/1")
    forwarded = parse("/ip4/5.5.5.5/tcp/443")
    assert worth_punching(listen=[public], announced=[forwarded], observed=[SEEN]) == (
        SEEN,
        forwarded,
        public,
    )
