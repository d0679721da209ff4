"""The TCP of the simulated internet."""

from __future__ import annotations

from collections.abc import Callable

from p2pnet.testing.packet import Flags, Segment
from p2pnet.testing.tcp import State, TcpConfig, TcpConnection

NEAR_THE_WRAP = 2**32 - 5
LATENCY = 0.05


def never(_segment: Segment) -> bool:
    return False


class Wire:
    """Two ends, and what is under way between them, in virtual time."""

    def __init__(
        self,
        *,
        config: TcpConfig | None = None,
        lost: Callable[[Segment], bool] = never,
        simultaneous: bool = False,
    ) -> None:
        config = config or TcpConfig()
        self.now = 0.0
        self.lost = lost
        self.a = TcpConnection(config, initial_sequence=NEAR_THE_WRAP, max_segment=1460)
        self.b = TcpConnection(config, initial_sequence=7, max_segment=1460)
        self.under_way: list[tuple[float, int, TcpConnection, Segment]] = []
        self._number = 0
        self.a.connect(self.now)
        self._b_is_there = simultaneous
        if simultaneous:
            self.b.connect(self.now)

    def post(self) -> None:
        for end, other in ((self.a, self.b), (self.b, self.a)):
            for segment in end.segments_to_send():
                if not self.lost(segment):
                    self._number += 1
                    self.under_way.append((self.now + LATENCY, self._number, other, segment))

    def step(self) -> bool:
        self.post()
        times = [entry[0] for entry in self.under_way]
        times += [at for end in (self.a, self.b) if (at := end.deadline()) is not None]
        if not times:
            return False
        self.now = max(self.now, min(times))
        for end in (self.a, self.b):
            end.timeout(self.now)
        arriving = sorted(e for e in self.under_way if e[0] <= self.now)
        self.under_way = [e for e in self.under_way if e[0] > self.now]
        for _, _, end, segment in arriving:
            self.deliver(end, segment)
        return True

    def deliver(self, end: TcpConnection, segment: Segment) -> None:
        if end is self.b and not self._b_is_there and segment.flags is Flags.SYN:
            self._b_is_there = True
            end.accept(segment, self.now)
        else:
            end.receive(segment, self.now)

    @property
    def states(self) -> tuple[State, State]:
        return (self.a.state, self.b.state)

    def run(self, seconds: float = 1000.0) -> None:
        until = self.now + seconds
        while self.now < until and self.step():
            pass


def test_handshake_data_and_an_orderly_end() -> None:
    wire = Wire()
    wire.run(0.2)
    assert wire.states == (State.ESTABLISHED, State.ESTABLISHED)
    assert wire.a.deadline() is wire.b.deadline() is None
    assert wire.a.write(b"hello" * 1000, wire.now) == 5000
    wire.run()
    assert wire.b.read(10_000, wire.now) == b"hello" * 1000
    wire.a.shutdown(wire.now)
    wire.run()
    assert wire.states == (State.FIN_WAIT_2, State.CLOSE_WAIT)
    assert wire.b.at_end
    assert wire.b.write(b"bye", wire.now) == 3
    wire.run()
    assert wire.a.read(10, wire.now) == b"bye"
    wire.b.close(wire.now)
    wire.run()
    assert wire.a.is_over
    assert wire.b.is_over
    assert wire.a.error is wire.b.error is None


def test_ends_that_dial_at_the_same_time_meet() -> None:
    wire = Wire(simultaneous=True)
    wire.step()
    assert wire.states == (State.SYN_RECEIVED, State.SYN_RECEIVED)
    wire.run(1.0)
    assert wire.states == (State.ESTABLISHED, State.ESTABLISHED)
