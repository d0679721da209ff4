"""What aioquic may send at once, and how fast: as much as coarse timers need."""

from __future__ import annotations

import pytest
from aioquic.quic.recovery import QuicPacketPacer

from p2pnet.transports.quic.aioquic_pacer import BURST, BURST_SECONDS, Pacer

SIZE = 1200
WINDOW = 1_000 * SIZE
ROUND_TRIP = 0.1


def burst(pacer: QuicPacketPacer, now: float, most: int = 1_000) -> int:
    """Return how many packets may leave at such a time, in one go."""
    for number in range(most):
        at: float | None = pacer.next_send_time(now)
        if at is not None:
            return number
        pacer.update_after_send(now)
    return most


def rested(pacer: QuicPacketPacer) -> QuicPacketPacer:
    pacer.update_rate(WINDOW, ROUND_TRIP)
    pacer.update_bucket(1.0)
    pacer.update_rate(WINDOW, ROUND_TRIP)
    return pacer


def test_the_rate_of_two_milliseconds_leaves_at_once() -> None:
    by_the_library = burst(rested(QuicPacketPacer(max_datagram_size=SIZE)), 1.0)
    assert burst(rested(Pacer(max_datagram_size=SIZE)), 1.0) == pytest.approx(
        1.25 * WINDOW / SIZE / ROUND_TRIP * BURST_SECONDS, abs=1
    )
    assert by_the_library < 1.25 * WINDOW / SIZE / ROUND_TRIP * BURST_SECONDS - 1


def test_a_timer_that_is_late_costs_nothing_of_the_rate() -> None:
    """RFC 9002, 7.7: a quarter more than a window leaves in a round trip."""
    pacer = Pacer(max_datagram_size=SIZE)
    rested(pacer)
    sent = 0
    for tick in range(round(ROUND_TRIP / BURST_SECONDS)):
        pacer.begin(SIZE)
        sent += burst(pacer, 1.0 + tick * BURST_SECONDS)
    assert sent * SIZE == pytest.approx(1.25 * WINDOW, rel=0.05)


def test_a_burst_has_an_end_and_the_next_begins_at_once() -> None:
    pacer = Pacer(max_datagram_size=SIZE)  # No round trip was measured: nothing is paced.
    assert burst(pacer, 1.0) == BURST
    assert pacer.is_cut
    pacer.begin(SIZE)
    assert not pacer.is_cut
    assert burst(pacer, 1.0) == BURST
