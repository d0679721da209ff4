"""What a relay grants, to its limits, and what a client makes of it.

specs/relay.md R6, R8, R10, R11, R14, R15, R16, R17, R18, R24.
"""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pnet.core.addresses import Multiaddr, encode, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.interfaces import CircuitLimit
from p2pnet.protocols.relay.messages import Limit, Reservation, Status
from p2pnet.protocols.relay.policy import (
    MAX_OFFERED_ADDRESSES,
    MAX_OFFERED_BYTES,
    Call,
    Circuits,
    Pending,
    Reservations,
    backoff,
    circuit_addresses,
    circuit_limit,
    lifetime,
    limit_on_wire,
    offered_addresses,
    prefix_of,
)


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + bytes([number]) * 32)


RELAY = peer(99)
PUBLIC = parse("/ip4/1.2.3.4/tcp/4001")
PRIVATE = parse("/ip4/192.168.1.5/tcp/4001")
LOOPBACK = parse("/ip4/127.0.0.1/tcp/4001")


def full(address: Multiaddr) -> Multiaddr:
    return parse(f"{address}/p2p/{RELAY}")


# ---- reservations ------------------------------------------------------------------------


def test_r15_a_full_relay_refuses_one_more_but_renews() -> None:
    held = Reservations(max_total=2, max_per_prefix=8, seconds=100)
    assert held.reserve(peer(1), "a", 0) is None
    assert held.reserve(peer(2), "b", 0) is None
    refusal = held.reserve(peer(3), "c", 0)
    assert refusal is not None
    assert refusal.status is Status.RESERVATION_REFUSED
    assert "max_reservations = 2" in refusal.reason
    assert not held.holds(peer(3), 0)
    assert held.reserve(peer(1), "a", 50) is None
    assert len(held) == 2
    assert held.drop(peer(2))
    assert held.reserve(peer(3), "c", 60) is None


def test_r15_reservations_of_one_network_are_counted_together() -> None:
    held = Reservations(max_total=100, max_per_prefix=2, seconds=100)
    assert held.reserve(peer(1), "a", 0) is None
    assert held.reserve(peer(2), "a", 0) is None
    refusal = held.reserve(peer(3), "a", 0)
    assert refusal is not None
    assert "max_reservations_per_prefix = 2" in refusal.reason
    assert held.reserve(peer(2), "a", 0) is None
    assert held.reserve(peer(3), "b", 0) is None
    # A renewal from another place counts there, and frees the old one.
    assert held.reserve(peer(1), "b", 0) is None
    assert held.reserve(peer(4), "b", 0) is not None
    assert held.reserve(peer(4), "a", 0) is None


def test_r15_a_peer_without_an_ip_gets_no_reservation() -> None:
    held = Reservations(max_total=1, max_per_prefix=1, seconds=100)
    refusal = held.reserve(peer(1), None, 0)
    assert refusal is not None
    assert refusal.status is Status.RESERVATION_REFUSED


def test_r14_a_refused_renewal_leaves_the_old_reservation_until_it_expires() -> None:
    held = Reservations(max_total=2, max_per_prefix=1, seconds=100)
    assert held.reserve(peer(1), "a", 0) is None
    assert held.reserve(peer(2), "b", 0) is None
    assert held.reserve(peer(1), "b", 50) is not None
    assert held.holds(peer(1), 99.9)
    assert not held.holds(peer(1), 100)


def test_r16_a_reservation_ends_on_time_and_not_before() -> None:
    held = Reservations(max_total=9, max_per_prefix=9, seconds=100)
    assert held.next_expiry() == math.inf
    held.reserve(peer(1), "a", 0)
    held.reserve(peer(2), "a", 10)
    assert held.next_expiry() == 100
    assert held.drop_expired(99.9) == ()
    assert held.drop_expired(100) == (peer(1),)
    assert held.next_expiry() == 110
    assert held.peers() == (peer(2),)
    assert not held.drop(peer(1))


def test_r16_the_next_end_is_found_without_looking_at_all() -> None:
    def cost_of_each(count: int) -> float:
        held = Reservations(max_total=count, max_per_prefix=1, seconds=count)
        peers = [PeerId(b"\x12\x20" + number.to_bytes(32)) for number in range(count)]
        began = time.process_time()
        for now, peer_id in enumerate(peers):
            held.reserve(peer_id, str(now), now)
            assert held.next_expiry() == count
        assert held.drop_expired(2 * count) == tuple(peers)
        return (time.process_time() - began) / count

    # The same; looking at all each time, sixteen times as much.
    assert cost_of_each(16_000) < 5 * cost_of_each(1_000)


