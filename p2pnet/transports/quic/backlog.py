"""How much a connection of QUIC keeps to be sent, and when it is worth to ask for more (Q22, Q25).

Who waits to write is not woken for each packet that has gone: a change of tasks costs more
than a packet does, and there is enough left to be sent meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def wake(core: Core, streams: Iterable[QuicStream], most: int) -> None:
    """Wake those who wait to write, where that is worth it."""
    for stream in streams:
        if stream.wants_to_send and is_worth_waking(core, stream.number, most):
            stream.wake_sender()
