"""Compare what NATs do with what they should: theory, simulation and real packets.

Each kind is classified from inside, and each pair of kinds tries a hole punch with plain sockets,
there and back; a row for each says what was measured, and what was expected.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, Literal

import trio

from interop.natlab.stage import SIDES, SimulatedStage, Stage, host_of
from p2pnet.core.tasks import bare_exceptions
from p2pnet.testing.kinds import Kind
from p2pnet.testing.nat_kind import Dependence, NatKind, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing import Classification, PunchResult, Unmeasurable
from p2pnet.testing.running import run
from p2pnet.testing.theory import can_punch, chained
from p2pnet.testing.world import World

MAX_CELLS: Final = 6
"""At once: with more, two cores are late with packets, and a failure says nothing."""
SIMULATED_AT_ONCE: Final = 48  # Virtual time cannot be late.

Outcome = Literal["direct", "none", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a classification says, without addresses and ports."""

    blocked: bool
    translated: bool = False
    mapping: str | None = None
    filtering: str | None = None
    ports: str | None = None
    hairpins: bool = False
    unsolicited: str | None = None


BLOCKED: Final = Traits(blocked=True)


def expected_traits(kind: Kind, transport: TransportName) -> Traits:
    """Say what a classifier must find from inside a home of a kind."""
    chain = chained(kind)
    if transport == "udp" and chain.udp_blocked:
        return BLOCKED
    translating = [nat for nat in kind.nats if nat.translates]
    moved = [nat.ports for nat in translating if nat.ports is not PortChoice.PRESERVING]
    hairpinning = bool(translating) and translating[-1].hairpinning
    outermost = kind.nats[-1] if kind.nats else None
    answers = outermost is None or outermost.answers_reset
    return Traits(
        blocked=False,
        translated=bool(translating),
        mapping=chain.mapping.value,
        filtering=chain.filtering.value,
        ports=(moved[-1] if moved else PortChoice.PRESERVING).value,
        # Two ports behind one NAT are to it like two hosts behind two of its kind.
        hairpins=hairpinning and can_punch(kind, kind, transport).direct,
        unsolicited=None if transport == "udp" else "answered" if answers else "dropped",
    )


