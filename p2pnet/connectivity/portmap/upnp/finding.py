"""Find a UPnP gateway, and the service in it that maps ports. Rules PM12, PM13, PM17."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2pnet.connectivity.portmap.asking import NotSpoken, Place, Refused, Unanswered
from p2pnet.connectivity.portmap.policy import may_be_asked
from p2pnet.connectivity.portmap.schedule import Jitter
from p2pnet.connectivity.portmap.upnp.client import UpnpClient, fetch
from p2pnet.connectivity.portmap.upnp.description import Service
from p2pnet.connectivity.portmap.upnp.description import decode_untrusted as decode_description
from p2pnet.connectivity.portmap.upnp.http import encode_request
from p2pnet.connectivity.portmap.upnp.ssdp import (
    GROUP,
    TARGETS,
    Found,
    decode_untrusted,
    encode_search,
)
from p2pnet.connectivity.portmap.upnp.urls import Url
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket, Network
from p2pnet.core.tasks import close_at_once
from p2pnet.errors import ProtocolError

WAITS = (0.5, 1.0, 2.0)
"""Seconds to listen after each round of questions; multicast gets lost."""
MAX_ANSWERS = 64
MAX_LOCATIONS = 4


async def find(network: Network, place: Place, *, jitter: Jitter) -> tuple[UpnpClient, str | None]:
    """Return a client of the gateway, and the outside address if it has one.

    Raises:
        NotSpoken: if none answers.
        ProtocolError, Unanswered, OSError: if one does, and cannot be used.
    """
    failure: Exception = NotSpoken("nothing that speaks UPnP was found")
    for location in await search(network, place):
        try:
            services = await describe(network, place, location)
            return await choose(network, place, services, jitter=jitter)
        except (ProtocolError, Unanswered, OSError) as error:
            failure = error
    raise failure


async def search(network: Network, place: Place) -> tuple[Url, ...]:
    """Return where gateways describe themselves: the router of the place alone, if it does."""
    sock = await network.bind_udp(Endpoint(place.own, 0))
    answers = Answers(place)
    try:
        for wait in WAITS:
            for target in TARGETS:
                for remote in (GROUP, Endpoint(place.gateway, GROUP.port)):
                    await send(sock, encode_search(target), remote)
            with trio.move_on_after(wait):
                await answers.collect(sock)
            if answers.are_enough:
                break
        return answers.locations
    finally:
        await close_at_once(sock)


async def send(sock: DatagramSocket, data: bytes, remote: Endpoint) -> None:
    """Send; where there is no way to a group, there may be one to the router."""
    try:
        await sock.send(data, remote)
    except OSError:
        if remote != GROUP:
            raise


class Answers:
    """What comes back for a search."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._locations: dict[Url, bool] = {}
        self._count = 0

    @property
    def are_enough(self) -> bool:
        return self._count >= MAX_ANSWERS or any(self._locations.values())

    @property
    def locations(self) -> tuple[Url, ...]:
        of_router = [url for url, is_router in self._locations.items() if is_router]
        return tuple(of_router or self._locations)[:MAX_LOCATIONS]

    async def collect(self, sock: DatagramSocket) -> None:
        """Take answers until the router itself has answered."""
        while not self.are_enough:
            data, source = await sock.receive()
            self._count += 1
            if not may_be_asked(source.host, self._place):  # PM13
                continue
            try:
                found: Found = decode_untrusted(data, source.host)
            except ProtocolError:
                continue  # Whatever else is in the network answers searches, too.
            if len(self._locations) < MAX_ANSWERS:
                self._locations[found.location] = source.host == self._place.gateway


async def describe(network: Network, place: Place, location: Url) -> tuple[Service, ...]:
    """Read the description of a gateway."""
    request = encode_request("GET", location.target, host=str(location.endpoint))
    answer = await fetch(network, place, location, request)
    if answer.status != 200:
        raise ProtocolError("UPnP", f"a description with status {answer.status}")
    return decode_description(answer.body, location)


async def choose(
    network: Network, place: Place, services: Sequence[Service], *, jitter: Jitter
) -> tuple[UpnpClient, str | None]:
    """Return a client of the first service that is connected; of the first, if none is (PM17)."""
    clients = [UpnpClient(network, place, service, jitter=jitter) for service in services]
    for client in clients:
        try:
            return client, await client.outside_address()
        except Refused:
            continue
    return clients[0], None
