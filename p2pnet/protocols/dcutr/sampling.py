"""Opens ports only to learn which ones the NAT gives them. Rules: specs/dcutr.md (D16, D29)."""

from __future__ import annotations

import logging
import math

import trio

from p2pnet.core.addresses import place_of, without_peer
from p2pnet.core.tasks import boundary
from p2pnet.interfaces import Apart, Connection, ServiceHost
from p2pnet.protocols.dcutr.prediction import (
    SAMPLES,
    Forecast,
    Sample,
    follow_no_rule,
    foresee,
)
from p2pnet.protocols.dcutr.witness import TRANSPORTS, Transport, witnesses

logger = logging.getLogger("p2pnet.dcutr")


FRESH_SECONDS = 5.0
REUSE_SECONDS = 1.0
"""A crowd of peers is met with what was seen for the first of them."""
RANDOM_SECONDS = 300.0
"""A NAT whose ports follow no rule is not looked at again for so long, in the same network."""


class Lookout:
    """What was foreseen in the first attempt with a peer: it holds for those that follow (D17).

    The port that the NAT gave for the peer then is the one that it keeps.
    """

    def __init__(self, sampler: Sampler, began: float) -> None:
        self._sampler = sampler
        self._began = began
        self._turn = trio.Lock()
        self._forecasts: tuple[Forecast, ...] | None = None

    def is_stale(self, now: float) -> bool:
        """Tell if others will have taken the ports that were foreseen."""
        return now - self._began > FRESH_SECONDS

    async def look(self) -> tuple[Forecast, ...]:
        """Look at the NAT, once."""
        async with self._turn:
            if self._forecasts is None:
                self._forecasts = await self._sampler.look()
            return self._forecasts


class Sampler:
    """Looks at the NAT, if it is one that gives each destination another port."""

    def __init__(self, host: ServiceHost, timeout: float) -> None:
        self._host = host
        self._timeout = timeout
        self._turn = trio.Lock()
        self._last: tuple[Forecast, ...] = ()
        self._next = -math.inf
        self._is_blind = False
        """There was nobody to ask, and there may be in a moment."""
        self._random: dict[Transport, float] = {}
        """Until when it is known of a transport that nothing can be foreseen (D29)."""

    @property
    def is_of_use(self) -> bool:
        """Tell if a look can help."""
        return any(map(self._may_foresee, TRANSPORTS))

    def _may_foresee(self, transport: Transport) -> bool:
        is_random = trio.current_time() < self._random.get(transport, -math.inf)
        return self._host.ports_move(transport) is True and not is_random

    def forget(self) -> None:
        """Forget what was seen: this host is in another network."""
        self._last, self._next = (), -math.inf
        self._random = {}

    async def look(self) -> tuple[Forecast, ...]:
        """Return how the NAT will go on, for each transport of which that can be told (D16)."""
        if self.is_of_use:
            with trio.move_on_after(self._timeout):
                async with self._turn:
                    if trio.current_time() >= self._next:
                        await self._renew()
                    return self._last
        return ()

    async def _renew(self) -> None:
        self._is_blind = False
        known = self._random
        found = await self._look_anew()
        if known is not self._random:
            return  # This host has moved meanwhile, and what was seen is of a NAT that was.
        self._last = found
        if not self._is_blind:
            self._next = trio.current_time() + REUSE_SECONDS

    async def _look_anew(self) -> tuple[Forecast, ...]:
        found: list[Forecast] = []
        async with trio.open_nursery() as nursery:
            for transport in TRANSPORTS:
                if self._may_foresee(transport):
                    nursery.start_soon(self._look_at, transport, found)
        return tuple(sorted(found, key=lambda forecast: forecast.transport))

    async def _look_at(self, transport: Transport, found: list[Forecast]) -> None:
        witness = self._witness(transport)
        if witness is None:
            self._is_blind = True
            return
        samples: list[Sample] = []
        known = self._random
        with boundary(logger, f"a look at the NAT with {witness.peer_id}"):
            async with self._host.apart(stranger=True) as apart:
                async with trio.open_nursery() as nursery:
                    for _ in range(SAMPLES):
                        nursery.start_soon(self._take, apart, witness, samples)
                forecast = foresee(samples, self._host.punch_addresses())
                if forecast is not None:
                    found.append(forecast)
                elif follow_no_rule(samples):
                    # Another dictionary, if it has been forgotten meanwhile.
                    known[transport] = trio.current_time() + RANDOM_SECONDS

    async def _take(self, apart: Apart, witness: Connection, samples: list[Sample]) -> None:
        """Have a port of ours seen that has spoken to nobody."""
        with boundary(logger, "a sample of the NAT"):
            connection = await apart.dial(witness.peer_id, without_peer(witness.remote_address))
            local, seen = place_of(connection.local_address), await self._host.observe(connection)
            place = None if seen is None else place_of(seen)
            if local is not None and place is not None and place.protocol == local.protocol:
                samples.append(Sample(place.protocol, local.endpoint.port, place.endpoint))

    def _witness(self, transport: str) -> Connection | None:
        for connection in witnesses(self._host):
            place = place_of(connection.remote_address)
            if place is not None and place.protocol == transport and not place.endpoint.is_ipv6:
                return connection
        return None
