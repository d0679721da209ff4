"""Opens ports only to learn which ones the NAT gives them. Rules: specs/dcutr.md (D16, D29)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr, place_of, without_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.interfaces import Apart, Connection, ServiceHost
from p2pnet.protocols.dcutr.policy import punchable
from p2pnet.protocols.dcutr.prediction import (
    MAX_SAMPLES,
    SAMPLES,
    Forecast,
    Sample,
    follow_no_rule,
    foresee,
    wants_another,
)
from p2pnet.protocols.dcutr.witness import TRANSPORTS, Transport, listened, witnesses

logger = logging.getLogger("p2pnet.dcutr")


FRESH_SECONDS = 5.0
REUSE_SECONDS = 1.0
"""A crowd of peers is met with what was seen for the first of them."""
RANDOM_SECONDS = 300.0
"""A NAT whose ports follow no rule is not looked at again for so long, in the same network."""
SILENT_SECONDS = 60.0
"""Nor is one of which nobody says anything, for so long."""

MAX_ASKED = 3
"""Peers that are asked in one look, one after the other, while they say nothing."""
MAX_DENIALS = 2
"""So many have to say that the ports follow no rule, if there are so many, in one look each."""
MAX_SILENT = 2
"""So many looks in a row end without a word: a firewall may have had enough of fresh ports."""


@dataclass(slots=True)
class Votes:
    """What those who were asked have told."""

    denied: PeerId | None = None
    """Who said that there is no rule."""
    forecast: Forecast | None = None
    asked: list[Apart] = field(default_factory=list)
    """The fresh ports, of each who was asked."""
    told: trio.Event = field(default_factory=trio.Event)
    """When who is waited for has said something, or anybody has said what there is to know."""

    def hear(self, forecast: Forecast) -> None:
        """Take what was foreseen, whoever is waited for, and let the look be over.

        From now on each fresh port of it would be a step of the NAT for nothing.
        """
        for apart in self.asked:
            apart.seal()
        self.forecast = forecast
        self.told.set()

    @property
    def is_decided(self) -> bool:
        return self.forecast is not None or self.denied is not None


class Look:
    """What one look at the NAT has shown so far."""

    def __init__(self, transports: Iterable[Transport]) -> None:
        self.waiting = set(transports)
        """Of these nothing is known yet."""
        self._count = len(self.waiting)
        self.found: list[Forecast] = []
        self.is_blind = False
        """There was nobody to ask, and there may be in a moment."""

    @property
    def is_whole(self) -> bool:
        """Tell if another look would show no more."""
        return len(self.found) == self._count


class Lookout:
    """What was foreseen in the first attempt with a peer: it holds for those that follow (D17).

    The port that the NAT gave for the peer then is the one that it keeps.
    """

    def __init__(self, sampler: Sampler, began: float) -> None:
        self._sampler = sampler
        self._began = began
        self._turn = trio.Lock()
        self._forecasts: tuple[Forecast, ...] | None = None
        self.dialled: set[Multiaddr] = set()
        """Places of the peer: a NAT that gives ports in sequence gave each the next one."""

    def note(self, place: Multiaddr) -> None:
        """Note that a place of the peer is dialled; the peers that come next have other ports."""
        if place not in self.dialled:
            self.dialled.add(place)
            self._sampler.took(place)

    def is_stale(self, now: float) -> bool:
        """Tell if others will have taken the ports that were foreseen."""
        return now - self._began > FRESH_SECONDS

    async def look(self) -> tuple[Forecast, ...]:
        """Look at the NAT, once."""
        async with self._turn:
            if self._forecasts is None:
                self._forecasts = await self._sampler.look()
                if self._forecasts:
                    self._began = min(self._began, self._sampler.seen_at)
            return self._sampler.by_now(self._forecasts)


def ports(transport: Transport, addresses: Iterable[Multiaddr]) -> frozenset[int]:
    places = map(punchable, addresses)
    return frozenset(
        place.endpoint.port
        for place in places
        if place is not None and place.protocol == transport and not place.endpoint.is_ipv6
    )


class Sampler:
    """Looks at the NAT, if it is one that may give each destination another port."""

    def __init__(self, host: ServiceHost, timeout: float) -> None:
        self._host = host
        self._timeout = timeout
        self._turn = trio.Lock()
        self._last: tuple[Forecast, ...] = ()
        self._next = -math.inf
        self.seen_at = -math.inf
        self._is_whole = False
        """The last look foresaw all that it looked at."""
        self._doubted: dict[Transport, tuple[PeerId, ...]] = {}
        """Peers of whom nothing was learned when they were asked last, of each transport."""
        self._denials: dict[Transport, set[PeerId]] = {}
        """Who said that there is no rule, since somebody last said that there is."""
        self._silences: dict[Transport, int] = {}
        """Looks in a row in which nobody said anything until the time was over."""
        self._resting: dict[Transport, float] = {}
        """Until when a transport is not looked at, as that would be in vain (D29)."""

    @property
    def is_of_use(self) -> bool:
        """Tell if a look can help."""
        return any(map(self._may_foresee, TRANSPORTS))

    def _may_foresee(self, transport: Transport) -> bool:
        is_resting = trio.current_time() < self._resting.get(transport, -math.inf)
        return not is_resting and self._may_move(transport)

    def _may_move(self, transport: Transport) -> bool:
        """Tell if the ports move; or may, as nobody but one peer has told, and of another port."""
        known = self._host.ports_move(transport)
        if known is not None:
            return known
        seen = ports(transport, self._host.punch_addresses())
        is_odd = bool(seen) and seen.isdisjoint(ports(transport, listened(self._host)))
        return is_odd and bool(self._witnesses(transport))

    def forget(self) -> None:
        """Forget what was seen: this host is in another network."""
        self._last, self._next, self._is_whole = (), -math.inf, False
        self._resting, self._doubted, self._denials, self._silences = {}, {}, {}, {}

    async def look(self) -> tuple[Forecast, ...]:
        """Return how the NAT will go on, for each transport of which that can be told (D16)."""
        if self.is_of_use:
            with trio.move_on_after(self._timeout) as limit:
                async with self._turn:
                    if trio.current_time() >= self._next:
                        await self._renew(limit)
                    self._hold()
                    return self.by_now(self._last)
        return self.at_hand() or ()

    def at_hand(self) -> tuple[Forecast, ...] | None:
        """Return what ``look`` would, if it need not look; None if it would have to (D30)."""
        if not self.is_of_use:
            return ()
        return self.by_now(self._last) if trio.current_time() < self._next else None

    def to_tell(self) -> tuple[Forecast, ...] | None:
        """Return what is at hand, for a peer that will dial what it is told (D30)."""
        forecasts = self.at_hand()
        if forecasts:
            self._hold()
        return forecasts

    def _hold(self) -> None:
        """Do not look again so soon: that would take the very ports that a peer is told of.

        Not for ever, as others take ports, too.
        """
        held = trio.current_time() + REUSE_SECONDS
        if self._is_whole and held < self.seen_at + FRESH_SECONDS:
            self._next = max(self._next, held)

    async def _renew(self, limit: trio.CancelScope) -> None:
        look, known = Look(filter(self._may_foresee, TRANSPORTS)), self._resting
        # Less than the whole time is left if another look had to end first.
        is_long = limit.deadline - trio.current_time() > self._timeout / 2
        try:
            async with trio.open_nursery() as nursery:
                for transport in tuple(look.waiting):
                    nursery.start_soon(self._look_at, transport, look)
        finally:
            if look.waiting and limit.cancel_called and known is self._resting:
                if is_long:
                    self._hear_nothing_of(look.waiting)
                # Who is silent over UDP takes nothing away of what was learned over TCP.
                if look.found:
                    self.keep(look)

    async def _look_at(self, transport: Transport, look: Look) -> None:
        asked = self._witnesses(transport)
        known = self._resting
        votes = Votes()
        async with trio.open_nursery() as nursery:
            for number, witness in enumerate(asked, 1):
                told = votes.told = trio.Event()
                nursery.start_soon(self._ask, transport, witness, votes, told)
                # Who says nothing is not given up: slow is no lie.
                until = math.inf if number == len(asked) else self._timeout / len(asked)
                with trio.move_on_after(until):
                    await told.wait()
                if votes.is_decided:
                    break
                self._doubt(transport, witness.peer_id)
            nursery.cancel_scope.cancel()
            if known is not self._resting:
                return  # This host has moved meanwhile, and what was seen is of a NAT that was.
            if votes.denied is not None and votes.forecast is None:
                self._deny(transport, votes.denied, len(asked))
            elif votes.forecast is not None:
                look.found.append(votes.forecast)
                self._denials.pop(transport, None)
            self._silences.pop(transport, None)
            look.is_blind |= not asked
            look.waiting.discard(transport)
            if not look.waiting:
                self.keep(look)  # Before goodbye was said: who calls has to say it soon (D30).

    def _deny(self, transport: Transport, witness: PeerId, asked: int) -> None:
        """Note that by a peer's word there is no rule."""
        self._doubt(transport, witness)
        denied = self._denials.setdefault(transport, set())
        denied.add(witness)
        if len(denied) >= min(MAX_DENIALS, asked):
            self._resting[transport] = trio.current_time() + RANDOM_SECONDS
            del self._denials[transport]

    def _hear_nothing_of(self, transports: Iterable[Transport]) -> None:
        """Note that of these nobody said anything: each look would take all of its time."""
        for transport in transports:
            self._silences[transport] = self._silences.get(transport, 0) + 1
            if self._silences[transport] >= MAX_SILENT:
                self._resting[transport] = trio.current_time() + SILENT_SECONDS
                del self._silences[transport]

    def _doubt(self, transport: Transport, witness: PeerId) -> None:
        """Have a peer asked last, of those that tell of a transport."""
        self._trust(transport, witness)
        self._doubted[transport] = (*self._doubted.get(transport, ()), witness)

    def _trust(self, transport: Transport, witness: PeerId) -> None:
        doubted = self._doubted.get(transport, ())
        self._doubted[transport] = tuple(peer for peer in doubted if peer != witness)

    def by_now(self, forecasts: Iterable[Forecast]) -> tuple[Forecast, ...]:
        """Go on by what this host has opened since for other ends: the NAT has, too."""
        return tuple(each.by_now(self._host.ports_apart(each.transport)) for each in forecasts)

    def took(self, place: Multiaddr) -> None:
        """Go on in what is at hand: the NAT has given one more port, for a place that is new."""
        self._last = tuple(forecast.after(place) for forecast in self._last)

    def keep(self, look: Look) -> None:
        """Let what a look has shown be what is at hand."""
        self._last = tuple(sorted(look.found, key=lambda forecast: forecast.transport))
        self._is_whole, self.seen_at = look.is_whole, trio.current_time()
        if not look.is_blind:
            self._next = self.seen_at + REUSE_SECONDS

    async def _ask(
        self, transport: Transport, witness: Connection, votes: Votes, told: trio.Event
    ) -> None:
        samples: list[Sample] = []
        with boundary(logger, f"a look at the NAT with {witness.peer_id}"):
            async with self._host.apart(stranger=True) as apart:
                votes.asked.append(apart)
                async with trio.open_nursery() as nursery:
                    for _ in range(SAMPLES):
                        nursery.start_soon(self._take, apart, witness, samples)
                for _ in range(MAX_SAMPLES - SAMPLES):
                    if wants_another(samples, self._host.punch_addresses()):
                        await self._take(apart, witness, samples)
                observed = self._host.punch_addresses()
                forecast = foresee(samples, observed, opened=apart.last_port)
                if forecast is not None:
                    votes.hear(forecast)
                    self._trust(transport, witness.peer_id)
                elif follow_no_rule(samples):
                    votes.denied = witness.peer_id
                told.set()  # Not only when goodbye was said: that takes a round trip.
        told.set()

    async def _take(self, apart: Apart, witness: Connection, samples: list[Sample]) -> None:
        """Have a port of ours seen that has spoken to nobody."""
        with boundary(logger, "a sample of the NAT"):
            connection = await apart.dial(witness.peer_id, without_peer(witness.remote_address))
            local, seen = place_of(connection.local_address), await self._host.observe(connection)
            place = None if seen is None else place_of(seen)
            if local is not None and place is not None and place.protocol == local.protocol:
                samples.append(Sample(place.protocol, local.endpoint.port, place.endpoint))

    def _witnesses(self, transport: Transport) -> list[Connection]:
        """Return whom to ask, each at an IP of its own; last who was of no use before (D29)."""
        found: dict[str, Connection] = {}
        for connection in witnesses(self._host):
            place = place_of(connection.remote_address)
            if place is not None and place.protocol == transport and not place.endpoint.is_ipv6:
                found.setdefault(place.endpoint.host, connection)
        peers = {connection.peer_id: connection for connection in found.values()}
        last = tuple(peer for peer in self._doubted.get(transport, ()) if peer in peers)
        self._doubted[transport] = last
        order = [*(peer for peer in peers if peer not in last), *last]
        return [peers[peer] for peer in order[:MAX_ASKED]]
