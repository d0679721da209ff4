"""A UPnP gateway that does what a test tells it to."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, Network
from p2pnet.testing.gateway import no_names
from p2pnet.testing.portmap.http import HttpExchange, HttpRequest, HttpResponse
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.sites import Router
from p2pnet.testing.sockets import SimulatedNetwork

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
PAGE = (
    "<root><device><serviceList><service><serviceType>{service}</serviceType>"
    "<controlURL>/ctl</controlURL></service></serviceList></device></root>"
)
Values = dict[str, str]
Call = tuple[str, Values]


class Fault(Exception):
    """The call is answered with an error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Puppet:
    """Answers searches with ``location``, and calls by ``act``; keeps what it was called."""

    network: Network
    host: str
    act: Callable[[str, Values], Values]
    location: str = ""
    service: str = SERVICE
    seconds_a_byte: float = 0.0
    calls: list[Call] = field(default_factory=list)

    def called(self, action: str) -> list[Values]:
        return [arguments for name, arguments in self.calls if name == action]

    async def answer_searches(self) -> None:
        location = self.location or f"http://{self.host}:5000/page"
        answer = (
            "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
            f"LOCATION: {location}\r\n\r\n"
        )
        sock = await self.network.bind_udp(Endpoint(self.host, 1900))
        group = await self.network.bind_udp(Endpoint("239.255.255.250", 1900))
        try:
            while True:
                _, source = await group.receive()
                await sock.send(answer.encode(), source)
        finally:
            with trio.CancelScope(shield=True):
                await sock.aclose()
                await group.aclose()

    async def serve_http(self) -> None:
        listener = await self.network.listen_tcp(Endpoint(self.host, 5000))
        try:
            async with trio.open_nursery() as clients:
                while True:
                    clients.start_soon(self._serve, await listener.accept())
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def _serve(self, stream: ByteStream) -> None:
        exchange = HttpExchange(self._handle, PortMapConfig())
        try:
            while not exchange.is_over:
                data = await stream.receive_some()
                if not data:
                    return
                await self._send(stream, exchange.receive(bytes(data), trio.current_time()))
        except trio.BrokenResourceError:
            pass  # The host did not wait.
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    async def _send(self, stream: ByteStream, data: bytes) -> None:
        if not self.seconds_a_byte:
            await stream.send_all(data)
            return
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(self.seconds_a_byte)

    def _handle(self, request: HttpRequest, now: float) -> HttpResponse:
        del now
        if request.method == "GET":
            return HttpResponse(200, PAGE.format(service=self.service).encode())
        action = request.headers["soapaction"].strip('"').partition("#")[2]
        arguments = dict(re.findall(r"<(New\w+)>([^<]*)</", request.body.decode()))
        self.calls.append((action, arguments))
        try:
            values = self.act(action, arguments)
        except Fault as fault:
            code = f"<errorCode>{fault.code}</errorCode>"
            return HttpResponse(500, envelope(f"<Fault><detail>{code}</detail></Fault>"))
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
        return HttpResponse(200, envelope(f"<{action}Response>{inner}</{action}Response>"))


def envelope(inner: str) -> bytes:
    return f"<Envelope><Body>{inner}</Body></Envelope>".encode()


@asynccontextmanager
async def pulled(puppet: Puppet) -> AsyncGenerator[Puppet]:
    """Have a puppet serve for a while."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(puppet.answer_searches)
        nursery.start_soon(puppet.serve_http)
        yield puppet
        nursery.cancel_scope.cancel()


def network_of(router: Router) -> Network:
    return SimulatedNetwork(router.kernel, no_names)
