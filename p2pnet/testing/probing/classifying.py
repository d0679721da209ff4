"""Classify what stands between this host and the internet.

Four ports are opened, one after another, and each asks the primary observer: that shows how
ports are chosen. Then each has a task of its own, so that none spoils what another measures::

    first     asks the two other observers   -> mapping          (RFC 5780, 4.3)
    second    is probed from another address -> filtering        (RFC 5780, 4.4)
    third     is probed from another port    -> filtering
    fourth    has a closed port knocked at   -> unsolicited      (RFC 5382, REQ-4)
    second and third meet by their outside endpoints -> hairpins (RFC 4787, REQ-9)
"""

from __future__ import annotations

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing.asking import Asker, open_asker
from p2pnet.testing.probing.judging import (
    Classification,
    Observers,
    Reaction,
    Unmeasurable,
    judge_filtering,
    judge_mapping,
    judge_step,
)
from p2pnet.testing.probing.meeting import Appointment, Jitter
from p2pnet.testing.probing.messages import Origin

PORTS = 4
HAIRPIN_SECONDS = 1.5


async def classify(
    network: Network,
    transport: TransportName,
    observers: tuple[Endpoint, ...],
    *,
    jitter: Jitter,
    local: Endpoint | None = None,
    patience: float = 3.0,
) -> Classification:
    """Classify the NATs and firewalls of this host; takes about four seconds.

    Of ``observers``, two have one address and one has another. ``local`` is the endpoint to
    ask from first; the others have any port of the same address. ``patience`` is how many
    seconds to wait for an observer.

    Raises:
        ValueError: if the observers are too few.
        Unmeasurable: if some observers answer, and not all; or if one cannot send probes.
        OSError: if ``local`` cannot be had, or the addresses of this machine.
    """
    chosen = Observers.among(observers)
    local = local or Endpoint("::" if chosen.primary.is_ipv6 else "0.0.0.0", 0)
    askers: list[Asker] = []
    try:
        for port in (local.port, *[0] * (PORTS - 1)):
            source = Endpoint(local.host, port)
            askers.append(await open_asker(network, transport, source, patience=patience))
        laboratory = Classifier(network, transport, chosen, jitter)
        return await laboratory.run(askers)
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for asker in askers:
                    nursery.start_soon(asker.aclose)


class Classifier:
    """Asks and judges."""

    def __init__(
        self, network: Network, transport: TransportName, observers: Observers, jitter: Jitter
    ) -> None:
        self._network = network
        self._transport = transport
        self._observers = observers
        self._jitter = jitter

    async def run(self, askers: list[Asker]) -> Classification:
        first, second, third, fourth = askers
        outside = await first.ask(self._observers.primary)
        if outside is None:
            return await self._without_primary(first)
        fresh = [await self._ask(asker, self._observers.primary) for asker in askers[1:]]
        series = [outside, *fresh]
        preserves = all(
            seen.port == asker.local.port for seen, asker in zip(series, askers, strict=True)
        )
        mapping = judge_mapping(
            outside,
            await self._ask(first, self._observers.other_port),
            await self._ask(first, self._observers.other_address),
        )
        filtering = Filtering(self._observers.primary)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(filtering.probe_from_address, second)
            nursery.start_soon(filtering.probe_from_port, third)
            nursery.start_soon(filtering.knock, fourth)
        if filtering.failure is not None:
            raise filtering.failure
        translated = outside.host not in self._network.interface_addresses()
        return Classification(
            transport=self._transport,
            outside=outside,
            translated=translated,
            mapping=mapping,
            filtering=judge_filtering(
                passes_port=filtering.passes_port, passes_address=filtering.passes_address
            ),
            preserves_port=preserves,
            port_step=None if preserves else judge_step([seen.port for seen in series]),
            hairpins=translated and await self._hairpins((second, series[1]), (third, series[2])),
            unsolicited=filtering.unsolicited,
        )

    async def _without_primary(self, asker: Asker) -> Classification:
        for observer in (self._observers.other_port, self._observers.other_address):
            if await asker.ask(observer) is not None:
                raise Unmeasurable(f"{self._observers.primary} does not answer, {observer} does")
        return Classification(transport=self._transport, blocked=True)

    async def _ask(self, asker: Asker, observer: Endpoint) -> Endpoint:
        seen = await asker.ask(observer)
        if seen is None:
            raise Unmeasurable(f"{observer} does not answer")
        return seen

    async def _hairpins(self, one: tuple[Asker, Endpoint], other: tuple[Asker, Endpoint]) -> bool:
        """Let two ports of this host meet by their outside endpoints."""
        meetings = [
            asker.meeting(Appointment("hairpin", name, peer, remote), self._jitter)
            for (asker, _), (_, remote), name, peer in (
                (one, other, "one", "other"),
                (other, one, "other", "one"),
            )
        ]
        with trio.move_on_after(HAIRPIN_SECONDS):
            async with trio.open_nursery() as nursery:
                for meeting in meetings:
                    nursery.start_soon(meeting.run)
        return all(meeting.met is not None for meeting in meetings)


class Filtering:
    """What comes in of what was not asked for."""

    def __init__(self, observer: Endpoint) -> None:
        self._observer = observer
        self.passes_address = False
        self.passes_port = False
        self.unsolicited: Reaction | None = None
        self.failure: Unmeasurable | None = None

    async def probe_from_address(self, asker: Asker) -> None:
        self.passes_address = await self._passes(asker, Origin.ADDRESS)

    async def probe_from_port(self, asker: Asker) -> None:
        self.passes_port = await self._passes(asker, Origin.PORT)

    async def _passes(self, asker: Asker, origin: Origin) -> bool:
        try:
            return await asker.passes(self._observer, origin)
        except Unmeasurable as error:
            self.failure = error
            return False

    async def knock(self, asker: Asker) -> None:
        try:
            self.unsolicited = await asker.unsolicited(self._observer)
        except Unmeasurable as error:
            self.failure = error
