"""The one task that owns the addresses of a host: what is heard goes in, a Watch comes out."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import trio

from p2pnet.core.addresses import Multiaddr, parse, with_peer
from p2pnet.core.bus import EventBus, Subscription
from p2pnet.core.env import Network
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.errors import EventsMissed
from p2pnet.events import (
    AddressesChanged,
    AddressObserved,
    ConnectionClosed,
    Reachability,
    ReservationAccepted,
    ReservationLost,
)
from p2pnet.host.addresses import Observations, advertised, expand, worth_punching
from p2pnet.host.config import HostConfig
from p2pnet.swarm.swarm import Swarm

logger = logging.getLogger("p2pnet.host")

Heard = AddressObserved | ConnectionClosed | ReservationAccepted | ReservationLost
KINDS: tuple[type[Heard], ...] = (
    AddressObserved,
    ConnectionClosed,
    ReservationAccepted,
    ReservationLost,
)


class Advertising:
    """Keeps ``addresses`` true."""

    def __init__(
        self, config: HostConfig, *, peer_id: PeerId, swarm: Swarm, bus: EventBus, network: Network
    ) -> None:
        self._config = config
        self._peer_id = peer_id
        self._swarm = swarm
        self._bus = bus
        self._network = network
        self._announced = tuple(parse(text) for text in config.announce)
        self._observations = Observations()
        self._circuits: dict[PeerId, tuple[Multiaddr, ...]] = {}
        self._interfaces: tuple[str, ...] = ()
        self._listening: tuple[Multiaddr, ...] = ()
        self._next_look = -math.inf
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch(())
        self.reachability = Watch(config.reachability)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._bus.subscribe(*KINDS, limit=4096) as heard:
            self.refresh()
            task_status.started()
            while True:
                with trio.move_on_at(self._next_look):
                    await self._hear(heard)
                self.refresh()

    async def _hear(self, heard: Subscription[Heard]) -> None:
        try:
            event = await anext(heard)
        except EventsMissed:
            self._observations.keep_only(c.ref.number for c in self._swarm.connections())
            return
        match event:
            case AddressObserved(connection, address):
                self._observations.record(connection.number, connection.remote_address, address)
            case ConnectionClosed(connection):
                self._observations.withdraw(connection.number)
            case ReservationAccepted(relay, addresses):
                self._circuits[relay] = addresses
            case ReservationLost(relay):
                self._circuits.pop(relay, None)

    def refresh(self) -> None:  # A25
        """Work out the addresses anew; tell of them if they changed."""
        self._listening = expand(self._swarm.listen_addresses, self._look_at_interfaces())
        circuits: Sequence[Multiaddr] = ()
        if self.reachability.value is not Reachability.PUBLIC:
            circuits = [address for held in self._circuits.values() for address in held]
        addresses = advertised(
            listen=self._listening,
            announced=self._announced,
            observed=self._observations.seen(observers=self._config.confirming_observers),
            circuits=circuits,
        )
        full = tuple(with_peer(address, self._peer_id) for address in addresses)
        if full != self.addresses.value:
            self.addresses.set(full)
            self._bus.publish(AddressesChanged(full))

    def _look_at_interfaces(self) -> tuple[str, ...]:
        """Return the addresses of the interfaces, looked at once an interval, not per event."""
        now = trio.current_time()
        if now < self._next_look:
            return self._interfaces
        self._next_look = now + self._config.interface_interval
        try:
            self._interfaces = self._network.interface_addresses()
        except OSError as error:
            # Looking takes a descriptor, and strangers who connect may use up all of them.
            logger.info("cannot look at the interfaces, and trust to the last look: %s", error)
        return self._interfaces

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        return worth_punching(
            listen=self._listening,
            announced=self._announced,
            observed=self._observations.seen(observers=1),
        )
