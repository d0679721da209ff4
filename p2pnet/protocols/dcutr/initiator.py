"""The side that was called over a relay: dials, else punches, else rests and tries again.

Rules: specs/dcutr.md (D2, D3, D12 to D14).

::

    called, identified --> plain dial --> attempt 1, 2, 3 --> resting --+
                               |  (goes on)   |                  ^      |  while the relayed
                               v              v                  |      |  connection lives
                             direct         direct               +------+
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, bare_exceptions, boundary
from p2pnet.errors import ConnectionLost, NegotiationFailed, PunchFailed, describe
from p2pnet.events import HolePunched, PunchAttemptFailed, PunchGivenUp
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.dcutr.dialogue import initiate
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from p2pnet.protocols.dcutr.policy import CoolDown, gives_way
from p2pnet.protocols.dcutr.puncher import Puncher, channel_on, has_direct
from p2pnet.protocols.dcutr.sampling import Lookout

logger = logging.getLogger("p2pnet.dcutr")


@dataclass(frozen=True, slots=True)
class Persistence:
    """How often to try, and what to do afterwards; see ``DCUtR``."""

    attempts: int
    head_start: float
    retry_pause: float
    exchange_timeout: float
    max_parallel: int
    close_relayed_after: float | None


@dataclass(slots=True)
class Upgrade:
    """A procedure under way with one peer."""

    scope: trio.CancelScope
    lookout: Lookout
    is_conversing: bool = False
    """True from the first attempt on: the peer knows, or will in a moment."""
    theirs: tuple[Multiaddr, ...] = ()
    """What the peer offered in the attempt before."""


@dataclass(slots=True)
class PlainDial:
    """A dial that needs no hole, if it works."""

    ended: trio.Event = field(default_factory=trio.Event)
    connection: Connection | None = None


class Initiator:
    """Upgrades the relayed connections that others opened to this host."""

    def __init__(
        self, host: ServiceHost, puncher: Puncher, persistence: Persistence, cool_down: CoolDown
    ) -> None:
        self._host = host
        self._puncher = puncher
        self._persistence = persistence
        self._cool_down = cool_down
        self._slots = trio.CapacityLimiter(persistence.max_parallel)
        self._busy: set[PeerId] = set()
        self._resting: dict[PeerId, trio.CancelScope] = {}
        self._under_way: dict[PeerId, Upgrade] = {}

    def begin(self, peer_id: PeerId, nursery: trio.Nursery) -> None:
        """Upgrade the relayed connection of a peer, unless that is under way (D13)."""
        if peer_id not in self._busy:
            self._busy.add(peer_id)
            nursery.start_soon(self._keep_upgrading, peer_id, nursery)

    def connection_closed(self, peer_id: PeerId) -> None:
        """End the rest of a peer whose last relayed connection is gone."""
        if peer_id in self._resting and self._relayed(peer_id) is None:
            self._resting[peer_id].cancel()

    def make_way(self, peer_id: PeerId) -> bool:
        """Leave it to a peer that begins; False if it has to answer us instead (D13).

        That is a question only if each called the other over a relay.
        """
        upgrade = self._under_way.get(peer_id)
        is_conversing = upgrade is not None and upgrade.is_conversing
        if is_conversing and not gives_way(self._host.peer_id, peer_id):
            return False
        if self._relayed(peer_id) is not None:
            self._cool_down.yielded(peer_id, trio.current_time())
        if upgrade is not None:
            upgrade.scope.cancel()
        return True

    async def _keep_upgrading(self, peer_id: PeerId, nursery: trio.Nursery) -> None:
        try:
            while self._is_wanted(peer_id):
                rest = self._cool_down.remaining(peer_id, trio.current_time())
                if rest:
                    with trio.move_on_after(rest) as self._resting[peer_id]:
                        await trio.sleep_forever()
                    del self._resting[peer_id]
                    continue
                async with self._slots:
                    with boundary(logger, f"hole punch with {peer_id}"):
                        if await self._upgrade(peer_id, nursery):
                            return
                # Unless it made way: then the peer has its time.
                now = trio.current_time()
                if not self._cool_down.remaining(peer_id, now):
                    self._cool_down.failed(peer_id, now)
        finally:
            self._busy.discard(peer_id)
            self._resting.pop(peer_id, None)

    def _is_wanted(self, peer_id: PeerId) -> bool:
        protocols = self._host.peers.protocols(peer_id)
        if protocols is not None and PROTOCOL_ID not in protocols:
            return False  # D2: should it speak it later, it will say so
        return self._relayed(peer_id) is not None and has_direct(self._host, peer_id) is None

    def _relayed(self, peer_id: PeerId) -> Connection | None:
        """Return a relayed connection that the peer opened, as others we may not initiate on."""
        for connection in self._host.connections(peer_id):
            if connection.is_relayed and connection.is_inbound and not connection.is_closed:
                return connection
        return None

    async def _upgrade(self, peer_id: PeerId, nursery: trio.Nursery) -> bool:
        """Go through the whole procedure once; False if it made way for the peer's.

        Raises:
            PunchFailed: if all attempts failed.
        """
        began = trio.current_time()
        relayed = self._relayed(peer_id)
        with trio.CancelScope() as scope:
            upgrade = self._under_way[peer_id] = Upgrade(scope, self._puncher.lookout())
            try:
                attempt, direct = await self._try_all(peer_id, upgrade)
            except PunchFailed as error:
                self._host.publish(PunchGivenUp(peer_id, tuple(map(describe, error.causes))))
                raise
            finally:
                del self._under_way[peer_id]
            self._cool_down.worked(peer_id)
            seconds = trio.current_time() - began
            self._host.publish(HolePunched(peer_id, direct.remote_address, attempt, seconds))
            if relayed is not None and self._persistence.close_relayed_after is not None:
                nursery.start_soon(self._retire, relayed, self._persistence.close_relayed_after)
            return True
        return False

    async def _try_all(self, peer_id: PeerId, upgrade: Upgrade) -> tuple[int, Connection]:
        """Return the number of the attempt that worked, and the direct connection.

        Raises:
            PunchFailed: with the cause of each failure.
        """
        plain = PlainDial()
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._dial_plainly, peer_id, plain)
                with trio.move_on_after(self._persistence.head_start):
                    await plain.ended.wait()
                try:
                    if plain.connection is None:
                        found = await self._punch_repeatedly(peer_id, upgrade)
                    else:
                        found = 0, plain.connection
                except PunchFailed:
                    await plain.ended.wait()
                    if plain.connection is None:
                        raise
                    found = 0, plain.connection
                nursery.cancel_scope.cancel()
        return found

    async def _dial_plainly(self, peer_id: PeerId, plain: PlainDial) -> None:
        """Dial the peer where it says that it can be dialled, beside the first punches (D3)."""
        try:
            plain.connection = await self._puncher.dial_directly(peer_id)
        finally:
            plain.ended.set()

    async def _punch_repeatedly(self, peer_id: PeerId, upgrade: Upgrade) -> tuple[int, Connection]:
        causes: list[BaseException] = []
        for attempt in range(1, self._persistence.attempts + 1):
            if causes:
                await trio.sleep(self._persistence.retry_pause)
            direct = has_direct(self._host, peer_id)
            if direct is not None:
                return attempt - 1, direct
            try:
                return attempt, await self._attempt(peer_id, attempt, upgrade)
            except EXPECTED as error:
                causes.append(error)
                self._host.publish(PunchAttemptFailed(peer_id, attempt, describe(error), error))
            if isinstance(causes[-1], NegotiationFailed) or self._relayed(peer_id) is None:
                break
        raise PunchFailed(peer_id, causes)

    async def _attempt(self, peer_id: PeerId, attempt: int, upgrade: Upgrade) -> Connection:
        ours = await self._puncher.offer(upgrade.lookout, attempt, upgrade.theirs)
        upgrade.is_conversing = True
        relayed = self._relayed(peer_id)
        if relayed is None:
            raise ConnectionLost("the relayed connection ended")
        with trio.fail_after(self._persistence.exchange_timeout):
            stream = await relayed.open_stream(PROTOCOL_ID)
            try:
                punch = await initiate(channel_on(stream), ours, trio.current_time)
                upgrade.theirs = punch.addresses
                await stream.aclose()
            except BaseException:
                stream.reset()
                raise
        return await self._puncher.punch(peer_id, punch, attempt, initiator=True)

    async def _retire(self, relayed: Connection, seconds: float) -> None:
        """Close a relayed connection that is not needed any more, once nothing uses it (D14)."""
        await trio.sleep(seconds)
        # Nothing tells when the last stream of a connection ends, and there is no hurry.
        while relayed.streams and not relayed.is_closed:  # noqa: ASYNC110
            await trio.sleep(seconds)
        if has_direct(self._host, relayed.peer_id) is not None:
            await relayed.aclose()
