"""Two machines and the carriers between them, against a queue of bytes: any order of events.

Carriers are two queues of bytes each, which arrive in pieces of any size, may be cut at any
byte, and may be ended in good order. What is delivered has to be a prefix of what was written,
whatever happens; and once carriers live again, all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.machine import MAX_CARRIERS, Machine, StaleMove
from p2pnet.protocols.resume.messages import (
    SMALLEST_WINDOW,
    Data,
    Decoder,
    Frame,
    Move,
    Open,
    Refuse,
    Why,
    encode,
)
from p2pnet.protocols.resume.policy import Tokens
from tests.protocols.resume.peers import ALICE, BOB

TOKENS = Tokens(bytes(16), ALICE, BOB)
WINDOW = SMALLEST_WINDOW
LARGEST = 4 * WINDOW


@dataclass(eq=False)
class Lane:
    """One direction of a carrier."""

    queue: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    is_end_read: bool = False


@dataclass(eq=False)
class Wire:
    """A carrier, and what its two ends know of it."""

    opener: Carrier
    there: Lane = field(default_factory=Lane)
    back: Lane = field(default_factory=Lane)
    responder: Carrier | None = None
    decoder: Decoder = field(default_factory=Decoder)
    is_refused: bool = False


class End:
    """A machine, what was written into it, and what was read out of it."""

    def __init__(self, window: int, *, is_opener: bool) -> None:
        self.machine = Machine(TOKENS, window, is_opener=is_opener, grow=grow)
        self.written = bytearray()
        self.read = bytearray()
        self.is_finished = False
        self.has_read_end = False
        self.is_closed = False
        self.has_reset = False
        self.saw_reset = False

    def write(self, data: bytes) -> None:
        if self.is_finished or self.saw_reset or self.has_reset:
            return
        try:
            taken = self.machine.write(data, 0)
        except (StreamReset, ConnectionLost):
            self.saw_reset = True
            return
        self.written += data[:taken]

    def receive(self, most: int | None) -> bool:
        """Read once; tell if anything came."""
        if self.is_closed or self.saw_reset or self.has_reset or self.has_read_end:
            return False
        try:
            data = self.machine.read(most)
        except (StreamReset, ConnectionLost):
            self.saw_reset = True
            return False
        if data == b"":
            self.has_read_end = True
        self.read += data or b""
        return bool(data)


def grow(window: int) -> int:
    return window if window < LARGEST else 0


class Moves(RuleBasedStateMachine):
    windows = (WINDOW, WINDOW)

    def __init__(self) -> None:
        super().__init__()
        self.a = End(self.windows[0], is_opener=True)
        self.b = End(self.windows[1], is_opener=False)
        self.is_b_there = False
        self.wires = [Wire(self.a.machine.open("/x"))]

    # ---- what applications do ------------------------------------------------------------

    @rule(at_a=st.booleans(), count=st.integers(1, 100_000), fill=st.integers(0, 255))
    def write(self, at_a: bool, count: int, fill: int) -> None:
        end = self._end(at_a)
        start = len(end.written)
        pattern = bytes((start + fill + n) % 251 for n in range(min(count, 251)))
        end.write((pattern * (count // 251 + 1))[:count])

    @rule(at_a=st.booleans(), most=st.none() | st.integers(1, 50_000))
    def read(self, at_a: bool, most: int | None) -> None:
        self._end(at_a).receive(most)

    @rule(at_a=st.booleans())
    def finish(self, at_a: bool) -> None:
        end = self._end(at_a)
        if not end.has_reset and not end.machine.has_failed:
            end.machine.finish()
            end.is_finished = True

    @precondition(lambda self: len(self.a.read) > 50_000)
    @rule(at_a=st.booleans())
    def close(self, at_a: bool) -> None:
        end = self._end(at_a)
        end.machine.close()
        end.is_finished = end.is_closed = True

    @precondition(lambda self: len(self.a.read) > 50_000)
    @rule(at_a=st.booleans(), code=st.integers(0, 9))
    def reset(self, at_a: bool, code: int) -> None:
        end = self._end(at_a)
        if not end.machine.is_over:
            end.has_reset = True
        end.machine.reset(code)

    # ---- what carriers do ----------------------------------------------------------------

    @precondition(lambda self: not self.a.machine.is_over and len(self.wires) < 6)
    @rule()
    def move(self) -> None:
        self.wires.append(Wire(self.a.machine.move()))

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        if wire := self._choose(data):
            self._send(wire, data.draw(st.booleans()))

    @rule(data=st.data(), most=st.integers(1, 200_000))
    def arrive(self, data: st.DataObject, most: int) -> None:
        if wire := self._choose(data):
            self._arrive(wire, to_b=data.draw(st.booleans()), most=most)

    @rule(data=st.data(), rounds=st.integers(1, 4))
    def flow(self, data: st.DataObject, rounds: int) -> None:
        """Let a carrier work for a while."""
        if wire := self._choose(data):
            for _ in range(rounds):
                for from_a in (True, False):
                    self._send(wire, from_a)
                    self._arrive(wire, to_b=from_a, most=1 << 30)

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """Lose whatever is on its way, wherever that ends."""
        if wire := self._choose(data):
            self._cut(wire)

    def _choose(self, data: st.DataObject) -> Wire | None:
        if not self.wires:
            return None
        return self.wires[data.draw(st.integers(0, len(self.wires) - 1))]

    def _end(self, at_a: bool) -> End:
        return self.a if at_a or not self.is_b_there else self.b

    def _send(self, wire: Wire, from_a: bool) -> bool:
        machine, carrier, lane = (
            (self.a.machine, wire.opener, wire.there)
            if from_a
            else (self.b.machine, wire.responder, wire.back)
        )
        if carrier is None or lane.is_ended:
            return False
        if carrier.is_dropped:
            self._cut(wire)
            return True
        data = machine.data_to_send(carrier)
        lane.queue += b"".join(data)
        if not data and machine.is_silent(carrier):
            lane.is_ended = True
            return True
        return bool(data)

    def _arrive(self, wire: Wire, *, to_b: bool, most: int) -> bool:
        lane = wire.there if to_b else wire.back
        piece = bytes(lane.queue[:most])
        del lane.queue[:most]
        if piece:
            if to_b:
                self._receive_at_b(wire, piece)
            else:
                self.a.machine.receive(wire.opener, piece)
            return True
        if lane.is_ended and not lane.is_end_read:
            lane.is_end_read = True
            if not to_b:
                self.a.machine.ended(wire.opener)
            elif wire.responder is not None:
                self.b.machine.ended(wire.responder)
            if wire.there.is_end_read and wire.back.is_end_read:
                self._cut(wire)
            return True
        return False

    def _receive_at_b(self, wire: Wire, piece: bytes) -> None:
        if wire.responder is not None:
            self.b.machine.receive(wire.responder, piece)
            return
        while piece and not wire.is_refused and wire.responder is None:
            wanted = wire.decoder.wanted()
            for frame in wire.decoder.feed(piece[:wanted]):
                assert not isinstance(frame, Data)
                self._begin_at_b(wire, frame)
            piece = piece[wanted:]
        if wire.responder is not None and piece:
            self.b.machine.receive(wire.responder, piece)

    def _begin_at_b(self, wire: Wire, frame: Frame) -> None:
        match frame:
            case Open():
                self.is_b_there = True
                wire.responder = self.b.machine.accept(frame, wire.decoder)
            case Move():
                assert TOKENS.is_proof("move", frame.number, frame.proof)
                if not self.is_b_there or self.b.machine.is_over:
                    self._refuse(wire, Why.UNKNOWN)
                    return
                try:
                    wire.responder = self.b.machine.answer(frame, wire.decoder)
                except StaleMove:
                    self._refuse(wire, Why.STALE)
            case _:
                raise AssertionError(frame)

    def _refuse(self, wire: Wire, why: Why) -> None:
        wire.is_refused = True
        wire.back.queue += encode(Refuse(why))
        wire.back.is_ended = True

    def _cut(self, wire: Wire) -> None:
        if wire in self.wires:
            self.wires.remove(wire)
        self.a.machine.broke(wire.opener)
        if wire.responder is not None:
            self.b.machine.broke(wire.responder)

    # ---- what holds ----------------------------------------------------------------------

    @invariant()
    def delivered_is_a_prefix_of_written(self) -> None:
        for reader, writer in ((self.a, self.b), (self.b, self.a)):
            assert writer.written.startswith(reader.read)
            if reader.has_read_end and not writer.saw_reset and not reader.is_closed:
                assert reader.read == writer.written
                assert writer.is_finished

    @invariant()
    def buffers_are_bounded(self) -> None:
        for end in (self.a, self.b):
            machine = end.machine
            assert len(machine.sending._kept) <= machine.sending.window
            held = sum(len(carrier.held) for carrier in machine._carriers)
            assert machine.receiving.waiting <= machine.receiving.window
            assert held <= machine.receiving.window * MAX_CARRIERS
            assert len(machine._carriers) <= MAX_CARRIERS

    @invariant()
    def nobody_fails_but_by_a_reset(self) -> None:
        is_reset = self.a.has_reset or self.b.has_reset
        is_closed = self.a.is_closed or self.b.is_closed
        for end in (self.a, self.b):
            if end.machine.has_failed and not end.has_reset:
                late = end.machine.receiving.has_ended and end.is_finished
                lost = not self.a.machine.is_accepted
                assert is_reset or is_closed or late or lost

    def teardown(self) -> None:
        """Let carriers live: then all that was written arrives, and the ends, and resets."""
        for _ in range(400):
            if self.a.machine.is_over and (self.b.machine.is_over or not self.is_b_there):
                break
            if not self._settle() and not self._reconnect():
                self._end_it()
        for end in (self.a, self.b):
            while end.receive(None):
                pass
        self.delivered_is_a_prefix_of_written()
        self.nobody_fails_but_by_a_reset()
        assert self.a.machine.is_over
        if self.is_b_there and not self.a.has_reset and not self.b.has_reset:
            assert self.b.machine.is_over
            if not self.a.is_closed and not self.b.is_closed and self.a.machine.is_accepted:
                assert self.b.read == self.a.written
                assert self.a.read == self.b.written

    def _settle(self) -> bool:
        """Do one round of whatever can be done; tell if anything was."""
        done = False
        for wire in list(self.wires):
            for from_a in (True, False):
                done |= self._send(wire, from_a)
                done |= self._arrive(wire, to_b=from_a, most=1 << 30)
        for end in (self.a, self.b):
            done |= end.receive(None)
        return done

    def _reconnect(self) -> bool:
        """Move if nothing carries the stream, as the opener does, or as it is asked to."""
        machine, other = self.a.machine, self.b.machine
        alone = machine.current is None or (self.is_b_there and other.current is None)
        if machine.is_over or not alone:
            if machine.is_over and self.is_b_there and other.is_orphaned:
                other.refused(Why.UNKNOWN)  # the answer to its ASK
                return True
            return False
        self.wires.append(Wire(machine.move()))
        return True

    def _end_it(self) -> None:
        for end in (self.a, self.b):
            if not end.machine.has_failed and not end.is_finished:
                end.machine.finish()
                end.is_finished = True


class UnevenMoves(Moves):
    """One side keeps much less than the other takes, and does not grow as fast."""

    windows = (WINDOW, 8 * WINDOW)


SETTINGS = settings(
    max_examples=100,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
Moves.TestCase.settings = UnevenMoves.TestCase.settings = SETTINGS
TestMoves = Moves.TestCase
TestUnevenMoves = UnevenMoves.TestCase
"""RS6 RS7 RS8 RS9 RS10 RS11 RS12 RS14 under every interleaving of moves."""
