"""One port at one router: asked for, kept, asked for elsewhere, given back at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import ne

import trio

from p2pnet.connectivity.portmap.asking import (
    LONG_REFUSAL,
    Grant,
    NotSpoken,
    ProtocolName,
    Refused,
    RouterClient,
    Wish,
)
from p2pnet.connectivity.portmap.lease import RECOVERY_DELAY, Lease
from p2pnet.connectivity.portmap.policy import Target, outside_address
from p2pnet.connectivity.portmap.schedule import Jitter
from p2pnet.connectivity.portmap.searching import Spoken
from p2pnet.connectivity.portmap.site import Site
from p2pnet.core.addresses import Endpoint
from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import describe
from p2pnet.events import PortMapped, PortMappingLost

logger = logging.getLogger("p2pnet.portmap")

SECONDS_FOR_BETTER = 0.5
"""How long a protocol that was found waits for one that is preferred."""
SILENCE_SECONDS, LONGEST_SILENCE_SECONDS = 30.0, 300.0
"""How long a protocol is left alone whose answers stay away; twice as long each time (PM11)."""
ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How ports are kept."""

    lifetime: int
    check_interval: float
    close_seconds: float
    jitter: Jitter
    publish: Callable[[object], None]


@dataclass(frozen=True, slots=True)
class Held:
    """A port that is mapped."""

    protocol: ProtocolName
    outside: Endpoint


@dataclass(frozen=True, slots=True)
class Shun:
    """A protocol did not help. It may after ``until``, or as another client that was found."""

    until: float
    client: RouterClient | None = None


