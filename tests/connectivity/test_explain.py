"""Explanations of made-up situations, beside the table of faults. Rules V20 to V22."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pnet.connectivity.causes import Cause, Finding
from p2pnet.connectivity.explain import (
    PUNCH_SECONDS,
    Acquaintance,
    Explanation,
    Situation,
    explain_host,
    explain_peer,
)
from p2pnet.connectivity.journal import NO_AIM, Aim, Entry, Noted
from p2pnet.connectivity.known import KnownAddress, Source
from p2pnet.connectivity.nat import Mapping, NatClass, Nats
from p2pnet.connectivity.verdict import Status, Verdict
from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    DialFailed,
    PunchAttemptFailed,
    PunchStarted,
    Reachability,
)

ONE, RELAY = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2)
)
HERE, THERE = parse("/ip4/192.168.1.2/tcp/4001"), parse("/ip4/8.8.8.8/tcp/1")
OUTSIDE = parse("/ip4/5.5.5.5/tcp/4001")
DIRECT = ConnectionRef(1, ONE, HERE, THERE, is_inbound=False, is_relayed=False)
RELAYED = replace(DIRECT, number=2, is_relayed=True)


def known(address: object, source: Source, status: Status = Status.UNKNOWN) -> KnownAddress:
    return KnownAddress(parse(str(address)), source, Verdict(status), True, "")


SOUND = Situation(
    now=1000.0,
    interfaces=("127.0.0.1", "192.168.1.2"),
    known=(known(HERE, Source.LISTENING),),
    nat=Nats(NatClass(Mapping.ENDPOINT_INDEPENDENT, observers=3)),
    reachability=Reachability.UNKNOWN,
    connections=(DIRECT,),
    testers=0,
    has_relay=True,
)


def causes(situation: Situation) -> list[Cause]:
    return [finding.cause for finding in explain_host(situation).findings]


# ---- the host ----------------------------------------------------------------------------


def test_of_a_public_host_only_its_grounds_are_looked_at() -> None:
    public = replace(SOUND, reachability=Reachability.PUBLIC, has_relay=False, connections=())
    explanation = explain_host(public)
    assert (explanation.cause, explanation.remedy) == (None, "")
    assert str(explanation).splitlines() == [
        "this host: strangers can dial this host",
        "  NAT, TCP: NAT with endpoint-independent mapping",
    ]


def test_an_address_that_reaches_nobody_is_no_network() -> None:
    for ip in ("127.0.0.1", "::1", "169.254.3.4", "fe80::1"):
        assert causes(replace(SOUND, interfaces=(ip,)))[0] is Cause.NO_NETWORK
    assert Cause.NO_NETWORK not in causes(replace(SOUND, interfaces=("192.0.2.2",)))


def test_while_a_test_or_a_reservation_is_under_way_that_is_said() -> None:
    """V20."""
    assert causes(replace(SOUND, testers=2)) == [Cause.TESTING]
    assert causes(SOUND) == [Cause.NOT_TESTED]
    waiting = replace(SOUND, has_relay=False, wants_relay=True, testers=2)
    assert causes(waiting) == [Cause.RESERVING, Cause.TESTING]


def test_a_forwarded_port_is_tested_before_a_symmetric_nat_is_blamed() -> None:
    """V20."""
    symmetric = replace(
        SOUND,
        nat=Nats(NatClass(Mapping.DEPENDENT, observers=3)),
        reachability=Reachability.PRIVATE,
        known=(*SOUND.known, known(OUTSIDE, Source.MAPPED)),
        testers=2,
    )
    assert causes(symmetric) == [Cause.TESTING, Cause.SYMMETRIC_NAT]
    in_vain = known(OUTSIDE, Source.MAPPED, Status.UNREACHABLE)
    useless = replace(symmetric, known=(*SOUND.known, in_vain))
    assert causes(useless) == [Cause.MAPPING_USELESS, Cause.SYMMETRIC_NAT]


def test_a_missing_relay_comes_before_what_hole_punches_get_through() -> None:
    """V20."""
    private = replace(
        SOUND,
        reachability=Reachability.PRIVATE,
        known=(*SOUND.known, known(OUTSIDE, Source.OBSERVED, Status.UNREACHABLE)),
        has_relay=False,
    )
    assert causes(private) == [Cause.NO_RELAY, Cause.NAT]
    assert causes(replace(private, has_relay=True)) == [Cause.NAT]
    full = {RELAY: Finding(Cause.RELAY_FULL, "full")}
    assert causes(replace(private, wants_relay=True, relay_failures=full)) == [
        Cause.RELAY_FULL,
        Cause.NAT,
    ]


def test_silence_is_offline_and_a_refusal_is_not() -> None:
    """V20."""
    alone = replace(SOUND, connections=(), has_relay=False, wants_relay=True)
    down = {RELAY: Finding(Cause.RELAY_UNREACHABLE, "no answer")}
    silent = replace(alone, relay_failures=down, failures=(Cause.NO_ANSWER, Cause.NAME_SERVERS))
    assert causes(silent) == [Cause.OFFLINE, Cause.RELAY_UNREACHABLE]
    refused = replace(silent, failures=(Cause.NO_ANSWER, Cause.REFUSED))
    assert causes(refused) == [Cause.RELAY_UNREACHABLE]
    resting = replace(silent, failures=(Cause.RESTING,))
    assert causes(resting) == [Cause.RELAY_UNREACHABLE]


def test_blocked_udp_is_told_of_who_listens_over_nothing_else_and_is_seen_nowhere() -> None:
    """V25."""
    over_udp = known("/ip4/192.168.1.2/udp/4001/quic-v1", Source.LISTENING)
    blocked = replace(SOUND, known=(over_udp,), is_silent_over_udp=True, can_punch=False)
    assert causes(blocked) == [Cause.UDP_BLOCKED, Cause.NOT_TESTED]
    others = (
        replace(blocked, is_silent_over_udp=False),
        replace(blocked, can_punch=True),
        replace(blocked, known=(over_udp, *SOUND.known)),
    )
    for each in others:
        assert Cause.UDP_BLOCKED not in causes(each)
    unlucky = entry(PunchAttemptFailed, Cause.NO_PUNCH_ADDRESS)
    assert relayed(situation=blocked) is relayed(unlucky, situation=blocked) is Cause.UDP_BLOCKED
    assert relayed(unlucky, situation=others[0]) is Cause.NO_PUNCH_ADDRESS
    unanswered = entry(PunchAttemptFailed, Cause.PUNCH_UNANSWERED)
    assert relayed(unanswered, situation=blocked) is Cause.PEER_SYMMETRIC


# ---- a peer ------------------------------------------------------------------------------


def entry(
    kind: type[Noted],
    cause: Cause | None = None,
    *,
    time: float = 1.0,
    relays: tuple[PeerId, ...] = (),
) -> Entry:
    return Entry(time, kind, "words", cause and Finding(cause, "detail"), relays)


def peer(*entries: Entry, connections: tuple[ConnectionRef, ...] = ()) -> Acquaintance:
    return Acquaintance(
        peer_id=ONE,
        addresses=(),
        protocols=frozenset({"/libp2p/dcutr"}),
        connections=connections,
        entries=entries,
    )


def explained(*entries: Entry, situation: Situation = SOUND) -> Explanation:
    return explain_peer(peer(*entries), situation)


def test_a_peer_that_nobody_dialled_has_no_fault() -> None:
    assert explained().state == "not connected; nobody has tried to dial it"
    closed = explained(entry(ConnectionOpened), entry(ConnectionClosed))
    assert closed.state == "not connected; this host closed the connection"
    assert closed.cause is None


def test_the_last_word_counts_but_for_a_rest() -> None:
    """V21."""
    lost, refused = entry(ConnectionClosed, Cause.HUNG_UP), entry(DialFailed, Cause.REFUSED)
    resting = entry(DialFailed, Cause.RESTING)
    assert explained(refused, lost).cause is Cause.HUNG_UP
    assert explained(lost, refused).cause is Cause.REFUSED
    assert explained(refused, resting, resting).cause is Cause.REFUSED
    assert explained(resting).cause is Cause.RESTING


def test_an_unanswered_circuit_is_the_fault_of_the_relay_if_that_is_not_connected() -> None:
    """V21."""
    silent = entry(DialFailed, Cause.NO_ANSWER, relays=(RELAY,))
    assert explained(silent).cause is Cause.RELAY_UNREACHABLE
    connected = replace(SOUND, connections=(replace(DIRECT, peer_id=RELAY),))
    assert explained(silent, situation=connected).cause is Cause.RELAY_LOST_PEER
    over_another = replace(SOUND, connections=(replace(RELAYED, peer_id=RELAY),))
    assert explained(silent, situation=over_another).cause is Cause.RELAY_UNREACHABLE


def test_a_connected_relay_that_refuses_is_told_as_such() -> None:
    full = replace(SOUND, relay_failures={ONE: Finding(Cause.RELAY_FULL, "full")})
    assert explain_peer(peer(connections=(DIRECT,)), full).cause is Cause.RELAY_FULL
    well = explain_peer(peer(connections=(DIRECT, RELAYED)), SOUND)
    assert (well.cause, well.state) == (None, f"connected directly, at {THERE}")


def relayed(
    *entries: Entry, situation: Situation = SOUND, inbound: bool = False, aim: Aim | None = None
) -> Cause | None:
    ref = replace(RELAYED, is_inbound=inbound)
    there = replace(peer(*entries, connections=(ref,)), aim=aim or NO_AIM)
    return explain_peer(there, situation).cause


def test_a_hole_punch_that_has_not_begun_is_waited_for() -> None:
    """V22."""
    opened = entry(ConnectionOpened, time=SOUND.now - 1)
    assert relayed(opened) is Cause.PUNCH_PENDING
    long_ago = entry(ConnectionOpened, time=SOUND.now - PUNCH_SECONDS)
    assert relayed(long_ago) is Cause.NO_PUNCH_ADDRESS
    assert relayed(long_ago, inbound=True) is Cause.PUNCH_PENDING
    assert relayed(long_ago, entry(PunchStarted)) is Cause.PUNCH_PENDING
    assert relayed(opened, situation=replace(SOUND, can_punch=False)) is Cause.NO_PUNCH_ADDRESS


@pytest.mark.parametrize(
    ("mapping", "cause"),
    [
        (Mapping.DEPENDENT, Cause.OWN_SYMMETRIC),
        (Mapping.ENDPOINT_INDEPENDENT, Cause.PEER_SYMMETRIC),
        (Mapping.NONE, Cause.PEER_SYMMETRIC),
        (Mapping.UNKNOWN, Cause.PUNCH_UNANSWERED),
    ],
)
def test_an_unanswered_punch_is_blamed_on_a_nat_as_far_as_one_is_known(
    mapping: Mapping, cause: Cause
) -> None:
    """V22."""
    situation = replace(SOUND, nat=Nats(NatClass(mapping)))
    assert relayed(entry(PunchAttemptFailed), situation=situation) is cause
    unanswered = entry(PunchAttemptFailed, Cause.PUNCH_UNANSWERED)
    assert relayed(unanswered, situation=situation) is cause


LISTENED_BY_QUIC = parse("/ip4/192.168.1.7/udp/4001/quic-v1")
TCP, QUIC = parse("/ip4/6.6.6.6/tcp/1"), parse("/ip4/6.6.6.6/udp/1/quic-v1")


@pytest.mark.parametrize(
    ("targets", "steady", "cause"),
    [
        ((TCP,), {"tcp"}, Cause.SIMULTANEOUS_OPEN),
        ((TCP,), {"tcp", "udp"}, Cause.SIMULTANEOUS_OPEN),
        ((TCP,), {"udp"}, Cause.PEER_SYMMETRIC),
        ((TCP, QUIC), {"tcp"}, Cause.PEER_SYMMETRIC),
        ((TCP, QUIC), {"tcp", "udp"}, Cause.PUNCH_UNANSWERED),
        ((QUIC,), {"udp"}, Cause.PUNCH_UNANSWERED),
        ((), {"tcp"}, Cause.PEER_SYMMETRIC),
    ],
)
def test_a_peer_whose_ports_all_see_at_one_place_is_not_behind_a_symmetric_nat(
    targets: tuple[Multiaddr, ...], steady: set[str], cause: Cause
) -> None:
    """V22."""
    aim = Aim(targets, frozenset(steady))
    both = replace(SOUND, known=(*SOUND.known, known(LISTENED_BY_QUIC, Source.LISTENING)))
    assert relayed(entry(PunchAttemptFailed), aim=aim, situation=both) is cause
    symmetric = replace(both, nat=Nats(NatClass(Mapping.DEPENDENT)))
    assert relayed(entry(PunchAttemptFailed), aim=aim, situation=symmetric) is Cause.OWN_SYMMETRIC


@pytest.mark.parametrize("target", [QUIC, parse("/ip6/2600::6/tcp/1")])
@pytest.mark.parametrize("mapping", [Mapping.ENDPOINT_INDEPENDENT, Mapping.DEPENDENT])
def test_no_nat_is_blamed_where_nothing_was_punched_at_that_this_host_speaks(
    target: Multiaddr, mapping: Mapping
) -> None:
    """V22: SOUND listens by TCP over IPv4."""
    situation = replace(SOUND, nat=Nats(NatClass(mapping)))
    failed, aim = entry(PunchAttemptFailed), Aim((target,), frozenset({"tcp", "udp"}))
    assert relayed(failed, aim=aim, situation=situation) is Cause.NO_COMMON_WAY
    also = Aim((target, TCP), aim.steady)
    assert relayed(failed, aim=also, situation=situation) is not Cause.NO_COMMON_WAY


def test_a_peer_at_the_same_ip_is_not_behind_a_symmetric_nat_for_that() -> None:
    """V22."""
    situation = replace(SOUND, known=(*SOUND.known, known(OUTSIDE, Source.OBSERVED)))
    beside = Aim((parse("/ip4/5.5.5.5/tcp/9"),), frozenset({"tcp"}))
    failed = entry(PunchAttemptFailed)
    assert relayed(failed, situation=situation, aim=beside) is Cause.PUNCH_UNANSWERED
    lent = replace(SOUND, known=(*SOUND.known, known(OUTSIDE, Source.RELAY)))
    assert relayed(failed, situation=lent, aim=beside) is Cause.SIMULTANEOUS_OPEN


def test_what_else_fails_a_punch_is_told_as_it_is() -> None:
    """V22."""
    assert relayed(entry(PunchAttemptFailed, Cause.NOTHING_IN_COMMON)) is Cause.NO_DCUTR
    assert relayed(entry(PunchAttemptFailed, Cause.MISBEHAVES)) is Cause.MISBEHAVES
    assert relayed(entry(PunchAttemptFailed, Cause.NO_ANSWER)) is Cause.NO_ANSWER
    assert relayed(situation=replace(SOUND, speaks_dcutr=False)) is Cause.NO_OWN_DCUTR


def test_who_breaks_off_the_conversation_and_stays_connected_has_no_address_to_offer() -> None:
    """V22."""
    assert relayed(entry(PunchAttemptFailed, Cause.HUNG_UP)) is Cause.NO_PUNCH_ADDRESS


def test_an_explanation_reads_as_cause_and_remedy() -> None:
    told = str(explained(entry(DialFailed, Cause.REFUSED)))
    assert told.splitlines()[1:] == [
        "  nobody listens at that port: detail",
        "    see whether the peer runs, and whether the port is right",
    ]
