"""``matrix``: p2pnet itself in a laboratory, in homes of each pair of kinds, over TCP and QUIC.

The relays and the two peers of a cell are hosts of p2pnet, each in a thread that is in a network
namespace; the NATs are the kernel's. Of each kind there are two homes, so that it can meet itself;
in a home there is one peer at a time. What happens between two is in `interop.natlab.meeting`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import combinations_with_replacement, product
from typing import Final, Protocol

import trio

from interop.natlab.building import Town
from interop.natlab.meeting import Place, Row, edge, hosts_of, reserved, row_of
from interop.natlab.peer_thread import Peer
from interop.natlab.stage import settle
from p2pnet import presets
from p2pnet.core.tasks import bare_exceptions
from p2pnet.demo.namespaces import Laboratory
from p2pnet.testing.kinds import MATRIX, Kind
from p2pnet.testing.matrix import Punched, speaking

ROUND_TRIP: Final = 0.04
"""Seconds from one home to another, and back; by a relay it takes as long."""
RELAYS: Final = {"relay-1": "11.0.0.1", "relay-2": "11.0.200.1"}
"""In networks of their own, so that a peer can tell how its NAT maps."""
STEP: Final = 3
"""In the sample each kind calls the third behind it; neighbours are much alike."""
AT_ONCE: Final = 6

Report = Callable[[Row], None]


class Meet(Protocol):
    """Lets one peer call another, each on a host of the laboratory; says what came of it."""

    async def __call__(
        self, laboratory: Laboratory, place: Place, relays: Sequence[str]
    ) -> Row: ...


def pairs_of(kinds: Sequence[Kind] | None, *, sample: bool) -> list[tuple[Kind, Kind]]:
    """Give all pairs of some kinds; or as a sample two for each kind: it calls, and is called."""
    chosen = list(kinds or MATRIX.values())
    if sample:
        return [(kind, chosen[(number + STEP) % len(chosen)]) for number, kind in enumerate(chosen)]
    return list(combinations_with_replacement(chosen, 2))


def run_matrix(
    pairs: Sequence[tuple[Kind, Kind]], transports: Sequence[Punched], *, as_json: bool
) -> int:
    """Measure in a private world; 0 if all came out as theory says."""
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        print(json.dumps(asdict(row)) if as_json else in_words(row), flush=True)

    kinds = {kind.name: kind for pair in pairs for kind in pair}
    with settled(list(kinds.values())) as laboratory, bare_exceptions():
        cells = list(product(pairs, transports))
        trio.run(partial(measure_all, laboratory, cells, report=report))
    wrong = sum(not row.agrees for row in rows)
    if as_json:
        print(json.dumps({"event": "done", "measured": len(rows), "disagreeing": wrong}))
    else:
        print(f"\n{len(rows)} measured, {wrong} of them otherwise than expected")
    return 1 if wrong else 0


@contextmanager
def settled(kinds: Sequence[Kind], *, round_trip: float = ROUND_TRIP) -> Iterator[Laboratory]:
    """Have a laboratory with two homes of each kind, and hosts for the relays."""
    town = Town(delay=round_trip / 2)
    with town.built():
        settle(town, kinds, "kernel")
        for name, address in RELAYS.items():
            town.laboratory.add_public(name, address, in_the_middle=True)
        yield town.laboratory


def in_words(row: Row) -> str:
    seconds = "" if row.seconds is None else f" after {row.seconds:.2f} s, attempt {row.attempts}"
    verdict = "" if row.agrees else f"  NOT AS EXPECTED: {row.expected}"
    reason = f" {row.causes}: {row.reason}" if row.reason else ""
    return f"{row.transport:5}{row.a:27}{row.b:27}{row.outcome}{seconds}{reason}{verdict}"


async def meet_p2pnet(laboratory: Laboratory, place: Place, relays: Sequence[str]) -> Row:
    """Let two hosts of p2pnet meet that nobody met before."""
    kinds, transport = place
    caller, called = (
        Peer(laboratory, home, edge(kind, transport, relays), reserved)
        for kind, home in zip(kinds, hosts_of(*kinds), strict=True)
    )
    try:
        return await row_of(place, caller, called)
    finally:
        for peer in (caller, called):
            await trio.to_thread.run_sync(peer.end)


async def measure_all(
    laboratory: Laboratory,
    cells: Sequence[Place],
    *,
    report: Report,
    meet: Meet = meet_p2pnet,
    seconds: float = math.inf,
    at_once: int = AT_ONCE,
) -> None:
    """Measure a few at once, never two in one home; begin no more after so many seconds."""
    waiting, busy, freed = list(cells), set[str](), [trio.Event()]
    end = trio.current_time() + seconds

    async def measure(cell: Place, relays: Sequence[str]) -> None:
        report(await meet(laboratory, cell, relays))
        busy.difference_update(hosts_of(*cell[0]))
        freed[0].set()

    with relaying(laboratory) as relays:
        async with trio.open_nursery() as nursery:
            while waiting and trio.current_time() < end:
                free = (cell for cell in waiting if busy.isdisjoint(hosts_of(*cell[0])))
                cell = next(free, None) if len(busy) < 2 * at_once else None
                if cell is None:
                    await freed[0].wait()
                    freed[0] = trio.Event()
                    continue
                waiting.remove(cell)
                busy.update(hosts_of(*cell[0]))
                nursery.start_soon(measure, cell, relays)


@contextmanager
def relaying(laboratory: Laboratory) -> Iterator[list[str]]:
    """Have the relays for a while, and give where they are."""
    config = speaking("quic", presets.relay())
    peers = [Peer(laboratory, name, config) for name in RELAYS]
    try:
        yield [
            f"/ip4/{address}/{way}/p2p/{peer.peer_id}"
            for peer, address in zip(peers, RELAYS.values(), strict=True)
            for way in ("tcp/4001", "udp/4001/quic-v1")
        ]
    finally:
        for peer in peers:
            peer.end()
