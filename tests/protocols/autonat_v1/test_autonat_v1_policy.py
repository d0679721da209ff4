"""Whom to dial and how often; whom to ask, when, and what about."""

from __future__ import annotations

import errno
import ipaddress
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Multiaddr, Scope, ip_of, parse, scope, with_peer
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import LimitExceeded
from p2pnet.protocols.autonat_v1.messages import (
    MAX_MESSAGE_BYTES,
    Dial,
    DialResponse,
    Status,
    encode_message,
)
from p2pnet.protocols.autonat_v1.policy import (
    MAX_OFFERED,
    MAX_OTHERS,
    Allowance,
    Cadence,
    DialBacks,
    Schedule,
    Server,
    is_our_own_fault,
    learned,
    network_of,
    offered,
    targets,
)


def peer(number: int) -> PeerId:
    return PeerId.from_public_key(PrivateKey.from_seed(number.to_bytes(32)).public_key)


ALICE, BOB = peer(1), peer(2)
IPS = st.sampled_from(
    ["11.0.0.1", "11.0.0.2", "10.0.0.1", "127.0.0.1", "0.0.0.0", "::ffff:11.0.0.1", "2a00:1::1"]
)
TAILS = st.sampled_from(
    [
        "/tcp/1",
        "/tcp/0",
        "/tcp/2/ws",
        "/udp/9/quic-v1",
        "",
        f"/tcp/1/p2p/{ALICE}",
        f"/tcp/1/p2p/{BOB}",
        f"/tcp/1/p2p/{BOB}/p2p-circuit",
        "/tcp/1/ip4/11.0.0.2/tcp/2",
    ]
)
ANYTHING = st.builds(
    lambda ip, tail: parse(f"/ip{6 if ':' in ip else 4}/{ip}{tail}"), IPS, TAILS
) | st.sampled_from([parse("/dns4/example.com/tcp/1"), parse(f"/p2p/{BOB}/p2p-circuit")])


# ---- whom to dial ------------------------------------------------------------------------


@given(st.lists(ANYTHING, max_size=40), ANYTHING)
def test_nothing_is_ever_dialled_but_the_public_ip_that_is_seen(
    addresses: list[Multiaddr], observed: Multiaddr
) -> None:
    """AO7, AO8."""
    chosen = targets(addresses, asker=ALICE, observed=observed, own=(), allow_private=False)
    assert len(chosen) <= 1 + MAX_OTHERS
    for address in chosen:
        assert ip_of(address) == ip_of(observed)
        assert scope(address) is Scope.PUBLIC
        assert str(address).count("/ip") == 1
        assert "p2p" not in str(address)


def test_two_addresses_are_dialled_beside_the_one_that_is_seen() -> None:
    """AO8."""
    many = [parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 65)]
    seen = parse("/ip4/11.0.0.1/tcp/50000")
    chosen = targets(many, asker=ALICE, observed=seen, own=(), allow_private=False)
    assert chosen == (seen, *many[:2])


def test_at_home_private_addresses_and_this_machine_may_be_let_in() -> None:
    """AO7."""
    seen = parse("/ip4/127.0.0.1/tcp/1")
    own = [ipaddress.ip_address("127.0.0.1")]
    assert targets([], asker=ALICE, observed=seen, own=own, allow_private=True) == (seen,)
    nowhere = parse("/ip4/0.0.0.0/tcp/1")
    assert targets([], asker=ALICE, observed=nowhere, own=(), allow_private=True) == ()


# ---- how often ---------------------------------------------------------------------------

SMALL = Allowance(per_minute=30, per_peer=3, per_network=6, at_once=16)


def test_a_peer_has_one_request_at_a_time() -> None:
    """AO10."""
    dial_backs = DialBacks(SMALL)
    assert dial_backs.admit(ALICE)
    assert not dial_backs.admit(ALICE)
    assert dial_backs.admit(BOB)
    dial_backs.dismiss(ALICE)
    assert dial_backs.admit(ALICE)


