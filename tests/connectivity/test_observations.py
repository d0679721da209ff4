"""Rules A22, A23 and V1, V2: what peers say of where they see this host."""

from __future__ import annotations

import pytest

from p2pnet.connectivity.observations import (
    MAX_OBSERVATIONS,
    MAX_OBSERVED,
    Observation,
    Observations,
    network_of,
    read_observation,
)
from p2pnet.core.addresses import Endpoint, Multiaddr, parse

RELAY = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SEEN, ELSEWHERE = parse("/ip4/5.5.5.5/tcp/4001"), parse("/ip4/5.5.5.5/tcp/4002")
OURS = parse("/ip4/192.168.0.2/tcp/4001")


def observer(number: int) -> Multiaddr:
    return parse(f"/ip4/8.8.{number // 256}.{number % 256}/tcp/4001")


def word(number: int, address: Multiaddr) -> Observation:
    found = read_observation(time=0.0, local=OURS, remote=observer(number), address=address)
    assert found is not None
    return found


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
    observations.record(1, word(1, SEEN))
    assert observations.seen(observers=1) == (SEEN,)
    assert observations.seen(observers=2) == ()
    observations.record(2, word(1, SEEN))
    assert observations.seen(observers=2) == ()
    observations.record(3, word(2, SEEN))
    assert observations.seen(observers=2) == (SEEN,)


def test_a22_each_connection_has_one_word() -> None:
    observations = Observations()
    observations.record(1, word(1, SEEN))
    observations.record(1, word(1, ELSEWHERE))
    assert observations.seen(observers=1) == (ELSEWHERE,)


def test_v16_what_a_peer_saw_before_is_not_believed_if_it_says_it_again() -> None:
    observations = Observations()
    observations.record(1, word(1, SEEN))
    assert observations.outdate(1)
    assert observations.seen(observers=1) == ()
    observations.record(1, word(1, SEEN))
    assert observations.seen(observers=1) == ()
    observations.record(2, word(2, SEEN))
    assert observations.seen(observers=1) == (SEEN,), "others may say so"


def test_v16_what_a_peer_sees_now_is_believed_and_so_is_what_it_sees_after_that() -> None:
    observations = Observations()
    observations.record(1, word(1, SEEN))
    observations.outdate(1)
    observations.record(1, word(1, ELSEWHERE))
    assert observations.seen(observers=1) == (ELSEWHERE,)
    observations.outdate(1)
    observations.record(1, word(1, SEEN))
    assert observations.seen(observers=1) == (SEEN,)


def test_v16_nothing_is_kept_of_a_connection_of_which_nothing_was_said_or_that_has_ended() -> None:
    observations = Observations()
    assert not observations.outdate(1)
    observations.record(1, word(1, SEEN))
    observations.outdate(1)
    assert not observations.withdraw(1)
    assert observations.outdated == {}
    observations.record(1, word(1, SEEN))
    assert observations.seen(observers=1) == (SEEN,)


def test_a22_the_most_seen_come_first() -> None:
    observations = Observations()
    for number, address in enumerate([ELSEWHERE, SEEN, SEEN]):
        observations.record(number, word(number, address))
    assert observations.seen(observers=1) == (SEEN, ELSEWHERE)


def test_a22_no_more_than_so_many_addresses_are_believed() -> None:
    observations = Observations()
    for number in range(2 * MAX_OBSERVED):
        observations.record(number, word(number, parse(f"/ip4/5.5.5.5/tcp/{1 + number}")))
    assert len(observations.seen(observers=1)) == MAX_OBSERVED


def test_a22_no_more_than_so_many_observations_are_kept() -> None:
    observations = Observations()
    for number in range(MAX_OBSERVATIONS + 1):
        observations.record(number, word(number, SEEN))
    assert len(observations.by_connection) == MAX_OBSERVATIONS
    observations.record(0, word(0, ELSEWHERE))  # a word that is changed needs no room
    assert observations.by_connection[0].address == ELSEWHERE


def test_a23_what_was_said_on_a_connection_ends_with_it() -> None:
    observations = Observations()
    for number in range(3):
        observations.record(number, word(number, SEEN))
    assert observations.withdraw(0)
    assert not observations.withdraw(0)
    assert observations.seen(observers=2) == (SEEN,)
    assert observations.withdraw(1)
    assert observations.seen(observers=2) == ()
    assert list(observations.by_connection) == [2]


