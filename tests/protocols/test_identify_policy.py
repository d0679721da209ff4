"""What identify believes, what it tells, and how often it listens."""

from __future__ import annotations

import pytest

from p2pnet.core.addresses import Multiaddr, Scope, encode, parse, scope, with_peer
from p2pnet.core.envelope import PeerRecord, seal_peer_record
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.events import ConnectionRef, PeerIdentified
from p2pnet.protocols.identify.messages import IdentifyMessage
from p2pnet.protocols.identify.policy import (
    PushLimiter,
    check_key,
    is_evidence,
    merged,
    next_sequence,
    observed_by_us,
    own_addresses,
    ports_of,
    read_observed,
    sensible_addresses,
    told_addresses,
)

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
PEER, US, OTHER, RELAY = (PeerId.from_public_key(key.public_key) for key in KEYS)
PUBLIC = "/ip4/11.0.0.1/tcp/4001"
PRIVATE = "/ip4/192.168.1.7/tcp/4001"
QUIC = "/ip4/11.0.0.1/udp/61000/quic-v1"
LOOPBACK = "/ip4/127.0.0.1/tcp/4001"
CIRCUIT = f"/ip4/11.9.9.9/tcp/4001/p2p/{RELAY}/p2p-circuit"


def sensible(*told: str, seen_from: str = PUBLIC, maximum: int = 100) -> list[str]:
    raw = [encode(parse(text)) for text in told]
    found = sensible_addresses(
        raw, peer_id=PEER, own_id=US, seen_from=scope(parse(seen_from)), maximum=maximum
    )
    return [str(address) for address in found]


# ---- keys and records ------------------------------------------------------------------------


def test_the_key_told_must_be_the_key_of_the_connection() -> None:
    """I4."""
    check_key(IdentifyMessage(public_key=KEYS[0].public_key.encode()), PEER)
    check_key(IdentifyMessage(), PEER)
    with pytest.raises(ProtocolError, match="not that of"):
        check_key(IdentifyMessage(public_key=KEYS[1].public_key.encode()), PEER)
    with pytest.raises(ProtocolError):
        check_key(IdentifyMessage(public_key=b"no key"), PEER)


def record(key: PrivateKey, sequence: int = 7) -> bytes:
    peer_id = PeerId.from_public_key(key.public_key)
    return seal_peer_record(key, PeerRecord(peer_id, sequence, (b"signed",)))


def newer(peer_id: PeerId, sequence: int) -> bool:
    return sequence > 6


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        (None, (b"plain",)),
        (record(KEYS[0]), (b"signed",)),
        (record(KEYS[0], sequence=6), (b"plain",)),
        (record(KEYS[0])[:-1] + b"\x00", (b"plain",)),
        (b"garbage", (b"plain",)),
        (record(KEYS[2]), ()),
    ],
    ids=["none", "valid", "old", "forged", "garbage", "of another peer"],
)
def test_a_valid_new_record_replaces_the_plain_addresses(
    signed: bytes | None, expected: tuple[bytes, ...]
) -> None:
    """I7."""
    message = IdentifyMessage(addresses=(b"plain",), signed_record=signed)
    assert told_addresses(message, PEER, newer) == expected


def test_the_signature_of_a_record_that_says_the_same_is_not_checked() -> None:
    """I7."""
    forged = record(KEYS[0])[:-1] + b"\x00"
    message = IdentifyMessage(addresses=(b"signed",), signed_record=forged)
    asked: list[int] = []

    def accept(peer_id: PeerId, sequence: int) -> bool:
        asked.append(sequence)
        return True

    assert told_addresses(message, PEER, accept) == (b"signed",)
    genuine = IdentifyMessage(addresses=(b"signed",), signed_record=record(KEYS[0]))
    assert told_addresses(genuine, PEER, accept) == (b"signed",)
    other = IdentifyMessage(addresses=(b"signed",), signed_record=record(KEYS[2]))
    assert told_addresses(other, PEER, accept) == ()
    assert asked == []


# ---- addresses of peers ----------------------------------------------------------------------