@pytest.mark.parametrize(
    ("who", "where", "allowed", "limit"),
    [
        (lambda n: ALICE, lambda n: f"net {n}", 3, "per_peer = 3"),
        (peer, lambda n: "net", 6, "per_network = 6"),
        (peer, lambda n: f"net {n}", 30, "per_minute = 30"),
    ],
    ids=["peer", "network", "all"],
)
def test_no_more_dial_backs_than_allowed_in_any_minute(
    who: object, where: object, allowed: int, limit: str
) -> None:
    """AO11."""
    assert callable(who)
    assert callable(where)
    dial_backs = DialBacks(SMALL)

    def begin(number: int, now: float) -> str | None:
        refused = dial_backs.begin(who(number), where(number), now)
        if refused is None:
            dial_backs.end()
        return refused

    assert [begin(number, float(number)) for number in range(allowed)] == [None] * allowed
    refused = [begin(number, 59.9) for number in range(allowed, 100)]
    assert {reason and reason.split(" reached")[0] for reason in refused} == {limit}
    assert begin(100, 60.0) is None
    assert begin(101, 60.0) is not None
    assert dial_backs.remembered <= 30


def test_so_many_dial_backs_run_at_the_same_time() -> None:
    """AO11."""
    dial_backs = DialBacks(Allowance(per_minute=30, per_peer=3, per_network=6, at_once=2))
    assert dial_backs.begin(peer(1), "a", 0.0) is None
    assert dial_backs.begin(peer(2), "b", 0.0) is None
    assert dial_backs.begin(peer(3), "c", 0.0) == "at_once = 2 reached"
    dial_backs.end()
    assert dial_backs.begin(peer(3), "c", 0.0) is None
    assert len(dial_backs) == 2


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0, 30)), max_size=80),
)
def test_the_last_minute_never_holds_more_than_the_allowance(
    requests: list[tuple[int, int, float]],
) -> None:
    """AO11."""
    dial_backs, now, begun = DialBacks(SMALL), 0.0, list[tuple[float, int, int]]()
    for who, where, pause in requests:
        now += pause
        if dial_backs.begin(peer(who), str(where), now) is None:
            dial_backs.end()
            begun.append((now, who, where))
        recent = [entry for entry in begun if entry[0] > now - 60]
        assert len(recent) <= 30
        assert max([sum(e[1] == i for e in recent) for i in range(6)]) <= 3
        assert max([sum(e[2] == i for e in recent) for i in range(4)]) <= 6


def test_failures_of_our_own_are_told_from_those_of_the_asker() -> None:
    """AO13."""
    assert is_our_own_fault(OSError(errno.EMFILE, "too many open files"))
    assert is_our_own_fault(LimitExceeded("max_dials", 1))
    assert not is_our_own_fault(OSError(errno.ECONNREFUSED, "refused"))
    assert not is_our_own_fault(OSError(errno.EHOSTUNREACH, "no route"))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("/ip4/11.0.0.1/tcp/1", "11.0.0.1"),
        ("/ip6/::ffff:11.0.0.1/tcp/1", "11.0.0.1"),
        ("/ip6/2a00:1:2:3ff::1/tcp/1", "2a00:1:2:300::/56"),
        ("/dns4/example.com/tcp/1", None),
    ],
)
def test_what_counts_as_one_network(address: str, network: str | None) -> None:
    """AO11, AO20."""
    assert network_of(parse(address)) == network


# ---- what to offer, and what is learned --------------------------------------------------


def test_addresses_at_the_ip_that_the_server_sees_are_offered_first() -> None:
    """AO15."""
    here, there = parse("/ip4/11.0.0.1/tcp/1"), parse("/ip4/11.0.0.2/tcp/1")
    seen = parse("/ip4/11.0.0.2/tcp/50000")
    assert offered([here, there], None, allow_private=False) == (here, there)
    assert offered([here, there], seen, allow_private=False) == (there, here)