class ReservationModel(RuleBasedStateMachine):
    """Whatever happens, the counts are those of the entries, and within the limits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held = Reservations(max_total=5, max_per_prefix=2, seconds=10)
        self.model: dict[PeerId, tuple[str, float]] = {}

    @rule(number=st.integers(1, 8), prefix=st.sampled_from("abcd"))
    def reserve(self, number: int, prefix: str) -> None:
        others = {p: e for p, e in self.model.items() if p != peer(number)}
        known = peer(number) in self.model
        room = (known or len(self.model) < 5) and (sum(p == prefix for p, _ in others.values()) < 2)
        refusal = self.held.reserve(peer(number), prefix, self.now)
        assert (refusal is None) == room
        if room:
            self.model[peer(number)] = (prefix, self.now + 10)

    @rule(number=st.integers(1, 8))
    def drop(self, number: int) -> None:
        assert self.held.drop(peer(number)) == (self.model.pop(peer(number), None) is not None)

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        gone = {p for p, (_, expires_at) in self.model.items() if expires_at <= self.now}
        assert set(self.held.drop_expired(self.now)) == gone
        self.model = {p: e for p, e in self.model.items() if p not in gone}

    @invariant()
    def agrees(self) -> None:
        assert set(self.held.peers()) == set(self.model)
        ends = [expires_at for _, expires_at in self.model.values()]
        assert self.held.next_expiry() == min(ends, default=math.inf)
        assert len(self.held) <= 5


TestReservationModel = ReservationModel.TestCase


def test_r15_ipv4_counts_by_address_and_ipv6_by_56() -> None:
    assert prefix_of(PUBLIC) == "1.2.3.4"
    one, other = "/ip6/2600:1:2:3400::1/tcp/1", "/ip6/2600:1:2:34ff::9/tcp/2"
    assert prefix_of(parse(one)) == prefix_of(parse(other)) == "2600:1:2:3400::/56"
    assert prefix_of(parse("/ip6/2600:1:2:3500::1/tcp/1")) != prefix_of(parse(one))
    assert prefix_of(parse("/ip6/::ffff:1.2.3.4/tcp/1")) == "1.2.3.4"
    assert prefix_of(parse("/dns4/example.org/tcp/1")) is None


# ---- circuits and requests ---------------------------------------------------------------


def test_r18_circuits_are_counted_for_both_ends_and_in_all() -> None:
    circuits = Circuits(max_total=3, max_per_peer=2)
    assert circuits.open(Call(peer(1), peer(2))) is None
    assert circuits.open(Call(peer(1), peer(3))) is None
    for source, target in ((peer(1), peer(4)), (peer(4), peer(1))):
        refusal = circuits.open(Call(source, target))
        assert refusal is not None
        assert refusal.status is Status.RESOURCE_LIMIT_EXCEEDED
    assert circuits.open(Call(peer(4), peer(5))) is None
    refusal = circuits.open(Call(peer(6), peer(7)))
    assert refusal is not None
    assert "max_circuits = 3" in refusal.reason
    circuits.close(Call(peer(1), peer(2)))
    assert len(circuits) == 2
    assert circuits.open(Call(peer(1), peer(2))) is None


def test_peers_without_circuits_or_requests_are_forgotten() -> None:
    circuits, pending = Circuits(max_total=1, max_per_peer=1), Pending(1)
    held = Reservations(max_total=1, max_per_prefix=1, seconds=1)
    for number in range(5):
        call = Call(peer(number), peer(number + 1), frozenset({str(number)}))
        assert circuits.open(call) is None
        circuits.close(call)
        assert pending.begin(peer(number))
        pending.end(peer(number))
        assert held.reserve(peer(number), str(number), 0) is None
        held.drop(peer(number))
    assert not circuits._per_peer
    assert not circuits._per_prefix
    assert not pending._per_peer
    assert not held._per_prefix


def test_r24_requests_under_way_are_counted_per_peer() -> None:
    pending = Pending(2)
    assert pending.begin(peer(1))
    assert pending.begin(peer(1))
    assert not pending.begin(peer(1))
    assert pending.begin(peer(2))
    pending.end(peer(1))
    assert pending.begin(peer(1))


# ---- addresses ---------------------------------------------------------------------------


def test_r17_a_relay_offers_its_public_addresses() -> None:
    advertised = [full(LOOPBACK), full(PRIVATE), full(PUBLIC)]
    assert offered_addresses(advertised, LOOPBACK, RELAY) == (full(PUBLIC),)


def test_r17_without_a_public_address_it_offers_what_it_has() -> None:
    circuit = parse(f"/ip4/1.1.1.1/tcp/1/p2p/{peer(1)}/p2p-circuit/p2p/{RELAY}")
    assert offered_addresses([circuit, full(PRIVATE)], LOOPBACK, RELAY) == (full(PRIVATE),)
    assert offered_addresses([], PRIVATE, RELAY) == (full(PRIVATE),)


def test_r17_what_it_offers_fits_into_a_message() -> None:
    many = [full(parse(f"/ip4/1.2.3.4/tcp/{port}")) for port in range(1, 100)]
    assert len(offered_addresses(many, PUBLIC, RELAY)) == MAX_OFFERED_ADDRESSES
    name = "a" * 60 + "." + "b" * 60 + ".example"
    long = [full(parse(f"/dns4/{name}/tcp/{port}")) for port in range(1, 100)]
    offered = offered_addresses(long, PUBLIC, RELAY)
    assert 1 < sum(len(encode(address)) for address in offered) <= MAX_OFFERED_BYTES


def chosen(*given: Multiaddr, reached_at: Multiaddr = PRIVATE) -> tuple[str, ...]:
    addresses = circuit_addresses(Reservation(1, given), RELAY, [reached_at], maximum=3)
    return tuple(str(address) for address in addresses)


def test_r10_the_public_addresses_of_the_reply_are_advertised() -> None:
    expected = (f"{PUBLIC}/p2p/{RELAY}/p2p-circuit",)
    assert chosen(full(LOOPBACK), full(PUBLIC), PUBLIC) == expected


@pytest.mark.parametrize(
    "given",
    [
        [],
        [full(LOOPBACK), full(PRIVATE)],
        [parse(f"{PUBLIC}/p2p/{peer(1)}")],
        [parse(f"{PUBLIC}/p2p/{peer(1)}/p2p-circuit/p2p/{RELAY}")],
        [parse(f"/p2p/{RELAY}")],
        [parse(f"{PUBLIC}/p2p/{peer(1)}/p2p/{RELAY}")],
    ],
)
def test_r10_if_none_is_public_or_of_the_relay_it_is_where_we_reached_it(
    given: list[Multiaddr],
) -> None:
    assert chosen(*given) == (f"{PRIVATE}/p2p/{RELAY}/p2p-circuit",)


def test_r10_no_more_than_the_maximum_is_advertised() -> None:
    assert len(chosen(*[full(parse(f"/ip4/1.2.3.4/tcp/{port}")) for port in range(1, 9)])) == 3


# ---- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, None),
        (Limit(0, 0), None),
        (Limit(120, 131072), CircuitLimit(120.0, 131072)),
        (Limit(120, 0), CircuitLimit(120.0, None)),
        (Limit(0, 131072), CircuitLimit(None, 131072)),
        (Limit(120_000, 1), CircuitLimit(120.0, 1)),
        (Limit(86_400, 1), CircuitLimit(86_400.0, 1)),
        (Limit(0, 2**64 - 1), None),
    ],
)
def test_r6_limits_that_make_no_sense_are_mended(
    limit: Limit | None, expected: CircuitLimit | None
) -> None:
    assert circuit_limit(limit) == expected


def test_r6_a_limit_is_written_only_if_there_is_one() -> None:
    assert limit_on_wire(CircuitLimit()) is None
    assert limit_on_wire(CircuitLimit(0.5, None)) == Limit(1, 0)
    assert limit_on_wire(CircuitLimit(None, 7)) == Limit(0, 7)


@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [
        (3600, 3600),
        (20, 20),
        (1, 10),
        (0, 60),
        (-300, 60),
        (86_401, 86_400),
        (2**63, 86_400),
    ],
)
def test_r8_a_lifetime_is_clamped(ahead: int, seconds: float) -> None:
    assert lifetime(1_700_000_000 + ahead, 1_700_000_000.0) == seconds


def test_r8_a_reservation_of_the_past_is_refused() -> None:
    with pytest.raises(ProtocolError, match="expired 301 s ago"):
        lifetime(1_700_000_000 - 301, 1_700_000_000.0)
    with pytest.raises(ProtocolError, match="is a clock wrong"):
        lifetime(1, 1_700_000_000.0)


@given(st.integers(0, 10_000))
def test_r11_a_backoff_doubles_and_is_bounded(failures: int) -> None:
    pause = backoff(failures, first=1.0, most=60.0)
    assert pause <= 60.0
    assert backoff(failures + 1, first=1.0, most=60.0) >= pause


def test_r11_the_first_attempts_come_soon() -> None:
    assert [backoff(n, first=1.0, most=60.0) for n in range(5)] == [0.0, 1.0, 2.0, 4.0, 8.0]
