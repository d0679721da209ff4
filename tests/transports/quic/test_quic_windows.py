"""Rules Q13 Q14: windows that follow the reader, and grow when they are what slows a sender."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet.testing.conformance.running import stream_between
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.credit import GROWTH_ROUND_TRIPS, ROUND_TRIP_FLOOR, Window
from tests.transports.quic.quic_scene import send_and_end
from tests.transports.quic.test_quic_streams import CoreName, both, connected

KIB = 1024
FAR = Quality(latency=0.05)
"""A round trip of 0.2 seconds."""
ROUND_TRIP = 0.2
SIZE = 1280 * KIB


def test_the_limit_rises_when_half_of_the_window_was_read() -> None:
    """Q13."""
    window = Window(100, 100, 0.0)
    assert window.limit == 100
    assert not window.consume(49, 10.0, 0.1)
    assert window.limit == 100
    assert window.consume(1, 10.0, 0.1)
    assert (window.limit, window.consumed) == (150, 50)
    assert window.consume(1000, 20.0, 0.1)
    assert window.limit == 1150


@pytest.mark.parametrize(
    ("round_trip", "seconds", "grows"),
    [
        (0.1, GROWTH_ROUND_TRIPS * 0.1 - 0.01, True),
        (0.1, GROWTH_ROUND_TRIPS * 0.1 + 0.01, False),
        (0.0, GROWTH_ROUND_TRIPS * ROUND_TRIP_FLOOR - 0.001, True),
        (0.0, GROWTH_ROUND_TRIPS * ROUND_TRIP_FLOOR + 0.001, False),
    ],
)
def test_a_window_half_used_up_within_four_round_trips_doubles(
    round_trip: float, seconds: float, grows: bool
) -> None:
    """Q14."""
    window = Window(100, 1000, 5.0)
    assert window.consume(50, 5.0 + seconds, round_trip)
    assert window.limit == 50 + (200 if grows else 100)


def test_a_bound_ends_the_growth_takes_nothing_back_and_stays() -> None:
    """relay.md, R21."""
    window = Window(100, 1000, 0.0)
    for bound in (150, 100, 900):
        window.bound(bound)
        window.consume(window.limit - window.consumed, 0.0, 0.1)
        assert window.limit - window.consumed == 150


def test_a_window_grows_to_its_maximum_and_no_further() -> None:
    """Q14: and its time begins anew each time the limit rises."""
    window = Window(100, 350, 0.0)
    sizes = []
    for _ in range(5):
        window.consume(window.limit - window.consumed, 0.0, 0.1)
        sizes.append(window.limit - window.consumed)
    assert sizes == [200, 350, 350, 350, 350]
    window = Window(100, 1000, 0.0)
    window.consume(50, 100.0, 0.1)
    window.consume(50, 100.1, 0.1)
    assert window.limit - window.consumed == 200


async def seconds_for(world: World, part: QUIC, size: int = SIZE) -> float:
    """Carry some MiB to a reader that keeps up; return how long that takes."""
    async with connected(world, part, FAR) as (dialled, accepted):
        ours, theirs = await stream_between(dialled, accepted)
        began = trio.current_time()
        got = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, ours, bytes(size))
            while data := await theirs.receive_some():
                got += len(data)
        assert got == size
        return trio.current_time() - began


async def test_a_reader_that_keeps_up_on_a_long_line_gets_larger_windows(world: World) -> None:
    """Q14."""
    window = 64 * KIB
    part = QUIC(stream_window=window, connection_window=window)
    still = replace(part, max_stream_window=window, max_connection_window=window)
    slow = await seconds_for(world, still)
    # A window is all that can be on its way in a round trip.
    assert slow > (SIZE / window - 1) * ROUND_TRIP
    assert await seconds_for(world, part) < slow / 2


@both
async def test_the_windows_as_they_are_do_not_slow_a_long_line(
    world: World, core: CoreName
) -> None:
    """Q14: slow start needs 1.3 s for these; a window that stays at 512 KiB, 3.3 s."""
    assert await seconds_for(world, QUIC(core=core), 4096 * KIB) < 2.2