def test_only_direct_and_public_addresses_are_offered_each_once() -> None:
    """AO15."""
    good = parse("/ip4/11.0.0.1/tcp/1")
    home = parse("/ip4/192.168.1.7/tcp/1")
    bad = [
        parse("/ip4/0.0.0.0/tcp/1"),
        parse("/ip4/11.0.0.1/tcp/0"),
        parse("/ip4/11.0.0.1/tcp/1/ip4/11.0.0.2/tcp/1"),
        parse("/dns4/example.com/tcp/1"),
        parse(f"/ip4/11.0.0.1/tcp/1/p2p/{BOB}/p2p-circuit"),
    ]
    every = [*bad, home, good, with_peer(good, ALICE)]
    assert offered(every, None, allow_private=False) == (good,)
    assert offered(every, None, allow_private=True) == (home, good)


def test_an_offer_fits_into_a_message_whatever_is_announced() -> None:
    """AO15."""
    many = [parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 100)]
    assert offered(many, None, allow_private=False) == tuple(many[:MAX_OFFERED])
    name = ".".join(["x" * 60] * 4)
    long = [parse(f"/ip4/11.0.0.1/tcp/{port}/tls/sni/{name}/ws") for port in range(1, 100)]
    chosen = offered(long, None, allow_private=False)
    assert 0 < len(chosen) < MAX_OFFERED
    assert len(encode_message(Dial(ALICE, chosen))) <= MAX_MESSAGE_BYTES


@given(
    st.sampled_from([*map(int, Status), 7]),
    st.none() | ANYTHING,
    st.lists(ANYTHING, max_size=5),
    st.none() | ANYTHING,
)
def test_nothing_is_learned_that_the_answer_cannot_be_about(
    status: int, address: Multiaddr | None, ours: list[Multiaddr], observed: Multiaddr | None
) -> None:
    """AO16, AO17, AO18."""
    chosen = offered(ours, observed, allow_private=False)
    response = DialResponse(status, "", address)
    for found, reached in learned(response, offered=chosen, observed=observed, own_id=ALICE):
        if reached:
            assert status == Status.OK
            assert address in (found, with_peer(found, ALICE))
            seen = observed and ip_of(observed)
            assert found in chosen or ip_of(found) == seen
        else:
            assert status == Status.E_DIAL_ERROR
            assert found in chosen
            assert observed is not None
            assert ip_of(found) == ip_of(observed)


# ---- whom to ask, and when ---------------------------------------------------------------

CADENCE = Cadence(interval=60.0, throttle=30.0, pause=600.0, panel=3, max_servers=8)
HERE = parse("/ip4/11.0.0.1/tcp/1")
ELSEWHERE = parse("/ip4/11.0.0.2/tcp/1")


def server(number: int, network: str = "", *, dialled_us: bool = False) -> Server:
    return Server(peer(number), network or f"net {number}", dialled_us)


def begun() -> Schedule:
    schedule = Schedule(CADENCE)
    schedule.offer([HERE])
    return schedule


def test_with_nobody_to_ask_or_nothing_to_ask_about_nothing_is_due() -> None:
    """AO15, AO19."""
    assert begun().due([]) == math.inf
    assert Schedule(CADENCE).due([server(1)]) == math.inf


def test_three_networks_are_asked_at_once_and_then_one_a_minute_in_turn() -> None:
    """AO20."""
    schedule, servers = begun(), [server(n) for n in range(1, 6)]
    assert schedule.due(servers) <= 0.0
    first = schedule.choose(servers, 0.0)
    assert len(first) == 3
    for each in first:
        schedule.answered(each, 15.0)
    asked = []
    for minute in range(1, 6):
        assert schedule.due(servers) == 60.0 * minute
        assert schedule.choose(servers, 60.0 * minute - 1) == ()
        (one,) = schedule.choose(servers, 60.0 * minute)
        schedule.answered(one, 60.0 * minute)
        asked.append(one)
    assert set(asked) == set(servers)
    assert set(asked[:2]) == set(servers) - set(first)


def test_two_servers_in_one_network_are_one() -> None:
    """AO20."""
    schedule, servers = begun(), [server(1, "a"), server(2, "a"), server(3, "b")]
    first = schedule.choose(servers, 0.0)
    assert sorted(each.network for each in first) == ["a", "b"]


