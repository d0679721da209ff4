"""What links do to packets."""

from __future__ import annotations

from random import Random

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.links import Link, Quality
from p2pnet.testing.packet import Datagram, Packet

PACKET = Packet(Endpoint("11.0.0.1", 1), Endpoint("11.0.0.2", 2), Datagram(bytes(972)))
"""A thousand bytes on the wire."""


def link(quality: Quality) -> Link:
    return Link(quality, Random(1))


def test_a_plain_link_takes_its_latency() -> None:
    assert link(Quality(latency=0.03)).up.carry(PACKET, 5.0) == (5.03,)


def test_jitter_keeps_the_order() -> None:
    lane = link(Quality(latency=0.01, jitter=0.5)).up
    arrivals = [lane.carry(PACKET, now / 100) for now in range(200)]
    times = [time for arrival in arrivals if not isinstance(arrival, str) for time in arrival]
    assert times == sorted(times)
    assert all(time - now / 100 >= 0.01 for now, time in enumerate(times))
    assert max(time - now / 100 for now, time in enumerate(times)) > 0.2


def test_a_tenth_is_lost_in_the_long_run() -> None:
    lane = link(Quality(loss=0.1)).up
    lost = sum(lane.carry(PACKET, 0.0) == "lost" for _ in range(5000))
    assert 400 < lost < 600


def test_duplicates_arrive_twice_and_held_back_packets_later() -> None:
    assert link(Quality(latency=1.0, duplicate=1.0)).up.carry(PACKET, 0.0) == (1.0, 1.0)
    lane = link(Quality(latency=1.0, reorder=1.0, reorder_by=0.5)).up
    assert lane.carry(PACKET, 0.0) == (1.5,)


def test_bandwidth_spreads_packets_and_a_full_queue_drops_them() -> None:
    lane = link(Quality(latency=0.0, bandwidth=8_000, queue_bytes=2000)).up
    assert [lane.carry(PACKET, 0.0) for _ in range(3)] == [(1.0,), (2.0,), "queue full"]
    assert lane.carry(PACKET, 1.5) == (3.0,)


def test_both_directions_have_a_queue_of_their_own() -> None:
    own = link(Quality(latency=0.0, bandwidth=8_000, queue_bytes=2000))
    assert own.up.carry(PACKET, 0.0) == own.down.carry(PACKET, 0.0) == (1.0,)


def test_the_nth_packet_is_dropped_on_command() -> None:
    lane = link(Quality(latency=0.0)).up
    lane.carry(PACKET, 0.0)
    lane.drop_nth(2)
    fates = [lane.carry(PACKET, 0.0) for _ in range(3)]
    assert fates == [(0.0,), "dropped on command", (0.0,)]


def test_nothing_passes_a_link_that_is_cut_and_nothing_larger_than_the_mtu() -> None:
    own = link(Quality(latency=0.0, mtu=999))
    assert own.up.carry(PACKET, 0.0) == "larger than the MTU"
    own.quality = Quality(latency=0.0, mtu=1000)
    assert own.up.carry(PACKET, 0.0) == (0.0,)
    own.is_cut = True
    assert own.down.carry(PACKET, 0.0) == "link cut"


@pytest.mark.parametrize(
    "wrong",
    [{"latency": -1}, {"loss": 1.1}, {"bandwidth": 0}, {"mtu": 100}, {"queue_bytes": 10}],
)
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Quality(**wrong)  # type: ignore[arg-type]
