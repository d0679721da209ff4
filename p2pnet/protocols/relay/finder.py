"""Finder: looks for relays among peers, and keeps as many as wanted. Rules: specs/relay.md.

R34 to R37. It looks anew whenever a peer tells what it serves, a reservation comes or goes, or
this host learns that strangers can dial it or not::

    peers, peer source ---> candidates ---> measured ---> chosen ---> kept
                               ^                                        |
                               +------- resting <--- given up <---------+
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from operator import ne

import trio

from p2pnet.core.bus import Subscription
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, boundary
from p2pnet.core.watch import Watch
from p2pnet.errors import EventsMissed
from p2pnet.events import (
    ConnectionClosed,
    PeerIdentified,
    Reachability,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost, Stream, Target
from p2pnet.protocols.relay.choice import Candidate, choose, network_of, places_of
from p2pnet.protocols.relay.keeper import Keeper
from p2pnet.protocols.relay.messages import HOP

logger = logging.getLogger("p2pnet.relay")

PeerSource = Callable[[], AsyncIterator[Target]]
"""Names peers that may relay: their addresses with ``/p2p``, or IDs that the host can find."""

PING, PING_BYTES = "/ipfs/ping/1.0.0", 32
MEASURE_SECONDS = 1.0
"""Who takes longer to answer a ping is as good as silent."""
SETTLE_SECONDS = 0.1
"""News comes in crowds: so long it may gather before it is looked at."""
SPARE = 4
"""Relays without a reservation that are asked again, beyond those wanted."""
REST_SECONDS = 600.0
"""A relay that was given up is not a candidate for so long."""
MAX_RESTING = 1024
ACQUAINTANCES = 8
"""Peers of the peer source that are dialled at the same time."""

News = ConnectionClosed | PeerIdentified | ReservationAccepted | ReservationFailed | ReservationLost
KINDS: tuple[type[News], ...] = (
    ConnectionClosed,
    PeerIdentified,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for."""

    wanted: int
    source: PeerSource | None
    source_interval: float
    max_candidates: int
    connect_timeout: float