def test_who_was_dialled_goes_before_who_came() -> None:
    """AO19."""
    came = [server(n, dialled_us=True) for n in range(1, 5)]
    dialled = [server(n) for n in range(5, 8)]
    assert set(begun().choose([*came, *dialled], 0.0)) == set(dialled)


def test_a_server_is_asked_every_thirty_seconds_at_most() -> None:
    """AO19."""
    schedule = begun()
    (one,) = schedule.choose([server(1)], 0.0)
    schedule.answered(one, 1.0)
    schedule.offer([HERE, ELSEWHERE])
    assert schedule.due([one]) == 31.0
    assert schedule.choose([one], 30.9) == ()
    assert schedule.choose([one], 31.0) == (one,)


def test_a_new_address_is_asked_about_everywhere_and_one_that_is_gone_is_not() -> None:
    """AO20."""
    schedule, servers = begun(), [server(1), server(2), server(3)]
    for each in schedule.choose(servers, 0.0):
        schedule.answered(each, 0.0)
    schedule.offer([HERE, ELSEWHERE])
    assert schedule.due(servers) == 30.0
    for each in schedule.choose(servers, 30.0):
        schedule.answered(each, 30.0)
    schedule.offer([ELSEWHERE])
    assert schedule.due(servers) == 90.0


def test_a_server_without_an_answer_is_left_alone_for_ten_minutes() -> None:
    """AO18."""
    schedule = begun()
    (one,) = schedule.choose([server(1)], 0.0)
    schedule.failed(one, 5.0)
    assert schedule.due([one]) == 605.0
    # Others are not held up by that: a network that has not answered is asked at once.
    assert schedule.choose([one, server(2)], 5.0) == (server(2),)


def test_the_second_chance_comes_back_when_a_server_was_borne_out() -> None:
    """AO18."""
    schedule, now = begun(), 0.0
    steps = [
        (schedule.unproven, 30.0),
        (schedule.unproven, 600.0),
        (schedule.failed, 600.0),
        (schedule.unproven, 600.0),
        (schedule.answered, 60.0),
        (schedule.unproven, 30.0),
    ]
    for judge, rest in steps:
        (one,) = schedule.choose([server(1)], now)
        judge(one, now)
        assert schedule.choose([one], now + rest - 0.1) == ()
        now += max(rest, CADENCE.interval)


def test_a_network_that_answered_is_asked_again_though_others_are_missing() -> None:
    """AO20."""
    schedule, servers = begun(), [server(1), server(2)]
    schedule.choose(servers, 0.0)
    schedule.answered(servers[0], 0.0)
    schedule.failed(servers[1], 0.0)
    assert schedule.due(servers) == 60.0
    assert schedule.choose(servers, 60.0) == (servers[0],)


def test_the_memory_of_servers_is_bounded() -> None:
    schedule = begun()
    for number in range(100):
        schedule.choose([server(number)], 0.0)
    assert len(schedule) == CADENCE.max_servers


@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(1, 5)), st.booleans(), st.sampled_from([0.0, 5.0, 31.0, 700.0])
        ),
        max_size=30,
    )
)
def test_whenever_something_is_due_somebody_is_chosen_and_nobody_too_soon(
    steps: list[tuple[set[int], bool, float]],
) -> None:
    """AO18, AO19."""
    schedule, now, asked = begun(), 0.0, dict[Server, float]()
    for present, answers, pause in steps:
        now += pause
        servers = [server(number, f"net {number % 3}") for number in sorted(present)]
        is_due = schedule.due(servers) <= now
        chosen = schedule.choose(servers, now)
        assert bool(chosen) == is_due
        assert len({each.network for each in chosen}) == len(chosen) <= CADENCE.panel
        for each in chosen:
            assert now >= asked.get(each, -math.inf) + CADENCE.throttle
            asked[each] = now
            (schedule.answered if answers else schedule.failed)(each, now)
