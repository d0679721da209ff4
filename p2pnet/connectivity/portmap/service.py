"""The part and the service: which ports are mapped by which routers, as long as the host runs.

Theory of operation: whenever the addresses of the host change, and every ``look_interval``, it
looks at its interfaces and gateways, and plans (``policy``). Each router in the plan gets a
``Site`` and a task, each port of it a ``Keeper``; what is in the plan no more is ended, and its
mappings are given back. One more task hears what routers announce to all hosts::

    host.addresses, interfaces, gateways -> plan -> Site (router) -+-> Keeper (port) -> events
                                   announcements -> Site           `-> Keeper (port) -> events

Rules: specs/port-mapping.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import ne

import trio

from p2pnet.connectivity.portmap.asking import Place, ProtocolName
from p2pnet.connectivity.portmap.hearing import hear_announcements
from p2pnet.connectivity.portmap.keeper import Keeper, Keeping
from p2pnet.connectivity.portmap.lease import SHORTEST_INTERVAL
from p2pnet.connectivity.portmap.policy import Target, outside_address, plan
from p2pnet.connectivity.portmap.searching import Speaking, Spoken
from p2pnet.connectivity.portmap.site import SHORTEST_SEARCH_INTERVAL, Site
from p2pnet.core.addresses import Multiaddr
from p2pnet.core.watch import Watch
from p2pnet.errors import EventsMissed
from p2pnet.events import AddressesChanged
from p2pnet.interfaces import Kit, ServiceHost

logger = logging.getLogger("p2pnet.portmap")

PROTOCOLS: tuple[ProtocolName, ...] = ("pcp", "nat-pmp", "upnp")
SHORTEST_LIFETIME = 120
LABEL = b"p2pnet port mapping: secret of nonces, 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """Has routers forward the ports of this host. Being among the services switches it on."""

    protocols: Sequence[ProtocolName] = PROTOCOLS
    """All are searched for at once; of those found, the first that works is used."""
    lifetime: int = 3600
    """Seconds for which a mapping is asked for; it is renewed long before, and outlives a crash."""
    check_interval: float = 45.0
    """Seconds after which a router is asked at the latest whether it has forgotten a mapping."""
    search_interval: float = 300.0
    """Seconds between searches, at most, while no router maps anything."""
    look_interval: float = 30.0
    """Seconds between looks at the interfaces and routers of this machine."""
    close_seconds: float = 2.0
    """How long the end of the host may be put off by giving mappings back."""
    max_ports: int = 16
    """Ports that are mapped; further ones are not."""
    max_routers: int = 4

    def __post_init__(self) -> None:
        if not self.protocols or not set(self.protocols) <= set(PROTOCOLS):
            raise ValueError(f"protocols must be some of {', '.join(PROTOCOLS)}")
        if len(set(self.protocols)) != len(self.protocols):
            raise ValueError("a protocol is named twice")
        if self.lifetime < SHORTEST_LIFETIME:
            raise ValueError(f"lifetime must be at least {SHORTEST_LIFETIME}")
        if self.check_interval < SHORTEST_INTERVAL:
            raise ValueError(f"check_interval must be at least {SHORTEST_INTERVAL}")
        if self.search_interval < SHORTEST_SEARCH_INTERVAL:
            raise ValueError(f"search_interval must be at least {SHORTEST_SEARCH_INTERVAL}")
        if min(self.look_interval, self.close_seconds, self.max_ports, self.max_routers) <= 0:
            raise ValueError("look_interval, close_seconds and limits must be positive")

    def build(self, kit: Kit) -> PortMappingService:
        return PortMappingService(self, kit)


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What came of asking a router in one protocol."""

    gateway: str
    protocol: ProtocolName
    is_spoken: bool
    detail: str
    """Why it is not spoken; else the outside address that it told when it was found, or empty."""


@dataclass(frozen=True, slots=True)
class MappedPort:
    """A port that a router forwards, now."""

    gateway: str
    protocol: ProtocolName
    listen_address: Multiaddr
    outside_address: Multiaddr


@dataclass(slots=True)
class Running:
    """A router that is made use of."""

    site: Site
    targets: Watch[tuple[Target, ...]]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    keepers: dict[Target, KeeperRun] = field(default_factory=dict)


@dataclass(slots=True)
class KeeperRun:
    keeper: Keeper
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