# ---- V2 ----------------------------------------------------------------------------------


def test_v2_an_observation_knows_all_ends() -> None:
    found = read_observation(time=7.0, local=OURS, remote=observer(1), address=SEEN)
    assert found == Observation(
        7.0,
        "8.8.0.1",
        Endpoint("8.8.0.1", 4001),
        Endpoint("192.168.0.2", 4001),
        Endpoint("5.5.5.5", 4001),
        SEEN,
    )


@pytest.mark.parametrize(
    "address", ["/ip6/2600::1/tcp/4001", "/ip4/5.5.5.5/udp/4001/quic-v1", "/dns4/a.example/tcp/1"]
)
def test_v2_what_is_of_another_family_or_transport_says_nothing(address: str) -> None:
    told = parse(address)
    assert read_observation(time=0.0, local=OURS, remote=observer(1), address=told) is None


# ---- one port, and all that is spoken there ----------------------------------------------

SHARED = [
    parse(f"/ip4/192.168.0.2/{suffix}")
    for suffix in ("tcp/4001", "tcp/4001/ws", "tcp/4001/tls/ws", "udp/4001/quic-v1", "tcp/4002")
]


def said(local: str, remote: str, address: str) -> Observation:
    found = read_observation(
        time=0.0, local=parse(local), remote=parse(remote), address=parse(address)
    )
    assert found is not None
    return found


@pytest.mark.parametrize("own", ["tcp/4001", "tcp/4001/ws", "tcp/4001/tls/ws"])
@pytest.mark.parametrize("told", ["tcp/61000", "tcp/61000/ws"])
def test_v1_a_word_on_a_port_holds_for_all_that_is_listened_on_there(own: str, told: str) -> None:
    observations = Observations()
    word_ = said(f"/ip4/192.168.0.2/{own}", "/ip4/8.8.8.8/tcp/1/ws", f"/ip4/5.5.5.5/{told}")
    assert word_.address == parse("/ip4/5.5.5.5/" + own.replace("4001", "61000"))
    observations.record(1, word_)
    assert [str(address) for address in observations.seen(observers=1, listening=SHARED)] == [
        "/ip4/5.5.5.5/tcp/61000",
        "/ip4/5.5.5.5/tcp/61000/ws",
        "/ip4/5.5.5.5/tcp/61000/tls/ws",
    ]


def test_v1_words_on_different_protocols_of_a_port_confirm_each_other() -> None:
    observations = Observations()
    seen = "/ip4/5.5.5.5/tcp/61000"
    observations.record(1, said("/ip4/192.168.0.2/tcp/4001", "/ip4/8.8.8.8/tcp/1", seen))
    assert observations.seen(observers=2, listening=SHARED) == ()
    observations.record(2, said("/ip4/192.168.0.2/tcp/4001/ws", "/ip4/9.9.9.9/tcp/1/ws", seen))
    assert len(observations.seen(observers=2, listening=SHARED)) == 3


def test_v1_tcp_and_udp_are_ports_of_their_own() -> None:
    observations = Observations()
    observations.record(
        1,
        said(
            "/ip4/192.168.0.2/udp/4001/quic-v1",
            "/ip4/8.8.8.8/udp/1/quic-v1",
            "/ip4/5.5.5.5/udp/61000/quic-v1",
        ),
    )
    assert observations.by_connection[1].transport == "udp"
    assert observations.seen(observers=1, listening=SHARED) == (
        parse("/ip4/5.5.5.5/udp/61000/quic-v1"),
    )


@pytest.mark.parametrize(
    ("local", "address"),
    [
        ("/ip4/192.168.0.2/udp/4001/quic-v1", "/ip4/5.5.5.5/tcp/4001"),
        ("/ip4/192.168.0.2/tcp/4001/ws", "/ip4/5.5.5.5/udp/4001/quic-v1"),
        ("/ip4/192.168.0.2/udp/4001/quic-v1", "/ip6/2600::1/udp/4001/quic-v1"),
    ],
)
def test_v2_what_is_seen_of_another_transport_says_nothing(local: str, address: str) -> None:
    remote = parse("/ip4/8.8.8.8/udp/1/quic-v1")
    found = read_observation(time=0.0, local=parse(local), remote=remote, address=parse(address))
    assert found is None
