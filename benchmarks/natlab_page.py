"""The part of docs/nat-matrix.md about network namespaces, drawn from docs/nat-lab.csv alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.matrix_verdict import DIRECT_SHARE, FIRST_SHARE, ROUND_TRIPS, SPARE_SECONDS
from benchmarks.natlab_cells import OURS, THEIRS, LabCell, pooled
from p2pnet.testing.kinds import MATRIX

TRANSPORTS = ("tcp", "quic")
NAMES = re.compile(r" to 12D3\w+")
"""Of peers, which are others in each run."""
Found = Mapping[tuple[str, str, str, str], LabCell]

HEAD = """\
## In network namespaces

The same pairs with real packets, real time and the NATs of the kernel; the round trip is the one
from home to home, and as long over the relay (twice as long in the runs at 40 ms). Made by
`make bench-natlab` (`python -m benchmarks.natlab --page`, with py-libp2p by `--of py-libp2p`),
which continues where it was stopped. The figures of each cell are in [nat-lab.csv](nat-lab.csv).
`python -m interop.natlab matrix` does it once; `make interop` runs two pairs of each kind.

**Run so far:** {runs}.

Time is real, so a machine that is busy with other work shows: a look at the NAT's ports (D16) is
given up after 2 s, and a meeting after 90 s. All hosts and both relays share one core, so what one
waits for another is in the time, too, and the more so the more meet at once: of pairs that can, one
at a time in the runs of `3927d33239b5` and two to four in those of `51a5c020bf98`, with a second
process beside. It runs, as above, from when both ends have the relayed connection until both have a
direct one. A host of p2pnet stays in its home for up to 17 meetings, each with somebody else; then
another moves in. Each run counts; with `--again` those that came out otherwise than theory says
meet once more.
"""

COLUMNS = """\
| | transport | round trip | pairs that can meet | direct, 99 % | first attempt, 97 % \
| runs direct | at the first attempt | median in time | pairs that cannot | relayed in all runs \
| right causes named |
|---|---|---|---|---|---|---|---|---|---|---|---|"""

BIRTHDAY = """\
### Birthday punching

Is not in these tables: it is off unless both sides allow it ([D21](../specs/dcutr.md)). With
`p2pnet node --birthday` in one home and `p2pnet trace --birthday` in the other, 39 meetings of 39
became direct over QUIC: 25 of `symmetric` with `port-restricted`, called from either side, and 14
of seven other pairs for which theory sees no way (`address-symmetric`, `carrier-symmetric`,
`symmetric-reset`; `firewall`, `carrier`, `double-nat` and others). All did in the second attempt,
1.9 s after it began (median; 5.9 s at most) and 14 s after the call. The NAT with random ports had
270 flows at once at most. The other one had 271 (median), and 832 at most: all 2,048 probes were
never needed. `make interop` does it in both directions, and once without the switch.

It failed in 6 of 6 where the router with the kept ports takes for itself what nobody asked for, in
place of dropping it: what each socket of the other side sends first leaves an entry there, and the
probe to that port cannot leave from the port that it should. On the other side it does no harm.
"""

BESIDE = """\
### Beside py-libp2p

{name}, set up as its own program for libp2p's hole-punch tests does it, over a relay of p2pnet,
with what helps it most: who is called begins at once, and the two listen at different ports, as it
dials private addresses, too, which are the same in all homes. Runs that ended direct, of all,
p2pnet / py-libp2p. Rows call, columns are called; in *italics*, theory sees no way.

