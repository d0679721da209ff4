"""Pings: specs/yamux.md Y11 to Y13."""

from __future__ import annotations

import math

import pytest

from p2pnet.errors import ConnectionLost, ProtocolError
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.messages import ACK, PING, SYN, Header
from p2pnet.muxers.yamux.outgoing import Outgoing
from p2pnet.muxers.yamux.pulse import Pulse
from tests.muxers.yamux.ends import headers


class Beating:
    """A pulse, and the pings it sends."""

    def __init__(self, *, max_rate: float = 10.0, is_dialer: bool = False) -> None:
        self.outgoing = Outgoing(max_unsent=1 << 20, max_control=1 << 20)
        limits = Limits(max_ping_rate=max_rate)
        self.pulse = Pulse(self.outgoing, limits, is_dialer=is_dialer, now=0.0)

    def sent(self) -> list[Header]:
        return headers(self.outgoing.take())


def test_y12_silence_is_met_with_a_ping_and_then_with_a_farewell() -> None:
    beating = Beating()
    pulse = beating.pulse
    assert pulse.deadline() == 30.0
    pulse.on_deadline(29.9)
    assert beating.sent() == []
    pulse.on_deadline(30.0)
    assert beating.sent() == [Header(PING, SYN, 0, 1)]
    assert pulse.deadline() == 45.0
    with pytest.raises(ConnectionLost, match="15 s"):
        pulse.on_deadline(45.0)


def test_y12_any_byte_is_a_sign_of_life() -> None:
    beating = Beating()
    pulse = beating.pulse
    pulse.heard(20.0)
    assert pulse.deadline() == 50.0
    pulse.on_deadline(50.0)
    pulse.heard(51.0)
    assert pulse.deadline() == 81.0
    beating.sent()
    # The first ping was never answered, but its sender lives; it is asked again.
    pulse.on_deadline(81.0)
    assert beating.sent() == [Header(PING, SYN, 0, 2)]


def test_who_is_to_prove_that_it_lives_is_asked_at_once_and_has_less_time() -> None:
    """KA12."""
    beating = Beating()
    pulse = beating.pulse
    pulse.prove_alive(2.0, 5.0)
    assert beating.sent() == [Header(PING, SYN, 0, 1)]
    assert pulse.deadline() == 7.0
    pulse.prove_alive(4.0, 5.0)
    assert beating.sent() == [], "it was asked, and TCP sees to it"
    assert pulse.deadline() == 9.0, "the network is back only now"
    with pytest.raises(ConnectionLost, match="7 s"):
        pulse.on_deadline(9.0)


def test_who_is_asked_for_proof_again_and_again_has_no_longer_than_ever() -> None:
    """KA12."""
    pulse = Beating().pulse
    for number in range(20):
        pulse.prove_alive(2.0 + number, 5.0)
    assert pulse.deadline() == 17.0


def test_who_has_proved_that_it_lives_has_as_long_as_ever_the_next_time() -> None:
    """KA12."""
    beating = Beating()
    pulse = beating.pulse
    pulse.prove_alive(2.0, 5.0)
    pulse.heard(6.9)
    assert pulse.deadline() == 36.0
    pulse.on_deadline(36.0)
    assert pulse.deadline() == 51.0
    pulse.heard(40.0)
    beating.sent()
    pulse.prove_alive(41.0, 5.0)
    assert beating.sent() == [Header(PING, SYN, 0, 3)], "what was asked before was answered"


@pytest.mark.parametrize(("is_dialer", "due"), [(True, 48.0), (False, 50.0)])
def test_y12_pings_are_due_at_ticks_and_a_dialers_two_sooner(is_dialer: bool, due: float) -> None:
    pulse = Beating(is_dialer=is_dialer).pulse
    for heard_at in (20.0, 20.1, 20.9):
        pulse.heard(heard_at)
        assert pulse.deadline() == due


@pytest.mark.parametrize("is_dialer", [True, False])
def test_y12_who_is_alert_asks_after_eight_seconds_as_long_as_that_is_wanted(
    is_dialer: bool,
) -> None:
    """KA11."""
    pulse = Beating(is_dialer=is_dialer).pulse
    pulse.heard(20.1)
    usual = pulse.deadline()
    pulse.stay_alert(8.0)
    assert pulse.deadline() == 28.0
    pulse.on_deadline(28.0)
    assert pulse.deadline() == 43.0, "it has as long to answer as ever"
    pulse.heard(28.2)
    assert pulse.deadline() == 36.0
    pulse.stay_alert(None)
    assert pulse.deadline() == usual + 8.0


@pytest.mark.parametrize("interval", [0.01, 0.7, 3.0, 1e9, math.inf])
def test_y12_the_next_ping_is_always_in_the_future(interval: float) -> None:
    outgoing = Outgoing(max_unsent=1 << 20, max_control=1 << 20)
    pulse = Pulse(outgoing, Limits(ping_interval=interval), is_dialer=False, now=0.0)
    for now in (0.0, 0.3, 12_345.6):
        pulse.heard(now)
        assert now + interval * 0.96 < pulse.deadline() <= now + interval or interval == math.inf


def test_the_round_trip_is_measured_when_wanted_and_at_most_every_thirty_seconds() -> None:
    beating = Beating()
    pulse = beating.pulse
    pulse.measure(1.0)
    pulse.measure(1.1)
    assert beating.sent() == [Header(PING, SYN, 0, 1)]
    pulse.receive(ACK, 1, 1.2)
    assert pulse.round_trip == pytest.approx(0.2)
    pulse.measure(31.1)
    assert beating.sent() == []
    pulse.measure(31.3)
    assert beating.sent() == [Header(PING, SYN, 0, 2)]


def test_an_answer_to_no_ping_measures_nothing() -> None:
    pulse = Beating().pulse
    pulse.receive(ACK, 1, 1.0)
    pulse.measure(1.0)
    pulse.receive(ACK, 7, 2.0)
    pulse.receive(0, 1, 2.0)
    assert pulse.round_trip is None


def test_a_ping_that_is_never_answered_does_not_prevent_the_next() -> None:
    beating = Beating()
    beating.pulse.measure(0.0)
    beating.pulse.measure(30.0)
    assert [header.length for header in beating.sent()] == [1, 2]


def test_y11_a_ping_is_answered_with_its_value() -> None:
    beating = Beating()
    beating.pulse.receive(SYN, 0xDEADBEEF, 0.0)
    assert beating.sent() == [Header(PING, ACK, 0, 0xDEADBEEF)]


def test_y13_a_remote_that_pings_too_often_breaks_a_rule() -> None:
    pulse = Beating(max_rate=2.0).pulse
    for _ in range(20):
        pulse.receive(SYN, 0, 0.0)
    pulse.receive(SYN, 0, 0.5)
    with pytest.raises(ProtocolError, match="pings"):
        pulse.receive(SYN, 0, 0.5)


def test_y13_pings_at_the_rate_are_fine_for_ever() -> None:
    pulse = Beating(max_rate=2.0).pulse
    for number in range(1000):
        pulse.receive(SYN, number, number / 2)
