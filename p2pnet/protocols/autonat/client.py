"""AutoNAT: has peers dial this host, to learn at which addresses strangers get through.

Rules: specs/autonat.md (AN20 to AN32). What comes of it is published as AddressTested and
FilteringTested; what to believe is decided elsewhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import trio

from p2pnet.core.addresses import Multiaddr, scope, without_peer
from p2pnet.core.bus import Subscription
from p2pnet.core.env import Env
from p2pnet.core.tasks import boundary
from p2pnet.errors import EventsMissed
from p2pnet.events import (
    AddressesChanged,
    AddressObserved,
    AddressTested,
    ConnectionClosed,
    NetworkChanged,
    PeerIdentified,
    PortMapped,
    PortMappingLost,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.autonat.asking import Asker, Patience
from p2pnet.protocols.autonat.known_servers import KnownServers
from p2pnet.protocols.autonat.messages import DIAL_BACK, DIAL_REQUEST
from p2pnet.protocols.autonat.policy import Outcome, Purse, port_of
from p2pnet.protocols.autonat.schedule import Pace, Probe, Rounds, Schedule, Server
from p2pnet.protocols.autonat.scout import ENOUGH, Scout

logger = logging.getLogger("p2pnet.autonat")

Heard = (
    AddressesChanged
    | AddressObserved
    | ConnectionClosed
    | NetworkChanged
    | PeerIdentified
    | PortMapped
    | PortMappingLost
)
KINDS: tuple[type[Heard], ...] = (
    AddressesChanged,
    AddressObserved,
    ConnectionClosed,
    NetworkChanged,
    PeerIdentified,
    PortMapped,
    PortMappingLost,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNAT:
    """Has AutoNAT v2 servers test the addresses of this host. Needs ``Identify``."""

    settle_seconds: float = 1.0
    """A new address is tested after so long."""
    recheck_interval: float = 30.0
    """Seconds between two tests of an address about which enough servers have spoken."""
    max_addresses: int = 8
    """Addresses that are tested: the first that the host offers for hole punching."""
    max_parallel: int = 3
    """... and so many of them at the same time."""
    max_requests_per_minute: int = 5
    """To one server. go-libp2p's allow 12."""
    rejected_rest: float = 120.0
    """Seconds to leave a server alone that has no time, or refuses to dial an address ..."""
    lied_rest: float = 3600.0
    """... or says that it dialled, and has not."""
    max_data_bytes_per_hour: int = 2_000_000
    """Data paid for dials of addresses at another IP than that of the connection."""
    request_timeout: float = 30.0
    """Seconds for a request, with data, dial and answer."""
    nonce_timeout: float = 5.0
    """Seconds to wait for a nonce after the server said that it was told."""
    dial_back_timeout: float = 5.0
    """Seconds for an inbound dial-back stream."""
    filtering_interval: float = 600.0
    """Seconds between two looks at how the NAT filters ..."""
    filtering_retry_seconds: float = 10.0
    """... and to the next after one that told too little; twice as long each time."""
    test_filtering: bool = True
    """Look at how the NAT filters, by ports that are opened for that."""
    allow_private: bool = False
    """Test private and loopback addresses too: for tests, and networks of one's own."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: object = getattr(self, setting.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if value <= 0 and setting.name != "max_data_bytes_per_hour":
                raise ValueError(f"{setting.name} must be positive, not {value}")

    def build(self, kit: Kit) -> AutoNATService:
        return AutoNATService(self, kit.env)


class AutoNATService:
    """Made by the part ``AutoNAT``; works on its own, and tells by events how that goes."""

    def __init__(self, config: AutoNAT, env: Env) -> None:
        self._config = config
        self._env = env

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        config = self._config
        asker = Asker(
            host,
            self._env.random_bytes,
            patience=Patience(
                request=config.request_timeout,
                nonce=config.nonce_timeout,
                dial_back=config.dial_back_timeout,
            ),
            purse=Purse(config.max_data_bytes_per_hour),
        )
        host.handle(DIAL_BACK, asker.hear_dial_back)
        with host.subscribe(*KINDS) as events:
            async with trio.open_nursery() as nursery:
                trials = Trials(host, config, asker, nursery)
                nursery.start_soon(trials.hear, events)
                task_status.started()
                await trials.run()


class Trials:
    """All tests of one host."""

    def __init__(
        self, host: ServiceHost, config: AutoNAT, asker: Asker, nursery: trio.Nursery
    ) -> None:
        self._host = host
        self._config = config
        self._asker = asker
        self._nursery = nursery
        self._servers = KnownServers(host, allow_private=config.allow_private)
        self._schedule = Schedule(
            Pace(
                settle_seconds=config.settle_seconds,
                recheck_interval=config.recheck_interval,
                max_addresses=config.max_addresses,
                max_parallel=config.max_parallel,
                requests_per_minute=config.max_requests_per_minute,
                rejected_rest=config.rejected_rest,
                lied_rest=config.lied_rest,
            )
        )
        self._rounds = Rounds(
            settle_seconds=config.settle_seconds,
            interval=config.filtering_interval,
            retry_seconds=config.filtering_retry_seconds,
            enough=ENOUGH,
        )
        self._under_way: set[trio.CancelScope] = set()
        self._happened = trio.Event()
        self._look_again_at = math.inf
        self._scout: Scout | None = None
        if config.test_filtering:
            self._scout = Scout(host, asker, self._servers, timeout=config.request_timeout)

    # ---- when ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Begin what is due, again and again."""
        while True:
            now = trio.current_time()
            if now >= self._look_again_at:
                self._look_again_at = math.inf
            servers = self._servers.all()
            self._schedule.look(self._candidates(), now)
            for probe in self._schedule.due(servers, now):
                self._nursery.start_soon(self._test, probe)
            wake_at = min(
                self._schedule.next_time(servers, now),
                self._begin_round(servers, now),
                self._look_again_at,
            )
            with trio.move_on_at(wake_at):
                await self._happened.wait()
            self._happened = trio.Event()

    def _candidates(self) -> list[Multiaddr]:
        addresses = map(without_peer, self._host.punch_addresses())
        return [address for address in addresses if scope(address) in self._servers.scopes]

    async def hear(self, events: Subscription[Heard]) -> None:
        """Look again whenever something happens that may matter, and once more soon after.

        Others hear of it at the same time, and this host's addresses may follow only then.
        """
        while True:
            try:
                event: Heard | None = await anext(events)
            except EventsMissed:
                event = None
                self._servers.forget_closed()
            if isinstance(event, PeerIdentified | ConnectionClosed):
                self._servers.hear(event)
            if isinstance(event, NetworkChanged):
                self._restart()
            self._look_again_at = trio.current_time() + self._config.settle_seconds
            self._happened.set()

    def _restart(self) -> None:  # AN28
        self._schedule.restart(trio.current_time())
        self._rounds.restart()
        for trial in self._under_way:
            trial.cancel()

    # ---- tests ---------------------------------------------------------------------------

    async def _test(self, probe: Probe) -> None:
        server = probe.server.peer_id
        connection = self._servers.connection(server)
        outcome = Outcome.UNDECIDED
        with self._until_moved() as scope:
            with boundary(logger, f"AutoNAT test by {server}"):
                if connection is not None:
                    outcome = await self._asker.test(connection, probe.address, pays=True)
        if scope.cancelled_caught:
            self._schedule.dropped(probe)
        elif self._schedule.finished(probe, outcome, trio.current_time()) and connection:
            self._publish(probe, connection, reached=outcome is Outcome.REACHED)
        self._happened.set()

    @contextmanager
    def _until_moved(self) -> Generator[trio.CancelScope]:
        """Cancel what is done in the block when this machine is somewhere else."""
        with trio.CancelScope() as scope:
            self._under_way.add(scope)
            try:
                yield scope
            finally:
                self._under_way.discard(scope)

    def _publish(self, probe: Probe, connection: Connection, *, reached: bool) -> None:
        self._host.publish(
            AddressTested(
                address=probe.address,
                reached=reached,
                server=probe.server.peer_id,
                server_address=connection.remote_address,
                protocol=DIAL_REQUEST,
            )
        )

    # ---- filtering -----------------------------------------------------------------------

    def _begin_round(self, servers: tuple[Server, ...], now: float) -> float:
        """Begin a round if one is due; return when the next may be."""
        by_network = {
            server.network: server
            for server in servers
            if not self._schedule.is_resting(server.peer_id, now)
        }
        if self._scout is None or not by_network:
            return math.inf
        chosen = list(by_network.values())[:ENOUGH]
        if self._rounds.look(len(chosen), now):
            self._nursery.start_soon(self._explore, self._scout, chosen)
        return self._rounds.next_time

    async def _explore(self, scout: Scout, servers: list[Server]) -> None:
        useful = False
        with self._until_moved():
            ports = map(port_of, self._candidates())
            transports = sorted({port[0] for port in ports if port is not None})
            useful = await scout.explore(servers, self._rate, transports)
        self._rounds.ended(trio.current_time(), useful=useful)
        self._happened.set()

    def _rate(self, server: Server, outcome: Outcome) -> None:
        now = trio.current_time()
        self._schedule.count_request(server.peer_id, now)
        self._schedule.rate(server.peer_id, outcome, now)
