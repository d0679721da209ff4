"""The only message of perf: how many bytes the responder is to send. Rules: specs/perf.md."""

from __future__ import annotations

from typing import Final

from p2pnet.errors import ProtocolError

PROTOCOL_ID: Final = "/perf/1.0.0"
REQUEST_BYTES: Final = 8
MAX_WANTED: Final = 2**64 - 1


def encode(wanted: int) -> bytes:
    return wanted.to_bytes(REQUEST_BYTES, "big")


def decode_untrusted(data: bytes) -> int:
    """Read how many bytes are wanted; any number is legal (PF1).

    Raises:
        ProtocolError: if the stream ended before all eight bytes were there.
    """
    if len(data) != REQUEST_BYTES:
        raise ProtocolError(PROTOCOL_ID, f"a request of {len(data)} bytes instead of 8")
    return int.from_bytes(data, "big")
