"""Windows of unlike sizes, and the queue of what was written. Rules of specs/resume.md."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet.errors import ProtocolError
from p2pnet.interfaces import CircuitLimit
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.halves import SMALL_PIECE, Kept
from p2pnet.protocols.resume.machine import Machine
from p2pnet.protocols.resume.messages import (
    MAX_DATA,
    SMALLEST_WINDOW,
    Again,
    Decoder,
    Frame,
    Move,
    Open,
    Seek,
    data_header,
    encode,
)
from p2pnet.protocols.resume.policy import LEAST_LEASH, Tokens, leash
from p2pnet.protocols.resume.stream import MIN_TURN, longest_turn, next_turn
from tests.protocols.resume.peers import ALICE, BOB

TOKENS = Tokens(bytes(16), ALICE, BOB)
SMALL, LARGE = SMALLEST_WINDOW, 16 * SMALLEST_WINDOW


class Pair:
    """Two machines and a carrier that brings everything at once."""

    def __init__(self, opener: int, responder: int, most: int = LARGE) -> None:
        def grow(window: int) -> int:
            return max(0, min(window, most - window))

        self.here = Machine(TOKENS, opener, is_opener=True, grow=grow)
        self.there = Machine(TOKENS, responder, is_opener=False, grow=grow)
        self.outlet = self.here.open("/x")
        decoder = Decoder()
        (first, *_) = decoder.feed(b"".join(self.here.data_to_send(self.outlet)))
        assert isinstance(first, Open)
        self.inlet = self.there.accept(first, decoder)
        self.pump()

    def pump(self) -> None:
        """Bring what there is, until there is no more."""
        while self._bring(self.here, self.outlet, self.there, self.inlet) or self._bring(
            self.there, self.inlet, self.here, self.outlet
        ):
            pass

    @staticmethod
    def _bring(one: Machine, outlet: Carrier, other: Machine, inlet: Carrier) -> bool:
        data = b"".join(one.data_to_send(outlet))
        if data:
            other.receive(inlet, data)
        return bool(data)


@pytest.mark.parametrize(("opener", "responder"), [(SMALL, LARGE), (LARGE, SMALL), (SMALL, SMALL)])
@pytest.mark.parametrize("is_back", [False, True])
def test_windows_of_any_size_never_wait_for_each_other(
    opener: int, responder: int, is_back: bool
) -> None:
    """RS6: what fills the writer's window is acknowledged, however large the reader's is."""
    pair = Pair(opener, responder, most=0)
    writer, reader = (pair.there, pair.here) if is_back else (pair.here, pair.there)
    data, got, at = bytes(range(256)) * (20 * SMALL // 256), bytearray(), 0
    while len(got) < len(data):
        before = at, len(got)
        at = writer.write(data, at)
        pair.pump()
        got += reader.read(None) or b""
        pair.pump()
        assert (at, len(got)) != before
    assert got == data


def test_a_window_grows_for_a_reader_that_keeps_up() -> None:
    """RS15."""
    pair = Pair(SMALL, SMALL)
    for _ in range(100):
        pair.here.write(bytes(LARGE), 0)
        pair.pump()
        pair.there.read(None)
        pair.pump()
    assert pair.there.receiving.window == LARGE
    assert pair.here.receiving.window == pair.there.sending.window == SMALL


def test_a_window_grows_while_most_of_it_is_on_its_way() -> None:
    """RS15."""
    pair = Pair(SMALL, LARGE)
    for _ in range(10):
        pair.here.write(bytes(2 * LARGE), 0)
        pair.here.data_to_send(pair.outlet)
    assert pair.here.sending.window == LARGE


def test_a_window_does_not_grow_for_a_reader_that_does_not_read() -> None:
    """RS15."""
    pair = Pair(SMALL, SMALL)
    for _ in range(100):
        pair.here.write(bytes(LARGE), 0)
        pair.pump()
    assert pair.there.receiving.window == SMALL
    assert pair.there.receiving.waiting == SMALL


def test_a_window_does_not_grow_while_a_carrier_takes_nothing() -> None:
    """RS15."""
    pair = Pair(SMALL, LARGE)
    for _ in range(100):
        pair.here.write(bytes(LARGE), 0)
    assert pair.here.sending.window == SMALL


def test_what_comes_ahead_of_its_time_is_kept_once_whatever_the_carrier() -> None:
    """RS11: three carriers that hold the same window could keep it three times."""
    pair = Pair(SMALL, SMALL)
    ahead = encode(Seek(1)) + data_header(SMALL - 1) + bytes(SMALL - 1)

    def move(number: int) -> Carrier:
        proof = TOKENS.proof("move", number)
        return pair.there.answer(Move(TOKENS.name, number, proof, 0, SMALL, True), Decoder())

    first = move(1)
    pair.there.receive(first, ahead)
    assert len(first.held) == SMALL - 1
    second = move(2)
    with pytest.raises(ProtocolError, match="ahead of its time"):
        pair.there.receive(second, ahead)


@pytest.mark.parametrize("frame", [Again(0), Seek(1)])
def test_who_has_more_answered_than_it_reads_breaks_a_rule(frame: Frame) -> None:
    """RS11: each AGAIN is answered by SEEK, and each SEEK that leaves a gap by AGAIN."""
    pair, asked = Pair(SMALL, SMALL), encode(frame)
    for _ in range(100):  # Who reads may ask as often as it likes.
        pair.there.receive(pair.inlet, 10 * asked)
        pair.there.data_to_send(pair.inlet)

    def ask_on() -> None:
        for _ in range(100_000):
            pair.there.receive(pair.inlet, asked)

    with pytest.raises(ProtocolError, match="more answered than it reads"):
        ask_on()
    assert len(pair.inlet.control) < 5_000


def test_what_a_lost_move_told_is_told_anew() -> None:
    """RS7: the end that came is acknowledged in the carrier that is there."""
    pair = Pair(SMALL, SMALL)
    pair.there.finish()
    pair.here.receive(pair.outlet, b"".join(pair.there.data_to_send(pair.inlet)))
    attempt = pair.here.move()
    assert pair.here.data_to_send(attempt)
    pair.here.broke(attempt)
    pair.pump()
    assert pair.there.sending.is_done


sizes = st.integers(1, 3 * SMALL_PIECE)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_was_written_is_kept_as_it_was(data: st.DataObject) -> None:
    """RS6: like a string of bytes, whatever is added, dropped and cut."""
    kept, model = Kept(), b""
    for count in range(data.draw(st.integers(1, 12))):
        written = bytes([count, 255 - count]) * data.draw(sizes)
        kind = data.draw(st.sampled_from((bytes, bytearray, memoryview)))
        start = data.draw(st.integers(0, len(written) - 1))
        kept.add(kind(written), start, len(written))
        model += written[start:]
        size = data.draw(st.integers(0, len(model)))
        if data.draw(st.booleans()):
            kept.drop(size)
            model = model[size:]
        elif data.draw(st.booleans()):
            kept.cut(size)
            model = model[:size]
        assert len(kept) == len(model)
        at = data.draw(st.integers(0, len(model)))
        most = data.draw(st.integers(SMALL_PIECE // 2, 4 * SMALL_PIECE))
        while at < len(model):
            part = b"".join(kept.parts(at, most))
            assert 0 < len(part) <= most
            assert model.startswith(part, at)
            at += len(part)


def test_parts_do_not_change_when_more_is_written() -> None:
    kept = Kept()
    changing = bytearray(b"a" * SMALL_PIECE)
    kept.add(changing, 0, len(changing))
    kept.add(b"b", 0, 1)
    parts = kept.parts(0, len(kept))
    changing[:] = b"x" * SMALL_PIECE
    kept.add(b"c", 0, 1)
    assert b"".join(parts) == b"a" * SMALL_PIECE + b"b"


def test_small_pieces_are_put_together() -> None:
    kept = Kept()
    for _ in range(SMALL_PIECE):
        kept.add(b"ab", 0, 2)
    assert len(kept._pieces) == 2


def test_a_turn_is_large_on_a_fast_carrier_and_small_on_a_slow_one() -> None:
    turn = MIN_TURN
    for _ in range(10):
        turn = next_turn(turn, turn, 0.0001)
    assert turn == MAX_DATA
    assert next_turn(turn, turn // 4, 0.0001) == turn
    assert next_turn(turn, turn, 0.01) == turn
    assert next_turn(turn, 1, 0.1) == turn // 2
    assert next_turn(MIN_TURN, 1, 0.1) == MIN_TURN


def test_of_a_circuit_no_large_part_is_handed_over_at_once() -> None:
    """RS22."""
    assert longest_turn(None) == longest_turn(CircuitLimit(seconds=120)) == MAX_DATA
    assert longest_turn(CircuitLimit(data_bytes=1 << 17)) == MIN_TURN
    assert longest_turn(CircuitLimit(data_bytes=1 << 24)) == 1 << 18
    assert longest_turn(CircuitLimit(data_bytes=1 << 40)) == MAX_DATA


def test_before_the_end_of_a_circuit_its_streams_share_what_may_be_on_its_way() -> None:
    """RS22."""
    assert leash(1 << 20, 1) == 1 << 17
    assert leash(1 << 20, 4) == 1 << 15
    assert leash(1 << 20, 1000) == leash(0, 1) == leash(-1.5, 1) == LEAST_LEASH
