"""Two TCP connections and a wire between them, in virtual time, without a kernel or a task."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from p2pnet.testing.packet import Flags, Segment
from p2pnet.testing.tcp import State, TcpConfig, TcpConnection
from p2pnet.testing.tcp_states import answer_without_connection

NEAR_THE_WRAP = 2**32 - 5
LATENCY = 0.05

Fate = Callable[[Segment], tuple[float, ...]]
"""How much later than usual each copy of a segment arrives: () is lost, (0, 0) duplicated."""


def intact(_segment: Segment) -> tuple[float, ...]:
    return (0,)


class Wire:
    """``a`` dials; ``b`` listens, or dials too. A segment nobody wants is answered with a RST."""

    def __init__(
        self,
        config: TcpConfig | None = None,
        *,
        fate: Fate = intact,
        max_segment: int = 1460,
        simultaneous: bool = False,
    ) -> None:
        config = config or TcpConfig()
        self.now = 0.0
        self.fate = fate
        self.a = TcpConnection(config, initial_sequence=NEAR_THE_WRAP, max_segment=max_segment)
        self.b = TcpConnection(config, initial_sequence=7, max_segment=max_segment)
        self.sent: list[tuple[float, TcpConnection, Segment]] = []
        self._under_way: list[tuple[float, int, TcpConnection, Segment]] = []
        self._number = 0
        self._b_listens = not simultaneous
        self.a.connect(self.now)
        if simultaneous:
            self.b.connect(self.now)

    @property
    def states(self) -> tuple[State, State]:
        return (self.a.state, self.b.state)

    @property
    def is_over(self) -> bool:
        return self.a.is_over and (self.b.is_over or self._b_listens)

    def open(self) -> Wire:
        self.run(1.0)
        assert self.states == (State.ESTABLISHED, State.ESTABLISHED)
        self.sent.clear()
        return self

    def run(self, seconds: float = 5000.0) -> None:
        """Go on until nothing is left to wait for, or so long."""
        until = self.now + seconds
        while True:
            self.post()
            at = self.next_event()
            if at is None or at > until:
                break
            self._step(at)
        if at is not None:
            self.now = until

    def next_event(self) -> float | None:
        times = [at for end in (self.a, self.b) if (at := end.deadline()) is not None]
        if self._under_way:
            times.append(self._under_way[0][0])
        return min(times, default=None)

    def step(self) -> bool:
        self.post()
        at = self.next_event()
        if at is not None:
            self._step(at)
        return at is not None

    def post(self) -> None:
        for end, other in ((self.a, self.b), (self.b, self.a)):
            for segment in end.segments_to_send():
                self._post(end, other, segment)

    def _post(self, end: TcpConnection, other: TcpConnection, segment: Segment) -> None:
        self.sent.append((self.now, end, segment))
        for delay in self.fate(segment):
            self._number += 1
            at = self.now + LATENCY + delay
            heapq.heappush(self._under_way, (at, self._number, other, segment))

    def _step(self, at: float) -> None:
        self.now = max(self.now, at)
        if self._under_way and self._under_way[0][0] <= self.now:
            _, _, end, segment = heapq.heappop(self._under_way)
            self._deliver(end, segment)
        else:
            for end in (self.a, self.b):
                end.timeout(self.now)

    def _deliver(self, end: TcpConnection, segment: Segment) -> None:
        if end is self.b and self._b_listens:
            if segment.flags is Flags.SYN:
                self._b_listens = False
                end.accept(segment, self.now)
                return
        elif not end.is_over:
            end.receive(segment, self.now)
            return
        answer = answer_without_connection(segment)
        if answer is not None:
            self._post(end, self.b if end is self.a else self.a, answer)
