"""The one task that owns the addresses of a host: facts go in, Watches come out.

What the facts mean is worked out in ``p2pnet.connectivity``. Rules: specs/reachability.md.
"""

from __future__ import annotations

import logging
import math
from contextlib import closing

import trio

from p2pnet.connectivity.beliefs import Beliefs
from p2pnet.connectivity.known import KnownAddress, expand
from p2pnet.connectivity.nat import Nats
from p2pnet.connectivity.routers import Routers
from p2pnet.core.addresses import Multiaddr, Scope, parse, scope, with_peer
from p2pnet.core.bus import EventBus
from p2pnet.core.changes import Changes
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.events import (
    AddressesChanged,
    AddressObserved,
    AddressTested,
    ConnectionClosed,
    ConnectionOpened,
    FilteringTested,
    HairpinTested,
    MappingTested,
    NetworkChanged,
    NetworkRenewed,
    PathChanged,
    PortMapped,
    PortMappingLost,
    PunchStarted,
    ReservationAccepted,
    ReservationLost,
)
from p2pnet.host.config import HostConfig
from p2pnet.swarm.swarm import Swarm

logger = logging.getLogger("p2pnet.host")

CLOCK_JUMP = 30.0
"""Seconds by which the wall clock may gain on the other: beyond, this machine was asleep."""
GATHERING = 0.2
"""Seconds between the system's word of a change and the look around: most come in bursts."""
SHORTEST_INTERVAL = 1.0
"""Seconds between two looks, however often there is such word."""

Heard = (
    AddressObserved
    | AddressTested
    | ConnectionClosed
    | ConnectionOpened
    | FilteringTested
    | HairpinTested
    | MappingTested
    | PathChanged
    | PortMapped
    | PortMappingLost
    | PunchStarted
    | ReservationAccepted
    | ReservationLost
)
KINDS: tuple[type[Heard], ...] = (
    AddressObserved,
    AddressTested,
    ConnectionClosed,
    ConnectionOpened,
    FilteringTested,
    HairpinTested,
    MappingTested,
    PathChanged,
    PortMapped,
    PortMappingLost,
    PunchStarted,
    ReservationAccepted,
    ReservationLost,
)


