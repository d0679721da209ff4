"""The part and the service: has the NAT probed when it shows, and rarely afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields

import trio

from p2pnet.connectivity.probing.policy import (
    Agenda,
    Witness,
    jury,
    only_one,
    translated,
    witness_of,
)
from p2pnet.connectivity.probing.probe import Patience, Probe
from p2pnet.core.addresses import Multiaddr, place_of, without_peer
from p2pnet.core.bus import Subscription
from p2pnet.core.env import Network
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.errors import EventsMissed
from p2pnet.events import AddressesChanged, AddressObserved, NetworkChanged, Reachability
from p2pnet.interfaces import Kit, ServiceHost

logger = logging.getLogger("p2pnet.probing")

Heard = AddressesChanged | AddressObserved | NetworkChanged
KINDS: tuple[type[Heard], ...] = (AddressesChanged, AddressObserved, NetworkChanged)


@dataclass(frozen=True, slots=True, kw_only=True)
class NatProbing:
    """Has peers tell of ports that are opened for that, to learn what the NAT does.

    Needs ``Identify``. Sends nothing unless a peer sees this host at an address not its own.
    """

    settle_seconds: float = 1.0
    """Seconds from the first such word to a probe."""
    interval: float = 3600.0
    """Seconds between two probes."""
    retry_seconds: float = 10.0
    """Seconds to the next probe after one that told nothing; twice as long each time."""
    max_witnesses: int = 8
    """Peers that are considered, each of another network."""
    witness_timeout: float = 5.0
    """Seconds for a peer to be dialled and to answer."""
    knock_seconds: float = 1.2
    """Seconds for a dial that only has to be sent, once more if it was lost."""
    dial_seconds: float = 2.5
    """Seconds in which this host would get through to itself."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0:
                raise ValueError(f"{setting.name} must be positive, not {value}")

    def build(self, kit: Kit) -> NatProbingService:
        return NatProbingService(self, kit.env.network)


class NatProbingService:
    """Made by the part ``NatProbing``; works on its own, and tells by events what it found."""

    def __init__(self, config: NatProbing, network: Network) -> None:
        self._config = config
        self._network = network
        self._agenda = Agenda(
            settle_seconds=config.settle_seconds,
            retry_seconds=config.retry_seconds,
            interval=config.interval,
        )

    @property
    def is_busy(self) -> bool:
        """Whether more is about to be known."""
        return self._agenda.is_busy(trio.current_time())

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(*KINDS) as events:
            task_status.started()
            while True:
                with trio.move_on_at(self._agenda.due):
                    await self._hear(events, host)
                    continue
                self._agenda.begins()
                found: list[object] = []
                with boundary(logger, "a look at the NAT"):
                    await self._look(host, found.append)
                self._conclude(events, host, found)

    async def _hear(self, events: Subscription[Heard], host: ServiceHost) -> None:
        try:
            self._take(await anext(events), host)
        except EventsMissed:
            self._look_at_addresses(host)

    def _take(self, event: Heard, host: ServiceHost) -> None:
        match event:
            case NetworkChanged():
                self._agenda.restart()
            case AddressObserved(address=address) if self._is_translated(address):
                self._agenda.nat_shows(trio.current_time())
            case _:
                self._look_at_addresses(host)

    def _look_at_addresses(self, host: ServiceHost) -> None:
        now = trio.current_time()
        if self._outside(host):
            self._agenda.nat_shows(now)
        if self._open(host):
            self._agenda.opened(now)

    def _conclude(
        self, events: Subscription[Heard], host: ServiceHost, found: list[object]
    ) -> None:
        """Tell what was found, unless this host is somewhere else by now."""
        waiting = events.take_waiting()
        if not any(isinstance(event, NetworkChanged) for event in waiting):
            self._agenda.ended(trio.current_time(), useful=bool(found))
            for event in found:
                host.publish(event)
        for event in waiting:
            self._take(event, host)

    # ---- what is known -------------------------------------------------------------------

    def _own(self) -> tuple[str, ...]:
        try:
            return self._network.interface_addresses()
        except OSError as error:
            # Looking takes a descriptor. Then nothing is done that could be wrong.
            logger.debug("cannot look at the interfaces: %s", error)
            return ()

    def _is_translated(self, address: Multiaddr) -> bool:
        own = self._own()
        return bool(own and list(translated([address], own)))

    def _outside(self, host: ServiceHost) -> list[Multiaddr]:
        """Return where this host is seen that are no addresses of its own."""
        own = self._own()
        return list(translated(host.punch_addresses(), own)) if own else []

    def _open(self, host: ServiceHost) -> list[Multiaddr]:
        """Return the outside addresses at which strangers get through."""
        if host.reachability.value is not Reachability.PUBLIC:
            return []
        own = self._own()
        return list(translated(map(without_peer, host.addresses.value), own)) if own else []

    # ---- looking -------------------------------------------------------------------------

    async def _look(self, host: ServiceHost, tell: Callable[[object], None]) -> None:
        config = self._config
        patience = Patience(
            witness=config.witness_timeout, knock=config.knock_seconds, dial=config.dial_seconds
        )
        places = map(place_of, self._outside(host))
        async with trio.open_nursery() as nursery:
            for transport in sorted({place.protocol for place in places if place is not None}):
                witnesses = self._witnesses(host, transport)
                if witnesses:
                    is_open = only_one(self._open(host), transport)
                    probe = Probe(host, transport, self._own(), patience, tell)
                    nursery.start_soon(self._probe, probe, witnesses, is_open)

    async def _probe(
        self, probe: Probe, witnesses: list[Witness], is_open: Multiaddr | None
    ) -> None:
        with boundary(logger, f"probe with {', '.join(str(w.peer_id) for w in witnesses)}"):
            await probe.run(witnesses, is_open)

    def _witnesses(self, host: ServiceHost, transport: str) -> list[Witness]:
        """Return who can be asked, each of another network."""
        found: dict[PeerId, Witness] = {}
        for connection in host.connections():
            if connection.is_relayed or connection.is_closed:
                continue
            witness = witness_of(
                connection.peer_id,
                transport,
                connected_at=without_peer(connection.remote_address),
                dialled=not connection.is_inbound,
                told=host.peers.addresses(connection.peer_id),
            )
            if witness is not None:
                found.setdefault(connection.peer_id, witness)
        return jury(found.values(), self._config.max_witnesses)
