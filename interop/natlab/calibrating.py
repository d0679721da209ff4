"""``calibrate``: build a laboratory of all kinds, measure, and say where anything disagrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

import trio

from interop.natlab.building import Engine, Town
from interop.natlab.calibration import (
    Classified,
    Outcome,
    Programme,
    Punched,
    Report,
    Row,
    combinations,
    measure,
    simulate,
)
from interop.natlab.stage import RealStage, observed, settle
from p2pnet.core.tasks import bare_exceptions
from p2pnet.testing.kinds import ALL_KINDS, KINDS, Kind
from p2pnet.testing.packet import TransportName

DELAY: Final = 0.02
"""Seconds between two homes: simultaneous means something only with it."""
WHOLE_SECONDS: Final = 600.0
MARKS: Final[dict[Outcome, str]] = {"direct": "+", "none": "-", "error": "E"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for; None for everything."""

    kinds: Sequence[Kind] | None
    transport: TransportName | None
    engine: Engine
    simulation: bool
    combinations: bool = False
    """Classify every combination of properties, instead of the kinds with names."""

    def programme(self) -> Programme:
        """Classify all kinds, and pair those of the matrix, if nothing else is wanted."""
        if self.combinations:
            return Programme(
                classified=tuple(combinations()), punching=(), transports=self.transports()
            )
        return Programme(
            classified=self.kinds or tuple(ALL_KINDS.values()),
            punching=self.kinds or tuple(KINDS.values()),
            transports=self.transports(),
        )

    def transports(self) -> Sequence[TransportName]:
        return (self.transport,) if self.transport else get_args(TransportName)


def calibrate(wanted: Wanted, *, as_json: bool) -> int:
    """Measure in a private world; 0 if all agree."""
    programme = wanted.programme()
    simulated = simulate(programme, delay=DELAY) if wanted.simulation else []
    said = {key_of(row): row for row in simulated}
    rows: list[Row] = []

    def report(row: Row) -> None:
        row = compared(row, said.get(key_of(row)))
        rows.append(row)
        if as_json:
            print(json.dumps(row.as_fields()), flush=True)
        elif isinstance(row, Classified) or not row.agrees:
            print(in_words(row), flush=True)

    town = Town(delay=DELAY)
    with town.built(), observed(town.laboratory):
        settle(town, programme.kinds(), wanted.engine)
        with bare_exceptions():
            trio.run(measure_bounded, RealStage(town), programme, report)
    wrong = sum(not row.agrees for row in rows)
    if as_json:
        print(json.dumps({"event": "done", "measured": len(rows), "disagreeing": wrong}))
    else:
        for transport in programme.transports if programme.punching else ():
            print(f"\n{transport}\n" + "\n".join(table(rows, programme.punching, transport)))
        print(f"\n{len(rows)} measured, {wrong} of them otherwise than expected")
    return 1 if wrong else 0


async def measure_bounded(stage: RealStage, programme: Programme, report: Report) -> None:
    with trio.fail_after(WHOLE_SECONDS):
        await measure(stage, programme, report)


def key_of(row: Row) -> tuple[str, ...]:
    if isinstance(row, Classified):
        return (row.kind, row.transport)
    return (row.a, row.b, row.transport)


def compared(row: Row, simulated: Row | None) -> Row:
    """Write into a row of real packets what the simulation said."""
    if isinstance(row, Classified) and isinstance(simulated, Classified):
        return replace(row, simulated=simulated.found)
    if isinstance(row, Punched) and isinstance(simulated, Punched):
        return replace(row, simulated=simulated.outcome)
    return row


def in_words(row: Row) -> str:
    verdict = "as expected" if row.agrees else "NOT AS EXPECTED"
    if isinstance(row, Punched):
        return (
            f"{row.transport} {row.a} - {row.b}: {row.outcome} ({row.reason}), "
            f"theory {row.expected} ({row.theory}), simulation {row.simulated}: {verdict}"
        )
    if row.agrees:
        return f"{row.transport} {row.kind}: {verdict}"
    return (
        f"{row.transport} {row.kind}: {row.error or row.found}, theory {row.expected}, "
        f"simulation {row.simulated}: {verdict}"
    )


def table(rows: Sequence[Row], kinds: Sequence[Kind], transport: TransportName) -> list[str]:
    """Draw the outcomes: ``+`` direct, ``-`` not, ``E`` an error, ``!`` beside what is wrong."""
    found = {
        (row.a, row.b): MARKS[row.outcome] + ("" if row.agrees else "!")
        for row in rows
        if isinstance(row, Punched) and row.transport == transport
    }
    header = "".join(f"{number:3}" for number, _ in enumerate(kinds, 1))
    return [f"{'':27}{header}"] + [
        f"{number:2} {a.name:24}" + "".join(f"{found.get((a.name, b.name), '?'):>3}" for b in kinds)
        for number, a in enumerate(kinds, 1)
    ]
