"""Finds public peers that can tell where they see this host. Rules: specs/dcutr.md (D8, D16)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Literal, get_args

import trio

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    is_relayed,
    place_of,
    scope,
    without_peer,
)
from p2pnet.core.tasks import boundary
from p2pnet.errors import EventsMissed
from p2pnet.events import AddressesChanged, AddressObserved
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.dcutr.policy import Way, ways

Transport = Literal["tcp", "udp"]

TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)
MAX_ASKED = 2
"""Peers that are dialled for each transport: one may be gone, or not identify this host."""
VAIN_SECONDS = 60.0
"""How long a way is left alone by which nobody saw this host, if there is another one."""
RECHECK_INTERVAL = 0.25
"""Seconds; what a peer observed counts a moment after the event that tells of it."""
logger = logging.getLogger("p2pnet.dcutr")


def witnesses(host: ServiceHost) -> Iterator[Connection]:
    """Go through the connections to public peers that were dialled, so can be dialled again."""
    for connection in host.connections():
        if connection.is_relayed or connection.is_inbound or connection.is_closed:
            continue
        if scope(connection.remote_address) is Scope.PUBLIC:
            yield connection


def unseen(
    host: ServiceHost, own: Iterable[Multiaddr], theirs: Iterable[Multiaddr], attempt: int
) -> frozenset[Way]:
    """Return the ways to have this host seen by, beside those by which it is (D8).

    Relays are met by the best way alone: by QUIC, or IPv6. The peer may not have that, which is
    known at once; or a NAT may let nothing through by it, which the first attempt shows.
    """
    seen, wanted = ways(own), ways(listened(host))
    if attempt == 1:
        common = ways(theirs)
        wanted = frozenset() if seen & common else wanted & common
    told = list(witnesses(host))
    return frozenset(
        way
        for way in wanted - seen
        if any(_address_of(host, witness, (way,)) is not None for witness in told)
    )


def listened(host: ServiceHost) -> Iterator[Multiaddr]:
    """Go through where this host listens, for others than itself."""
    for address in host.addresses.value:
        if not is_relayed(address) and scope(address) is not Scope.LOOPBACK:
            yield address


class Showing:
    """Has this host seen, for one procedure at a time: what is seen then holds for all (D8)."""

    def __init__(self, host: ServiceHost, candidates: Callable[[], tuple[Multiaddr, ...]]) -> None:
        self._host = host
        self._candidates = candidates
        self._turn = trio.Lock()
        self._vain: dict[Way, float] = {}

    def forget(self) -> None:
        """Forget what was in vain: this host is in another network."""
        self._vain = {}

    def in_vain(self) -> frozenset[Way]:
        """Return the ways by which nobody saw this host a moment ago."""
        now = trio.current_time()
        return frozenset(way for way, until in self._vain.items() if now < until)

    async def show(self, wanted: frozenset[Way], *, every: bool, seconds: float) -> None:
        """Wait until this host is seen: anywhere, or by one or ``every`` one of those ways."""
        # If this host moves meanwhile, what is found out is of a network that was.
        vain = self._vain
        with trio.move_on_after(seconds):
            async with self._turn:
                if not self._is_seen(wanted, every=every):
                    await self._show(wanted, every=every)
        unseen_yet = wanted - ways(self._candidates())
        if every or unseen_yet == wanted:
            vain |= dict.fromkeys(unseen_yet, trio.current_time() + VAIN_SECONDS)

    async def _show(self, wanted: frozenset[Way], *, every: bool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dial, wanted, nursery.cancel_scope)
            with self._host.subscribe(AddressObserved, AddressesChanged) as news:
                while not self._is_seen(wanted, every=every):
                    with trio.move_on_after(RECHECK_INTERVAL):
                        try:
                            await anext(news)
                        except EventsMissed:
                            continue
            nursery.cancel_scope.cancel()

    async def _dial(self, wanted: frozenset[Way], waiting: trio.CancelScope) -> None:
        """Wait no longer if that came to nothing by any wanted way."""
        left = wanted - ways(self._candidates())
        if not await be_seen(self._host, left) and wanted:
            waiting.cancel()

    def _is_seen(self, wanted: frozenset[Way], *, every: bool) -> bool:
        seen = ways(self._candidates())
        if not wanted:
            return bool(seen)
        return wanted <= seen if every else not wanted.isdisjoint(seen)


async def be_seen(host: ServiceHost, wanted: Collection[Way] = ()) -> bool:
    """Dial public peers once more, from the ports that are listened on; tell if one was met (D8).

    The connections that there are may have left from other ports, or by a transport that this
    host does not listen on: then nobody knows at which address the NAT shows those ports.
    ``wanted`` are the ways to do so by; if there are none, each transport by any family.
    """
    places = [place for place in map(place_of, host.addresses.value) if place is not None]
    groups: list[tuple[Way, ...]] = [(way,) for way in wanted]
    groups = groups or [((each, False), (each, True)) for each in TRANSPORTS]
    met: list[Connection] = []
    async with trio.open_nursery() as nursery:
        for group in groups:
            transport = group[0][0]
            ports = frozenset(p.endpoint.port for p in places if p.protocol == transport)
            if ports:
                nursery.start_soon(_be_seen_by, host, group, ports, met)
    return bool(met)


async def _be_seen_by(
    host: ServiceHost, group: Collection[Way], ports: frozenset[int], met: list[Connection]
) -> None:
    asked = 0
    for witness in list(witnesses(host)):
        address = _address_of(host, witness, group)
        if address is None or asked == MAX_ASKED:
            continue
        asked += 1
        with boundary(logger, f"showing a port to {witness.peer_id}"):
            connection = await host.dial(witness.peer_id, [address])
            place = place_of(connection.local_address)
            if place is not None and place.endpoint.port in ports:
                met.append(connection)
                return
            await connection.aclose()  # the port was taken, and another one tells nothing


def _address_of(host: ServiceHost, witness: Connection, group: Collection[Way]) -> Multiaddr | None:
    """Return where to dial a peer by one of these ways, if that is known."""
    for address in (witness.remote_address, *host.peers.addresses(witness.peer_id)):
        place = place_of(address)
        if place is None or (place.protocol, place.endpoint.is_ipv6) not in group:
            continue
        if host.can_dial(address) and scope(address) is Scope.PUBLIC:
            return without_peer(address)
    return None
