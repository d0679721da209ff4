"""Finds public peers that can tell where they see this host. Rules: specs/dcutr.md (D8, D16)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
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
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.dcutr.policy import Way, ways

Transport = Literal["tcp", "udp"]

TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)
MAX_ASKED = 2
"""Peers that are dialled for each transport: one may be gone, or not identify this host."""
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
