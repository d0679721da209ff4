"""What travels through the simulated internet: datagrams and TCP segments, with addresses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from functools import cache
from typing import Literal

from p2pnet.core.addresses import Endpoint

TransportName = Literal["udp", "tcp"]


class Flags(Flag):
    """The control bits of a segment that matter here (RFC 9293, section 3.1)."""

    NONE = 0
    SYN = auto()
    ACK = auto()
    FIN = auto()
    RST = auto()

    @cache
    def __str__(self) -> str:
        return "+".join(flag.name or "" for flag in self) or "-"


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment. Sequence numbers are those of the wire: modulo 2**32."""

    flags: Flags
    sequence: int
    acknowledgement: int = 0
    window: int = 0
    """Bytes the sender will take beyond ``acknowledgement``: not scaled, whatever their number."""
    data: bytes = b""
    max_segment: int = 0
    """Most bytes of data the sender will take in a segment; only with SYN."""

    def __str__(self) -> str:
        return f"{self.flags} seq={self.sequence} ack={self.acknowledgement} len={len(self.data)}"


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram."""

    data: bytes

    def __str__(self) -> str:
        return f"len={len(self.data)}"


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet; both addresses are of one family."""

    source: Endpoint
    destination: Endpoint
    payload: Segment | Datagram

    @property
    def transport(self) -> TransportName:
        return "tcp" if isinstance(self.payload, Segment) else "udp"

    @property
    def size(self) -> int:
        """Bytes on the wire: the data and the shortest headers."""
        ip_header = 40 if self.source.is_ipv6 else 20
        if isinstance(self.payload, Segment):
            return ip_header + 20 + len(self.payload.data)
        return ip_header + 8 + len(self.payload.data)

    def __str__(self) -> str:
        return f"{self.transport} {self.source} > {self.destination} {self.payload}"
