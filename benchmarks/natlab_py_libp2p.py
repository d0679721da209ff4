"""py-libp2p in the laboratory of NATs: two of it meet over a relay of p2pnet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from interop.natlab.meeting import Place, Row, hosts_of
from interop.processes import Line, PeerFailed, dialled, serving
from p2pnet.demo.namespaces import Laboratory
from p2pnet.testing.matrix import can_meet

KIND = "py-libp2p"
PORTS = (4001, 4002)
"""Of the caller and of the called. All homes have the same private network, and it dials whatever
address it was told, so that with one port it would dial itself."""
LISTEN = {"tcp": "/ip4/{}/tcp/{}", "quic": "/ip4/{}/udp/{}/quic-v1"}
DIRECT_SECONDS = 45.0
"""For one attempt at least: it takes up to 31 s, and begins again at most 2 s later."""


async def meet_py_libp2p(laboratory: Laboratory, place: Place, relays: Sequence[str]) -> Row:
    """Let one call the other, each a process, and say what came of it."""
    (a, b), transport = place
    over = "/tcp/" if transport == "tcp" else "/udp/"
    relay = next(address for address in relays if over in address)
    expected = "direct" if can_meet(a, b, transport) else "relayed"
    settings = {"RELAY": relay, "HOLE_PUNCH": "1", "DIRECT_SECONDS": f"{DIRECT_SECONDS}"}
    listen = [
        LISTEN[transport].format(laboratory.address(host), port)
        for host, port in zip(hosts_of(a, b), PORTS, strict=True)
    ]
    caller, called = (partial(laboratory.command, host) for host in hosts_of(a, b))
    line: Line
    try:
        async with serving(KIND, "listen", placed=called, LISTEN=listen[1], **settings) as there:
            target = there.circuit_addresses[0]
            line = await dialled(KIND, placed=caller, LISTEN=listen[0], TARGET=target, **settings)
    except PeerFailed as failure:
        line = {"error": in_a_line(failure)}
    return row_of(Row(a.name, b.name, transport, expected, "error", 0, None, ""), line)


def in_a_line(failure: PeerFailed) -> str:
    """Keep what happened, and what the peer logged last: of what it died, if it did."""
    what, *log = str(failure).splitlines()
    return " ".join([what, *log[-1:]])


def row_of(row: Row, line: Line) -> Row:
    """Read the line of a caller."""
    if line["error"] is not None or line.get("echo_ok") is not True:
        return replace(row, reason=str(line["error"] or "what came back is not what was sent"))
    if line["relayed"]:
        return replace(row, outcome="relayed", attempts=count_of(line))
    milliseconds = line["direct_ms"]
    seconds = round(milliseconds / 1000, 3) if isinstance(milliseconds, float) else None
    return replace(row, outcome="direct", attempts=max(count_of(line), 1), seconds=seconds)


def count_of(line: Line) -> int:
    attempts = line.get("attempts")
    return attempts if isinstance(attempts, int) else 0
