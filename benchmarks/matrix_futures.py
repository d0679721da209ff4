"""Many futures of one past: a world that has settled goes on with another seed in each fork.

To settle takes nine tenths of the time that a cell of the NAT matrix takes, and is the same for
all of them: hosts start, reserve at relays and ask AutoNAT who can dial them. So a world settles
once, and is forked::

    seed 300: settle --+-- fork, seed 300: a calls b --> a line of JSON
                       +-- fork, seed 301: b calls a --> a line of JSON
                       '-- ...

A fork has the jitter, the losses, the ports and the order of tasks of its own seed. It ends at
once when it has told its result, and nothing is left of it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import Ended, Punched, meet, settle
from p2pnet.testing.running import run
from p2pnet.testing.world import World

LONGEST_LINE = 1 << 16
LONGEST_SECONDS = 120.0
"""Real ones until a fork is given up, and ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one seed, and who called."""

    a: str
    b: str
    transport: Punched
    round_trip: float
    seed: int
    outcome: str
    """"direct", "relayed", "stuck" or "error"."""
    seconds: float | None
    attempt: int
    reason: str
    causes: str = ""
    """Of the caller and of the called one, as in a ``Cell``; older runs do not tell."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the futures have in common."""

    a: str
    b: str
    transport: Punched
    round_trip: float
    link: Quality


def futures(past: Past, seeds: Sequence[int]) -> list[Run]:
    """Let a world settle with the first of some seeds, and go on with each.

    With even seeds a calls b, with odd ones b calls a.
    """

    async def main() -> list[Run]:
        async with World(seeds[0]) as world:
            machines = await settle(
                world,
                ALL_KINDS[past.a],
                ALL_KINDS[past.b],
                link=past.link,
                transport=past.transport,
            )
            return [await future(world, machines, past, seed) for seed in seeds]

    return run(main)


async def future(world: World, machines: tuple[Machine, Machine], past: Past, seed: int) -> Run:
    names, (caller, called) = (past.a, past.b), machines
    if seed % 2:
        names, (caller, called) = (past.b, past.a), (called, caller)
    ended = await in_fork(partial(go_on, world, seed, caller, called))
    return Run(*names, past.transport, past.round_trip, seed, **asdict(ended))


async def go_on(world: World, seed: int, caller: Machine, called: Machine) -> Ended:
    world.reseed(seed)
    return await meet(caller, called)


async def in_fork(act: Callable[[], Awaitable[Ended]]) -> Ended:
    """Do something in a fork of this process, while all here stands still."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.disable()  # To go through all that the past has built would be to copy it.
        await tell(act, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], LONGEST_SECONDS)
        line = os.read(reader, LONGEST_LINE) if ready else b""
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 (it is dead, and nobody else shall run)
    return Ended(**json.loads(line)) if line else Ended("error", None, 0, "the fork said nothing")


async def tell(act: Callable[[], Awaitable[Ended]], writer: int) -> None:
    """Write what came of it, and end this process without a word to anybody."""
    try:
        ended = await act()
    except BaseException as error:  # noqa: BLE001 (there is nobody else to hear of it)
        ended = Ended("error", None, 0, repr(error)[:1000])
    os.write(writer, json.dumps(asdict(ended)).encode())
    os._exit(0)