class Keeper:
    """Keeps one port mapped as long as it runs, whatever the router does."""

    def __init__(self, target: Target, site: Site, keeping: Keeping) -> None:
        self.target = target
        self.held: Held | None = None
        self._site = site
        self._keeping = keeping
        self._wanted = Endpoint(ANY_ADDRESS, target.inside.port)
        self._restarts = site.restarts.value
        """How often the router came up, as far as that was heeded."""
        self._shunned: dict[ProtocolName, Shun] = {}
        self._failures: dict[ProtocolName, tuple[RouterClient, int]] = {}
        """The last client that did not help, and how many in a row did not."""
        self._asked: dict[ProtocolName, None] = {}
        """In what protocols the router may hold a mapping."""

    async def run(self) -> None:
        """Ask in one protocol after the other, and stay with the first that works."""
        try:
            await self._site.found.wait_for(bool)
            await trio.sleep(SECONDS_FOR_BETTER)
            while True:
                await self._begin_anew_after_restart()
                protocol = self._next_protocol()
                if protocol is None:
                    await self._wait()
                else:
                    self._lost(await self._hold(protocol))
        finally:
            await self._give_back()
            self._lost("it is not wanted any longer")

    def _next_protocol(self) -> ProtocolName | None:
        now = trio.current_time()
        for spoken in self._site.found.value:
            if self._shunned_until(spoken) <= now:
                return spoken.client.protocol
        return None

    def _shunned_until(self, spoken: Spoken) -> float:
        shun = self._shunned.get(spoken.client.protocol)
        if shun is None or shun.client not in (None, spoken.client):
            return -math.inf
        return shun.until

    async def _begin_anew_after_restart(self) -> None:
        """Shun nothing any longer if the router came up: somebody may have changed its settings."""
        if self._restarts != self._site.restarts.value:
            self._restarts = self._site.restarts.value
            await trio.sleep(self._keeping.jitter(0.0, RECOVERY_DELAY))
            self._shunned.clear()

    async def _wait(self) -> None:
        """Wait until a protocol may be tried again, or one is found, or the router came up."""
        found = self._site.found.value

        async def wait_for_restart() -> None:
            await self._site.restarts.wait_for(partial(ne, self._restarts))
            waiting.cancel_scope.cancel()

        with trio.move_on_at(min(map(self._shunned_until, found), default=math.inf)):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait_for_restart)
                await self._site.found.wait_for(partial(ne, found))
                waiting.cancel_scope.cancel()

    # ---- with one protocol ---------------------------------------------------------------

    async def _hold(self, protocol: ProtocolName) -> str:
        """Ask whenever that is due, until it fails; return why."""
        lease = Lease(self._keeping.check_interval, self._keeping.jitter)
        while True:
            await self._wait_until_due(lease)
            lease.asks(trio.current_time())
            client = self._site.client(protocol)
            self._asked[protocol] = None
            try:
                grant = await self._ask(client, lease)
            except (Refused, NotSpoken) as error:
                if lease.held is None:
                    del self._asked[protocol]
                self._shun(protocol, seconds_of(error))
                return str(error)
            except EXPECTED as error:
                self._site.note(error)
                self._site.search_again()
                if lease.unanswered(trio.current_time()):
                    self._shun_silent(client)
                    return describe(error)
            else:
                self._take(protocol, lease, grant)

    async def _wait_until_due(self, lease: Lease) -> None:
        """Wait; less long if the router was restarted."""
        while trio.current_time() < lease.due:
            with trio.move_on_at(lease.due):
                self._restarts = await self._site.restarts.wait_for(partial(ne, self._restarts))
                lease.nudge(trio.current_time())

    async def _ask(self, client: RouterClient, lease: Lease) -> Grant:
        wish = self._wish(self._keeping.lifetime)
        if lease.held is None or lease.is_renewal(trio.current_time()):
            return await client.map(wish)
        return await client.check(wish, lease.held)

    def _wish(self, seconds: int) -> Wish:
        return Wish(self.target.transport, self.target.inside, self._wanted, seconds)

    def _take(self, protocol: ProtocolName, lease: Lease, grant: Grant) -> None:
        is_news = lease.granted(grant, trio.current_time())
        self._failures.pop(protocol, None)
        if grant.epoch is not None:
            self._site.hear_epoch(protocol, grant.epoch)
        if not is_news:
            return
        if self.held is None:
            self._site.mapped += 1
        self.held = Held(protocol, grant.outside)
        self._wanted = grant.outside
        for address in self.target.addresses:
            outside = outside_address(address, grant.outside)
            logger.info("%s: %s leads to %s", protocol, outside, address)
            self._keeping.publish(PortMapped(protocol, address, outside, grant.seconds))

    def _lost(self, reason: str) -> None:
        held, self.held = self.held, None
        if held is None:
            return
        self._site.mapped -= 1
        for address in self.target.addresses:
            logger.info("%s: nothing leads to %s any more: %s", held.protocol, address, reason)
            self._keeping.publish(PortMappingLost(held.protocol, address, reason))

    def _shun(
        self, protocol: ProtocolName, seconds: float, client: RouterClient | None = None
    ) -> None:
        self._shunned[protocol] = Shun(trio.current_time() + seconds, client)

    def _shun_silent(self, client: RouterClient) -> None:
        """Leave a protocol alone until it is found again; if that was in vain before, longer."""
        last, failures = self._failures.get(client.protocol, (None, 0))
        failures += last is not client
        self._failures[client.protocol] = client, failures
        seconds = min(SILENCE_SECONDS * 2 ** min(failures - 1, 8), LONGEST_SILENCE_SECONDS)
        self._shun(client.protocol, seconds, client if failures == 1 else None)

    # ---- in the end ----------------------------------------------------------------------

    async def _give_back(self) -> None:
        """Have the port forwarded no more; who closes the host waits, but not long (PM22)."""
        with trio.move_on_after(self._keeping.close_seconds, shield=True):
            async with trio.open_nursery() as nursery:
                for protocol in self._asked:
                    nursery.start_soon(self._unmap, protocol)

    async def _unmap(self, protocol: ProtocolName) -> None:
        try:
            await self._site.client(protocol).unmap(self._wish(0))
        except EXPECTED as error:
            self._site.note(error)


def seconds_of(error: Refused | NotSpoken) -> float:
    """For how long there is no sense in asking again."""
    return error.seconds if isinstance(error, Refused) else LONG_REFUSAL
