"""A town: homes of many kinds of NATs that settle once, and meet in forks of it.

Most of the CPU of a cell of the NAT matrix goes by until both hosts have settled. Here all hosts
settle in one world, with the same two relays; in a process of its own, which then stands still and
is forked for each pair, so that no pair can change what the next one finds::

    test --(a, b)--> town --fork--> a calls b --what came of it--> town --> test
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Self

import trio

from benchmarks.matrix_futures import in_fork
from p2pnet import presets
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import (
    LINK,
    SETTLING,
    Cell,
    Ended,
    Punched,
    at_home,
    judged,
    meet,
    relays_for,
    speaking,
)
from p2pnet.testing.running import run
from p2pnet.testing.world import World

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Who will meet in a town, over what."""

    transport: Punched
    pairs: tuple[Pair, ...]
    seed: int = 0


class Town:
    """Asks a town who gets through to whom; a context manager."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._asking, answering = get_context("fork").Pipe()
        self._process = get_context("fork").Process(
            target=live, args=(plan, answering), daemon=True
        )
        self._process.start()
        answering.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asking.send(None)
        self._process.join()
        if self._process.exitcode:
            raise RuntimeError("the town has not ended well: see what it wrote")

    def meet(self, a: str, b: str) -> Cell:
        """Let one home of a kind call one of another."""
        self._asking.send((a, b))
        ended: Ended = self._asking.recv()
        return judged(ALL_KINDS[a], ALL_KINDS[b], self._plan.transport, ended)


def live(plan: Plan, questions: Connection) -> None:
    run(partial(settle_and_answer, plan, questions))


async def settle_and_answer(plan: Plan, questions: Connection) -> None:
    async with World(plan.seed) as world:
        callers, called = await settle(world, plan)
        while True:
            pair: Pair | None = questions.recv()  # Nobody else shall run meanwhile.
            if pair is None:
                return
            caller, peer = callers[pair[0]], called[pair[1]]
            questions.send(await in_fork(partial(meet, caller, peer)))


async def settle(world: World, plan: Plan) -> tuple[dict[str, Machine], dict[str, Machine]]:
    """Build a home of each kind that calls, and one of each kind that is called."""
    known = await relays_for(world, plan.transport)
    config = speaking(plan.transport, presets.edge(relays=known))

    async def build(side: str, kinds: Iterable[str]) -> dict[str, Machine]:
        return {
            kind: await at_home(world, f"{side} {kind}", ALL_KINDS[kind], config, LINK)
            for kind in dict.fromkeys(kinds)
        }

    callers = await build("caller", (a for a, _ in plan.pairs))
    called = await build("called", (b for _, b in plan.pairs))
    await trio.sleep(SETTLING)
    return callers, called
