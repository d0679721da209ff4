"""AutoNAT v1 and v2: p2pnet has nodes of others dial it, and dials them, in public and behind NATs.

All cells run at once in one laboratory (`interop.natlab.autonat`), since most of the time they
wait: a server of version 1 takes 15 s to say that it has reached nobody. Each is there over TCP and
over QUIC: a client listens and asks by the same. Where version 2 is asked in public, the client has
a second IP address, for the test of which it has to pay with data.

Not cells:

- p2pnet asks js-libp2p by version 1. That server dials nobody who is connected; it takes the
  connection that is there for the one that it was to make, or complains of it, and closes it either
  way, so that its answer reaches nobody.
- js-libp2p asks p2pnet by version 1 over QUIC. It dials from another port than it listens at, and
  by that version p2pnet dials UDP only where it sees the client (AO7): nobody listens there.

These look otherwise than the others:

- go-libp2p by version 1, and rust-libp2p by version 1 behind a NAT, tell of the host as a whole.
- rust-libp2p has only the address tested at which it is seen.
- js-libp2p does not find out where it is behind a NAT, so it is told as by a router that forwards
  its port. It only counts failures, and believes in none before there are eight, from as many
  networks of 2^24 addresses; the count is what is looked at. Over QUIC behind a NAT it has tested
  where its dials leave, which is another port than it listens at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product

import pytest

from interop.natlab.autonat import PORT
from interop.processes import Line
from interop.worlds import run_in_world

SECONDS = 630
PROTOCOLS = {"v1": "/libp2p/autonat/1.0.0", "v2": "/libp2p/autonat/2/dial-request"}
REACHABILITY = {"public": "public", "nat": "private"}

PAIRS = [
    # version, client, server
    ("v1", "p2pnet", "p2pnet"),
    ("v1", "p2pnet", "go"),
    ("v1", "p2pnet", "rust"),
    ("v1", "go", "p2pnet"),
    ("v1", "js", "p2pnet"),
    ("v1", "rust", "p2pnet"),
    ("v2", "p2pnet", "p2pnet"),
    ("v2", "p2pnet", "go"),
    ("v2", "p2pnet", "js"),
    ("v2", "p2pnet", "rust"),
    ("v2", "go", "p2pnet"),
    ("v2", "js", "p2pnet"),
    ("v2", "rust", "p2pnet"),
]
CELLS = [
    (*pair, transport, place)
    for pair, transport, place in product(PAIRS, ("tcp", "quic"), ("public", "nat"))
    if (*pair, transport) != ("v1", "js", "p2pnet", "quic")
]
NAMES_NO_ADDRESS = [("v1", "go", "public"), ("v1", "go", "nat"), ("v1", "rust", "nat")]


@dataclass(frozen=True)
class Results:
    """What the clients printed, by cell, and what the laboratory complained of."""

    lines: dict[str, Line]
    complaints: str


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Results:
    """Run those cells that are to be looked at, and for which everything is there."""
    chosen = [
        [str(value) for value in item.callspec.params.values()]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    for kind in ("go", "js", "rust"):
        if any(kind in names for names in chosen) and request.getfixturevalue(f"{kind}_peer"):
            chosen = [names for names in chosen if kind not in names]
    done = run_in_world("autonat", *map(":".join, chosen), seconds=SECONDS)
    lines: list[Line] = [json.loads(line) for line in done.stdout.splitlines()]
    return Results({str(line["cell"]): line for line in lines}, done.stderr)


@pytest.mark.parametrize(("version", "client", "server", "transport", "place"), CELLS)
def test_autonat(
    results: Results, version: str, client: str, server: str, transport: str, place: str
) -> None:
    line = results.lines.get(":".join((version, client, server, transport, place)))
    assert line is not None, results.complaints
    assert line["error"] is None, line.get("log")
    outside, learnt = line["outside"], line["learnt"]
    assert isinstance(outside, list)
    assert isinstance(learnt, list)
    tested = [None] if (version, client, place) in NAMES_NO_ADDRESS else outside
    found = {each["address"]: each["reachability"] for each in learnt}
    if (client, transport, place) == ("js", "quic", "nat"):
        found = {without_port(address): verdict for address, verdict in found.items()}
        tested = [address.split("/udp/")[0] for address in outside]
    assert found == dict.fromkeys(tested, REACHABILITY[place])
    assert {each["protocol"] for each in learnt} == {PROTOCOLS[version]}


def without_port(address: str) -> str:
    """Return the IP address in a multiaddr, for where the port is another than was listened at."""
    ip, port = address.split("/udp/")
    assert port != f"{PORT}/quic-v1"
    return ip
