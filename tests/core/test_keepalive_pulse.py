"""Pulses: when a connection pings, and when its peer is gone. Rules: specs/keepalive.md."""

from __future__ import annotations

import math

import pytest

from p2pnet.core.keepalive import (
    DRAWN_BY_DIALER,
    DRAWN_BY_LISTENER,
    Habits,
    Pace,
    Pulse,
    silence,
)

IDLE = 150.0


def pulse(pace: Pace | None = None, *, fixed: float | None = None, is_ipv6: bool = False) -> Pulse:
    habits = Habits(pace=pace or Pace(), fixed=fixed, patience=30.0)
    return Pulse(habits, is_ipv6=is_ipv6, drawn=0.0)


def learned(seconds: float) -> Pace:
    pace = Pace()
    pace.learn(seconds, is_ipv6=False)
    return pace


def test_who_has_heard_nothing_yet_has_nobody_to_ping() -> None:
    one = pulse()
    assert one.ping_at(IDLE, is_in_use=False) == math.inf
    one.heard(10.0)
    assert one.ping_at(IDLE, is_in_use=False) == 25.0
    one.pinged(25.0)
    assert one.ping_at(IDLE, is_in_use=False) == 40.0


def test_what_was_learned_counts_on_an_old_connection_that_nobody_uses() -> None:
    """KA5."""
    one = pulse(learned(60.0))
    one.heard(0.0)
    assert one.ping_at(IDLE, is_in_use=False) == 15.0
    one.heard(59.9)
    assert one.ping_at(IDLE, is_in_use=False) == 74.9
    one.heard(60.0)
    assert one.ping_at(IDLE, is_in_use=False) == 120.0
    assert one.ping_at(IDLE, is_in_use=True) == 75.0


@pytest.mark.parametrize("longest", [5.0, 7.5, 15.0, 30.0, 60.0])
def test_both_ends_do_not_ping_at_about_one_time(longest: float) -> None:
    """KA2: the dialer's ping is there, 0.1 s later, before the other end would ping."""
    latest = silence(longest, IDLE, min(DRAWN_BY_DIALER))
    earliest = silence(longest, IDLE, max(DRAWN_BY_LISTENER))
    assert latest + 0.1 < earliest
    assert silence(longest, IDLE, min(DRAWN_BY_LISTENER)) <= longest


def test_a_peer_that_is_relied_on_is_asked_sooner_and_missed_sooner() -> None:
    """KA11."""
    one = pulse(learned(60.0))
    one.heard(0.0)
    one.heard(100.0)
    one.alert = 8.0
    assert one.ping_at(IDLE, is_in_use=False) == 108.0
    assert one.lost_at == math.inf
    one.sent(108.0, is_any=True, is_owed=True)
    assert one.lost_at == 123.0
    one.alert = None
    assert one.ping_at(IDLE, is_in_use=False) == 160.0
    assert one.lost_at == 130.0


def test_a_nat_that_keeps_nothing_is_pinged_sooner_than_a_relay() -> None:
    """KA11."""
    one = pulse(learned(5.0))
    one.alert = 8.0
    one.heard(0.0)
    assert one.ping_at(IDLE, is_in_use=False) == 5.0


def test_less_than_usual_counts_at_once_and_everywhere() -> None:
    """KA5."""
    one = pulse(learned(7.5))
    one.heard(0.0)
    assert one.ping_at(IDLE, is_in_use=True) == 7.5


def test_a_fixed_interval_goes_before_all_that_was_learned() -> None:
    one = pulse(learned(60.0), fixed=20.0)
    one.heard(0.0)
    one.heard(100.0)
    assert one.ping_at(IDLE, is_in_use=False) == 120.0


def test_what_was_learned_is_of_one_family_and_can_be_forgotten() -> None:
    """KA10."""
    pace = learned(60.0)
    six, four = pulse(pace, is_ipv6=True), pulse(pace)
    for one in (six, four):
        one.heard(0.0)
        one.heard(100.0)
    assert six.ping_at(IDLE, is_in_use=False) == 115.0
    assert four.ping_at(IDLE, is_in_use=False) == 160.0
    assert four.wake_at(160.0, 100.0) == 115.0, "or it would be late after a move"
    pace.forget()
    assert four.ping_at(IDLE, is_in_use=False) == 115.0


def test_a_peer_is_gone_that_is_silent_and_owes_an_answer() -> None:
    """KA4."""
    one = pulse()
    one.heard(0.0)
    one.sent(0.1, is_any=True, is_owed=False)
    assert one.lost_at == math.inf
    one.sent(2.0, is_any=True, is_owed=True)
    one.sent(9.0, is_any=True, is_owed=True)
    assert one.lost_at == 30.0
    one.heard(10.0)
    assert one.lost_at == math.inf
    one.sent(70.0, is_any=True, is_owed=True)
    assert one.lost_at == 85.0


@pytest.mark.parametrize("way", ["came", "went"])
def test_a_hush_pings_not_and_knows_what_broke_it(way: str) -> None:
    """KA8."""
    one = pulse()
    one.heard(0.0)
    hush = one.hush(1.0, 72.0)
    assert one.ping_at(IDLE, is_in_use=True) == 73.0
    one.sent(2.0, is_any=False, is_owed=False)
    assert hush.broken_at == math.inf
    for now in (30.0, 40.0):
        if way == "came":
            one.heard(now)
        else:
            one.sent(now, is_any=True, is_owed=True)
    assert hush.broken_at == 30.0


def test_what_comes_after_a_hush_does_not_break_it() -> None:
    one = pulse()
    hush = one.hush(1.0, 10.0)
    one.heard(11.0)
    assert hush.broken_at == math.inf
    assert one.ping_at(IDLE, is_in_use=True) == 26.0


def test_a_peer_that_is_to_prove_it_is_there_is_pinged_now_and_missed_soon() -> None:
    """KA12."""
    one = pulse(learned(60.0))
    one.heard(0.0)
    one.prove_alive(2.0, 5.0)
    assert one.ping_at(IDLE, is_in_use=False) <= 2.0
    one.pinged(2.0)
    one.sent(2.0, is_any=True, is_owed=True)
    assert one.ping_at(IDLE, is_in_use=False) > 7.0
    assert one.lost_at == 7.0
    one.prove_alive(5.0, 5.0)
    assert one.lost_at == 10.0, "the network is back only now"
    one.heard(6.0)
    assert one.lost_at == math.inf


def test_whoever_is_to_prove_it_is_there_has_no_longer_than_others() -> None:
    """KA12."""
    one = pulse()
    one.heard(0.0)
    one.sent(1.0, is_any=True, is_owed=True)
    one.prove_alive(29.0, 5.0)
    assert one.lost_at == 30.0
