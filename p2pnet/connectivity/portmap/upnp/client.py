"""The client of a UPnP gateway: calls its service that maps ports. Rules: specs/port-mapping.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from p2pnet.connectivity.portmap.asking import (
    LONG_REFUSAL,
    NO_ADDRESS,
    SHORT_REFUSAL,
    Grant,
    Place,
    ProtocolName,
    Refused,
    Unanswered,
    Wish,
    read_outside_address,
)
from p2pnet.connectivity.portmap.schedule import Jitter
from p2pnet.connectivity.portmap.upnp.description import Service
from p2pnet.connectivity.portmap.upnp.http import Answer, AnswerReader, encode_request
from p2pnet.connectivity.portmap.upnp.soap import (
    NAME,
    Fault,
    Values,
    decode_untrusted,
    encode_call,
)
from p2pnet.connectivity.portmap.upnp.urls import Url
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network
from p2pnet.core.tasks import close_at_once
from p2pnet.errors import ProtocolError

REQUEST_SECONDS = 5.0
"""For one request, from the first SYN to the last byte of the answer."""
RECEIVE_BYTES = 16_384
CONFLICTS = (718, 729)
UNKNOWN_ACTION = (401, 602)
NO_SUCH_ENTRY = (713, 714)
ONLY_PERMANENT = (725, 402)
"""Some routers complain of the arguments when they know only mappings without an end."""
PASSING = (501, 718, 728, 729)
OTHER_PORTS = 4
FIRST_PORT, LAST_PORT = 10_000, 65_535
WEEK = 604_800
"""What 0 seconds mean in version 2."""
DESCRIPTION = "p2pnet"


@dataclass(frozen=True, slots=True)
class Entry:
    """Who has an outside port, as the router says."""

    client: str
    port: str

    def is_of(self, inside: Endpoint) -> bool:
        return self.client == inside.host and self.port == str(inside.port)


async def fetch(network: Network, place: Place, url: Url, request: bytes) -> Answer:
    """Send a request, and return the answer (PM15).

    Raises:
        Unanswered: if it takes too long, or the connection breaks.
        OSError: if the router cannot be connected to.
        ProtocolError: if the answer is none.
    """
    try:
        with trio.fail_after(REQUEST_SECONDS):
            stream = await network.dial_tcp(url.endpoint, local=Endpoint(place.own, 0))
            try:
                await stream.send_all(request)
                return await receive(stream)
            finally:
                await close_at_once(stream)
    except (trio.TooSlowError, trio.BrokenResourceError):
        raise Unanswered from None


async def receive(stream: trio.abc.ReceiveStream) -> Answer:
    reader = AnswerReader()
    while True:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            return reader.end()
        answer = reader.receive(bytes(data))
        if answer is not None:
            return answer


class UpnpClient:
    """Speaks to one service of a gateway."""

    protocol: ProtocolName = "upnp"

    def __init__(self, network: Network, place: Place, service: Service, *, jitter: Jitter) -> None:
        self.service = service
        self._network = network
        self._place = place
        self._jitter = jitter
        self._turn = trio.Lock()
        self._only_permanent = False

    # ---- what is asked -------------------------------------------------------------------

    async def map(self, wish: Wish) -> Grant:
        async with self._turn:
            return await self._map(wish)

    async def check(self, wish: Wish, held: Grant) -> Grant:
        async with self._turn:
            entry = await self._entry(wish)
            if isinstance(entry, Entry) and entry.is_of(wish.inside):
                address = await self.outside_address()
                return Grant(Endpoint(address, held.outside.port), held.seconds, is_fresh=False)
            return await self._map(wish)

    async def unmap(self, wish: Wish) -> None:
        async with self._turn:
            entry = await self._entry(wish)
            if entry is None or (isinstance(entry, Entry) and not entry.is_of(wish.inside)):
                return  # PM22: what is another's is left alone.
            answer = await self._call("DeletePortMapping", named(wish, wish.outside.port))
            if isinstance(answer, Fault) and answer.code not in NO_SUCH_ENTRY:
                raise refusal(answer)

    async def outside_address(self) -> str:
        """Ask what the outside address is. Raises as ``map``."""
        answer = await self._call("GetExternalIPAddress", {})
        if isinstance(answer, Fault):
            raise refusal(answer)
        address = read_outside_address(answer.get("NewExternalIPAddress", ""))
        if address is None:
            raise Refused(NO_ADDRESS, SHORT_REFUSAL)
        return address

    # ---- how it is done ------------------------------------------------------------------

    async def _map(self, wish: Wish) -> Grant:
        address = await self.outside_address()
        port = wish.outside.port
        entry = await self._entry(wish)
        # PM21: there are routers that let one host overwrite what another has.
        is_taken = isinstance(entry, Entry) and not entry.is_of(wish.inside)
        if is_taken or not await self._add(wish, port):
            port = await self._add_elsewhere(wish)
        return Grant(Endpoint(address, port), self._seconds(wish))

    async def _add(self, wish: Wish, port: int) -> bool:
        """Map a port; False if it is another's."""
        answer = await self._add_by("AddPortMapping", wish, port)
        if isinstance(answer, Fault):
            if answer.code in CONFLICTS:
                return False
            raise refusal(answer)
        return True

    async def _add_elsewhere(self, wish: Wish) -> int:
        """Map another port than the one that was wished for, and return it."""
        if self.service.is_second:
            answer = await self._add_by("AddAnyPortMapping", wish, wish.outside.port)
            if not isinstance(answer, Fault):
                return read_port(answer.get("NewReservedPort", ""))
            if answer.code not in UNKNOWN_ACTION:
                raise refusal(answer)
        for _ in range(OTHER_PORTS):
            port = int(self._jitter(FIRST_PORT, LAST_PORT))
            elsewhere = Wish(wish.transport, wish.inside, Endpoint("0.0.0.0", port), wish.seconds)
            if not isinstance(await self._entry(elsewhere), Entry) and await self._add(wish, port):
                return port
        raise Refused("the router has no free port", SHORT_REFUSAL)

    async def _add_by(self, action: str, wish: Wish, port: int) -> Values | Fault:
        arguments = {
            **named(wish, port),
            "NewInternalPort": str(wish.inside.port),
            "NewInternalClient": wish.inside.host,
            "NewEnabled": "1",
            "NewPortMappingDescription": DESCRIPTION,
        }
        while True:
            seconds = 0 if self._only_permanent else wish.seconds
            answer = await self._call(action, {**arguments, "NewLeaseDuration": str(seconds)})
            is_complaint = isinstance(answer, Fault) and answer.code in ONLY_PERMANENT
            if self._only_permanent or not is_complaint:
                return answer
            self._only_permanent = True

    def _seconds(self, wish: Wish) -> float:
        if not self._only_permanent:
            return wish.seconds
        return WEEK if self.service.is_second else math.inf

    async def _entry(self, wish: Wish) -> Entry | Fault | None:
        """Ask who has the port that is wished for; None is nobody, a Fault that it can't tell."""
        answer = await self._call("GetSpecificPortMappingEntry", named(wish, wish.outside.port))
        if isinstance(answer, Fault):
            return None if answer.code in NO_SUCH_ENTRY else answer
        return Entry(answer.get("NewInternalClient", ""), answer.get("NewInternalPort", ""))

    async def _call(self, action: str, arguments: Mapping[str, str]) -> Values | Fault:
        service = self.service
        request = encode_request(
            "POST",
            service.control.target,
            host=str(service.control.endpoint),
            headers={
                "Content-Type": 'text/xml; charset="utf-8"',
                "SOAPAction": f'"{service.service_type}#{action}"',
            },
            body=encode_call(service.service_type, action, arguments),
        )
        answer = await fetch(self._network, self._place, service.control, request)
        if answer.status not in (200, 500):
            raise ProtocolError(NAME, f"{action} is answered with status {answer.status}")
        return decode_untrusted(answer.body, action)


def named(wish: Wish, port: int) -> dict[str, str]:
    return {
        "NewRemoteHost": "",
        "NewExternalPort": str(port),
        "NewProtocol": wish.transport.upper(),
    }


def refusal(fault: Fault) -> Refused:
    seconds = SHORT_REFUSAL if fault.code in PASSING else LONG_REFUSAL
    return Refused(f"the router says {fault}", seconds)


def read_port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 0 < int(text) <= LAST_PORT:
        raise ProtocolError(NAME, "a port that is none")
    return int(text)
