"""The trace of packets, and its diagram."""

from __future__ import annotations

import hashlib

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment
from p2pnet.testing.trace import Hop, Trace

SYN = Packet(Endpoint("11.0.0.1", 1), Endpoint("2a00::1", 2), Segment(Flags.SYN, 7))
DATA = Packet(Endpoint("11.0.0.1", 1), Endpoint("11.0.0.2", 2), Datagram(b"abc"))


def told() -> Trace:
    trace = Trace(kept=3)
    trace.record(Hop(0.5, "alice", "home", DATA, ""))
    trace.record(Hop(1.0, "home", "bob", SYN, "filtered"))
    trace.note(1.5, "cut")
    return trace


LINES = [
    "0.500000 alice -> home udp 11.0.0.1:1 > 11.0.0.2:2 len=3",
    "1.000000 home -> bob tcp 11.0.0.1:1 > [2a00::1]:2 SYN seq=7 ack=0 len=0 [filtered]",
    "1.500000 # cut",
]


def test_a_line_says_when_who_what_and_what_became_of_it() -> None:
    assert told().lines() == LINES
    assert told().lines(1) == LINES[-1:]
    assert told().packets == 2


def test_the_hash_is_over_all_lines_also_those_that_are_not_kept() -> None:
    trace = told()
    trace.note(2.0, "more")
    assert trace.lines() == [*LINES[1:], "2.000000 # more"]
    expected = "".join(line + "\n" for line in [*LINES, "2.000000 # more"])
    assert trace.sha256 == hashlib.sha256(expected.encode()).hexdigest()


def test_the_diagram_shows_who_sent_what_to_whom() -> None:
    assert told().mermaid().splitlines() == [
        "sequenceDiagram",
        "    participant p0 as alice",
        "    participant p1 as home",
        "    participant p2 as bob",
        "    p0->>p1: 0.500 UDP 3 B 11.0.0.1:1 to 11.0.0.2:2",
        "    p1--xp2: 1.000 SYN 11.0.0.1:1 to [2a00::1]:2 (filtered)",
    ]