def test_the_peers_own_name_is_taken_off_and_other_names_do_not_pass() -> None:
    """I8."""
    assert sensible(f"{PUBLIC}/p2p/{PEER}", PUBLIC) == [PUBLIC]
    assert sensible(f"{PUBLIC}/p2p/{OTHER}") == []
    assert sensible(f"{PUBLIC}/p2p/{OTHER}/p2p/{PEER}") == []
    assert sensible(f"/p2p/{PEER}") == []


def test_circuits_are_kept_if_they_lead_to_the_peer() -> None:
    """I8."""
    assert sensible(CIRCUIT, f"{CIRCUIT}/p2p/{PEER}") == [CIRCUIT]
    assert sensible(f"/p2p/{RELAY}/p2p-circuit") == [f"/p2p/{RELAY}/p2p-circuit"]
    assert sensible(f"{CIRCUIT}/p2p/{OTHER}") == []
    assert sensible(f"{CIRCUIT}/p2p/{PEER}/p2p-circuit") == []
    assert sensible(f"{PUBLIC}/p2p/{PEER}/p2p-circuit") == []
    assert sensible(f"{PUBLIC}/p2p/{US}/p2p-circuit") == []


@pytest.mark.parametrize(
    ("seen_from", "kept"),
    [
        (LOOPBACK, [PUBLIC, PRIVATE, LOOPBACK]),
        ("/ip4/10.0.0.1/tcp/1", [PUBLIC, PRIVATE]),
        (PUBLIC, [PUBLIC]),
        (CIRCUIT, [PUBLIC]),
        (f"{PRIVATE}/p2p/{RELAY}/p2p-circuit", [PUBLIC, PRIVATE]),
        ("/ip4/203.0.113.1/tcp/1", [PUBLIC]),
    ],
)
def test_where_a_peer_connects_from_says_which_addresses_make_sense(
    seen_from: str, kept: list[str]
) -> None:
    """I9."""
    assert sensible(PUBLIC, PRIVATE, LOOPBACK, seen_from=seen_from) == kept


@pytest.mark.parametrize(
    "nonsense",
    [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/11.0.0.1/tcp/0",
        "/ip4/224.0.0.1/tcp/1",
        "/ip6/::/tcp/1",
        "/ip6/::ffff:10.0.0.1/tcp/1",
        "/dns4/localhost/tcp/1",
        f"{PRIVATE}/p2p/{RELAY}/p2p-circuit",
    ],
)
def test_addresses_that_lead_nowhere_are_dropped(nonsense: str) -> None:
    """I9."""
    assert sensible(nonsense, PUBLIC) == [PUBLIC]


def test_other_transports_and_names_are_kept_for_whoever_can_dial_them() -> None:
    others = ["/ip4/11.0.0.1/udp/4001/quic-v1", "/dns4/example.com/tcp/443/tls/ws"]
    assert sensible(*others) == others


def test_bytes_that_are_no_address_and_addresses_over_the_limit_are_dropped() -> None:
    raw = [b"\xff", b"", *(encode(parse(f"/ip4/11.0.0.1/tcp/{port}")) for port in range(1, 9))]
    found = sensible_addresses(raw, peer_id=PEER, own_id=US, seen_from=Scope.PUBLIC, maximum=3)
    assert [str(address) for address in found] == [
        f"/ip4/11.0.0.1/tcp/{port}" for port in (1, 2, 3)
    ]


# ---- where peers see us ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (PUBLIC, PUBLIC),
        (f"{PUBLIC}/p2p/{US}", PUBLIC),
        (f"{PUBLIC}/p2p/{OTHER}", None),
        (CIRCUIT, None),
    ],
)
def test_an_observation_may_bear_our_name_and_no_other(told: str, read: str | None) -> None:
    """I10."""
    observed = read_observed(IdentifyMessage(observed_address=encode(parse(told))), US)
    assert (observed and str(observed)) == read


def test_an_observation_that_is_none() -> None:
    assert read_observed(IdentifyMessage(), US) is None
    assert read_observed(IdentifyMessage(observed_address=b"\xff"), US) is None


