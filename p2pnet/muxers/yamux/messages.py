"""The yamux frame: a header of twelve bytes, and payload after it on Data. Rules: specs/yamux.md.

Kinds and flags are plain integers, since every frame of every stream passes through here.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from p2pnet.errors import ProtocolError

PROTOCOL_ID: Final = "/yamux/1.0.0"
HEADER_BYTES: Final = 12
INITIAL_WINDOW: Final = 262_144
"""Bytes either side may send on a new stream before it is given more."""
MAX_UINT32: Final = 0xFFFF_FFFF

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
KINDS: Final = ("Data", "WindowUpdate", "Ping", "GoAway")

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

GOOD_ORDER: Final = 0
PROTOCOL_VIOLATION: Final = 1
INTERNAL_ERROR: Final = 2

RESOURCE_LIMIT: Final = 0x1002
"""The code libp2p gives a stream that is one too many."""

VERSION: Final = 0
LAYOUT: Final = struct.Struct(">BBHII")


class Header(NamedTuple):
    """What a frame is about; ``length`` is payload, credit, an opaque value or a code."""

    kind: int
    flags: int
    stream_id: int
    length: int


def encode(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    return LAYOUT.pack(VERSION, kind, flags, stream_id, length)


def decode_untrusted(data: bytes | bytearray, offset: int = 0) -> Header:
    """Read the header at ``offset``.

    Raises:
        ProtocolError: if it is cut short, of another version, of no known kind, or if it says
            something about stream 0 that only a stream can have.
    """
    if len(data) - offset < HEADER_BYTES:
        raise ProtocolError(PROTOCOL_ID, "header cut short")
    version, kind, flags, stream_id, length = LAYOUT.unpack_from(data, offset)
    if version != VERSION:  # Y2
        raise ProtocolError(PROTOCOL_ID, f"version {version}")
    if kind > GO_AWAY:  # Y2
        raise ProtocolError(PROTOCOL_ID, f"frame of unknown kind {kind}")
    if stream_id == 0 and kind < PING:  # Y3
        raise ProtocolError(PROTOCOL_ID, f"{KINDS[kind]} on stream 0")
    return Header(kind, flags, stream_id, length)
