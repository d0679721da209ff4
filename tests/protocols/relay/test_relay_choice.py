"""Which relays are asked: specs/relay.md R35, R36."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.relay.choice import (
    MAX_PLACES,
    Candidate,
    choose,
    network_of,
    places_of,
)

PEERS = [PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in range(9)]


def candidate(
    number: int, place: str, round_trip: float = 0.1, *, is_inbound: bool = False
) -> Candidate:
    return Candidate(PEERS[number], (parse(f"{place}/tcp/4001"),), is_inbound, round_trip)


def test_r36_the_nearest_are_chosen() -> None:
    far, near, silent = (
        candidate(1, "/ip4/1.1.1.1", 0.3),
        candidate(2, "/ip4/2.1.1.1", 0.01),
        candidate(3, "/ip4/3.1.1.1", float("inf")),
    )
    assert choose([silent, far, near], taken=(), count=2) == (near, far)
    assert choose([silent], taken=(), count=2) == (silent,)


def test_r36_another_network_is_better_than_a_shorter_way() -> None:
    near, beside, far = (
        candidate(1, "/ip4/1.1.1.1", 0.01),
        candidate(2, "/ip4/1.1.9.9", 0.02),
        candidate(3, "/ip4/2.1.1.1", 0.3),
    )
    assert choose([near, beside, far], taken=(), count=2) == (near, far)
    assert choose([near, beside, far], taken={network_of(near.places[0])}, count=1) == (far,)
    assert choose([near, beside], taken=(), count=2) == (near, beside)


def test_r36_whom_strangers_can_dial_and_whom_we_called_go_first() -> None:
    at_home = candidate(1, "/ip4/192.168.1.7", 0.001)
    came = candidate(2, "/ip4/1.1.1.1", 0.01, is_inbound=True)
    called = candidate(3, "/ip4/2.1.1.1", 0.2)
    assert choose([at_home, came, called], taken=(), count=3) == (called, came, at_home)


def test_r36_networks_are_those_that_fail_together() -> None:
    assert network_of(parse("/ip4/1.2.3.4/tcp/1")) == network_of(
        parse("/ip4/1.2.9.9/udp/2/quic-v1")
    )
    assert network_of(parse("/ip4/1.3.3.4/tcp/1")) != network_of(parse("/ip4/1.2.3.4/tcp/1"))
    assert network_of(parse("/ip6/::ffff:1.2.3.4/tcp/1")) == network_of(parse("/ip4/1.2.3.4/tcp/1"))
    assert network_of(parse("/ip6/2600:1:2::1/tcp/1")) == network_of(
        parse("/ip6/2600:1:3::1/tcp/1")
    )
    assert network_of(parse("/ip6/2600:2::1/tcp/1")) != network_of(parse("/ip6/2600:1::1/tcp/1"))
    assert network_of(parse("/dns4/a.example/tcp/1")) != network_of(parse("/dns4/b.example/tcp/1"))


def test_r35_a_peer_that_came_to_us_is_found_where_it_says_it_is() -> None:
    came_from = parse("/ip4/1.2.3.4/tcp/50000")
    told = [
        parse("/ip4/192.168.1.2/tcp/4001"),
        parse("/ip4/1.2.3.4/tcp/4001"),
        parse(f"/ip4/9.9.9.9/tcp/1/p2p/{PEERS[1]}/p2p-circuit"),
    ]
    assert places_of(came_from, told, is_inbound=True) == (told[1],)
    assert places_of(came_from, told, is_inbound=False) == (came_from, told[1])
    assert places_of(came_from, [], is_inbound=True) == ()
    many = [parse(f"/ip4/1.2.3.{n}/tcp/4001") for n in range(50)]
    assert len(places_of(came_from, many, is_inbound=False)) == MAX_PLACES


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/ip4/1.1.1.1", "/ip4/1.1.2.2", "/ip4/2.2.2.2", "/ip4/10.0.0.1"]),
            st.floats(0, 2),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.integers(0, 9),
)
def test_r36_as_many_as_there_are_and_none_twice(
    given_: list[tuple[str, float, bool]], count: int
) -> None:
    candidates = [
        candidate(number, place, round_trip, is_inbound=is_inbound)
        for number, (place, round_trip, is_inbound) in enumerate(given_)
    ]
    chosen = choose(candidates, taken=(), count=count)
    assert len(chosen) == len({each.relay for each in chosen}) == min(count, len(candidates))
    networks = {network_of(each.places[0]) for each in candidates}
    assert len({network_of(each.places[0]) for each in chosen}) == min(count, len(networks))
    orders = itertools.islice(itertools.permutations(candidates), 10)
    assert all(choose(order, taken=(), count=count) == chosen for order in orders)
