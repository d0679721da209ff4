"""How much a connection of QUIC keeps to be sent, and when it is worth to ask for more (Q22, Q25).

Who waits to write is not woken for each packet that has gone: a change of tasks costs more
than a packet does, and there is enough left to be sent meanwhile.
"""

from __future__ import annotations

from p2pnet.transports.quic.core import Core
from p2pnet.transports.quic.stream import QuicStream

SHARE = 16_384
"""Bytes that each stream may keep to be sent, whatever the others do."""


def room(core: Core, stream: int, most: int) -> int:
    """Return how much may be written, where all streams together keep ``most`` bytes."""
    return min(core.room(stream), max(most - core.unsent, SHARE - core.unsent_on(stream)))


def is_worth_waking(core: Core, stream: int, most: int) -> bool:
    """Return True if half of what all may keep is free, or half of the stream's own share."""
    is_free = 2 * core.unsent <= most or 2 * core.unsent_on(stream) <= SHARE
    return is_free and core.room(stream) > 0


class Waiting:
    """Who waits to write."""

    def __init__(self) -> None:
        self._streams: dict[int, QuicStream] = {}

    def add(self, stream: QuicStream) -> None:
        self._streams[stream.number] = stream

    def wake(self, core: Core, most: int) -> None:
        """Wake those for whom it is worth it; who has to wait on adds itself again."""
        for number, stream in list(self._streams.items()):
            if not stream.wants_to_send:
                del self._streams[number]
            elif is_worth_waking(core, number, most):
                del self._streams[number]
                stream.wake_sender()