@pytest.mark.parametrize(
    ("observed", "local", "remote", "counts"),
    [
        (PUBLIC, PRIVATE, "/ip4/11.0.0.2/tcp/1", True),
        ("/ip6/2a00::1/tcp/9", "/ip6/2a00::2/tcp/4001", "/ip6/2a00::3/tcp/1", True),
        ("/ip4/10.0.0.9/tcp/4001", PRIVATE, "/ip4/10.0.0.1/tcp/1", True),
        # From any port, of another family, or dressed up.
        (PUBLIC, "/ip4/192.168.1.7/tcp/50000", "/ip4/11.0.0.2/tcp/1", False),
        ("/ip6/2a00::1/tcp/9", PRIVATE, "/ip4/11.0.0.2/tcp/1", False),
        ("/ip6/64:ff9b::b00:1/tcp/9", "/ip6/2a00::2/tcp/4001", "/ip6/2a00::3/tcp/1", False),
        # Of the wrong scope.
        (LOOPBACK, LOOPBACK, "/ip4/127.0.0.1/tcp/1", False),
        (PUBLIC, PRIVATE, "/ip4/10.0.0.1/tcp/1", False),
        ("/ip4/10.0.0.9/tcp/4001", PRIVATE, "/ip4/11.0.0.2/tcp/1", False),
        ("/ip4/203.0.113.1/tcp/4001", PRIVATE, "/ip4/203.0.113.2/tcp/1", False),
        # What says nothing of this connection's port.
        ("/ip4/11.0.0.1/tcp/0", PRIVATE, "/ip4/11.0.0.2/tcp/1", False),
        ("/ip4/11.0.0.1/udp/4001/quic-v1", PRIVATE, "/ip4/11.0.0.2/tcp/1", False),
        ("/dns4/example.com/tcp/4001", PRIVATE, "/ip4/11.0.0.2/tcp/1", False),
        (PUBLIC, "/ip4/192.168.1.7/udp/4001/quic-v1", "/ip4/11.0.0.2/tcp/1", False),
        (QUIC, "/ip4/192.168.1.7/udp/4001/quic-v1", "/ip4/11.0.0.2/udp/1/quic-v1", False),
        # Whatever is spoken on the port.
        (QUIC, "/ip4/192.168.1.7/udp/4002/quic-v1", "/ip4/11.0.0.2/udp/1/quic-v1", True),
        (f"{PUBLIC}/ws", f"{PRIVATE}/ws", "/ip4/11.0.0.2/tcp/1/ws", True),
    ],
)
def test_what_counts_as_evidence(observed: str, local: str, remote: str, counts: bool) -> None:
    """I11."""
    ports = {("tcp", 4001), ("udp", 4002)}
    verdict = is_evidence(
        parse(observed), local=parse(local), remote=parse(remote), listening=ports
    )
    assert verdict is counts


def test_the_ports_listened_on_are_those_of_direct_addresses() -> None:
    advertised = [parse(f"{PRIVATE}/p2p/{US}"), parse("/ip4/11.0.0.1/tcp/7/p2p/" + str(US))]
    circuit = parse(f"/ip4/11.9.9.9/tcp/9/p2p/{RELAY}/p2p-circuit/p2p/{US}")
    assert ports_of([*advertised, circuit]) == {("tcp", 4001), ("tcp", 7)}


def test_a_peer_hears_where_we_see_it() -> None:
    """I12."""
    assert observed_by_us(parse(PUBLIC), PEER) == encode(parse(PUBLIC))
    assert observed_by_us(parse(f"{PUBLIC}/p2p/{PEER}"), PEER) == encode(parse(PUBLIC))
    assert observed_by_us(parse(CIRCUIT), PEER) == encode(parse(CIRCUIT))


# ---- what we tell ----------------------------------------------------------------------------


def own(*texts: str, told_to: Scope = Scope.LOOPBACK, max_bytes: int = 1500) -> list[Multiaddr]:
    addresses = [parse(text) for text in texts]
    told = own_addresses(addresses, own_id=US, told_to=told_to, max_bytes=max_bytes)
    return [Multiaddr(data) for data in told]


