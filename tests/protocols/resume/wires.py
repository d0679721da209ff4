"""Two machines and the carriers between them, which do what they are told and nothing else.

Carriers are two queues of bytes each, which arrive in pieces of any size, may be cut at any
byte, at one end before the other, and may be ended in good order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.machine import Machine, StaleMove
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
ALL = 1 << 30


class Watched(Machine):
    """A machine that counts what it meets."""

    met: Counter[str]
    has_sent_again = False

    def _take_data(self, carrier: Carrier, piece: Data) -> None:
        received, start = self.receiving.received, carrier.position
        self._meet("data")
        if start > received:
            self._meet("held")
        elif start < received:
            self._meet("overlap" if start + len(piece) > received else "known")
        super()._take_data(carrier, piece)

    def _send_again(self, carrier: Carrier) -> None:
        self._meet("again")
        self.has_sent_again = True
        super()._send_again(carrier)

    def _make_current(self, carrier: Carrier, *, is_alive: bool) -> None:
        self._meet("move alive" if is_alive and self.current is not None else "move after a loss")
        if self._has_said_stop and not self.receiving.has_ended:
            self._meet("stop repeated")
        super()._make_current(carrier, is_alive=is_alive)

    def data_to_send(self, carrier: Carrier, most: int = ALL) -> list[Data]:
        was_said, was_out = self.sending.is_fin_sent, carrier.is_fin_out
        data = super().data_to_send(carrier, most)
        if was_said and carrier.is_fin_out and not was_out:
            self._meet("fin repeated")
        return data

    def _meet(self, what: str) -> None:
        self.met[f"{'opener' if self.is_opener else 'responder'}: {what}"] += 1


class End:
    """A machine, what was written into it, and what was read out of it."""

    def __init__(self, window: int, met: Counter[str], *, is_opener: bool) -> None:
        self.machine = Watched(TOKENS, window, is_opener=is_opener, grow=grow)
        self.machine.met = met
        self.written = bytearray()
        self.read = bytearray()
        self.is_finished = False
        self.has_read_end = False
        self.is_closed = False
        self.has_reset = False
        self.saw_reset = False

    def write(self, count: int) -> None:
        """Write so many bytes, or as many as there is room for."""
        if self.is_finished or self.saw_reset or self.has_reset:
            return
        start = len(self.written)
        pattern = bytes((start + n) % 251 for n in range(251))
        data = (pattern * (count // 251 + 1))[:count]
        try:
            taken = self.machine.write(data, 0)
        except (StreamReset, ConnectionLost):
            # Who is told that nobody reads, by STOP, may go on reading.
            self.saw_reset = self.machine.has_failed
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

    def finish(self) -> None:
        if not self.has_reset and not self.machine.has_failed:
            self.machine.finish()
            self.is_finished = True

    def close(self) -> None:
        self.machine.close()
        self.is_finished = self.is_closed = True

    def reset(self, code: int) -> None:
        self.has_reset = self.has_reset or not self.machine.is_over
        self.machine.reset(code)


def grow(window: int) -> int:
    return window if window < LARGEST else 0


@dataclass(eq=False)
class Lane:
    """One direction of a carrier."""

    queue: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    is_cut: bool = False
    """Behind what is in the queue there is a reset."""
    is_end_read: bool = False

    @property
    def has_news(self) -> bool:
        return bool(self.queue) or self.is_cut or (self.is_ended and not self.is_end_read)


@dataclass(eq=False)
class Wire:
    """A carrier, and what its two ends know of it."""

    opener: Carrier
    there: Lane = field(default_factory=Lane)
    back: Lane = field(default_factory=Lane)
    responder: Carrier | None = None
    decoder: Decoder = field(default_factory=Decoder)
    is_gone_at_a: bool = False
    is_gone_at_b: bool = False

    def towards(self, to_b: bool) -> Lane:
        return self.there if to_b else self.back

    def is_gone(self, at_a: bool) -> bool:
        return self.is_gone_at_a if at_a else self.is_gone_at_b

    def carrier(self, at_a: bool) -> Carrier | None:
        return self.opener if at_a else self.responder


class Ends:
    """Opener ``a`` and responder ``b``, and the wires between them."""

    def __init__(self, windows: tuple[int, int], met: Counter[str]) -> None:
        self.a = End(windows[0], met, is_opener=True)
        self.b = End(windows[1], met, is_opener=False)
        self.is_b_there = False
        self.has_lost = False
        """Not every carrier has come to its end."""
        self.wires = [Wire(self.a.machine.open("/x"))]

    def end(self, at_a: bool) -> End:
        return self.a if at_a or not self.is_b_there else self.b

    @property
    def may_move(self) -> bool:
        """RS10: while the opening is under way, MOVE might overtake OPEN."""
        machine = self.a.machine
        return not machine.is_over and (machine.is_accepted or machine.current is None)

    def move(self) -> Wire:
        wire = Wire(self.a.machine.move())
        self.wires.append(wire)
        return wire

    def current(self, at_a: bool) -> Wire | None:
        """Return the wire that an end uses now."""
        carrier = (self.a if at_a else self.b).machine.current
        found = (wire for wire in self.wires if carrier and wire.carrier(at_a) is carrier)
        return next(found, None)

    def has_to_say(self, wire: Wire, from_a: bool) -> bool:
        machine, carrier = self._machine(from_a), wire.carrier(from_a)
        if carrier is None or wire.is_gone(from_a) or wire.towards(from_a).is_ended:
            return False
        is_due = carrier is machine.current and machine.has_data_to_send
        return bool(carrier.control) or is_due or machine.is_silent(carrier)

    def flow(self, wire: Wire) -> None:
        """Bring all that there is, once each way."""
        for from_a in (True, False):
            self.send(wire, from_a)
            self.arrive(wire, to_b=from_a)

    def send(self, wire: Wire, from_a: bool) -> bool:
        """Do what the task does that sends; tell if it did anything."""
        machine, carrier = self._machine(from_a), wire.carrier(from_a)
        lane = wire.towards(from_a)
        if carrier is None or lane.is_ended or wire.is_gone(from_a):
            return False
        if carrier.is_dropped:
            self.cut(wire, at_a=from_a)
            return True
        data = machine.data_to_send(carrier)
        if not wire.is_gone(not from_a):
            lane.queue += b"".join(data)
        if not data and machine.is_silent(carrier):
            lane.is_ended = True
            self._leave_if_done(wire, from_a)
            return True
        return bool(data)

    def arrive(self, wire: Wire, *, to_b: bool, most: int = ALL) -> bool:
        """Bring what is on its way, or its end; tell if there was anything."""
        lane = wire.towards(to_b)
        if wire.is_gone(not to_b):
            return False
        piece = bytes(lane.queue[:most])
        del lane.queue[:most]
        if piece:
            if to_b:
                self._receive_at_b(wire, piece)
            else:
                self.a.machine.receive(wire.opener, piece)
        elif lane.is_cut:
            self.cut(wire, at_a=not to_b)
        elif lane.is_ended and not lane.is_end_read:
            lane.is_end_read = True
            carrier = wire.carrier(not to_b)
            if carrier is None:
                self._go(wire, not to_b)
            else:
                self._machine(not to_b).ended(carrier)
                self._leave_if_done(wire, not to_b)
        else:
            return False
        return True

    def cut(self, wire: Wire, *, at_a: bool) -> None:
        """Lose a carrier at one end; the other reads what is on its way, and then learns it."""
        if not wire.is_gone(at_a):
            lane = wire.towards(at_a)
            lane.is_cut = not lane.is_ended
            self.has_lost = True
            self._go(wire, at_a)

    def _leave_if_done(self, wire: Wire, at_a: bool) -> None:
        if wire.towards(at_a).is_ended and wire.towards(not at_a).is_end_read:
            self._go(wire, at_a)

    def _go(self, wire: Wire, at_a: bool) -> None:
        if at_a:
            wire.is_gone_at_a = True
        else:
            wire.is_gone_at_b = True
        wire.towards(not at_a).queue.clear()
        if (carrier := wire.carrier(at_a)) is not None:
            self._machine(at_a).broke(carrier)
        if wire.is_gone_at_a and wire.is_gone_at_b:
            self.wires.remove(wire)

    def _machine(self, at_a: bool) -> Watched:
        return (self.a if at_a else self.b).machine

    def _receive_at_b(self, wire: Wire, piece: bytes) -> None:
        while piece and wire.responder is None and not wire.is_gone_at_b:
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
        if not wire.is_gone_at_a:
            wire.back.queue += encode(Refuse(why))
        wire.back.is_ended = True
        self._go(wire, at_a=False)