class PortMappingService:
    """Made by the part ``PortMapping``: what it does is told in events, and here on request."""

    def __init__(self, config: PortMapping, kit: Kit) -> None:
        self._config = config
        self._network = kit.env.network
        # A host that comes back with its key can change what it left behind, and nobody else.
        secret = hashlib.sha256(kit.key.sign(LABEL)).digest()
        self._speaking = Speaking(kit.env.network, kit.env.jitter, secret)
        self._running: dict[Place, Running] = {}

    @property
    def routers(self) -> tuple[RouterReport, ...]:
        """What is known of the routers of this host; empty before the first search is over."""
        return tuple(
            report(place.gateway, protocol, running.site)
            for place, running in self._running.items()
            for protocol in self._config.protocols
            if protocol in running.site.findings
        )

    @property
    def mappings(self) -> tuple[MappedPort, ...]:
        """What is mapped now."""
        return tuple(
            MappedPort(place.gateway, held.protocol, at, outside_address(at, held.outside))
            for place, running in self._running.items()
            for target, kept in running.keepers.items()
            if (held := kept.keeper.held) is not None
            for at in target.addresses
        )

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(AddressesChanged) as changes:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(hear_announcements, self._network, self._hear)
                task_status.started()
                while True:
                    await self._follow(self._plan(host), host, tasks)
                    with trio.move_on_after(self._config.look_interval):
                        try:
                            await anext(changes)
                        except EventsMissed:
                            continue

    def _hear(self, gateway: str, protocol: ProtocolName, epoch: int) -> None:
        for place, running in self._running.items():
            if place.gateway == gateway:
                running.site.hear_announcement(protocol, epoch)

    # ---- routers -------------------------------------------------------------------------

    def _plan(self, host: ServiceHost) -> dict[Place, tuple[Target, ...]]:
        try:
            interfaces, gateways = self._network.interface_addresses(), self._network.gateways()
        except OSError as error:
            logger.debug("cannot look at the interfaces: %s", error)
            return {place: running.targets.value for place, running in self._running.items()}
        return plan(
            host.addresses.value,
            interfaces,
            gateways[: self._config.max_routers],
            max_ports=self._config.max_ports,
        )

    async def _follow(
        self, planned: dict[Place, tuple[Target, ...]], host: ServiceHost, tasks: trio.Nursery
    ) -> None:
        """Begin with routers that are new, and end what has to do with those that are gone."""
        for place in [place for place in self._running if place not in planned]:
            self._running[place].scope.cancel()
            await self._running[place].ended.wait()
            del self._running[place]
        for place, targets in planned.items():
            if place in self._running:
                self._running[place].targets.set(targets)
                continue
            config = self._config
            site = Site(
                place, self._speaking, config.protocols, search_interval=config.search_interval
            )
            running = self._running[place] = Running(site, Watch(targets))
            tasks.start_soon(self._serve, running, host)

    async def _serve(self, running: Running, host: ServiceHost) -> None:
        keeping = Keeping(
            lifetime=self._config.lifetime,
            check_interval=self._config.check_interval,
            close_seconds=self._config.close_seconds,
            jitter=self._speaking.jitter,
            publish=host.publish,
        )
        try:
            with running.scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(running.site.run)
                    while True:
                        targets = running.targets.value
                        await self._keep(running, targets, keeping, tasks)
                        await running.targets.wait_for(partial(ne, targets))
        finally:
            running.ended.set()

    # ---- ports ---------------------------------------------------------------------------

    async def _keep(
        self,
        running: Running,
        targets: Sequence[Target],
        keeping: Keeping,
        tasks: trio.Nursery,
    ) -> None:
        """Begin with ports that are new, once those that are gone have been given back."""
        for target in [target for target in running.keepers if target not in targets]:
            running.keepers[target].scope.cancel()
            await running.keepers[target].ended.wait()
            del running.keepers[target]
        for target in targets:
            if target not in running.keepers:
                kept = KeeperRun(Keeper(target, running.site, keeping))
                running.keepers[target] = kept
                tasks.start_soon(keep, kept)


async def keep(kept: KeeperRun) -> None:
    try:
        with kept.scope:
            await kept.keeper.run()
    finally:
        kept.ended.set()


def report(gateway: str, protocol: ProtocolName, site: Site) -> RouterReport:
    finding = site.findings[protocol]
    if isinstance(finding, Spoken):
        return RouterReport(gateway, protocol, True, finding.outside_address or "")
    return RouterReport(gateway, protocol, False, finding)
