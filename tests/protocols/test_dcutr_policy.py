"""Whom DCUtR dials, in which role, and when it leaves a peer alone."""

from __future__ import annotations

import pytest

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.policy import (
    CONVERSATION_GAP,
    MAX_DESERTED,
    MAX_TARGET_IPS,
    MAX_TARGETS,
    REST_SPREAD,
    Conversations,
    CoolDown,
    dials_in,
    first_attempt,
    gives_way,
    longest_pause,
    offered,
    patience,
    role_of,
    targets,
)

PEER, OTHER, THIRD = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)
    for number in (1, 2, 3)
)
GOOD = "/ip4/11.0.0.1/tcp/1"


def chosen(*texts: str, own: str = "/ip4/11.0.0.9/tcp/9", allow_private: bool = False) -> list[str]:
    found = targets(
        [parse(text) for text in texts],
        peer_id=PEER,
        own=[parse(own)],
        allow_private=allow_private,
    )
    return [str(address) for address in found]


def test_the_peers_name_is_taken_off_and_no_other_passes() -> None:
    """D6: rust-libp2p puts its name behind each address, go-libp2p does not."""
    assert chosen(f"{GOOD}/p2p/{PEER}", GOOD) == [GOOD]
    assert chosen(f"{GOOD}/p2p/{OTHER}") == []


@pytest.mark.parametrize(
    "aimed",
    [
        "/ip4/192.168.1.1/tcp/1",
        "/ip4/100.64.0.1/tcp/1",
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/203.0.113.1/tcp/1",
        "/ip4/11.0.0.1/tcp/0",
        "/ip6/::1/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6/::ffff:192.168.1.1/tcp/1",
        "/ip6/64:ff9b::c0a8:101/tcp/1",
        "/ip4/11.0.0.1/udp/1",
        "/ip4/11.0.0.1/udp/1/quic-v1/webtransport",
        "/ip4/11.0.0.1/udp/0/quic-v1",
        "/ip4/192.168.1.1/udp/1/quic-v1",
        "/ip4/11.0.0.1/tcp/1/ws",
        "/dns4/example.com/tcp/1",
        f"/ip4/11.0.0.1/tcp/1/p2p/{OTHER}/p2p-circuit",
        f"/ip4/11.0.0.1/tcp/1/p2p/{OTHER}/p2p-circuit/p2p/{PEER}",
        "/ip4/11.0.0.9/tcp/9",
        f"/ip4/11.0.0.9/tcp/9/p2p/{PEER}",
    ],
)
def test_nobody_aims_us_at_anything_but_public_tcp_and_quic_of_others(aimed: str) -> None:
    """D6."""
    assert chosen(aimed, GOOD) == [GOOD]


def test_quic_is_punched_beside_tcp() -> None:
    """D6."""
    quic = "/ip4/11.0.0.1/udp/1/quic-v1"
    assert chosen(quic, GOOD, f"{quic}/p2p/{PEER}") == [quic, GOOD]
    assert chosen("/ip4/11.0.0.9/udp/9/quic-v1") == ["/ip4/11.0.0.9/udp/9/quic-v1"]


def test_private_addresses_pass_where_that_is_wanted() -> None:
    private = ["/ip4/192.168.1.1/tcp/1", "/ip4/127.0.0.1/tcp/1"]
    assert chosen(*private, "/ip4/0.0.0.0/tcp/1", allow_private=True) == private


def test_another_port_of_our_own_address_may_be_a_neighbour() -> None:
    assert chosen("/ip4/11.0.0.9/tcp/10") == ["/ip4/11.0.0.9/tcp/10"]


def test_few_addresses_on_few_ips_are_dialled() -> None:
    """D7."""
    spread = [f"/ip4/11.0.0.{number}/tcp/1" for number in range(20, 40)]
    assert chosen(*spread) == spread[:MAX_TARGET_IPS]
    ports = [f"/ip4/11.0.0.1/tcp/{port}" for port in range(1, 40)]
    assert chosen(*ports) == ports[:MAX_TARGETS]


def test_the_responder_is_the_dialer_until_the_third_attempt() -> None:
    """D9."""
    roles = [(role_of(n, initiator=True), role_of(n, initiator=False)) for n in (1, 2, 3, 4)]
    usual = (Role.LISTENER, Role.DIALER)
    swapped = (Role.DIALER, Role.LISTENER)
    assert roles == [usual, usual, swapped, swapped]


def test_between_two_of_us_the_initiator_dials_every_other_time() -> None:
    """D9."""
    for attempt, role in ((1, Role.LISTENER), (2, Role.DIALER), (3, Role.LISTENER)):
        dials = dials_in(attempt)
        assert role_of(attempt, initiator=True, dials=dials) is role
        assert role_of(attempt, initiator=False, dials=dials) is not role


def test_a_first_attempt_with_more_to_come_waits_for_a_third_syn_but_no_longer_than_any() -> None:
    """D10."""
    assert first_attempt(0.25, 10.0) == 4.25
    assert first_attempt(5.0, 10.0) == 10.0


