"""Datagrams of aioquic grow to what the path carries, and shrink again. Q23, Q26 to Q28."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.transports.quic.aioquic_connection import Connection
from p2pnet.transports.quic.aioquic_core import Aioquic, AioquicCore
from p2pnet.transports.quic.core import Core, CoreSettings, StreamData
from tests.transports.quic.test_aioquic_core import CLIENT, SERVER, events_of, pair, settings

LATENCY = 0.02
MIB = 1_048_576


def wide(most: int = 1452) -> CoreSettings:
    return replace(
        settings(),
        max_datagram_bytes=most,
        stream_window=16 * MIB,
        max_stream_window=16 * MIB,
        connection_window=16 * MIB,
        max_connection_window=16 * MIB,
    )


@dataclass
class Line:
    """Between two cores: what is larger than ``carries`` is lost."""

    client: AioquicCore
    server: AioquicCore
    carries: int = 1472
    now: float = 1.0
    sent: list[int] = field(default_factory=list)
    """Sizes of what the client sent ..."""
    times: list[float] = field(default_factory=list)
    """... and when."""
    arrived: int = 0
    stream: int | None = None
    under_way: list[tuple[float, Core, bytes, Endpoint]] = field(default_factory=list)
    loses: Callable[[int], bool] = lambda count: False

    def run(self, *, until: Callable[[], bool], seconds: float = 60.0) -> None:
        end = self.now + seconds
        while not until():
            assert self.now < end, "it takes too long"
            self._step()

    def _step(self) -> None:
        for core in (self.client, self.server):
            timer = core.timer()
            if timer is not None and timer <= self.now:
                core.on_timer(self.now)
        for data, _ in self.client.transmit(self.now):
            self.sent.append(len(data))
            self.times.append(self.now)
            if len(data) <= self.carries and not self.loses(len(self.sent)):
                self.under_way.append((self.now + LATENCY, self.server, data, CLIENT))
        for data, _ in self.server.transmit(self.now):
            self.under_way.append((self.now + LATENCY, self.client, data, SERVER))
        due = [one for one in self.under_way if one[0] <= self.now]
        self.under_way = [one for one in self.under_way if one[0] > self.now]
        for _, target, data, source in due:
            target.receive([data], source, self.now)
        events = events_of(self.server)
        self.arrived += sum(len(one.data) for one in events if isinstance(one, StreamData))
        events_of(self.client)
        self.now += 0.001

    def upload(self, count: int) -> None:
        """Send so many bytes, and wait until they have arrived."""
        if self.stream is None:
            self.stream = self.client.open_stream()
            assert self.stream is not None
        self.client.write(self.stream, bytes(count))
        wanted = self.arrived + count
        self.run(until=lambda: self.arrived >= wanted)

    def upload_for(self, rounds: int) -> None:
        for _ in range(rounds):
            self.upload(15_000)

    @property
    def size(self) -> int:
        return self.client._connection._max_datagram_size

    @property
    def window(self) -> int:
        return self.client._connection._loss.congestion_window


def line(*, most: int = 1452, carries: int = 1472) -> Line:
    dialled, accepted = pair(Aioquic(wide(most)), Aioquic(wide()))
    assert isinstance(dialled, AioquicCore)
    assert isinstance(accepted, AioquicCore)
    return Line(dialled, accepted, carries)


def larger(sizes: list[int]) -> list[int]:
    return [size for size in sizes if size > 1232]


def test_who_sends_little_is_not_probed() -> None:
    """Q26: a ping, an identify, a punch cost nothing more."""
    quiet = line()
    quiet.upload(30_000)
    quiet.run(until=lambda: quiet.now > 10)
    assert larger(quiet.sent) == []


def test_much_to_send_goes_in_the_largest_datagrams_that_ethernet_carries() -> None:
    """Q26: one probe of the largest size is enough, where it arrives."""
    busy = line()
    busy.upload(2 * MIB)
    assert busy.size == 1452
    assert busy.sent.count(1452) > 1000
    assert max(busy.sent) == 1452
    assert busy.client._connection._reno._max_datagram_size == 1452
    assert busy.client._connection._loss._cc is busy.client._connection._reno
    assert busy.client._connection._loss._pacer._max_datagram_size == 1452


@pytest.mark.parametrize("carries", [1232, 1252, 1280, 1372, 1392, 1400, 1444, 1452])
def test_the_size_comes_near_to_what_the_path_carries(carries: int) -> None:
    """Q26: within 16 bytes, and with no more than three probes of each size that is lost."""
    tunnel = line(carries=carries)
    tunnel.upload_for(60)
    assert carries - 16 <= tunnel.size <= carries
    lost = [size for size in tunnel.sent if size > carries]
    assert all(lost.count(size) == 3 for size in set(lost))
    assert len(set(lost)) <= 5


def test_a_lost_probe_is_no_congestion() -> None:
    """Q27: the window grows as if nothing had been lost."""
    free, tunnel = line(most=1232), line(carries=1232)
    for one in (free, tunnel):
        one.upload(MIB)
    assert len(larger(tunnel.sent)) >= 3
    assert tunnel.client._connection._loss._cc.ssthresh is None
    assert tunnel.window == free.window
    assert tunnel.now == pytest.approx(free.now, abs=0.01)


def test_a_single_lost_probe_is_repeated() -> None:
    """Q26: congestion loses some, too."""
    unlucky = line()
    unlucky.loses = lambda count: unlucky.sent[-1] == 1452 and unlucky.sent.count(1452) < 3
    unlucky.upload(MIB)
    assert unlucky.size == 1452


def test_probes_are_a_round_trip_apart() -> None:
    """Q27: they are not counted by the window, so nothing else bounds them."""
    tunnel = line(carries=1232)
    tunnel.upload_for(60)
    times = [at for at, size in zip(tunnel.times, tunnel.sent, strict=True) if size > 1232]
    assert len(times) == 15
    assert min(later - earlier for earlier, later in pairwise(times)) >= 2 * LATENCY - 0.002


def test_a_path_that_carries_less_than_before_does_not_stop_what_is_sent() -> None:
    """Q28: a black hole is left, and the path searched again after a while."""
    moved = line()
    moved.upload(MIB)
    assert moved.size == 1452
    moved.carries = 1300
    began = moved.now
    moved.upload(MIB)
    assert moved.now - began < 3
    assert moved.size == 1232
    moved.now += 10
    moved.upload_for(60)
    assert 1284 <= moved.size <= 1300


def test_burst_losses_of_congestion_are_no_black_hole() -> None:
    """Q28: something large arrives after them."""
    crowded = line()
    crowded.upload(MIB)
    begin = len(crowded.sent)
    crowded.loses = lambda count: begin + 100 <= count < begin + 150
    crowded.upload(MIB)
    assert crowded.size == 1452
    assert crowded.client._connection._loss._cc.ssthresh is not None


def test_no_probe_is_larger_than_what_the_remote_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q26: its max_udp_payload_size is kept to."""
    serialize = Connection._serialize_transport_parameters
    taken = bytes([3, 2]) + (0x4000 | 1300).to_bytes(2)
    monkeypatch.setattr(
        Connection, "_serialize_transport_parameters", lambda self: serialize(self) + taken
    )
    small = line()
    small.upload(MIB)
    assert max(small.sent) == 1300
