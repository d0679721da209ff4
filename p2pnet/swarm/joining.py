"""Callers who want the same peer share one dial. Rule: specs/dialing.md (DI12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, start_in
from p2pnet.errors import ConnectionLost, DialError
from p2pnet.swarm.connection import LiveConnection

Dial = Callable[[PeerId, frozenset[Multiaddr]], Awaitable[LiveConnection]]


@dataclass(slots=True)
class SharedDial:
    """One dial under way, and how many wait for it."""

    insist: frozenset[Multiaddr]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    waiting: int = 0
    connection: LiveConnection | None = None
    error: Exception | None = None


class JoinedDials:
    """At most one dial per peer; it goes on while anybody waits for it."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._dials: dict[PeerId, SharedDial] = {}

    async def join(
        self, peer_id: PeerId, insist: frozenset[Multiaddr], nursery: trio.Nursery
    ) -> LiveConnection:
        """Dial ``peer_id`` in ``nursery``, or wait for the dial that is under way.

        Raises:
            DialError: if no address worked.
            trio.ClosedResourceError: if the nursery is cancelled.
        """
        shared = self._dials.get(peer_id)
        if shared is None or shared.scope.cancel_called:
            shared = SharedDial(insist)
            start_in(nursery, self._run, peer_id, shared)
            self._dials[peer_id] = shared
        elif not insist <= shared.insist:
            # The dial under way does not know all of our addresses: let it end, then look.
            await self._wait(shared)
            if shared.connection is not None:
                return shared.connection
            return await self.join(peer_id, insist, nursery)
        await self._wait(shared)
        return outcome(peer_id, shared)

    async def _wait(self, shared: SharedDial) -> None:
        shared.waiting += 1
        try:
            await shared.done.wait()
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.done.is_set():
                shared.scope.cancel()

    async def _run(self, peer_id: PeerId, shared: SharedDial) -> None:
        try:
            with shared.scope:
                shared.connection = await self._dial(peer_id, shared.insist)
        except EXPECTED as error:
            shared.error = error
        finally:
            if self._dials.get(peer_id) is shared:
                del self._dials[peer_id]
            shared.done.set()


def outcome(peer_id: PeerId, shared: SharedDial) -> LiveConnection:
    if shared.connection is not None:
        return shared.connection
    match shared.error:
        case DialError() as error:
            # Each caller gets an error of its own, as each adds its own traceback to it.
            raise DialError(peer_id, error.attempts, error.hint)
        case Exception() as error:
            raise error
        case None:
            raise ConnectionLost("the host is leaving")
