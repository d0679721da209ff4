"""Dials whose caller may leave: what is half made then comes to its end.

Rule: specs/dialing.md (DI28).

::

    begun ----------> answered ----------> connection
      |                  |                     ^
      | caller gone      | caller gone         | within PATIENCE
      v                  v                     |
    ended            goes on alone ------------+---> ended
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from p2pnet.core.tasks import boundary, start_in
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import Race

logger = logging.getLogger("p2pnet.swarm")

PATIENCE = 1.0
"""Seconds for handshakes to end that nobody waits for any more."""


class UnhurriedDial:
    """One dial, in a task that outlives its caller.

    ``is_needless`` tells, when the caller is gone, if nobody would miss what is half made.
    """

    def __init__(
        self,
        dial: Callable[[Race], Awaitable[LiveConnection]],
        is_needless: Callable[[], bool] = lambda: False,
    ) -> None:
        self._dial = dial
        self._is_needless = is_needless
        self._race = Race()
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._connection: LiveConnection | None = None
        self._error: Exception | None = None

    async def run(self, nursery: trio.Nursery) -> LiveConnection:
        """Dial in ``nursery``, and return what comes of it.

        Raises:
            DialError, LimitExceeded: as the dial does.
            trio.ClosedResourceError: if the nursery is cancelled.
        """
        start_in(nursery, self._run)
        try:
            await self._done.wait()
        finally:
            if not self._done.is_set():
                self._leave_alone()
        if self._connection is not None:
            return self._connection
        raise self._error or trio.ClosedResourceError("the host is not running")

    async def _run(self) -> None:
        try:
            # A boundary: this task is the host's, and what goes wrong in it is the caller's.
            with boundary(logger, "a dial of addresses at once") as stopped, self._scope:
                self._connection = await self._dial(self._race)
            self._error = stopped.error
        finally:
            self._done.set()

    def _leave_alone(self) -> None:
        """The caller is gone; the peer may have, and use, what is half made here."""
        self._scope.deadline = trio.current_time() + PATIENCE
        self._race.watch = self._look
        self._look()

    def _look(self) -> None:
        is_done = self._race.winner is not None
        if not is_done and (self._is_needless() or not self._race.is_shaking_hands()):
            self._scope.cancel()
