"""Two machines and the carriers between them, against a queue of bytes: any order of events.

What is delivered has to be a prefix of what was written, whatever happens; and once carriers
live again, all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from p2pnet.protocols.resume.flow import restrain
from p2pnet.protocols.resume.machine import MAX_CARRIERS
from p2pnet.protocols.resume.messages import Why
from tests.protocols.resume.wires import WINDOW, Ends, Wire

sides = st.booleans()
sizes = st.integers(1, 2_000) | st.integers(1, 100_000)
rarely = st.sampled_from([False] * 9 + [True])
mostly = st.sampled_from([True] * 9 + [False])


class Moves(RuleBasedStateMachine):
    """RS6 RS7 RS8 RS9 RS10 RS11 RS12 RS14 RS22 under every interleaving of moves."""

    windows = (WINDOW, WINDOW)
    met: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends(self.windows, self.met)
        self.a, self.b = self.ends.a, self.ends.b

    @initialize(is_open=mostly)
    def begin(self, is_open: bool) -> None:
        if is_open:
            self.ends.flow(self.ends.wires[0])

    # ---- what applications do ------------------------------------------------------------

    @rule(at_a=sides, count=sizes)
    def write(self, at_a: bool, count: int) -> None:
        self.ends.end(at_a).write(count)

    @rule(at_a=sides, most=st.none() | st.integers(1, 50_000))
    def read(self, at_a: bool, most: int | None) -> None:
        self.ends.end(at_a).receive(most)

    @rule(at_a=sides, is_time=rarely)
    def finish(self, at_a: bool, is_time: bool) -> None:
        if is_time:
            self.ends.end(at_a).finish()

    @rule(at_a=sides, is_time=rarely, leash=st.integers(2_000, 100_000))
    def restrain(self, at_a: bool, is_time: bool, leash: int) -> None:
        """RS22."""
        carrier = self.ends.end(at_a).machine.current
        if is_time and carrier is not None:
            restrain(carrier, leash)

    # ---- what carriers do ----------------------------------------------------------------

    @precondition(lambda self: self.ends.may_move and len(self.ends.wires) < 6)
    @rule()
    def move(self) -> None:
        self.ends.move()

    @rule(data=st.data(), from_a=sides)
    def send(self, data: st.DataObject, from_a: bool) -> None:
        if wire := self._choose(data, lambda wire: self.ends.has_to_say(wire, from_a)):
            self.ends.send(wire, from_a)

    @rule(data=st.data(), to_b=sides, most=st.integers(1, 200_000))
    def arrive(self, data: st.DataObject, to_b: bool, most: int) -> None:
        if wire := self._choose(data, lambda wire: wire.towards(to_b).has_news):
            self.ends.arrive(wire, to_b=to_b, most=most)

    @rule(data=st.data(), rounds=st.integers(1, 4))
    def flow(self, data: st.DataObject, rounds: int) -> None:
        """Let a carrier work for a while."""
        if wire := self._choose(data, lambda _: True):
            for _ in range(rounds):
                self.ends.flow(wire)

    @rule(data=st.data(), is_time=rarely, at=st.sampled_from(("a", "b", "ab")))
    def cut(self, data: st.DataObject, is_time: bool, at: str) -> None:
        """Lose a carrier, wherever that ends what is on its way."""
        if is_time and (wire := self._choose(data, lambda _: True)):
            for end in at:
                self.ends.cut(wire, at_a=end == "a")

    @precondition(lambda self: self.ends.may_move and len(self.ends.wires) < 6)
    @rule(at_a=sides, before=sizes, after=sizes, is_lost=sides)
    def overtake(self, at_a: bool, before: int, after: int, is_lost: bool) -> None:
        """Move, so that what is sent in the new carrier arrives before what is in the old."""
        if (old := self.ends.current(at_a)) is not None:
            self.ends.end(at_a).write(before)
            self.ends.send(old, at_a)
            self._carry_on(at_a, after)
            if is_lost:
                self.ends.cut(old, at_a=not at_a)

    @precondition(lambda self: self.ends.may_move and len(self.ends.wires) < 6)
    @rule(at_a=sides, before=sizes, after=sizes, most=st.integers(1, 100_000))
    def repeat(self, at_a: bool, before: int, after: int, most: int) -> None:
        """Lose a carrier at its writer's end alone: what it brings still is sent again."""
        if (old := self.ends.current(at_a)) is not None:
            self.ends.end(at_a).write(before)
            self.ends.send(old, at_a)
            self.ends.cut(old, at_a=at_a)
            if self.ends.may_move:
                self._carry_on(at_a, after, lambda: self.ends.arrive(old, to_b=at_a, most=most))

    def _carry_on(
        self, at_a: bool, count: int, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        new = self.ends.move()
        self.ends.send(new, from_a=True)
        self.ends.arrive(new, to_b=True)
        self.ends.end(at_a).write(count)
        self.ends.send(new, from_a=False)
        meanwhile()
        self.ends.arrive(new, to_b=False)
        self.ends.send(new, from_a=True)
        self.ends.arrive(new, to_b=True)

    def _choose(self, data: st.DataObject, is_of_use: Callable[[Wire], bool]) -> Wire | None:
        wires = [wire for wire in self.ends.wires if is_of_use(wire)]
        return wires[data.draw(st.integers(0, len(wires) - 1))] if wires else None

    # ---- what holds ----------------------------------------------------------------------

    @invariant()
    def delivered_is_a_prefix_of_written(self) -> None:
        for reader, writer in ((self.a, self.b), (self.b, self.a)):
            assert writer.written.startswith(reader.read)
            if reader.has_read_end and not writer.saw_reset and not reader.is_closed:
                assert reader.read == writer.written
                assert writer.is_finished

    @invariant()
    def held_is_what_was_written_there_and_ahead_of_its_time(self) -> None:
        for reader, writer in ((self.a, self.b), (self.b, self.a)):
            for carrier in reader.machine._carriers:
                if carrier.held:
                    start = carrier.position - len(carrier.held)
                    assert start > reader.machine.receiving.received
                    assert writer.written[start : carrier.position] == carrier.held

    @invariant()
    def nothing_is_sent_again_but_for_a_loss(self) -> None:
        """RS10: what comes ahead of its time is kept."""
        has_again = self.a.machine.has_sent_again or self.b.machine.has_sent_again
        assert self.ends.has_lost or not has_again

    @invariant()
    def buffers_are_bounded(self) -> None:
        for end in (self.a, self.b):
            machine, receiving = end.machine, end.machine.receiving
            assert len(machine._carriers) <= MAX_CARRIERS
            assert len(machine.sending._kept) <= machine.sending.window
            assert receiving.waiting <= receiving.window
            held = sum(len(carrier.held) for carrier in machine._carriers)
            assert held <= receiving.told_limit - receiving.received <= receiving.window

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
            if self.a.machine.is_over and (self.b.machine.is_over or not self.ends.is_b_there):
                break
            if not self._settle() and not self._reconnect():
                self._who_is_stopped_knows()
                self._end_it()
        for end in (self.a, self.b):
            while end.receive(None):
                pass
        self.delivered_is_a_prefix_of_written()
        self.nothing_is_sent_again_but_for_a_loss()
        self.nobody_fails_but_by_a_reset()
        assert self.a.machine.is_over
        if self.ends.is_b_there and not self.a.has_reset and not self.b.has_reset:
            assert self.b.machine.is_over
            if not self.a.is_closed and not self.b.is_closed and self.a.machine.is_accepted:
                assert self.b.read == self.a.written
                assert self.a.read == self.b.written

    def _settle(self) -> bool:
        """Do one round of whatever can be done; tell if anything was."""
        done = False
        for wire in list(self.ends.wires):
            for from_a in (True, False):
                done |= self.ends.send(wire, from_a)
                done |= self.ends.arrive(wire, to_b=from_a)
        for end in (self.a, self.b):
            done |= end.receive(None)
        return done

    def _reconnect(self) -> bool:
        """Move if nothing carries the stream, as the opener does, or as it is asked to."""
        machine, other = self.a.machine, self.b.machine
        alone = machine.current is None or (self.ends.is_b_there and other.current is None)
        if machine.is_over or not alone:
            if machine.is_over and self.ends.is_b_there and other.is_orphaned:
                other.refused(Why.UNKNOWN)  # the answer to its ASK
                return True
            return False
        self.ends.move()
        return True

    def _who_is_stopped_knows(self) -> None:
        """RS17: STOP is lost with no carrier."""
        for closer, writer in ((self.a, self.b), (self.b, self.a)):
            said = closer.machine._has_said_stop and not closer.machine.receiving.has_ended
            if said and not closer.machine.has_failed:
                assert writer.machine.sending.is_stopped or writer.machine.is_over

    def _end_it(self) -> None:
        for end in (self.a, self.b):
            if not end.machine.has_failed and not end.is_finished:
                end.finish()


class UnevenMoves(Moves):
    """One side keeps much less than the other takes, and does not grow as fast."""

    windows = (WINDOW, 8 * WINDOW)


class ClosingMoves(Moves):
    """RS17: the ends are closed and reset as well."""

    @rule(at_a=sides, count=sizes, is_time=rarely, is_moved=sides)
    def close(self, at_a: bool, count: int, is_time: bool, is_moved: bool) -> None:
        """Read no more while something comes."""
        if is_time:
            self.ends.end(not at_a).write(count)
            if wire := self.ends.current(not at_a):
                self.ends.send(wire, from_a=not at_a)
                self.ends.arrive(wire, to_b=not at_a)
            self.ends.end(at_a).close()
            if wire and is_moved and self.ends.may_move and len(self.ends.wires) < 6:
                self._carry_on(not at_a, count)

    @rule(at_a=sides, is_time=rarely, code=st.integers(0, 9))
    def reset(self, at_a: bool, is_time: bool, code: int) -> None:
        if is_time and code == 9:
            self.ends.end(at_a).reset(code)


@cache
def explore(moves: type[Moves]) -> Counter[str]:
    """Try many histories, the same ones each time; return what the machines met in them."""
    moves.met = Counter()
    run_state_machine_as_test(
        moves,
        settings=settings(
            max_examples=200,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return moves.met


KINDS = (Moves, UnevenMoves, ClosingMoves)


@pytest.mark.parametrize("moves", KINDS)
def test_streams_stay_whole_under_every_interleaving_of_moves(moves: type[Moves]) -> None:
    assert explore(moves)


@pytest.mark.parametrize("side", ["opener", "responder"])
@pytest.mark.parametrize(
    ("what", "least"),
    [
        ("data", 500),
        ("held", 100),
        ("overlap", 75),
        ("known", 25),
        ("again", 25),
        ("fin repeated", 6),
        ("move alive", 300),
        ("move after a loss", 150),
    ],
)
def test_the_model_gets_to_where_things_go_wrong(side: str, what: str, least: int) -> None:
    """A model that stays where nothing happens would hold for any machine.

    Which histories are tried depends on the version of Hypothesis and on what else is imported:
    the least is a fifth of what is usual.
    """
    assert sum(explore(moves)[f"{side}: {what}"] for moves in KINDS) >= least


def test_the_model_gets_to_where_stop_is_said_again() -> None:
    """At either end: only a few histories close a stream while data comes, and move it then."""
    met = explore(ClosingMoves)
    assert met["opener: stop repeated"] + met["responder: stop repeated"] >= 3
