"""Rules S10 to S13; the table of what is dialled when stands on specs/connections.md."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Multiaddr, Scope, is_relayed, parse, scope
from p2pnet.swarm.ranking import PRIVATE_STEP, PUBLIC_STEP, RELAY_DELAY, Attempt, rank

RELAY = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"

hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.sampled_from(["/ip4/192.168.1.2", "/ip4/127.0.0.1", "/ip6/::1", "/dns/a.example"]),
)
transports = st.builds("/{}/{}".format, st.sampled_from(["tcp", "udp"]), st.integers(1, 65535))
relays = st.sampled_from(["", f"/p2p/{RELAY}/p2p-circuit"])
addresses = st.builds(lambda *parts: parse("".join(parts)), hosts, transports, relays)
many = st.lists(addresses, max_size=12)


def delays(attempts: list[Attempt]) -> list[float]:
    return [attempt.delay for attempt in attempts]


def ranked(*texts: str) -> list[tuple[float, str]]:
    return [(attempt.delay, str(attempt.address)) for attempt in rank([parse(t) for t in texts])]


@given(many)
def test_s10_nothing_is_lost_and_nothing_comes_twice(given_addresses: list[Multiaddr]) -> None:
    assert sorted(str(attempt.address) for attempt in rank(given_addresses)) == sorted(
        {str(address) for address in given_addresses}
    )


@given(many)
def test_s10_the_first_is_dialled_at_once_and_the_others_in_order(
    given_addresses: list[Multiaddr],
) -> None:
    found = delays(rank(given_addresses))
    assert found[:1] in ([], [0.0])
    assert found == sorted(found)


@given(st.lists(addresses, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_s10_the_order_given_does_not_matter(
    given_addresses: list[Multiaddr], chance: Random
) -> None:
    shuffled = list(given_addresses)
    chance.shuffle(shuffled)
    before, after = rank(given_addresses), rank(shuffled)
    assert delays(before) == delays(after)
    assert {a.address: a.delay for a in before} == {a.address: a.delay for a in after}


@given(many)
def test_s12_relayed_addresses_wait_for_direct_ones(given_addresses: list[Multiaddr]) -> None:
    attempts = rank(given_addresses)
    relayed = [a.delay for a in attempts if is_relayed(a.address)]
    if len(relayed) < len(attempts):
        assert all(delay >= RELAY_DELAY for delay in relayed)
    elif relayed:
        assert relayed[0] == 0.0


@given(many)
def test_s11_the_steps_are_those_of_the_scope(given_addresses: list[Multiaddr]) -> None:
    for attempt in rank(given_addresses):
        if is_relayed(attempt.address):
            continue
        step = PUBLIC_STEP if scope(attempt.address) is Scope.PUBLIC else PRIVATE_STEP
        # Three kinds of hosts (IPv6, IPv4, a name) make three steps at most, and one behind.
        assert attempt.delay in [step * place for place in range(4)]


def test_s10_of_each_family_one_goes_ahead() -> None:
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


def test_s13_the_lowest_port_goes_first() -> None:
    assert [text for _, text in ranked("/ip4/8.8.8.8/tcp/50000", "/ip4/9.9.9.9/tcp/4001")] == [
        "/ip4/9.9.9.9/tcp/4001",
        "/ip4/8.8.8.8/tcp/50000",
    ]


def test_nothing_is_ranked_as_nothing() -> None:
    assert rank([]) == []
