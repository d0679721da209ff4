"""The one task that owns the addresses of a host: facts go in, Watches come out.

What the facts mean is worked out in ``p2pnet.connectivity``. Rules: specs/reachability.md.
"""

from __future__ import annotations

import logging
import math

import trio

from p2pnet.connectivity.beliefs import Beliefs
from p2pnet.connectivity.known import KnownAddress, expand
from p2pnet.connectivity.nat import Nats
from p2pnet.core.addresses import Multiaddr, parse, with_peer
from p2pnet.core.bus import EventBus
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
        self._next_look = -math.inf
        self._clock_lead: float | None = None
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch(())
        self.known: Watch[tuple[KnownAddress, ...]] = Watch(())
        self.reachability = Watch(config.reachability)
        self.nat = Watch(Nats())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._bus.tap(*KINDS, take=self._hear):
            self.refresh()
            task_status.started()
            while True:
                with trio.move_on_at(self._next_look):
                    await self._news.wait()
                # One conclusion from all that came: a crowd costs one, not a thousand.
                self._news = trio.Event()
                self.refresh()

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
        if now >= self._next_look:
            self._next_look = now + self._config.interface_interval
            self._look_around()
        listening = expand(self._swarm.listen_addresses, self._beliefs.interfaces)
        if self._beliefs.listening and set(listening) != set(self._beliefs.listening):
            self._move("the addresses of this machine have changed")
        self._beliefs.listening = listening
        found = self._beliefs.conclude(self._config.reachability, now)
        self.known.set(found.known)
        self.nat.set(found.nat)
        self.reachability.set(found.reachability)
        full = tuple(with_peer(address, self._peer_id) for address in found.advertised)
        if full != self.addresses.value:
            self.addresses.set(full)
            self._bus.publish(AddressesChanged(full))

    def _look_around(self) -> None:
        """Look at the interfaces, and at the wall clock: this machine may be somewhere else now."""
        try:
            self._beliefs.interfaces = self._env.network.interface_addresses()
        except OSError as error:
            # Looking takes a descriptor, and strangers who connect may use up all of them.
            logger.info("cannot look at the interfaces, and trust to the last look: %s", error)
        lead = self._env.wall_clock() - trio.current_time()
        if self._clock_lead is not None and abs(lead - self._clock_lead) > CLOCK_JUMP:
            self._move("the wall clock jumped: this machine was asleep")
        self._clock_lead = lead

    def _move(self, reason: str) -> None:
        logger.info("all that was found out about the network begins anew: %s", reason)
        self._beliefs.moved()
        self._bus.publish(NetworkChanged(reason))

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The IP addresses of this machine, as of the last look."""
        return self._beliefs.interfaces

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        return self._beliefs.punch_addresses()
