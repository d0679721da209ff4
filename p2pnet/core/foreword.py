"""What a host says ahead of the first stream, to a peer that it calls over a relay.

Pure. One service knows what to say, and a transport whom it calls: here they meet. It travels
within the handshake (``specs/noise.md``, N14), so it is there a round trip before an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pnet.core.peer_id import PeerId

MAX_FOREWORD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Forewords:
    """What the two ends of a connection said ahead; empty if nothing."""

    said: bytes = b""
    heard: bytes = b""
    """From the peer itself, encrypted; what it means is for others to judge."""
    round_trip: float = 0.0
    """Seconds, as the handshake took them; a peer can make it seem longer, never shorter."""


class Foreword:
    """Finds the words, if there is a service that has some."""

    def __init__(self) -> None:
        self.speaker: Callable[[PeerId], bytes] | None = None
        """Asked when the peer has proved who it is, and at no other time; may say nothing."""

    def to(self, peer_id: PeerId) -> bytes:
        return b"" if self.speaker is None else self.speaker(peer_id)