def test_the_most_useful_addresses_are_told_first_and_without_our_name() -> None:
    """I6."""
    told = own(
        f"{LOOPBACK}/p2p/{US}", f"{PRIVATE}/p2p/{US}", f"{CIRCUIT}/p2p/{US}", f"{PUBLIC}/p2p/{US}"
    )
    assert [str(address) for address in told] == [PUBLIC, CIRCUIT, PRIVATE, LOOPBACK]


@pytest.mark.parametrize(
    ("told_to", "expected"),
    [
        (Scope.LOOPBACK, [PUBLIC, CIRCUIT, PRIVATE, LOOPBACK]),
        (Scope.PRIVATE, [PUBLIC, CIRCUIT, PRIVATE]),
        (Scope.PUBLIC, [PUBLIC, CIRCUIT]),
        (Scope.UNROUTABLE, [PUBLIC, CIRCUIT]),
    ],
)
def test_nobody_is_told_of_a_network_in_which_he_is_not(
    told_to: Scope, expected: list[str]
) -> None:
    """I17."""
    told = own(LOOPBACK, PRIVATE, CIRCUIT, PUBLIC, told_to=told_to)
    assert [str(address) for address in told] == expected


def test_addresses_that_do_not_fit_are_left_out_the_least_useful_first() -> None:
    """I6."""
    many = [str(with_peer(parse(f"/ip4/10.0.0.1/tcp/{port}"), US)) for port in range(1, 500)]
    told = own(*many, PUBLIC, max_bytes=110)
    assert [str(address) for address in told][:2] == [PUBLIC, "/ip4/10.0.0.1/tcp/1"]
    assert len(told) == 10


def test_sequence_numbers_only_grow() -> None:
    """I6."""
    first = next_sequence(1_800_000_000.5, 0)
    assert first == 1_800_000_000_500_000_000
    assert next_sequence(1_800_000_000.5, first) == first + 1
    assert next_sequence(5.0, first) == first + 1


# ---- pushes ----------------------------------------------------------------------------------


def told(*, pushed: bool, protocols: tuple[str, ...] = (), agent: str = "") -> PeerIdentified:
    ref = ConnectionRef(1, PEER, parse(PRIVATE), parse(PUBLIC), True, False)
    addresses = (parse(PUBLIC),) if protocols else ()
    return PeerIdentified(ref, agent, "", protocols, addresses, None, pushed)


def test_what_a_push_leaves_out_stays_as_it_was() -> None:
    """I15."""
    before = told(pushed=False, protocols=("/x",), agent="old")
    after = merged(told(pushed=True, agent="new"), before)
    assert (after.protocols, after.addresses) == (before.protocols, before.addresses)
    assert (after.agent_version, after.pushed) == ("new", True)
    assert merged(told(pushed=True, protocols=("/y",)), before).protocols == ("/y",)


def test_an_answer_replaces_all() -> None:
    """I15."""
    before = told(pushed=False, protocols=("/x",))
    assert merged(told(pushed=False), before).protocols == ()
    assert merged(told(pushed=True), None).protocols == ()


def test_a_peer_may_push_in_a_burst_and_then_slowly() -> None:
    """I14."""
    limiter = PushLimiter(burst=3, interval=5.0, max_peers=10)
    assert [limiter.allow(PEER, 100.0) for _ in range(4)] == [True, True, True, False]
    assert limiter.allow(OTHER, 100.0)
    assert not limiter.allow(PEER, 104.9)
    assert limiter.allow(PEER, 105.1)
    assert not limiter.allow(PEER, 105.2)
    assert [limiter.allow(PEER, 1000.0) for _ in range(4)] == [True, True, True, False]


def test_the_peers_that_are_counted_are_bounded() -> None:
    """I14."""
    limiter = PushLimiter(burst=1, interval=5.0, max_peers=2)
    assert all(limiter.allow(peer, 0.0) for peer in (PEER, OTHER, RELAY))
    assert len(limiter) == 2
    assert not limiter.allow(RELAY, 0.0)
