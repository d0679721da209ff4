"""Races the ranked addresses of a peer. Rules: specs/connections.md (S10, S18)."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.tasks import boundary, close_at_once, leaves
from p2pnet.errors import FailedAttempt
from p2pnet.interfaces import CapableConnection
from p2pnet.swarm.ranking import Attempt

logger = logging.getLogger("p2pnet.swarm")

DialOne = Callable[[Multiaddr], Awaitable[CapableConnection]]


@dataclass(slots=True)
class Race:
    """A race in progress: who is still running, who won, who failed and why."""

    winner: CapableConnection | None = None
    winning_address: Multiaddr | None = None
    failed: list[FailedAttempt] = field(default_factory=list)
    unfinished: list[Multiaddr] = field(default_factory=list)
    """Not tried, or tried without an outcome, when the time was over or another had won."""
    running: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    def change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


async def race(
    attempts: Sequence[Attempt], dial: DialOne, *, max_parallel: int, deadline: float = math.inf
) -> Race:
    """Dial the addresses in their order until one works; the others are cancelled.

    The next address is dialled when its delay has passed, or at once when nothing else is
    under way (S10), so that a dead address costs no more than its own failure takes. At the
    ``deadline`` (of trio's clock) the race is over.
    """
    result = Race(unfinished=[attempt.address for attempt in attempts])
    try:
        with trio.move_on_at(deadline):
            await run_race(result, attempts, dial, max_parallel)
    except BaseException:
        if result.winner is not None:
            await close_at_once(result.winner)
        raise
    return result


async def run_race(
    result: Race, attempts: Sequence[Attempt], dial: DialOne, max_parallel: int
) -> None:
    async with trio.open_nursery() as nursery:
        started_at = trio.current_time()
        for attempt in attempts:
            await wait_for_turn(result, started_at + attempt.delay, max_parallel)
            if result.winner is not None:
                break
            result.running += 1
            nursery.start_soon(run_one, result, attempt.address, dial)
        while result.running and result.winner is None:
            await result.changed.wait()
        nursery.cancel_scope.cancel()


async def wait_for_turn(result: Race, at: float, max_parallel: int) -> None:
    while result.winner is None and result.running:
        if result.running >= max_parallel:
            await result.changed.wait()
            continue
        changed = result.changed
        with trio.move_on_at(at) as waiting:
            await changed.wait()
        if waiting.cancelled_caught:
            return


async def run_one(result: Race, address: Multiaddr, dial: DialOne) -> None:
    """Dial one address. A boundary: what a remote does wrong fails this attempt alone."""
    connection: CapableConnection | None = None
    try:
        with boundary(logger, f"dial of {address}") as stopped:
            connection = await dial(address)
        result.unfinished.remove(address)
        if connection is None:
            cause = leaves(stopped.error)[0] if stopped.error else OSError("no connection")
            result.failed.append(FailedAttempt(address, cause))
        elif result.winner is None:
            result.winner, result.winning_address = connection, address
        else:
            await close_at_once(connection)
    finally:
        result.running -= 1
        result.change()
