"""Finds public peers that can tell where they see this host. Rules: specs/dcutr.md (D8, D16)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, Literal, get_args

import trio

from p2pnet.core.addresses import Multiaddr, Scope, place_of, scope, without_peer
from p2pnet.core.tasks import boundary
from p2pnet.interfaces import Connection, ServiceHost

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


async def be_seen(host: ServiceHost) -> None:
    """Dial public peers once more, from the ports that are listened on (D8).

    The connections that there are may have left from other ports, or by a transport that this
    host does not listen on: then nobody knows at which address the NAT shows those ports.
    """
    listened = [place for place in map(place_of, host.addresses.value) if place is not None]
    async with trio.open_nursery() as nursery:
        for transport in TRANSPORTS:
            ports = frozenset(p.endpoint.port for p in listened if p.protocol == transport)
            if ports:
                nursery.start_soon(_be_seen_by, host, transport, ports)


async def _be_seen_by(host: ServiceHost, transport: Transport, ports: frozenset[int]) -> None:
    asked = 0
    for witness in list(witnesses(host)):
        address = _address_of(host, witness, transport)
        if address is None or asked == MAX_ASKED:
            continue
        asked += 1
        with boundary(logger, f"showing a port to {witness.peer_id}"):
            connection = await host.dial(witness.peer_id, [address])
            place = place_of(connection.local_address)
            if place is not None and place.endpoint.port in ports:
                return
            await connection.aclose()  # the port was taken, and another one tells nothing


def _address_of(host: ServiceHost, witness: Connection, transport: Transport) -> Multiaddr | None:
    """Return where to dial a peer over a transport, if that is known."""
    for address in (witness.remote_address, *host.peers.addresses(witness.peer_id)):
        place = place_of(address)
        if place is None or place.protocol != transport or not host.can_dial(address):
            continue
        if scope(address) is Scope.PUBLIC:
            return without_peer(address)
    return None
