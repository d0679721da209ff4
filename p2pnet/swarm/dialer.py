"""Races the ranked addresses of a peer. Rules: specs/dialing.md (DI9 to DI11, DI29).

Each attempt is a task; the race starts them one after the other, and waits in between for
the next turn, or until something changes::

    turn -----> begun -----> answered -----> won: all others are cancelled
     ^            |             |
     |            |             +-- holds later turns back, for a moment
     +-- failed --+-- failed ---+
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from operator import itemgetter

import trio

from p2pnet.core.addresses import Multiaddr, is_relayed
from p2pnet.core.progress import hearing
from p2pnet.core.tasks import boundary, close_at_once, leaves
from p2pnet.errors import FailedAttempt
from p2pnet.interfaces import CapableConnection
from p2pnet.swarm.ranking import Attempt, step_of

logger = logging.getLogger("p2pnet.swarm")

DialOne = Callable[[Multiaddr], Awaitable[CapableConnection]]
Slots = AbstractAsyncContextManager[object]

HOLD_ROUND_TRIPS = 3.0
"""What a handshake takes once the remote has answered: up to two and a half, and some luck."""
MAX_HOLD = 1.0
"""Seconds after the very first answer at which nothing is held back any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a race has to keep to."""

    max_parallel: int
    deadline: float = math.inf
    """Of trio's clock."""
    slots: Slots | None = None
    """Shared with other races; a direct dial takes one, a circuit none (DI11, DI29)."""


@dataclass(slots=True)
class Run:
    """One dial that was begun."""

    began: float
    answered: float | None = None
    is_over: bool = False


@dataclass(slots=True)
class Race:
    """A race in progress: who is still running, who won, who failed and why."""

    winner: CapableConnection | None = None
    winning_address: Multiaddr | None = None
    failed: list[FailedAttempt] = field(default_factory=list)
    unfinished: list[Multiaddr] = field(default_factory=list)
    """Not tried, or tried without an outcome, when the time was over or another had won."""
    runs: dict[Multiaddr, Run] = field(default_factory=dict)
    """All that were begun."""
    report: Callable[[FailedAttempt], None] = lambda failure: None
    """Told of each failure as it happens."""
    watch: Callable[[], None] = lambda: None
    """Told of each change."""
    running: set[Multiaddr] = field(default_factory=set)
    changed: trio.Event = field(default_factory=trio.Event)

    def fail(self, failure: FailedAttempt) -> None:
        self.failed.append(failure)
        self.report(failure)

    def change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
        self.watch()

    @property
    def answered(self) -> tuple[Multiaddr, ...]:
        """The addresses at which anything at all was heard."""
        return tuple(each for each, run in self.runs.items() if run.answered is not None)

    def is_shaking_hands(self) -> bool:
        """Tell if somebody has answered, and has not failed."""
        return self.winner is not None or any(
            run.answered is not None and not run.is_over for run in self.runs.values()
        )

    def turn_of(self, attempt: Attempt, started_at: float) -> float:
        """Return when an attempt is due, as things stand (DI9, DI10)."""
        at = started_at + attempt.delay
        if not is_relayed(attempt.address):
            return max(at, self.held_until(relayed=False))
        if any(map(is_relayed, self.runs)) and not any(map(is_relayed, self.running)):
            at = started_at  # Those before it have failed: there is nothing to be spared any more.
        return max(at, self.held_until(relayed=False), self.held_until(relayed=True))

    def held_until(self, *, relayed: bool) -> float:
        """Return until when handshakes under way hold others back: direct ones, or circuits (DI10).

        Those of circuits hold back circuits alone.
        """
        answers = [
            (address, run.began, run.answered, run.is_over)
            for address, run in self.runs.items()
            if run.answered is not None and is_relayed(address) is relayed
        ]
        ends = [
            at + max(step_of(address), HOLD_ROUND_TRIPS * (at - began))
            for address, began, at, is_over in answers
            if not is_over
        ]
        if not ends:
            return -math.inf
        return min(max(ends), min(at for _, _, at, _ in answers) + MAX_HOLD)


async def race(
    attempts: Sequence[Attempt], dial: DialOne, bounds: Bounds, *, result: Race | None = None
) -> Race:
    """Dial the addresses in their order until one works; the others are cancelled.

    The next address is dialled when its delay has passed, or at once when nothing else is
    under way (DI9), so that a dead address costs no more than its own failure takes. At the
    deadline the race is over. Who wants to look on gives the ``result`` to write into.
    """
    result = result or Race()
    result.unfinished = [attempt.address for attempt in attempts]
    try:
        if len(attempts) == 1:
            with trio.move_on_at(bounds.deadline):
                # Nobody to race with: a task for it would cost a turn.
                result.running.add(attempts[0].address)
                await run_one(result, attempts[0].address, dial, bounds.slots)
        else:
            await run_race(result, attempts, dial, bounds)
    except BaseException:
        if result.winner is not None:
            await close_at_once(result.winner)
        raise
    return result


async def run_race(
    result: Race, attempts: Sequence[Attempt], dial: DialOne, bounds: Bounds
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = bounds.deadline
        started_at = trio.current_time()
        pending = list(attempts)
        while pending:
            attempt = await next_in_turn(result, pending, started_at, bounds.max_parallel)
            if result.winner is not None:
                break
            pending.remove(attempt)
            result.running.add(attempt.address)
            nursery.start_soon(run_one, result, attempt.address, dial, bounds.slots)
        while result.running and result.winner is None:
            await result.changed.wait()
        nursery.cancel_scope.cancel()


async def next_in_turn(
    result: Race, pending: Sequence[Attempt], started_at: float, max_parallel: int
) -> Attempt:
    """Wait until the time of one has come, or nobody is running any more; return it."""
    # Circuits may be due before direct addresses that stand before them, and the other way round.
    heads: dict[bool, Attempt] = {}
    for attempt in pending:
        heads.setdefault(is_relayed(attempt.address), attempt)
    while result.winner is None and result.running:
        turns = [(result.turn_of(attempt, started_at), attempt) for attempt in heads.values()]
        at, attempt = min(turns, key=itemgetter(0))
        is_full = len(result.running) >= max_parallel
        changed = result.changed
        with trio.move_on_at(math.inf if is_full else at) as waiting:
            await changed.wait()
        if waiting.cancelled_caught:
            return attempt
    return pending[0]


async def run_one(result: Race, address: Multiaddr, dial: DialOne, slots: Slots | None) -> None:
    """Dial one address. A boundary: what a remote does wrong fails this attempt alone."""
    connection: CapableConnection | None = None
    try:
        with boundary(logger, lambda: f"dial of {address}") as stopped:
            # DI11: a circuit takes no slot, as the dial of its relay within it may need one.
            slot: Slots = nullcontext()
            async with slot if slots is None or is_relayed(address) else slots:
                run = result.runs[address] = Run(trio.current_time())
                with hearing(lambda: take_answer(result, run)):
                    connection = await dial(address)
        result.unfinished.remove(address)
        if connection is None:
            cause = leaves(stopped.error)[0] if stopped.error else OSError("no connection")
            result.fail(FailedAttempt(address, cause))
        elif result.winner is None:
            result.winner, result.winning_address = connection, address
        else:
            await close_at_once(connection)
    finally:
        if address in result.runs:
            result.runs[address].is_over = True
        result.running.discard(address)
        result.change()


def take_answer(result: Race, run: Run) -> None:
    if run.answered is None and not run.is_over:
        run.answered = trio.current_time()
        result.change()
