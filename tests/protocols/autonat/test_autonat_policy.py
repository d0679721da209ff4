"""What servers count, and what clients spend."""

from __future__ import annotations

import pytest

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.autonat.policy import Budget, Limits, Others, Place, Purse, choose, place_of

PEERS = [
    PeerId.from_public_key(PrivateKey.from_seed(bytes([seed]) * 32).public_key) for seed in range(8)
]
LIMITS = Limits(
    per_minute=6,
    per_peer=3,
    per_network=4,
    foreign_per_minute=3,
    per_target=2,
    max_parallel=5,
    max_parallel_per_peer=2,
)


def anything(address: Multiaddr) -> bool:
    """Dial whatever the address: only where it leads is judged."""
    return True


def begin_and_end(budget: Budget, peer: int, network: str, now: float) -> str | None:
    refusal = budget.begin(PEERS[peer], network, now)
    if refusal is None:
        budget.end(PEERS[peer])
    return refusal


def test_a_peer_has_so_many_requests_in_a_minute() -> None:
    """AN11."""
    budget = Budget(LIMITS)
    assert [begin_and_end(budget, 0, "net", t) for t in (0.0, 10.0, 20.0)] == [None] * 3
    assert begin_and_end(budget, 0, "other net", 59.9) == "per_peer"
    assert begin_and_end(budget, 1, "other net", 59.9) is None
    assert begin_and_end(budget, 0, "net", 60.0) is None
    assert begin_and_end(budget, 0, "net", 69.9) == "per_peer"


def test_a_network_has_so_many_whatever_peers_it_makes_up() -> None:
    """AN11."""
    budget = Budget(LIMITS)
    answers = [begin_and_end(budget, peer, "net", 1.0) for peer in range(5)]
    assert answers == [None] * 4 + ["per_network"]


def test_there_are_so_many_in_all() -> None:
    """AN11."""
    budget = Budget(LIMITS)
    answers = [begin_and_end(budget, peer, f"net {peer}", 1.0) for peer in range(7)]
    assert answers == [None] * 6 + ["per_minute"]
    assert begin_and_end(budget, 7, "net 7", 61.0) is None


def test_so_many_are_answered_at_the_same_time() -> None:
    """AN11."""
    budget = Budget(LIMITS)
    assert budget.begin(PEERS[0], "a", 0.0) is None
    assert budget.begin(PEERS[0], "a", 0.0) is None
    assert budget.begin(PEERS[0], "a", 0.0) == "max_parallel_per_peer"
    assert [budget.begin(PEERS[n], f"net {n}", 0.0) for n in (1, 2, 3)] == [None] * 3
    assert budget.running == 5
    assert budget.begin(PEERS[4], "e", 0.0) == "max_parallel"
    budget.end(PEERS[0])
    assert budget.begin(PEERS[4], "e", 0.0) is None


def test_what_was_refused_does_not_count() -> None:
    """AN11: or a flood would keep itself refused for ever."""
    budget = Budget(LIMITS)
    for now in range(100):
        begin_and_end(budget, 0, "net", float(now) / 10)
    assert begin_and_end(budget, 0, "net", 60.2) is None


def test_dials_of_others_are_counted_by_target() -> None:
    """AN11."""
    budget = Budget(LIMITS)
    answers = [budget.begin_foreign("victim", t) for t in (0.0, 1.0, 2.0)]
    assert answers == [None, None, "per_target"]
    assert budget.begin_foreign("another", 3.0) is None
    assert budget.begin_foreign("a third", 3.0) == "foreign_per_minute"
    assert budget.begin_foreign("victim", 60.0) is None


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="per_peer"):
        Limits(
            per_minute=1,
            per_peer=0,
            per_network=1,
            foreign_per_minute=1,
            per_target=1,
            max_parallel=1,
            max_parallel_per_peer=1,
        )


def test_a_purse_is_filled_again_after_an_hour() -> None:
    """AN21."""
    purse = Purse(100)
    assert purse.pay(60, 0.0)
    assert not purse.pay(41, 1.0)
    assert purse.pay(40, 2.0)
    assert purse.pay(0, 3.0)
    assert not purse.pay(1, 3599.0)
    assert purse.pay(60, 3600.0)


def test_a_server_knows_its_own_addresses_and_families() -> None:
    """AN12."""
    known = [parse("/ip4/11.0.0.1/tcp/4001"), parse("/dns4/example.com/tcp/4001")]
    interfaces = ["127.0.0.1", "::1", "192.168.1.2", "fe80::1%eth0", "fd00::1"]
    place = place_of(interfaces, known, allow_private=False, dials=anything)
    assert place.own == {"127.0.0.1", "::1", "192.168.1.2", "fe80::1", "fd00::1", "11.0.0.1"}
    assert place.has_ipv4
    assert not place.has_ipv6
    known = []
    assert place_of(["::1", "2a00::1"], known, allow_private=False, dials=anything).has_ipv6
    interfaces = ["127.0.0.1", "2a00::1"]
    assert not place_of(interfaces, known, allow_private=False, dials=anything).has_ipv4


def test_in_a_network_of_ones_own_private_addresses_are_dialled() -> None:
    """AN12."""
    place = place_of(["127.0.0.1"], [], allow_private=True, dials=anything)
    for text in ("/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/udp/1/quic-v1", "/ip6/::1/tcp/1/ws"):
        assert choose([parse(text)], PEERS[0], place)
        assert choose([parse(text)], PEERS[0], Place(dials=anything)) is None
    assert choose([parse("/ip4/224.0.0.1/tcp/1")], PEERS[0], place) is None


def test_where_another_was_found_is_remembered_for_an_hour() -> None:
    """AN13."""
    others = Others(2)
    first, second, third = (parse(f"/ip4/11.0.0.1/tcp/{port}") for port in (1, 2, 3))
    others.note(first, 0.0)
    others.note(second, 0.0)
    assert others.includes(first, 3599.0)
    assert not others.includes(first, 3600.0)
    others.note(first, 1.0)
    others.note(third, 1.0)
    assert [others.includes(each, 2.0) for each in (first, second, third)] == [True, False, True]
    others.forget(third)
    others.forget(second)
    assert not others.includes(third, 2.0)


def test_what_no_transport_reaches_is_passed_over_and_what_one_does_is_dialled() -> None:
    """AN12."""
    quic, tcp = parse("/ip4/11.0.0.1/udp/4001/quic-v1"), parse("/ip4/11.0.0.1/tcp/4001")
    without = Place(dials=lambda address: address == tcp)
    with_quic = Place(dials=lambda address: address in (quic, tcp))
    for offered in ([quic, tcp], [tcp, quic]):
        chosen = choose(offered, PEERS[0], without)
        assert chosen is not None
        assert chosen.address == tcp
        chosen = choose(offered, PEERS[0], with_quic)
        assert chosen is not None
        assert (chosen.index, chosen.address) == (0, offered[0])
    assert choose([quic], PEERS[0], without) is None
    closed = parse("/ip4/11.0.0.1/udp/0/quic-v1")
    assert choose([closed], PEERS[0], Place(dials=anything)) is None