@dataclass(slots=True)
class Found:
    """A relay that was found and is being kept."""

    keeper: Keeper
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Finder:
    """``keepers`` are those of all relays, by peer; the found ones come and go in it."""

    def __init__(
        self,
        search: Search,
        kit: Kit,
        *,
        keepers: dict[PeerId, Keeper],
        make_keeper: Callable[[Candidate], Keeper],
    ) -> None:
        self._search = search
        self._kit = kit
        self._keepers = keepers
        self._make_keeper = make_keeper
        self._found: dict[PeerId, Found] = {}
        self._resting: dict[PeerId, float] = {}
        """Until when."""
        self._news = Watch(0)
        self._asked_at = -math.inf
        self._asking = False

    async def run(self, host: ServiceHost) -> None:
        async with trio.open_nursery() as nursery:
            with host.subscribe(*KINDS) as events:
                nursery.start_soon(self._hear, events)
                nursery.start_soon(self._follow_reachability, host)
                while True:
                    seen = self._news.value
                    await self._tend(host, nursery)
                    with trio.move_on_after(self._search.source_interval):
                        await self._news.wait_for(partial(ne, seen))
                        await trio.sleep(SETTLE_SECONDS)

    async def _hear(self, events: Subscription[News]) -> None:
        while True:
            with suppress(EventsMissed):
                await anext(events)
            events.take_waiting()
            self._tell_news()

    async def _follow_reachability(self, host: ServiceHost) -> None:
        while True:
            seen = host.reachability.value
            await host.reachability.wait_for(partial(ne, seen))
            self._tell_news()

    def _tell_news(self) -> None:
        self._news.set(self._news.value + 1)

    # ---- keeping -------------------------------------------------------------------------

    async def _tend(self, host: ServiceHost, nursery: trio.Nursery) -> None:
        """Bring what is kept in line with what is wanted, as far as it is known."""
        if host.reachability.value is Reachability.PUBLIC:  # R34
            for relay in list(self._found):
                self._give_up(host, relay, "strangers can dial this host, no relay is needed")
            return
        missing = self._missing()
        if missing <= 0:
            self._give_up_spare(host)
            return
        candidates = self._candidates(host)
        if len(candidates) < missing:
            self._ask_source(host, nursery)
        measured = await self._measured(candidates)
        missing = self._missing()
        if missing > 0:
            for candidate in choose(measured, taken=self._networks(), count=missing):
                self._keep(host, nursery, candidate)

    def _missing(self) -> int:
        """Count the relays to be asked; those that were just asked may still say yes."""
        held = sum(keeper.is_held for keeper in self._keepers.values())
        asked = [found.keeper for found in self._found.values() if not found.keeper.is_held]
        return self._search.wanted - held - sum(not keeper.failures for keeper in asked)

    def _networks(self) -> set[str]:
        """Return the networks of the relays that are held or have just been asked."""
        return {
            network_of(keeper.places[0])
            for keeper in self._keepers.values()
            if keeper.is_held or not keeper.failures
        }

    def _keep(self, host: ServiceHost, nursery: trio.Nursery, candidate: Candidate) -> None:
        if len(self._found) >= self._search.wanted + SPARE and not self._give_up_worst(host):
            return
        found = Found(self._make_keeper(candidate))
        self._found[candidate.relay] = found
        self._keepers[candidate.relay] = found.keeper
        logger.info("found relay %s, %.0f ms away", candidate.relay, candidate.round_trip * 1000)
        nursery.start_soon(self._run_keeper, host, found)

    async def _run_keeper(self, host: ServiceHost, found: Found) -> None:
        with found.scope:
            await found.keeper.run(host)
        # It may have got an answer in the moment it was cancelled.
        found.keeper.give_up(host, "it is kept no longer")

    def _give_up_spare(self, host: ServiceHost) -> None:
        """Leave those alone that failed, once there are enough others (R37)."""
        for relay, found in list(self._found.items()):
            if not found.keeper.is_held and found.keeper.failures:
                self._give_up(host, relay, "enough other relays were found")

    def _give_up_worst(self, host: ServiceHost) -> bool:
        failing = {
            relay: f.keeper.failures for relay, f in self._found.items() if not f.keeper.is_held
        }
        if not any(failing.values()):
            return False
        self._give_up(host, max(failing, key=lambda relay: failing[relay]), "it fails")
        return True

    def _give_up(self, host: ServiceHost, relay: PeerId, reason: str) -> None:
        found = self._found.pop(relay)
        del self._keepers[relay]
        if not found.keeper.is_held:
            self._resting[relay] = trio.current_time() + REST_SECONDS
            while len(self._resting) > MAX_RESTING:
                del self._resting[next(iter(self._resting))]
        found.scope.cancel()
        found.keeper.give_up(host, reason)
        logger.info("relay %s is kept no longer: %s", relay, reason)

    # ---- candidates ----------------------------------------------------------------------

    def _candidates(self, host: ServiceHost) -> list[tuple[Candidate, Connection]]:
        """Return the connected peers that could be asked for a reservation (R35)."""
        now = trio.current_time()
        self._resting = {relay: until for relay, until in self._resting.items() if until > now}
        found: dict[PeerId, tuple[Candidate, Connection]] = {}
        for connection in host.connections():
            candidate = self._candidate(host, connection)
            if candidate is not None:
                found.setdefault(candidate.relay, (candidate, connection))
        return list(found.values())[: self._search.max_candidates]

    def _candidate(self, host: ServiceHost, connection: Connection) -> Candidate | None:
        relay = connection.peer_id
        if connection.is_relayed or relay in self._keepers or relay in self._resting:
            return None
        if HOP not in (host.peers.protocols(relay) or ()):
            return None
        places = places_of(
            connection.remote_address,
            host.peers.addresses(relay),
            is_inbound=connection.is_inbound,
        )
        return Candidate(relay, places, connection.is_inbound) if places else None

    async def _measured(
        self, candidates: list[tuple[Candidate, Connection]]
    ) -> tuple[Candidate, ...]:
        """Measure the round trip to each, all at once."""
        measured: dict[PeerId, Candidate] = {}

        async def measure(candidate: Candidate, connection: Connection) -> None:
            round_trip = math.inf
            with trio.move_on_after(MEASURE_SECONDS):
                round_trip = await self._round_trip(connection)
            measured[candidate.relay] = replace(candidate, round_trip=round_trip)

        async with trio.open_nursery() as nursery:
            for candidate, connection in candidates:
                nursery.start_soon(measure, candidate, connection)
        return tuple(measured[candidate.relay] for candidate, _ in candidates)

    async def _round_trip(self, connection: Connection) -> float:
        """Ping a peer twice; return the shorter time, infinity if it does not answer."""
        try:
            stream = await connection.open_stream(PING)
            try:
                return min(await self._ping(stream), await self._ping(stream))
            finally:
                stream.reset()
        except EXPECTED as error:
            logger.debug("cannot measure the way to %s: %s", connection.peer_id, error)
            return math.inf

    async def _ping(self, stream: Stream) -> float:
        began, sent = trio.current_time(), self._kit.env.random_bytes(PING_BYTES)
        await stream.send_all(sent)
        back = b""
        while len(back) < PING_BYTES:
            chunk = await stream.receive_some(PING_BYTES - len(back))
            if not chunk:
                return math.inf
            back += chunk
        return trio.current_time() - began if back == sent else math.inf

    # ---- the peer source -----------------------------------------------------------------

    def _ask_source(self, host: ServiceHost, nursery: trio.Nursery) -> None:
        source, now = self._search.source, trio.current_time()
        if source is None or self._asking or now < self._asked_at + self._search.source_interval:
            return
        self._asking, self._asked_at = True, now
        nursery.start_soon(self._meet_peers, host, source)

    async def _meet_peers(self, host: ServiceHost, source: PeerSource) -> None:
        """Connect to the peers that the source names; who serves hop will tell (R35)."""
        try:
            with boundary(logger, "the peer source of RelayClient", expected=logging.INFO):
                with trio.move_on_after(self._search.source_interval):
                    await self._meet(host, source())
        finally:
            self._asking = False
            self._tell_news()

    async def _meet(self, host: ServiceHost, targets: AsyncIterator[Target]) -> None:
        room = trio.CapacityLimiter(ACQUAINTANCES)
        async with AsyncExitStack() as stack:
            close = getattr(targets, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)
            async with trio.open_nursery() as nursery:
                for _ in range(self._search.max_candidates):
                    try:
                        target = await anext(targets)
                    except StopAsyncIteration:
                        return
                    nursery.start_soon(self._connect, host, target, room)

    async def _connect(self, host: ServiceHost, target: Target, room: trio.CapacityLimiter) -> None:
        async with room:
            with boundary(logger, f"meeting {target}, which may be a relay"):
                with trio.fail_after(self._search.connect_timeout):
                    await host.connect(target)