Its `relay/circuit_v2/dcutr.py` tells why it is so. `_get_observed_addrs` offers the public address
at which the relay sees it, with the port that it *listens* at: that is right where a NAT keeps
ports, and wrong where it takes others (`port-restricted-random`, `carrier`, `symmetric`). It does
so for TCP alone; a host that listens by QUIC offers its private addresses, dials from fresh sockets
(`transport/quic/transport.py`), and cannot take the listener's role in a punch
(`dial_addr_as_responder` in `network/swarm.py`). So over QUIC a public host is all that it reaches,
by a plain dial, and at times that connection has ended before an echo went over it.
"""


def section(cells: Sequence[LabCell]) -> str:
    """Draw all of it; nothing if nothing was measured."""
    if not cells:
        return ""
    found = by_pair(cells)
    parts = [HEAD.format(runs=told(cells)), COLUMNS, *counted(cells), ""]
    parts += [*ours(found, [cell for cell in cells if cell.implementation == OURS]), ""]
    parts.append(BIRTHDAY.rstrip())
    if any(cell.implementation == THEIRS for cell in cells):
        parts += ["", *beside(found)]
    return "\n".join(parts) + "\n"


def by_pair(cells: Sequence[LabCell]) -> Found:
    """Put together what was measured of a pair, however far apart."""
    found: dict[tuple[str, str, str, str], list[LabCell]] = {}
    for cell in cells:
        found.setdefault((cell.implementation, cell.a, cell.b, cell.transport), []).append(cell)
    return {key: pooled(each) for key, each in found.items()}


def told(cells: Sequence[LabCell]) -> str:
    """Say what was run."""
    words = []
    for implementation in (OURS, THEIRS):
        here = [cell for cell in cells if cell.implementation == implementation]
        codes = ", ".join(f"`{code}`" for code in sorted({cell.code for cell in here}))
        if here:
            runs = sum(cell.runs for cell in here)
            words.append(f"{runs:,} meetings of {implementation} in {len(here)} cells ({codes})")
    return "; ".join(words)


def counted(cells: Sequence[LabCell]) -> Iterator[str]:
    """Count what came out, a line for each implementation, transport and distance."""
    kinds = {(c.implementation, c.transport, c.round_trip) for c in cells}
    order = {name: number for number, name in enumerate((OURS, THEIRS, *TRANSPORTS))}
    for kind in sorted(kinds, key=lambda kind: (order[kind[0]], order[kind[1]], kind[2])):
        implementation, transport, trip = kind
        here = [c for c in cells if (c.implementation, c.transport, c.round_trip) == kind]
        start = f"| {implementation} | {transport.upper()} | {trip * 1000:.0f} ms |"
        yield f"{start} {' | '.join(figures(here))} |"


def figures(cells: Sequence[LabCell]) -> Iterator[str]:
    """Judge each pair, both directions together, by what is asked for."""
    pairs: dict[frozenset[str], list[LabCell]] = {}
    for cell in cells:
        pairs.setdefault(frozenset((cell.a, cell.b)), []).append(cell)
    can = [pair for pair in pairs.values() if pair[0].expected == "direct"]
    cannot = [pooled(pair) for pair in pairs.values() if pair[0].expected != "direct"]
    whole = [pooled(pair) for pair in can]
    yield f"{len(can)}"
    yield f"{sum(pair.direct >= DIRECT_SHARE * pair.runs for pair in whole)}"
    yield f"{sum(pair.first >= FIRST_SHARE * pair.runs for pair in whole)}"
    yield f"{sum(pair.direct for pair in whole):,} of {sum(pair.runs for pair in whole):,}"
    yield f"{sum(pair.first for pair in whole):,}"
    yield f"{sum(all(is_in_time(cell) for cell in pair) for pair in can)}"
    yield f"{len(cannot)}"
    yield f"{sum(pair.relayed == pair.runs for pair in cannot)}"
    yield f"{sum(pair.named == pair.runs for pair in cannot)}"


def is_in_time(cell: LabCell) -> bool:
    bound = ROUND_TRIPS * cell.round_trip + SPARE_SECONDS
    return cell.median is not None and cell.median <= bound


# ---- cell by cell ------------------------------------------------------------------------


def ours(found: Found, cells: Sequence[LabCell]) -> Iterator[str]:
    """Draw p2pnet's cells, and name those that are not as they should be."""
    names = names_in(cells)
    yield "p2pnet, TCP / QUIC: `+` got direct, `-` stayed relayed and named the right causes;"
    yield "what is **bold** did so in some runs only. Rows call, columns are called."
    yield ""
    yield from grid(names, partial(marks, found))
    wrong = [cell for cell in cells if cell.as_expected != cell.runs]
    yield ""
    if not wrong:
        yield "Each cell came out as theory says, in each run."
        return
    yield "Otherwise than theory says:"
    yield ""
    for cell in wrong:
        shares = f"{cell.expected} in {cell.as_expected} of {cell.runs}"
        what = f"{cell.round_trip * 1000:.0f} ms: {shares}"
        reason = NAMES.sub("", cell.reason)[:120]
        yield f"- {cell.a} calls {cell.b}, {cell.transport.upper()}, {what}: {reason}"


def marks(found: Found, a: str, b: str) -> str:
    return " / ".join(mark(found, a, b, transport) for transport in TRANSPORTS).strip(" /")


def mark(found: Found, a: str, b: str, transport: str) -> str:
    cell = found.get((OURS, a, b, transport))
    if cell is None:
        return ""
    if cell.as_expected != cell.runs:
        return f"**{cell.as_expected} of {cell.runs}**"
    return "+" if cell.expected == "direct" else "-"


def beside(found: Found) -> Iterator[str]:
    """Draw the cells of py-libp2p beside p2pnet's."""
    theirs = [cell for cell in found.values() if cell.implementation == THEIRS]
    yield BESIDE.format(name=theirs[0].code.replace("libp2p==", "py-libp2p "))
    for transport in TRANSPORTS:
        here = [cell for cell in theirs if cell.transport == transport]
        names = names_in(here)
        if here:
            yield f"{transport.upper()}, {told_of(here)}:"
            yield ""
            yield from grid(names, partial(shares, found, transport))
            yield ""


def told_of(cells: Sequence[LabCell]) -> str:
    """Say how all meetings of an implementation ended."""
    every = pooled(cells)
    errors: Counter[str] = Counter()
    for cell in cells:
        where, colon, _ = cell.reason.partition(":")
        errors[where if colon else ""] += cell.runs - cell.direct - cell.relayed
    ends = f"{every.direct} direct, {every.relayed} relayed, {errors.total()} in an error"
    known = [f"{where}: {number}" for where, number in errors.most_common() if where and number]
    places = f" ({', '.join(known)})" if known else ""
    return f"where {every.runs} meetings of py-libp2p ended {ends}{places}"


def shares(found: Found, transport: str, a: str, b: str) -> str:
    cells = [found.get((implementation, a, b, transport)) for implementation in (OURS, THEIRS)]
    if not any(cells):
        return ""
    text = " / ".join("-" if cell is None else f"{cell.direct} of {cell.runs}" for cell in cells)
    cannot = any(cell is not None and cell.expected != "direct" for cell in cells)
    return f"*{text}*" if cannot else text


def names_in(cells: Sequence[LabCell]) -> list[str]:
    present = {name for cell in cells for name in (cell.a, cell.b)}
    return [name for name in MATRIX if name in present]


def grid(names: Sequence[str], entry: Callable[[str, str], str]) -> Iterator[str]:
    yield "| |" + "".join(f" {name} |" for name in names)
    yield "|---|" + "---|" * len(names)
    for a in names:
        yield f"| **{a}** |" + "".join(f" {entry(a, b)} |" for b in names)
