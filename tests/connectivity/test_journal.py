"""What is kept of events, and what they show. Rules V21 and V23."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import trio

from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.journal import (
    KINDS,
    MAX_ATTEMPTS,
    MAX_ENTRIES,
    MAX_PEERS,
    MAX_SILENCES,
    Aim,
    Journal,
    Noted,
)
from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    ConnectionLost,
    DialError,
    FailedAttempt,
    NegotiationFailed,
    NoPunchAddress,
    RelayRefused,
)
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    DialFailed,
    HolePunched,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)


def peer(number: int) -> PeerId:
    return PeerId.from_public_key(PrivateKey.from_seed(number.to_bytes(32, "big")).public_key)


ONE, RELAY = peer(1), peer(2)
HERE, THERE = parse("/ip4/192.168.1.2/tcp/1"), parse("/ip4/8.8.8.8/tcp/1")
CIRCUIT = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{RELAY}/p2p-circuit")
REF = ConnectionRef(7, ONE, HERE, THERE, is_inbound=False, is_relayed=False)


def failed(*causes: BaseException, address: object = THERE) -> DialFailed:
    return DialFailed(ONE, DialError(ONE, [FailedAttempt(address, cause) for cause in causes]))


def noted(*events: Noted) -> Journal:
    journal = Journal()
    for number, event in enumerate(events):
        journal.note(event, float(number))
    return journal


EVENTS: list[Noted] = [
    ConnectionOpened(REF),
    ConnectionClosed(REF, "closed by the peer", ConnectionLost("closed by the peer")),
    failed(trio.TooSlowError()),
    PunchStarted(ONE, 1, True, (THERE,), 0.1),
    PunchAttemptFailed(ONE, 1, "no answer", NoPunchAddress("none")),
    PunchGivenUp(ONE, ("no answer",)),
    HolePunched(ONE, THERE, 2, 0.5),
    ReservationAccepted(ONE, (THERE,), 3600.0, False),
    ReservationFailed(ONE, "full", 5.0, RelayRefused(ONE, "RESERVATION_REFUSED")),
    ReservationLost(ONE, "expired"),
]


def test_every_kind_of_event_is_put_in_words_and_in_order() -> None:
    assert {type(event) for event in EVENTS} == set(KINDS)
    entries = noted(*EVENTS).entries(ONE)
    assert [entry.kind for entry in entries] == [type(event) for event in EVENTS]
    assert [entry.time for entry in entries] == [float(n) for n in range(len(EVENTS))]
    told = [str(entry) for entry in entries]
    assert told[0] == "0.000 s: connected (out): /ip4/8.8.8.8/tcp/1"
    assert told[2] == "2.000 s: dial failed: /ip4/8.8.8.8/tcp/1: timed out"
    assert len(set(told)) == len(told)
    assert not any(type(event).__name__ in text for event, text in zip(EVENTS, told, strict=True))


def test_of_peers_and_events_so_many_are_kept() -> None:
    """V23."""
    journal = noted(*[failed(trio.TooSlowError())] * (MAX_ENTRIES + 5))
    assert len(journal.entries(ONE)) == MAX_ENTRIES
    journal.note(ReservationFailed(RELAY, "full", 5.0, RelayRefused(RELAY, "full")), 0.0)
    journal.note(ReservationAccepted(RELAY, (), 3600.0, False), 0.0)
    for number in range(100, 100 + MAX_PEERS):
        journal.note(PunchGivenUp(peer(number), ()), 1.0)
    assert len(journal.peers) == MAX_PEERS
    assert journal.entries(ONE) == ()
    assert journal.reservations == set()
    assert journal.relay_failures == {}


def test_what_a_peer_said_of_its_ports_holds_for_the_attempts_on_one_relayed_connection() -> None:
    """V22: it is said in the first alone; and forgotten with the peer (V23)."""
    first, second = (PunchStarted(ONE, n, True, (THERE,), 0.1) for n in (1, 2))
    journal = noted(replace(first, steady=("tcp",)), second, ConnectionOpened(REF))
    assert journal.aims == {ONE: Aim((THERE,), frozenset({"tcp"}))}
    journal.note(ConnectionOpened(replace(REF, is_relayed=True)), 3.0)
    assert journal.aims == {}
    journal.note(second, 4.0)
    for number in range(100, 100 + MAX_PEERS):
        journal.note(PunchGivenUp(peer(number), ()), 5.0)
    assert journal.aims == {}


def test_of_the_causes_of_failed_dials_so_many_are_kept() -> None:
    """V23."""
    journal = noted(*[failed(*[trio.TooSlowError()] * 100)] * (MAX_SILENCES // 100 + 1))
    assert len(journal.failures) == MAX_SILENCES
    (last, *_) = reversed(journal.entries(ONE))
    assert last.words.count("timed out") == MAX_ATTEMPTS
    assert last.words.endswith(f"and {100 - MAX_ATTEMPTS} more")
    journal.note(ConnectionOpened(REF), 0.0)
    assert not journal.failures


def test_errors_are_read_and_not_kept() -> None:
    """V23: each holds the frames through which it came."""
    error = ConnectionLost("gone")
    dial = failed(error)
    journal = noted(ConnectionClosed(REF, "gone", error), dial)
    kept = weakref.ref(error)
    del error, dial
    gc.collect()
    assert kept() is None
    assert [entry.finding is not None for entry in journal.entries(ONE)] == [True, True]


def test_what_this_host_closed_shows_nothing_wrong() -> None:
    (entry,) = noted(ConnectionClosed(REF, "enough")).entries(ONE)
    assert entry.finding is None


def test_a_dial_without_addresses_is_told_by_its_hint() -> None:
    (entry,) = noted(DialFailed(ONE, DialError(ONE, (), "nobody knows"))).entries(ONE)
    assert entry.finding is not None
    assert (entry.finding.cause, entry.finding.detail) == (Cause.NO_ADDRESS, "nobody knows")
    assert entry.words == "dial failed: nobody knows"


def test_a_circuit_that_makes_no_sense_is_over_no_relay() -> None:
    """Anybody may name one, a TXT record for example."""
    nonsense = parse(f"/ip4/9.9.9.9/tcp/1/p2p-circuit/p2p/{ONE}")
    (entry,) = noted(failed(trio.TooSlowError(), address=nonsense)).entries(ONE)
    assert entry.relays == ()


def test_the_relays_of_a_dial_are_those_of_what_says_most() -> None:
    """V21."""
    (entry,) = noted(failed(trio.TooSlowError(), address=CIRCUIT)).entries(ONE)
    assert entry.relays == (RELAY,)
    (entry,) = noted(failed(trio.TooSlowError())).entries(ONE)
    assert entry.relays == ()


def test_reservations_come_and_go() -> None:
    accepted = ReservationAccepted(RELAY, (), 3600.0, False)
    assert noted(accepted).reservations == {RELAY}
    assert noted(accepted, ReservationLost(RELAY, "expired")).reservations == set()
    refusal = ReservationFailed(RELAY, "full", 5.0, RelayRefused(RELAY, "RESERVATION_REFUSED"))
    assert noted(refusal).relay_failures[RELAY].cause is Cause.RELAY_FULL
    assert noted(refusal, accepted).relay_failures == {}


def test_what_keeps_from_a_relay_is_told_as_a_fault_of_the_relay() -> None:
    def cause(error: BaseException | None) -> Cause:
        event = ReservationFailed(RELAY, "reason", 5.0, error)
        return noted(event).relay_failures[RELAY].cause

    assert cause(NegotiationFailed(["/hop"])) is Cause.NO_RELAY_SERVICE
    inner = DialError(RELAY, [FailedAttempt(THERE, NegotiationFailed(["/noise"]))])
    assert cause(inner) is Cause.NOTHING_IN_COMMON
    assert cause(trio.TooSlowError()) is Cause.RELAY_UNREACHABLE
    assert cause(None) is Cause.UNKNOWN
