"""Has an eye on the connections that reservations hang on. Rule: specs/keepalive.md (KA11)."""

from __future__ import annotations

from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Connection, Watchful

ONLY_SILENCE = 8.0
"""Seconds of silence on the connection of the only reservation: nobody finds this host without."""
SILENCE = 15.0
"""With others beside it."""


class Vigil:
    """Lets no such connection be silent for long, and least of all the only one."""

    def __init__(self) -> None:
        self._held: dict[PeerId, Connection] = {}

    def hold(self, relay: PeerId, connection: Connection | None) -> None:
        """Take that a reservation hangs on a connection; None: there is none any more."""
        before = self._held.pop(relay, None)
        if before is not None and before is not connection:
            watch(before, None)
        if connection is not None:
            self._held[relay] = connection
        silence = ONLY_SILENCE if len(self._held) == 1 else SILENCE
        for each in self._held.values():
            watch(each, silence)


def watch(connection: Connection, silence: float | None) -> None:
    if isinstance(connection, Watchful):
        connection.stay_alert(silence)
