"""The part of docs/nat-matrix.md about network namespaces, drawn from docs/nat-lab.csv alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.natlab_cells import OURS, THEIRS, LabCell
from p2pnet.testing.kinds import MATRIX

TRANSPORTS = ("tcp", "quic")
NAMES = re.compile(r" to 12D3\w+")
"""Of peers, which are others in each run."""
Found = Mapping[tuple[str, str, str, str], LabCell]

HEAD = """\
## In network namespaces

The same pairs with real packets, real time and the NATs of the kernel, 20 ms from home to home.
Made by `python -m benchmarks.natlab --page`, with py-libp2p by `--of py-libp2p`; both continue
where they were stopped. The figures of each cell are in [nat-lab.csv](nat-lab.csv).
`python -m interop.natlab matrix` does it once; `make interop` runs two pairs of each kind.

**Run so far:** {runs}.

Time is real, so a machine that is busy with other work shows: a look at the NAT's ports (D16) is
given up after 2 s, and a meeting after 90 s. Each run counts; with `--again` those that came out
otherwise than theory says meet once more.
"""

COLUMNS = """\
| | transport | cells that can meet | direct in all runs | runs direct | at the first attempt \
| cells that cannot | relayed in all runs | right causes named |
|---|---|---|---|---|---|---|---|---|"""

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
    found = {(c.implementation, c.a, c.b, c.transport): c for c in cells}
    if not found:
        return ""
    parts = [HEAD.format(runs=told(cells)), COLUMNS, *counted(cells), "", *ours(found), ""]
    parts.append(BIRTHDAY.rstrip())
    if any(cell.implementation == THEIRS for cell in cells):
        parts += ["", *beside(found)]
    return "\n".join(parts) + "\n"


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
    """Count what came out, a line for each implementation and transport."""
    for implementation in (OURS, THEIRS):
        for transport in TRANSPORTS:
            here = [
                c for c in cells if (c.implementation, c.transport) == (implementation, transport)
            ]
            if here:
                yield f"| {implementation} | {transport.upper()} | {' | '.join(figures(here))} |"


def figures(cells: Sequence[LabCell]) -> Iterator[str]:
    can = [cell for cell in cells if cell.expected == "direct"]
    cannot = [cell for cell in cells if cell.expected != "direct"]
    runs, direct = sum(cell.runs for cell in can), sum(cell.direct for cell in can)
    yield f"{len(can)}"
    yield f"{sum(cell.direct == cell.runs for cell in can)}"
    yield f"{direct} of {runs}"
    yield f"{sum(cell.first for cell in can)}"
    yield f"{len(cannot)}"
    yield f"{sum(cell.relayed == cell.runs for cell in cannot)}"
    yield f"{sum(cell.named == cell.runs for cell in cannot)}"


# ---- cell by cell ------------------------------------------------------------------------


def ours(found: Found) -> Iterator[str]:
    """Draw p2pnet's cells, and name those that are not as they should be."""
    cells = [cell for cell in found.values() if cell.implementation == OURS]
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
        what = f"{cell.expected} in {cell.as_expected} of {cell.runs}"
        reason = NAMES.sub("", cell.reason)[:120]
        yield f"- {cell.a} calls {cell.b}, {cell.transport.upper()}: {what}: {reason}"


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
        names = names_in([cell for cell in theirs if cell.transport == transport])
        if names:
            yield f"{transport.upper()}:"
            yield ""
            yield from grid(names, partial(shares, found, transport))
            yield ""


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
