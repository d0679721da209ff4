"""Rules DI1 and DI4 to DI8; the table of what is dialled when stands on specs/dialing.md."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Multiaddr, Scope, circuit_of, is_relayed, parse, scope
from p2pnet.swarm.ranking import (
    CIRCUIT_STEP,
    OTHER_STEPS,
    PRIVATE_STEP,
    PUBLIC_STEP,
    RELAY_DELAY,
    Attempt,
    Kind,
    canonical,
    kind_of,
    rank,
)

RELAY = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
ANOTHER = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"

hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.sampled_from(["/ip4/192.168.1.2", "/ip4/127.0.0.1", "/ip6/::1", "/dns/a.example"]),
)
transports = st.builds(
    "/{}{}".format,
    st.builds("tcp/{}".format, st.integers(1, 65535)),
    st.sampled_from(["", "/ws", "/wss", "/tls/ws"]),
) | st.builds(
    "/{}{}".format,
    st.builds("udp/{}".format, st.integers(1, 65535)),
    st.sampled_from(["/quic-v1", "/quic-v1/webtransport", "/webrtc-direct"]),
)
relays = st.sampled_from(["", *(f"/p2p/{relay}/p2p-circuit" for relay in (RELAY, ANOTHER))])
addresses = st.builds(lambda *parts: parse("".join(parts)), hosts, transports, relays)
many = st.lists(addresses, max_size=12)
places = st.none() | st.lists(st.ip_addresses().map(str), max_size=4)


def delays(attempts: list[Attempt]) -> list[float]:
    return [attempt.delay for attempt in attempts]


def ranked(*texts: str) -> list[tuple[float, str]]:
    return [(attempt.delay, str(attempt.address)) for attempt in rank([parse(t) for t in texts])]


@given(many, places)
def test_di1_nothing_is_lost_and_nothing_comes_twice(
    given_addresses: list[Multiaddr], interfaces: list[str] | None
) -> None:
    ranked = [attempt.address for attempt in rank(given_addresses, interfaces)]
    assert set(ranked) <= set(given_addresses)
    assert sorted(str(canonical(address)) for address in ranked) == sorted(
        {str(canonical(address)) for address in given_addresses}
    )


@given(many, places)
def test_di4_the_first_is_dialled_at_once_and_the_others_in_order(
    given_addresses: list[Multiaddr], interfaces: list[str] | None
) -> None:
    found = delays(rank(given_addresses, interfaces))
    assert found[:1] in ([], [0.0])
    assert found == sorted(found)


@given(st.lists(addresses, max_size=12, unique_by=canonical), st.randoms(use_true_random=False))
def test_di5_the_order_given_does_not_matter(
    given_addresses: list[Multiaddr], chance: Random
) -> None:
    shuffled = list(given_addresses)
    chance.shuffle(shuffled)
    before, after = rank(given_addresses), rank(shuffled)
    assert delays(before) == delays(after)
    assert {a.address: a.delay for a in before} == {a.address: a.delay for a in after}


@given(many)
def test_di7_relayed_addresses_wait_for_direct_ones(given_addresses: list[Multiaddr]) -> None:
    attempts = rank(given_addresses)
    relayed = [a.delay for a in attempts if is_relayed(a.address)]
    if len(relayed) < len(attempts):
        assert all(delay >= RELAY_DELAY for delay in relayed)
    elif relayed:
        assert relayed[0] == 0.0


@given(many)
def test_di7_circuits_are_begun_one_a_second_each_relay_once_before_any_twice(
    given_addresses: list[Multiaddr],
) -> None:
    relayed = [a for a in rank(given_addresses) if is_relayed(a.address)]
    first = relayed[0].delay if relayed else 0.0
    assert delays(relayed) == [first + n * CIRCUIT_STEP for n in range(len(relayed))]
    relays = [circuit_of(a.address).relay for a in relayed]
    rounds = [relays[:n].count(relay) for n, relay in enumerate(relays)]
    assert rounds == sorted(rounds)


@given(many)
def test_di6_the_steps_are_those_of_the_group(given_addresses: list[Multiaddr]) -> None:
    for attempt in rank(given_addresses):
        if is_relayed(attempt.address):
            continue
        step = PUBLIC_STEP if scope(attempt.address) is Scope.PUBLIC else PRIVATE_STEP
        # Three kinds make three turns each; behind them are three more turns, and one of others.
        places = attempt.delay / step
        assert places == pytest.approx(round(places))
        assert places < 3 * 3 + (OTHER_STEPS - 1) + 3


@given(many, places)
def test_di5_of_a_group_the_better_kind_goes_first(
    given_addresses: list[Multiaddr], interfaces: list[str] | None
) -> None:
    attempts = rank([a for a in given_addresses if scope(a) is Scope.PUBLIC], interfaces)
    direct = [a for a in attempts if not is_relayed(a.address)]
    for earlier, later in pairwise(direct):
        assert kind_of(earlier.address) <= kind_of(later.address)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/ip4/8.8.8.8/udp/1/quic-v1", Kind.QUIC),
        ("/ip4/8.8.8.8/udp/1/quic-v1/p2p/" + RELAY, Kind.QUIC),
        ("/ip4/8.8.8.8/udp/1/quic-v1/webtransport", Kind.OTHER),
        ("/ip4/8.8.8.8/udp/1/webrtc-direct", Kind.OTHER),
        ("/ip4/8.8.8.8/udp/1", Kind.OTHER),
        ("/dns4/a.example/tcp/1", Kind.TCP),
        ("/ip4/8.8.8.8/tcp/1/ws", Kind.WEBSOCKET),
        ("/ip4/8.8.8.8/tcp/1/wss", Kind.WEBSOCKET),
        ("/ip4/8.8.8.8/tcp/1/tls/ws", Kind.WEBSOCKET),
        ("/ip4/8.8.8.8/tcp/1/tls/sni/a.example/ws", Kind.WEBSOCKET),
        ("/ip4/8.8.8.8/tcp/1/tls", Kind.OTHER),
        (f"/ip4/8.8.8.8/udp/1/quic-v1/p2p/{RELAY}/p2p-circuit", Kind.QUIC),
        (f"/p2p/{RELAY}/p2p-circuit", Kind.OTHER),
    ],
)
def test_di5_an_address_is_of_one_kind(text: str, kind: Kind) -> None:
    assert kind_of(parse(text)) is kind


@pytest.mark.parametrize(
    ("text", "canonical_text"),
    [
        ("/ip4/8.8.8.8/tcp/1/wss", "/ip4/8.8.8.8/tcp/1/tls/ws"),
        ("/ip4/8.8.8.8/tcp/1/tls/ws", "/ip4/8.8.8.8/tcp/1/tls/ws"),
        ("/ip4/8.8.8.8/tcp/1/ws", "/ip4/8.8.8.8/tcp/1/ws"),
        ("/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/tcp/1"),
        (
            f"/dns/a.example/tcp/1/wss/p2p/{RELAY}/p2p-circuit",
            f"/dns/a.example/tcp/1/tls/ws/p2p/{RELAY}/p2p-circuit",
        ),
    ],
)
def test_di1_an_address_has_one_canonical_form(text: str, canonical_text: str) -> None:
    assert canonical(parse(text)) == parse(canonical_text)


def test_di5_of_each_family_one_goes_ahead() -> None:
    assert ranked(
        "/ip4/8.8.8.8/tcp/2",
        "/ip4/8.8.8.8/tcp/1",
        "/ip6/2600::1/tcp/9",
        "/ip6/2600::1/tcp/8",
    ) == [
        (0.0, "/ip6/2600::1/tcp/8"),
        (0.25, "/ip4/8.8.8.8/tcp/1"),
        (0.5, "/ip6/2600::1/tcp/9"),
        (0.5, "/ip4/8.8.8.8/tcp/2"),
    ]


def test_di8_the_lowest_port_goes_first() -> None:
    assert [text for _, text in ranked("/ip4/8.8.8.8/tcp/50000", "/ip4/9.9.9.9/tcp/4001")] == [
        "/ip4/9.9.9.9/tcp/4001",
        "/ip4/8.8.8.8/tcp/50000",
    ]


def test_nothing_is_ranked_as_nothing() -> None:
    assert rank([]) == []
