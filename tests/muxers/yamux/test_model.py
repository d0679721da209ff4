"""Two sessions and a simple model: whatever the applications do, no byte is lost or invented."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import LimitExceeded, StreamReset
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.messages import INITIAL_WINDOW
from p2pnet.muxers.yamux.stream_state import StreamState
from tests.muxers.yamux.ends import End, session_pair, transfer

CONFIG = Yamux(
    max_streams=3,
    max_outbound_streams=5,
    max_unacknowledged=2,
    max_frame=5000,
    max_unsent=20_000,
    max_connection_window=400_000,
)
PATTERN = bytes(range(251)) * 1200


@dataclass
class Half:
    """What the model knows of one direction of a stream: what was sent, and what was read."""

    written: int = 0
    read: int = 0
    finished: bool = False
    reader_closed: bool = False
    cut: bool = False
    """Somebody ended the stream without FIN, or sent to somebody who had left."""


@dataclass
class World:
    """Both ends, and the model."""

    ends: tuple[End, End]
    now: float = 0.0
    halves: dict[tuple[int, int], Half] = field(default_factory=dict)
    closed: set[tuple[int, int]] = field(default_factory=set)

    def half(self, sender: int, stream_id: int) -> Half:
        return self.halves.setdefault((sender, stream_id), Half())

    def pick(self, side: int, number: int) -> StreamState | None:
        open_here = [s for s in self.ends[side].streams.values() if (side, s.id) not in self.closed]
        return open_here[number % len(open_here)] if open_here else None

    # ---- what applications may do ----

    def open(self, side: int, _: int) -> None:
        if self.ends[side].session.may_open:
            try:
                self.ends[side].open(self.now)
            except LimitExceeded:
                in_use = [s for s in self.ends[side].streams if (side, s) not in self.closed]
                assert len(in_use) >= CONFIG.max_outbound_streams

    def write(self, side: int, number: int, amount: int) -> None:
        stream = self.pick(side, number)
        if stream is None or self.half(side, stream.id).finished:
            return
        half = self.half(side, stream.id)
        start = half.written % 251
        try:
            half.written += stream.write(PATTERN[start : start + amount], 0)
        except StreamReset:
            self.cut(stream.id)

    def read(self, side: int, number: int, most: int) -> None:
        stream = self.pick(side, number)
        if stream is not None:
            self.read_from(side, stream, most)

    def read_from(self, side: int, stream: StreamState, most: int | None) -> bool:
        half = self.half(1 - side, stream.id)
        try:
            data = stream.read(most)
        except StreamReset:
            self.cut(stream.id)
            assert half.cut
            return False
        if stream.owes_credit:
            stream.grant_credit(self.now)
        if data is None:
            return False
        start = half.read % 251
        assert data == PATTERN[start : start + len(data)]
        half.read += len(data)
        assert half.read <= half.written
        if not data:
            assert half.finished
            assert half.read == half.written
        return bool(data)

    def finish(self, side: int, number: int) -> None:
        stream = self.pick(side, number)
        if stream is None:
            return
        try:
            stream.finish()
        except StreamReset:
            self.cut(stream.id)
        self.half(side, stream.id).finished = True

    def close(self, side: int, number: int) -> None:
        stream = self.pick(side, number)
        if stream is None:
            return
        self.ends[side].session.close(stream)
        self.half(side, stream.id).finished = True
        self.leave(side, stream)

    def reset(self, side: int, number: int) -> None:
        stream = self.pick(side, number)
        if stream is None:
            return
        self.ends[side].session.reset(stream, 1)
        self.cut(stream.id)
        self.leave(side, stream)

    def leave(self, side: int, stream: StreamState) -> None:
        self.closed.add((side, stream.id))
        self.half(1 - side, stream.id).reader_closed = True
        # The remote may be told, at any time from now on, that nobody reads.
        self.half(1 - side, stream.id).cut = True
        self.half(side, stream.id).cut = True

    def cut(self, stream_id: int) -> None:
        for sender in (0, 1):
            self.half(sender, stream_id).cut = True

    # ---- what the network does ----

    def carry(self, side: int, most: int | None) -> int:
        source, target = self.ends[side], self.ends[1 - side]
        known = set(target.streams)
        carried = transfer(source, target, now=self.now, most=most)
        refused = set(source.streams) - set(target.streams)
        if len(target.streams) - len(known) == 0 and refused:
            for stream_id in refused:
                self.cut(stream_id)
        return carried

    def wait(self, seconds: float) -> None:
        self.now += seconds

    # ---- what must always hold ----

    def check(self) -> None:
        for end in self.ends:
            waiting = len(end.session._outgoing)
            assert waiting < 2 * CONFIG.max_unsent + CONFIG.max_frame + CONFIG.max_control
            inbound = end.session._inbound
            assert inbound <= CONFIG.max_streams
            grown = 0
            for stream in end.session._streams.values():
                unread = sum(map(len, stream._inbox)) - stream._start
                assert unread <= stream.window.size
                grown += stream.window.size - INITIAL_WINDOW
            assert grown <= CONFIG.max_connection_window

    def settle(self) -> None:
        """Deliver and read everything."""
        busy = True
        while busy:
            busy = self.carry(0, None) + self.carry(1, None) > 0
            for side in (0, 1):
                for stream in self.ends[side].streams.values():
                    if (side, stream.id) not in self.closed:
                        while self.read_from(side, stream, None):
                            busy = True


SIDE = st.integers(0, 1)
NUMBER = st.integers(0, 7)
STEPS = st.one_of(
    st.tuples(st.just("open"), SIDE, NUMBER),
    st.tuples(st.just("write"), SIDE, NUMBER, st.integers(0, 300_000)),
    st.tuples(st.just("write"), SIDE, NUMBER, st.integers(0, 3000)),
    st.tuples(st.just("read"), SIDE, NUMBER, st.integers(1, 300_000)),
    st.tuples(st.just("finish"), SIDE, NUMBER),
    st.tuples(st.just("close"), SIDE, NUMBER),
    st.tuples(st.just("reset"), SIDE, NUMBER),
    st.tuples(st.just("carry"), SIDE, st.none() | st.integers(1, 30_000)),
    st.tuples(st.just("carry"), SIDE, st.none()),
    st.tuples(st.just("wait"), st.floats(0, 1)),
)


@given(st.lists(STEPS, max_size=80))
def test_no_byte_is_lost_or_invented_and_all_stays_bounded(steps: list[tuple[str, ...]]) -> None:
    world = World(session_pair(CONFIG))
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        world.check()
    world.settle()
    world.check()
    for (sender, stream_id), half in world.halves.items():
        if not half.cut and stream_id in world.ends[1 - sender].streams:
            assert half.read == half.written
            if half.finished:
                assert world.ends[1 - sender].streams[stream_id].read(None) == b""
