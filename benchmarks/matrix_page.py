"""The page docs/nat-matrix.md, drawn from docs/nat-matrix.csv and docs/nat-lab.csv alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

from benchmarks.matrix_verdict import Summary, misses
from benchmarks.natlab_cells import LabCell
from benchmarks.natlab_page import grid
from benchmarks.natlab_page import section as in_namespaces
from p2pnet.testing.kinds import MATRIX

TRANSPORTS = ("tcp", "quic")
SHOWN = 40
"""Pairs that miss something, by name; others are counted."""

HEAD = """\
# Who gets through to whom

> From the relayed to the direct connection, for each pair of NATs, over TCP and QUIC.

Two peers meet over a relay in the simulated internet and try to become direct over one transport.
Which pairs can is derived in [specs/nat.md](../specs/nat.md). What is asked of each pair that can:
direct in 99 of 100 runs, in 97 at the first attempt, and within 3 round trips + 100 ms (median).
A pair that cannot has to stay relayed and usable, and each of the two has to name the right cause
([below](#why-not)).

{runs}

{verdict}

Made by `make bench-nat` (`python -m benchmarks.matrix --page`, and `benchmarks.natlab` for the
laboratory), which continues where it was stopped; the figures of each cell are in
[nat-matrix.csv](nat-matrix.csv). One run of each pair in a moment:
`python -m p2pnet.testing matrix`.

**How it is measured.** The round trip is that between the two peers, and as long over the relay:
that lies on the way. Links have jitter (10 % of their delay) and lose 1 % of what goes from peer to
peer. The hosts are those of `presets.edge()`, have two relays, and have been up for 30 s, so that
AutoNAT has judged. The time runs from the moment at which *both* peers have the relayed connection
until *both* have a direct one, through its handshake. An attempt is a conversation of DCUtR with
its punch; a plain dial, without a punch, belongs to the first. Of 100 seeds of a pair, half let the
one call and half the other; 20 at a time have the same past, in which the homes were built.

**Where the time goes**, in round trips, where both are behind NATs: CONNECT on its way (0.5), then
TCP with its security (2.5) or QUIC with both (1.5): 3 over TCP, 2 over QUIC (D30, D31). Where the
caller's CONNECT cannot come ahead (it has no address yet, or the relay is nearer to the called one
than those are whom it asks about its NAT), it is 3.25 and 2.5 (D26, D27).
Before it came ahead at all it was that for everybody, 4 and 3 with a SYNC, and 5 and 4 before
CONNECT left beside identify: tables made of older code show that. If SYNs do not meet and both
ends listen (D15, Q20), TCP waits for one more round trip, and QUIC for a second.

**py-libp2p** is not in these tables: it opens sockets of the system and reads its clock by itself,
so it cannot run in the simulated internet. It is in those of
[network namespaces](#in-network-namespaces), at the end, beside p2pnet.
"""


def page(cells: Sequence[Summary], lab: Sequence[LabCell] = ()) -> str:
    """Draw all of it; ``lab`` is what was measured in network namespaces."""
    found = {(c.a, c.b, c.transport, c.round_trip): c for c in cells}
    trips = sorted({cell.round_trip for cell in cells}, key=lambda trip: (trip != 0.08, trip))
    head = HEAD.format(runs=told(cells, trips), verdict=verdict(found, trips))
    laboratory = in_namespaces(lab)
    tables = [section(found, trip) for trip in trips]
    parts = [head, *tables, why_not(cells), *filter(None, [laboratory])]
    return "\n".join(parts)


def told(cells: Sequence[Summary], trips: Sequence[float]) -> str:
    """Say what was run."""
    words = []
    for trip in trips:
        here = [cell for cell in cells if cell.round_trip == trip]
        direct, relayed = (runs_of_pairs(here, is_direct=kind) for kind in (True, False))
        total = sum(cell.runs for cell in here)
        words.append(
            f"{direct} runs of each pair that can meet, and {relayed} of each that cannot, "
            f"at {trip * 1000:.0f} ms ({total:,})"
        )
    codes = Counter(cell.code for cell in cells)
    states = ", ".join(f"`{code}` ({count:,} cells)" for code, count in codes.most_common())
    return (
        "**Run so far:** " + "; ".join(words) + f". Hash of the code that was measured: {states}."
    )


def runs_of_pairs(cells: Sequence[Summary], *, is_direct: bool) -> str:
    found = {(cell.a, cell.b, cell.transport): cell for cell in cells}
    pairs = [pair for pair in pairs_of(found) if pair[0].is_direct is is_direct]
    counts = sorted({sum(cell.runs for cell in pair) for pair in pairs}) or [0]
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def pairs_of(
    found: dict[tuple[str, str, str], Summary],
) -> Iterator[tuple[Summary, ...]]:
    """Give both directions of each pair that was measured."""
    for transport in TRANSPORTS:
        for a, b in combinations_with_replacement(MATRIX, 2):
            keys = dict.fromkeys([(a, b, transport), (b, a, transport)])
            pair = tuple(found[key] for key in keys if key in found)
            if pair:
                yield pair


def verdict(found: dict[tuple[str, str, str, float], Summary], trips: Sequence[float]) -> str:
    """Count the pairs that have what is asked for."""
    lines = [
        "| round trip | transport | pairs that can meet | direct, 99 % | first attempt, 97 % "
        "| median in time | pairs that cannot | relayed, right causes named |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for trip in trips:
        for transport in TRANSPORTS:
            here = {
                (a, b, used): cell
                for (a, b, used, distance), cell in found.items()
                if distance == trip and used == transport
            }
            counts = count(list(pairs_of(here)))
            row = (
                f"{counts['direct']}",
                f"{counts['direct'] - counts['missed direct']}",
                f"{counts['direct'] - counts['missed first']}",
                f"{counts['direct'] - counts['missed median']}",
                f"{counts['relayed']}",
                f"{counts['relayed'] - counts['missed relayed']}",
            )
            lines.append(
                f"| {trip * 1000:.0f} ms | {transport.upper()} | " + " | ".join(row) + " |"
            )
    return "\n".join(lines)


def count(pairs: Sequence[tuple[Summary, ...]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for pair in pairs:
        counts[pair[0].expected] += 1
        for missed in misses(*pair):
            counts[f"missed {word_of(missed)}"] += 1
    return counts


def word_of(missed: str) -> str:
    word = missed.split()[0]
    return "first" if word == "at" else word


def section(found: dict[tuple[str, str, str, float], Summary], trip: float) -> str:
    """Draw the table of one round trip, and name what misses something."""
    bound = 3 * trip * 1000 + 100
    names = [
        name for name in MATRIX if any((c.a, c.round_trip) == (name, trip) for c in found.values())
    ]
    lines = [
        f"## {trip * 1000:.0f} ms",
        "",
        f"Median milliseconds from relayed to direct, TCP / QUIC; at most {bound:.0f} are asked",
        "for, and what takes longer is **bold**. Rows call, columns are called; `-` stays relayed.",
        "",
        *grid(names, lambda a, b: entry(found, a, b, trip)),
    ]
    return "\n".join([*lines, "", *named(found, trip)]) + "\n"


def entry(found: dict[tuple[str, str, str, float], Summary], a: str, b: str, trip: float) -> str:
    marks = []
    for transport in TRANSPORTS:
        cell = found.get((a, b, transport, trip))
        if cell is None:
            marks.append("?")
        elif not cell.is_direct or cell.median is None:
            marks.append("-")
        else:
            text = f"{cell.median * 1000:.0f}"
            marks.append(f"**{text}**" if cell.median > cell.bound else text)
    return " / ".join(marks)


# ---- why not -----------------------------------------------------------------------------

LETTERS = {
    "OWN_SYMMETRIC": "O",
    "PEER_SYMMETRIC": "P",
    "SIMULTANEOUS_OPEN": "S",
    "UDP_BLOCKED": "U",
    "NO_PUNCH_ADDRESS": "A",
}
WHY_NOT = """\
## Why not

What `host.explain(peer)` names when a call is given up that stays relayed: first at the caller's
end, then at the called one's, over TCP / QUIC, at all distances. Which cause is right is derived in
[specs/nat.md](../specs/nat.md) (NT28); where a run named another one, the cell is **bold**.

{legend}; `+` is direct.
"""


def why_not(cells: Sequence[Summary]) -> str:
    """Draw what was named at both ends of each pair that stays relayed, at any distance."""
    found: dict[tuple[str, str, str], list[Summary]] = {}
    for cell in cells:
        found.setdefault((cell.a, cell.b, cell.transport), []).append(cell)
    names = [name for name in MATRIX if any(a == name for a, _, _ in found)]

    def entry(a: str, b: str) -> str:
        return " / ".join(causes_in(found.get((a, b, used), [])) for used in TRANSPORTS)

    legend = ", ".join(f"`{letter}` is {name}" for name, letter in LETTERS.items())
    return "\n".join([WHY_NOT.format(legend=legend), *grid(names, entry)]) + "\n"


def causes_in(cells: Sequence[Summary]) -> str:
    """Say what was named, in letters; in bold with a share if that was not always the right one."""
    if not cells:
        return "?"
    if cells[0].is_direct:
        return "+"
    runs, right = sum(cell.runs for cell in cells), sum(cell.as_expected for cell in cells)
    told = dict.fromkeys(each for cell in cells for each in cell.causes.split(", ") if each)
    short = ", ".join("".join(LETTERS.get(name, name) for name in each.split()) for each in told)
    if right == runs:
        return short
    return f"**{right} of {runs}: {short}**" if short else f"**{right} of {runs}**"


def named(found: dict[tuple[str, str, str, float], Summary], trip: float) -> list[str]:
    """Name the pairs that miss more than time."""
    here = {
        (a, b, used): cell for (a, b, used, distance), cell in found.items() if distance == trip
    }
    lines = []
    for pair in pairs_of(here):
        missed = [text for text in misses(*pair) if not text.startswith("median")]
        if missed:
            one = pair[0]
            lines.append(f"- {one.a} and {one.b}, {one.transport.upper()}: {', '.join(missed)}")
    if not lines:
        return ["Each pair has the shares that are asked for."]
    more = [f"- and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return ["These pairs miss a share:", "", *lines[:SHOWN], *more]