class Advertising:
    """Keeps ``addresses`` true."""

    def __init__(
        self, config: HostConfig, *, peer_id: PeerId, swarm: Swarm, bus: EventBus, env: Env
    ) -> None:
        self._config = config
        self._peer_id = peer_id
        self._swarm = swarm
        self._bus = bus
        self._env = env
        self._beliefs = Beliefs(
            confirming_observers=config.confirming_observers,
            announced=tuple(parse(text) for text in config.announce),
        )
        self._news = trio.Event()
        self._routers = Routers()
        self._is_told = True
        """The system has told of a change since the last look."""
        self._is_renewed = False
        """An address or a route was set since then, perhaps to what it was."""
        self._next_look = -math.inf
        self._clock_lead: float | None = None
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch(())
        self.known: Watch[tuple[KnownAddress, ...]] = Watch(())
        self.reachability = Watch(config.reachability)
        self.nat = Watch(Nats())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        changes = self._env.network.changes()
        with closing(changes), self._bus.tap(*KINDS, take=self._hear):
            self.refresh()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, changes)
                task_status.started()
                while True:
                    with trio.move_on_at(self._next_look):
                        await self._news.wait()
                    # One conclusion from all that came: a crowd costs one, not a thousand.
                    self._news = trio.Event()
                    self.refresh()

    async def _listen(self, changes: Changes) -> None:
        """Look around when the system tells of a change (V26)."""
        try:
            while True:
                is_set = await changes.wait()
                await trio.sleep(GATHERING)
                self._is_renewed |= is_set
                self._next_look, self._is_told = trio.current_time(), True
                self._news.set()
                await trio.sleep(SHORTEST_INTERVAL - GATHERING)
        except OSError as error:
            logger.info("the system tells of changes of the network no more: %s", error)

    def _hear(self, fact: Heard) -> None:
        if isinstance(fact, AddressObserved):
            is_late = self._swarm.connection(fact.connection.number) is None
            if is_late:
                return  # What is told by who has gone, nothing would withdraw any more.
        if self._learn(fact):
            self._news.set()

    def _learn(self, fact: Heard) -> bool:
        """Take a fact; tell if anything may follow from it: of most connections nothing does."""
        beliefs, now = self._beliefs, trio.current_time()
        match fact:
            case AddressObserved():
                beliefs.observed(fact, now)
            case AddressTested():
                beliefs.tested(fact, now)
            case FilteringTested():
                beliefs.filtering_tested(fact)
            case HairpinTested():
                beliefs.hairpin_tested(fact)
            case MappingTested():
                beliefs.mapping_tested(fact)
            case ConnectionOpened() | ConnectionClosed() | PathChanged():
                return self._learn_of_connections(fact, now)
            case PunchStarted(addresses=addresses):
                for address in addresses:
                    beliefs.knocked_at(address, now)
            case _:
                self._learn_of_helpers(fact)
        return True

    def _learn_of_connections(
        self, fact: ConnectionOpened | ConnectionClosed | PathChanged, now: float
    ) -> bool:
        beliefs = self._beliefs
        match fact:
            case ConnectionOpened(ref):
                beliefs.opened(ref, now)
                return False
            case ConnectionClosed(ref):
                return beliefs.observations.withdraw(ref.number)
            case PathChanged(ref, is_ours):
                return is_ours and beliefs.observations.outdate(ref.number)

    def _learn_of_helpers(self, fact: Heard) -> None:
        """Take what routers and relays do for this host."""
        match fact:
            case PortMapped():
                self._beliefs.port_mapped(fact)
            case PortMappingLost(protocol, listen_address):
                self._beliefs.port_unmapped(protocol, listen_address)
            case ReservationAccepted(relay, addresses):
                self._beliefs.circuits[relay] = addresses
            case ReservationLost(relay):
                self._beliefs.circuits.pop(relay, None)

    def refresh(self) -> None:  # A25
        """Work out the addresses anew; tell of them if they changed."""
        now = trio.current_time()
        reason = None
        if now >= self._next_look:
            self._next_look = now + self._config.interface_interval
            reason = self._look_around()
        listening = expand(self._swarm.listen_addresses, self._beliefs.interfaces)
        if self._beliefs.listening and set(listening) != set(self._beliefs.listening):
            reason = "the addresses of this machine have changed"
        self._beliefs.listening = listening
        if reason is not None:
            self._move(reason)
        elif self._is_renewed:
            self._bus.publish(NetworkRenewed())
        self._is_renewed = False
        found = self._beliefs.conclude(self._config.reachability, now)
        self.known.set(found.known)
        self.nat.set(found.nat)
        self.reachability.set(found.reachability)
        full = tuple(with_peer(address, self._peer_id) for address in found.advertised)
        if full != self.addresses.value:
            self.addresses.set(full)
            self._bus.publish(AddressesChanged(full))

    def _look_around(self) -> str | None:
        """Look at interfaces, routers and wall clock; return why this is elsewhere, if it is."""
        reason = None
        try:
            self._beliefs.interfaces = self._env.network.interface_addresses()
        except OSError as error:
            # Looking takes a descriptor, and strangers who connect may use up all of them.
            logger.info("cannot look at the interfaces, and trust to the last look: %s", error)
        if self._is_told and self._has_another_router():
            reason = "another router leads out of this network"
        lead = self._env.wall_clock() - trio.current_time()
        if self._clock_lead is not None and abs(lead - self._clock_lead) > CLOCK_JUMP:
            reason = "the wall clock jumped: this machine was asleep"
        self._clock_lead = lead
        return reason

    def _has_another_router(self) -> bool:
        """Look at the routers, if anything that this host listens on is behind them (V26)."""
        self._is_told = False
        listening = self._swarm.listen_addresses
        if listening and all(scope(address) is Scope.LOOPBACK for address in listening):
            return False
        try:
            return self._routers.look(self._env.network.gateways())
        except OSError as error:
            logger.info("cannot look at the routes, and trust to the last look: %s", error)
            return False

    def _move(self, reason: str) -> None:
        logger.info("all that was found out about the network begins anew: %s", reason)
        self._beliefs.moved()
        self._routers.moved()
        self._bus.publish(NetworkChanged(reason))

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The IP addresses of this machine, as of the last look."""
        return self._beliefs.interfaces

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        return self._beliefs.punch_addresses()
