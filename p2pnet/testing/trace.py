"""The trace: one line for every packet on every hop, and what became of it.

All lines go into a running SHA-256, so that two runs can be compared however long they are;
only the last ones are kept, for the report of a failure.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from p2pnet.testing.packet import Packet, Segment

KEPT = 2_000


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet's way over one link, or its end there."""

    time: float
    sender: str
    receiver: str
    packet: Packet
    fate: str
    """Empty if it arrives; else why it does not."""

    def __str__(self) -> str:
        fate = f" [{self.fate}]" if self.fate else ""
        return f"{self.time:.6f} {self.sender} -> {self.receiver} {self.packet}{fate}"


class Trace:
    """What has happened in a world, so far."""

    def __init__(self, kept: int = KEPT) -> None:
        self._hops: deque[Hop | str] = deque(maxlen=kept)
        self._hash = hashlib.sha256()
        self.packets = 0

    def record(self, hop: Hop) -> None:
        self.packets += 1
        self._hash.update(f"{hop}\n".encode())
        self._hops.append(hop)

    def note(self, time: float, text: str) -> None:
        """Record something that is no packet: a fault, a host that started."""
        line = f"{time:.6f} # {text}"
        self._hash.update(f"{line}\n".encode())
        self._hops.append(line)

    @property
    def sha256(self) -> str:
        """The hash over all lines up to now."""
        return self._hash.hexdigest()

    def lines(self, last: int = KEPT) -> list[str]:
        return [str(hop) for hop in list(self._hops)[-last:]]

    def mermaid(self, last: int = 40) -> str:
        """Draw the last hops as a sequence diagram, to be pasted into Markdown."""
        hops = [hop for hop in self._hops if isinstance(hop, Hop)][-last:]
        names = list(dict.fromkeys(name for hop in hops for name in (hop.sender, hop.receiver)))
        places = {name: f"p{number}" for number, name in enumerate(names)}
        lines = ["sequenceDiagram"]
        lines += [f"    participant {places[name]} as {name}" for name in names]
        for hop in hops:
            arrow = "--x" if hop.fate else "->>"
            text = f"{hop.time:.3f} {summary(hop.packet)}" + (f" ({hop.fate})" if hop.fate else "")
            lines.append(f"    {places[hop.sender]}{arrow}{places[hop.receiver]}: {text}")
        return "\n".join(lines)


def summary(packet: Packet) -> str:
    """Say what a packet is in a few words, without what a diagram would take for its own."""
    payload = packet.payload
    what = str(payload.flags) if isinstance(payload, Segment) else "UDP"
    size = f" {len(payload.data)} B" if payload.data else ""
    return f"{what}{size} {packet.source} to {packet.destination}"
