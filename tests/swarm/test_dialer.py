"""Rules DI9 to DI11: the race; who goes when is decided by ranking.py."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import answered
from p2pnet.errors import ConnectionLost, ProtocolError, describe
from p2pnet.interfaces import CircuitLimit, MuxedStream
from p2pnet.swarm.dialer import Bounds, Race, race
from p2pnet.swarm.ranking import Attempt

PEER = PeerId(b"\x12\x20" + bytes(32))
A, B, C, D = (parse(f"/ip4/1.2.3.4/tcp/{n}") for n in range(1, 5))


@dataclass(eq=False)
class Line:
    """A connection as far as a race is concerned."""

    local_address: Multiaddr
    remote_address: Multiaddr
    peer_id: PeerId = PEER
    security: str = "/none"
    muxer: str = "/none"
    limit: CircuitLimit | None = None
    is_closed: bool = False
    is_over: bool = False

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        await trio.sleep_forever()

    async def open_stream(self) -> MuxedStream:
        raise ConnectionLost("never")

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class Lines:
    """What happens at each address: seconds until the answer, and an error or None."""

    answers: dict[Multiaddr, tuple[float, Exception | None]]
    heard: dict[Multiaddr, float] = field(default_factory=dict)
    """Seconds until the first answer, where the handshakes take longer."""
    began: dict[Multiaddr, float] = field(default_factory=dict)
    cancelled: list[Multiaddr] = field(default_factory=list)
    opened: list[Line] = field(default_factory=list)
    busiest: int = 0
    _busy: int = 0
    _started: float = field(default_factory=trio.current_time)

    async def dial(self, address: Multiaddr) -> Line:
        self.began[address] = round(trio.current_time() - self._started, 6)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        seconds, error = self.answers[address]
        heard = self.heard.get(address, math.inf)
        try:
            if heard < seconds:
                await trio.sleep(heard)
                answered()
            await trio.sleep(seconds - (heard if heard < seconds else 0))
        except trio.Cancelled:
            self.cancelled.append(address)
            raise
        finally:
            self._busy -= 1
        if error is not None:
            raise error
        line = Line(A, address)
        self.opened.append(line)
        return line


def causes(result: Race) -> dict[str, str]:
    return {str(attempt.address): describe(attempt.cause) for attempt in result.failed}


REFUSED: Exception = OSError("refused")


async def test_di9_the_first_that_works_wins_and_the_others_are_cancelled(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (5.0, None), B: (0.1, None), C: (0.1, None)})
    attempts = [Attempt(0.0, A), Attempt(0.25, B), Attempt(0.5, C)]
    result = await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == B
    assert result.winner is lines.opened[0]
    assert not lines.opened[0].is_closed
    assert lines.began == {A: 0.0, B: 0.25}
    assert lines.cancelled == [A]
    assert result.unfinished == [A, C]
    assert not result.failed


async def test_di9_each_waits_for_its_delay_while_another_is_under_way(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (9.0, REFUSED), B: (9.0, REFUSED), C: (9.0, REFUSED)})
    attempts = [Attempt(0.0, A), Attempt(0.25, B), Attempt(0.5, C)]
    result = await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {A: 0.0, B: 0.25, C: 0.5}
    assert result.winner is None
    assert causes(result) == dict.fromkeys(map(str, (A, B, C)), "OSError: refused")
    assert not result.unfinished


async def test_di9_when_all_before_it_failed_the_next_goes_at_once(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (0.01, REFUSED), B: (0.02, REFUSED), C: (0.01, None)})
    attempts = [Attempt(0.0, A), Attempt(0.0, B), Attempt(0.5, C)]
    result = await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {A: 0.0, B: 0.0, C: 0.02}
    assert result.winning_address == C


async def test_di9_one_failure_does_not_hurry_the_next_while_another_is_under_way(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (0.01, REFUSED), B: (9.0, REFUSED), C: (0.01, None)})
    attempts = [Attempt(0.0, A), Attempt(0.0, B), Attempt(0.5, C)]
    await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert lines.began[C] == 0.5


async def test_di11_no_more_than_the_limit_are_under_way_at_once(autojump_clock: MockClock) -> None:
    lines = Lines({A: (1.0, REFUSED), B: (2.0, REFUSED), C: (1.0, REFUSED), D: (0.1, None)})
    attempts = [Attempt(0.0, address) for address in (A, B, C, D)]
    result = await race(attempts, lines.dial, Bounds(max_parallel=2))
    assert lines.busiest == 2
    assert lines.began == {A: 0.0, B: 0.0, C: 1.0, D: 2.0}
    assert result.winning_address == D


async def test_di11_at_the_deadline_the_race_is_over_and_what_failed_is_known(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (1.0, REFUSED), B: (9.0, None), C: (9.0, None)})
    attempts = [Attempt(0.0, A), Attempt(0.5, B), Attempt(7.0, C)]
    deadline = trio.current_time() + 5.0
    result = await race(attempts, lines.dial, Bounds(max_parallel=8, deadline=deadline))
    assert trio.current_time() == deadline
    assert result.winner is None
    assert causes(result) == {str(A): "OSError: refused"}
    assert result.unfinished == [B, C]
    assert lines.cancelled == [B]


async def test_two_that_work_at_the_same_moment_leave_one_connection(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (1.0, None), B: (1.0, None)})
    result = await race([Attempt(0.0, A), Attempt(0.0, B)], lines.dial, Bounds(max_parallel=8))
    (kept,) = [line for line in lines.opened if not line.is_closed]
    assert result.winner is kept


async def test_a_race_that_is_cancelled_leaves_no_connection(autojump_clock: MockClock) -> None:
    lines = Lines({A: (1.0, None), B: (9.0, None)})

    async def dial(address: Multiaddr) -> Line:
        try:
            return await lines.dial(address)
        finally:
            scope.cancel()

    with trio.CancelScope() as scope:
        result = await race([Attempt(0.0, A)], dial, Bounds(max_parallel=8))
        # It may have been done just before; then the caller has it.
        await result.winner.aclose() if result.winner else None
    assert len(lines.opened) == 1
    assert lines.opened[0].is_closed


async def test_no_addresses_make_a_short_race(autojump_clock: MockClock) -> None:
    result = await race([], Lines({}).dial, Bounds(max_parallel=8))
    assert result.winner is None
    assert not result.failed


async def test_what_a_remote_does_wrong_fails_its_address_alone(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = Lines({A: (0.1, ExceptionGroup("", [ProtocolError("/x", "bad")])), B: (0.1, None)})
    result = await race([Attempt(0.0, A), Attempt(1.0, B)], lines.dial, Bounds(max_parallel=8))
    assert causes(result) == {str(A): "/x: bad"}
    assert result.winning_address == B
    assert [record.getMessage() for record in caplog.records] == [
        f"misbehaving peer: dial of {A}: /x: bad"
    ]


async def test_a_bug_fails_its_address_alone_and_is_logged(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = Lines({A: (0.1, KeyError("ours")), B: (0.1, None)})
    result = await race([Attempt(0.0, A), Attempt(1.0, B)], lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == B
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    caplog.clear()


# ---- handshakes under way ----------------------------------------------------------------

PRIVATE = parse("/ip4/192.168.0.2/tcp/1")
CIRCUIT, SECOND, THIRD = (parse(f"/ip4/9.9.9.{n}/tcp/1/p2p/{PEER}/p2p-circuit") for n in (9, 8, 7))
CIRCUITS = [Attempt(0.0, CIRCUIT), Attempt(1.0, SECOND), Attempt(2.0, THIRD)]


async def test_di10_who_has_answered_holds_back_the_others_for_three_times_as_long(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (9.0, REFUSED), B: (9.0, None)}, heard={A: 0.2})
    await race([Attempt(0.0, A), Attempt(0.25, B)], lines.dial, Bounds(max_parallel=8))
    assert lines.began == {A: 0.0, B: 0.8}


async def test_di10_a_handshake_that_ends_in_time_spares_the_next_dial(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (0.7, None), B: (9.0, None)}, heard={A: 0.2})
    result = await race([Attempt(0.0, A), Attempt(0.25, B)], lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == A
    assert lines.began == {A: 0.0}


@pytest.mark.parametrize(
    ("first", "heard", "begun"),
    [
        (A, 0.01, 0.26),  # A step at least,
        (PRIVATE, 0.005, 0.035),  # which is shorter in a network of one's own.
        (A, 0.9, 1.9),  # A second at most.
        (CIRCUIT, 0.2, 0.25),  # A relay's answer is not the peer's.
    ],
)
async def test_di10_the_others_are_held_back_within_bounds(
    autojump_clock: MockClock, first: Multiaddr, heard: float, begun: float
) -> None:
    lines = Lines({first: (9.0, REFUSED), B: (9.0, None)}, heard={first: heard})
    at = 0.25 if heard < 0.9 else 1.0
    if first is PRIVATE:
        at = 0.03
    await race([Attempt(0.0, first), Attempt(at, B)], lines.dial, Bounds(max_parallel=8))
    assert lines.began == {first: 0.0, B: pytest.approx(begun)}


async def test_di10_a_handshake_that_fails_holds_nothing_back_any_more(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (0.4, REFUSED), B: (9.0, REFUSED), C: (9.0, None)}, heard={A: 0.2})
    attempts = [Attempt(0.0, A), Attempt(0.0, B), Attempt(0.25, C)]
    await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {A: 0.0, B: 0.0, C: 0.4}


async def test_di10_many_that_answer_and_stall_hold_back_for_a_second_in_all(
    autojump_clock: MockClock,
) -> None:
    many = [parse(f"/ip4/1.2.3.4/tcp/{n}") for n in range(1, 20)]
    lines = Lines(dict.fromkeys(many, (99.0, REFUSED)), heard=dict.fromkeys(many, 0.3))
    attempts = [Attempt(0.25 * n, address) for n, address in enumerate(many)]
    bounds = Bounds(max_parallel=99, deadline=trio.current_time() + 10)
    await race(attempts, lines.dial, bounds)
    began = [lines.began[address] for address in many]
    # Two are under way when the first answers; after the second all go on as ranked.
    assert began[:4] == [0.0, 0.25, 1.3, 1.3]
    assert began[6:] == [0.25 * n for n in range(6, 19)]


async def test_di10_what_is_begun_goes_on_whoever_else_answers(autojump_clock: MockClock) -> None:
    lines = Lines({A: (9.0, None), B: (1.0, None)}, heard={A: 0.6})
    result = await race([Attempt(0.0, A), Attempt(0.25, B)], lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == B
    assert result.answered == (A,)


async def test_di11_the_time_of_who_waits_for_a_slot_has_not_begun(
    autojump_clock: MockClock,
) -> None:
    lines = Lines({A: (1.0, REFUSED), B: (0.5, None)})
    slots = trio.CapacityLimiter(1)
    bounds = Bounds(max_parallel=8, slots=slots)
    started = trio.current_time()
    result = await race([Attempt(0.0, A), Attempt(0.25, B)], lines.dial, bounds)
    assert lines.began == {A: 0.0, B: 1.0}
    assert result.runs[B].began - started == pytest.approx(1.0)
    assert slots.borrowed_tokens == 0


async def test_di11_a_circuit_takes_no_slot(autojump_clock: MockClock) -> None:
    lines = Lines({A: (1.0, REFUSED), CIRCUIT: (0.1, None)})
    bounds = Bounds(max_parallel=8, slots=trio.CapacityLimiter(1))
    await race([Attempt(0.0, A), Attempt(0.25, CIRCUIT)], lines.dial, bounds)
    assert lines.began == {A: 0.0, CIRCUIT: 0.25}


def test_an_answer_where_nobody_listens_is_no_harm() -> None:
    answered()


# ---- circuits ----------------------------------------------------------------------------


async def test_di10_a_circuit_that_is_open_holds_back_the_next(autojump_clock: MockClock) -> None:
    lines = Lines({CIRCUIT: (1.8, None), SECOND: (9.0, None)}, heard={CIRCUIT: 0.9})
    result = await race(CIRCUITS[:2], lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == CIRCUIT
    assert lines.began == {CIRCUIT: 0.0}


async def test_di10_a_circuit_that_opens_and_stalls_costs_a_second(
    autojump_clock: MockClock,
) -> None:
    lines = Lines(dict.fromkeys((CIRCUIT, SECOND, THIRD), (9.0, REFUSED)), heard={CIRCUIT: 0.9})
    await race(CIRCUITS, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {CIRCUIT: 0.0, SECOND: 1.9, THIRD: 2.0}


async def test_di10_a_circuit_held_back_lets_a_direct_address_pass(
    autojump_clock: MockClock,
) -> None:
    lines = Lines(
        {A: (9.0, REFUSED), CIRCUIT: (9.0, REFUSED), SECOND: (9.0, REFUSED), B: (9.0, REFUSED)},
        heard={CIRCUIT: 0.9},
    )
    attempts = [Attempt(0.0, A), Attempt(0.5, CIRCUIT), Attempt(1.5, SECOND), Attempt(1.75, B)]
    await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {A: 0.0, CIRCUIT: 0.5, B: 1.75, SECOND: 2.4}


async def test_di9_a_circuit_that_fails_hurries_the_next_past_direct_addresses_under_way(
    autojump_clock: MockClock,
) -> None:
    lines = Lines(
        {
            A: (9.0, REFUSED),
            B: (9.0, REFUSED),
            CIRCUIT: (0.1, REFUSED),
            SECOND: (0.1, REFUSED),
            THIRD: (0.1, None),
        }
    )
    attempts = [
        Attempt(0.0, A),
        Attempt(0.5, CIRCUIT),
        Attempt(1.0, B),
        Attempt(1.5, SECOND),
        Attempt(2.5, THIRD),
    ]
    result = await race(attempts, lines.dial, Bounds(max_parallel=8))
    assert result.winning_address == THIRD
    assert lines.began == {A: 0.0, CIRCUIT: 0.5, SECOND: 0.6, THIRD: pytest.approx(0.7)}


async def test_di9_a_circuit_under_way_is_not_hurried_past(autojump_clock: MockClock) -> None:
    lines = Lines({CIRCUIT: (1.2, REFUSED), SECOND: (0.5, REFUSED), THIRD: (0.1, None)})
    await race(CIRCUITS, lines.dial, Bounds(max_parallel=8))
    assert lines.began == {CIRCUIT: 0.0, SECOND: 1.0, THIRD: 1.5}


async def test_di11_a_circuit_that_is_due_waits_for_its_place(autojump_clock: MockClock) -> None:
    lines = Lines(
        {A: (2.0, REFUSED), CIRCUIT: (0.1, REFUSED), B: (2.0, REFUSED), SECOND: (0, None)}
    )
    attempts = [Attempt(0.0, A), Attempt(0.0, CIRCUIT), Attempt(0.0, B), Attempt(9.0, SECOND)]
    await race(attempts, lines.dial, Bounds(max_parallel=2))
    assert lines.began == {A: 0.0, CIRCUIT: 0.0, B: 0.1, SECOND: 2.0}