def test_pauses_last_a_round_trip_at_most_within_bounds() -> None:
    """D10."""
    assert longest_pause(0.2, 0.01) == 0.2
    assert longest_pause(0.0, 0.01) == 0.01
    assert longest_pause(60.0, 0.01) == 5.0


def test_a_dialer_has_a_quarter_of_a_round_trip_to_show_itself_within_bounds() -> None:
    """D15."""
    assert patience(0.3) == 0.075
    assert patience(0.0) == 0.05
    assert patience(60.0) == 1.0


def test_of_two_that_initiate_one_gives_way() -> None:
    """D13."""
    assert gives_way(PEER, OTHER) != gives_way(OTHER, PEER)
    assert gives_way(max(PEER, OTHER), min(PEER, OTHER))


def test_conversations_are_counted_as_the_initiator_does() -> None:
    """D9."""
    heard = Conversations()
    assert [heard.begin(now) for now in (100.0, 112.0, 124.0)] == [1, 2, 3]
    heard.reasons.append("it failed")
    assert heard.begin(124.0 + CONVERSATION_GAP) == 4
    assert heard.begin(200.0 + CONVERSATION_GAP) == 1
    assert heard.reasons == []


def test_rests_double_up_to_a_bound_and_end_with_a_success() -> None:
    """D12."""
    cool = CoolDown(first=60.0, longest=200.0, max_peers=10)
    assert cool.remaining(PEER, 0.0) == 0.0
    rests = []
    for _ in range(4):
        cool.failed(PEER, 1000.0, 1.0)
        rests.append(cool.remaining(PEER, 1000.0))
    assert rests == [60.0, 120.0, 200.0, 200.0]
    assert cool.remaining(PEER, 1150.0) == 50.0
    assert cool.remaining(PEER, 5000.0) == 0.0
    assert cool.remaining(OTHER, 1000.0) == 0.0
    cool.worked(PEER)
    assert cool.remaining(PEER, 1000.0) == 0.0
    cool.failed(PEER, 1000.0, 1.0)
    assert cool.remaining(PEER, 1000.0) == 60.0


def test_a_rest_is_as_much_longer_as_was_drawn() -> None:
    """D12."""
    cool = CoolDown(first=60.0, longest=3600.0, max_peers=10)
    cool.failed(PEER, 0.0, 1.5)
    cool.failed(OTHER, 0.0, 1.0)
    assert cool.remaining(PEER, 0.0) == 90.0
    assert cool.remaining(OTHER, 0.0) == 60.0
    cool.failed(PEER, 100.0, 1.25)
    assert cool.remaining(PEER, 100.0) == 150.0


def test_what_follows_a_rest_is_no_fourth_attempt_to_the_peer() -> None:
    """D9 D12."""
    shortest, longest = REST_SPREAD
    assert DCUtR().cool_down * shortest > CONVERSATION_GAP
    assert longest > shortest


def test_a_peer_that_always_fails_rests_for_a_finite_time() -> None:
    cool = CoolDown(first=60.0, longest=3600.0, max_peers=10)
    for _ in range(2000):
        cool.failed(PEER, 0.0, 1.0)
    assert cool.remaining(PEER, 0.0) == 3600.0


def test_giving_way_is_no_failure() -> None:
    """D13."""
    cool = CoolDown(first=60.0, longest=200.0, max_peers=10)
    cool.yielded(PEER, 0.0)
    assert cool.remaining(PEER, 0.0) == 60.0
    cool.failed(PEER, 100.0, 1.0)
    assert cool.remaining(PEER, 100.0) == 60.0
    cool.failed(PEER, 200.0, 1.0)
    cool.yielded(PEER, 200.0)
    assert cool.remaining(PEER, 200.0) == 120.0


def test_procedures_that_ended_with_the_circuit_are_a_failure_together() -> None:
    """D12."""
    cool = CoolDown(first=60.0, longest=200.0, max_peers=10)
    rests = []
    for _ in range(2 * MAX_DESERTED):
        cool.failed(PEER, 1000.0, 1.0, is_deserted=True)
        rests.append(cool.remaining(PEER, 1000.0))
    assert rests == [0.0, 0.0, 60.0, 60.0, 60.0, 120.0]
    cool.failed(OTHER, 0.0, 1.0, is_deserted=True)
    cool.failed(OTHER, 0.0, 1.0)
    assert cool.remaining(OTHER, 0.0) == 60.0


def test_the_peers_that_rest_are_bounded() -> None:
    """D12."""
    cool = CoolDown(first=60.0, longest=200.0, max_peers=2)
    cool.failed(PEER, 0.0, 1.0)
    cool.yielded(OTHER, 0.0)
    cool.failed(THIRD, 0.0, 1.0)
    assert len(cool) == 2
    assert cool.remaining(PEER, 0.0) == 0.0


def test_what_is_offered_bears_no_name_and_nothing_twice() -> None:
    named = parse(f"{GOOD}/p2p/{PEER}")
    assert [str(address) for address in offered([named, parse(GOOD)])] == [GOOD]