def traits_of(found: Classification) -> Traits:
    if found.blocked:
        return BLOCKED
    return Traits(
        blocked=False,
        translated=found.translated,
        mapping=found.mapping.value if found.mapping else None,
        filtering=found.filtering.value if found.filtering else None,
        ports=found.ports.value if found.ports else None,
        hairpins=found.hairpins,
        unsolicited=found.unsolicited,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What was found of a kind."""

    kind: str
    transport: TransportName
    found: Traits | None
    expected: Traits
    simulated: Traits | None = None
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """Tell whether theory, simulation and measurement say the same."""
        return self.expected == self.found and self.simulated in (None, self.expected)

    def as_fields(self) -> dict[str, object]:
        return {"event": "classified", "agrees": self.agrees, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Punched:
    """What became of a hole punch between homes of two kinds."""

    a: str
    b: str
    transport: TransportName
    outcome: Outcome
    expected: Outcome
    reason: str
    """What ended it on both sides, a's first."""
    theory: str
    simulated: Outcome | None = None
    seconds: float | None = None
    """From the agreed moment, if direct."""

    @property
    def agrees(self) -> bool:
        """Tell whether theory, simulation and measurement say the same."""
        return self.expected == self.outcome and self.simulated in (None, self.expected)

    def as_fields(self) -> dict[str, object]:
        return {"event": "punched", "agrees": self.agrees, **asdict(self)}


def combinations() -> Iterator[Kind]:
    """Give kinds of one NAT with every combination of properties, and every firewall.

    Without hairpinning and answers by RST together, of which the kernel is not capable.
    """
    for mapping, filtering, ports in itertools.product(Dependence, Dependence, PortChoice):
        nat = NatKind(mapping=mapping, filtering=filtering, ports=ports)
        name = f"{mapping.value} / {filtering.value} / {ports.value}"
        yield Kind(name, (nat,))
        yield Kind(f"{name} / hairpinning", (replace(nat, hairpinning=True),))
        yield Kind(f"{name} / reset", (replace(nat, answers_reset=True),))
    for filtering in Dependence:
        yield Kind(
            f"firewall / {filtering.value}", (NatKind(translates=False, filtering=filtering),)
        )


Row = Classified | Punched
Report = Callable[[Row], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """What is to be measured."""

    classified: Sequence[Kind]
    punching: Sequence[Kind]
    """Each with each, in both orders."""
    transports: Sequence[TransportName]

    def kinds(self) -> tuple[Kind, ...]:
        """Give each kind that is needed once."""
        return tuple({kind.name: kind for kind in (*self.punching, *self.classified)}.values())

    def pairs(self) -> Iterator[tuple[Kind, Kind]]:
        """Give each pair once; neighbours have no home in common."""
        count = len(self.punching)
        for shift, first in itertools.product(range(count), range(count)):
            yield self.punching[first], self.punching[(first + shift) % count]


async def measure(
    stage: Stage, programme: Programme, report: Report, *, at_once: int = MAX_CELLS
) -> None:
    """Measure all of a programme, and report row by row, as they come."""
    slots = trio.Semaphore(at_once)

    async def work(act: Callable[[], Awaitable[Row]]) -> None:
        try:
            report(await act())
        finally:
            slots.release()

    async with trio.open_nursery() as nursery:
        for act in _acts(stage, programme):
            await slots.acquire()
            nursery.start_soon(work, act)


def _acts(stage: Stage, programme: Programme) -> Iterator[Callable[[], Awaitable[Row]]]:
    for transport in programme.transports:
        for kind in programme.classified:
            yield partial(classified, stage, kind, transport)
        for a, b in programme.pairs():
            yield partial(punched, stage, (a, b), transport)


async def classified(stage: Stage, kind: Kind, transport: TransportName) -> Row:
    expected = expected_traits(kind, transport)
    row = partial(Classified, kind=kind.name, transport=transport, expected=expected)
    try:
        found = await stage.classify(host_of(kind.name, SIDES[0]), transport)
    except (Unmeasurable, OSError, trio.TooSlowError) as error:
        return row(found=None, error=str(error) or repr(error))
    return row(found=traits_of(found))


async def punched(stage: Stage, pair: tuple[Kind, Kind], transport: TransportName) -> Row:
    names = [f"{pair[0].name}-{pair[1].name}-{transport}-{side}" for side in SIDES]
    results: list[PunchResult | str] = ["", ""]

    async def play(index: int) -> None:
        host = host_of(pair[index].name, SIDES[index])
        name, peer = names[index], names[1 - index]
        try:
            results[index] = await stage.punch(host, transport, name=name, peer=peer)
        except (OSError, trio.TooSlowError) as error:
            results[index] = str(error) or repr(error)

    async with trio.open_nursery() as nursery:
        for index in range(2):
            nursery.start_soon(play, index)
    verdict = can_punch(*pair, transport)
    outcome, seconds = _outcome(results, is_blocked=_is_blocked(pair, transport))
    return Punched(
        a=pair[0].name,
        b=pair[1].name,
        transport=transport,
        outcome=outcome,
        expected="direct" if verdict.direct else "none",
        reason=" / ".join(r if isinstance(r, str) else r.reason for r in results),
        theory=verdict.reason,
        seconds=seconds,
    )


def _is_blocked(pair: tuple[Kind, Kind], transport: TransportName) -> bool:
    return transport == "udp" and any(chained(kind).udp_blocked for kind in pair)


def _outcome(
    results: Sequence[PunchResult | str], *, is_blocked: bool
) -> tuple[Outcome, float | None]:
    """Sum two results up: direct, none, or an error if the two did not even get to it."""
    tried = [result for result in results if isinstance(result, PunchResult)]
    if len(tried) < len(results):
        return "error", None
    if all(result.direct for result in tried):
        return "direct", round(max(result.seconds for result in tried), 4)
    if any(result.direct for result in tried):
        return "error", None  # One believes in a connection that the other does not have.
    # Who heard of the other's endpoint has one of its own that was seen.
    met = all(result.outside is not None for result in tried)
    return "none" if met or is_blocked else "error", None


def simulate(programme: Programme, *, delay: float, seed: int = 1) -> list[Row]:
    """Measure a programme in the simulated internet."""
    rows: list[Row] = []

    async def main() -> None:
        with bare_exceptions():
            async with World(seed) as world:
                stage = SimulatedStage(world, programme.kinds(), delay=delay)
                async with trio.open_nursery() as nursery:
                    await stage.serve(nursery)
                    await measure(stage, programme, rows.append, at_once=SIMULATED_AT_ONCE)
                    nursery.cancel_scope.cancel()

    run(main)
    return rows
