"""The server's side of UPnP-IGD: found by SSDP, described in XML, told what to do by SOAP.

    host                                          router
     | M-SEARCH to 239.255.255.250:1900, UDP  ---->  |
     | <----  200 OK, LOCATION: http://router/...    |  one datagram a thing that was found
     | GET the location, TCP  -------------------->  |
     | <----  the tree of devices and services       |
     | POST to the service's control URL  -------->  |
     | <----  its answer, or 500 and a fault         |

A device of version 2 is found, and called, under version 1, too, as UPnP asks. Events are not
offered. Answers to searches come at once, whatever the MX.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.portmap.connection import BIT_RATE, Arguments, Connection, Values
from p2pnet.testing.portmap.description import (
    Device,
    Service,
    describe_root,
    describe_service,
    gateway,
    service_type,
)
from p2pnet.testing.portmap.http import (
    END_OF_HEAD,
    SERVER,
    HttpExchange,
    HttpRequest,
    HttpResponse,
    decode_head,
)
from p2pnet.testing.portmap.leases import Leases
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.portmap.soap import (
    Call,
    UpnpError,
    decode_untrusted,
    encode_answer,
    encode_fault,
)

SSDP_PORT = 1900
SSDP_GROUP = "239.255.255.250"
MAX_AGE = 1_800
"""Seconds for which the device may be taken to be there after it was heard of."""
ROOT_PATH = "/gateway.xml"
XML = {"Content-Type": 'text/xml; charset="utf-8"', "Ext": ""}
ROOT_DEVICE = "upnp:rootdevice"
ALL = "ssdp:all"
Target = tuple[str, str]
"""What can be searched for, and the unique service name it is answered with."""


class UpnpServer:
    """Answers searches and requests from the inside."""

    def __init__(self, leases: Leases, config: PortMapConfig, *, inside_address: str) -> None:
        self._config = config
        self._connection = Connection(leases, config)
        self._endpoint = Endpoint(inside_address, config.http_port)
        self._root = gateway(
            int(ipaddress.IPv4Address(inside_address)),
            version=config.igd_version,
            wan_ppp=config.wan_ppp,
        )
        services = [service for device in self._root.tree() for service in device.services]
        self._controls = {service.control_path: service for service in services}
        self._documents = {ROOT_PATH: describe_root(self._root, f"http://{self._endpoint}/")}
        self._documents |= {
            service.description_path: describe_service(service) for service in services
        }

    # ---- found: SSDP ---------------------------------------------------------------------

    @property
    def location(self) -> str:
        return f"http://{self._endpoint}{ROOT_PATH}"

    def search(self, data: bytes) -> tuple[bytes, ...]:
        """Answer a datagram to port 1900; with nothing, if it is no search for what is here."""
        if len(data) > self._config.max_search_bytes or not data.startswith(b"M-SEARCH * "):
            return ()
        head_bytes = data.partition(END_OF_HEAD)[0]
        try:
            head = decode_head(head_bytes, max_headers=self._config.max_headers)
        except ProtocolError:
            return ()
        if head.version != "HTTP/1.1" or head.headers.get("man") != '"ssdp:discover"':
            return ()
        wanted = head.headers.get("st", "")
        return tuple(
            self._datagram("HTTP/1.1 200 OK", {"EXT": "", "ST": target, "USN": name})
            for target, name in targets(self._root)
            if wanted in (target, ALL) and (wanted != ALL or is_newest(target, self._root))
        )

    def notifications(self) -> tuple[bytes, ...]:
        """Make what is told to 239.255.255.250:1900 when the router comes up."""
        return tuple(
            self._datagram(
                "NOTIFY * HTTP/1.1",
                {
                    "HOST": f"{SSDP_GROUP}:{SSDP_PORT}",
                    "NT": target,
                    "NTS": "ssdp:alive",
                    "USN": name,
                },
            )
            for target, name in targets(self._root)
            if is_newest(target, self._root)
        )

    def _datagram(self, first: str, headers: dict[str, str]) -> bytes:
        headers |= {
            "CACHE-CONTROL": f"max-age={MAX_AGE}",
            "LOCATION": self.location,
            "SERVER": SERVER,
        }
        lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + END_OF_HEAD

    # ---- described and called: HTTP ------------------------------------------------------

    def connect(self, client: Endpoint) -> HttpExchange:
        """Begin with a connection that a client opened."""
        return HttpExchange(
            lambda request, now: self._handle(request, client.host, now), self._config
        )

    def _handle(self, request: HttpRequest, client: str, now: float) -> HttpResponse:
        service = self._controls.get(request.path)
        if service is not None:
            if request.method != "POST":
                return HttpResponse(405, headers={"Allow": "POST"})
            return self._control(service, request, client, now)
        document = self._documents.get(request.path)
        if document is None:
            return HttpResponse(404)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(405, headers={"Allow": "GET, HEAD"})
        return HttpResponse(200, document, XML)

    def _control(
        self, service: Service, request: HttpRequest, client: str, now: float
    ) -> HttpResponse:
        try:
            call = decode_untrusted(request.body)
        except ProtocolError:
            return HttpResponse(400)
        try:
            check_call(call, service, request.headers.get("soapaction"))
            values = self._act(service, call, client, now)
        except UpnpError as error:
            return HttpResponse(500, encode_fault(error.code), XML)
        return HttpResponse(200, encode_answer(call, values), XML)

    def _act(self, service: Service, call: Call, client: str, now: float) -> Values:
        if service.kind == "Layer3Forwarding":
            return self._forwarding(call)
        if service.kind == "WANCommonInterfaceConfig":
            return {
                "NewWANAccessType": "Ethernet",
                "NewLayer1UpstreamMaxBitRate": BIT_RATE,
                "NewLayer1DownstreamMaxBitRate": BIT_RATE,
                "NewPhysicalLinkStatus": "Up",
            }
        return self._connection.actions[call.action](client, call.arguments, now)

    def _forwarding(self, call: Call) -> Values:
        if call.action.startswith("Set"):
            raise UpnpError(606)
        *_, device = self._root.tree()
        name = f"{device.unique_name}:{device.device_type.partition(':device:')[2]}"
        service_id = f"urn:upnp-org:serviceId:{device.services[0].service_id}"
        return {"NewDefaultConnectionService": f"{name},{service_id}"}


def check_call(call: Call, service: Service, header: str | None) -> None:
    """Check that a call fits the service and, if there is one, the SOAPACTION header.

    Raises:
        UpnpError: 401 for another service or action, 402 if an argument is missing.
    """
    versions = range(1, service.version + 1)
    if call.service_type not in [service_type(service.kind, version) for version in versions]:
        raise UpnpError(401)
    if header is not None and header.strip('"') != f"{call.service_type}#{call.action}":
        raise UpnpError(401)
    action = service.actions.get(call.action)
    if action is None:
        raise UpnpError(401)
    if not is_complete(call.arguments, action[0]):
        raise UpnpError(402)


def is_complete(arguments: Arguments, wanted: tuple[tuple[str, str], ...]) -> bool:
    return all(name in arguments for name, _ in wanted)


def targets(root: Device) -> Iterator[Target]:
    """List all a gateway can be searched by, older versions of its parts included."""
    yield ROOT_DEVICE, f"{root.unique_name}::{ROOT_DEVICE}"
    for device in root.tree():
        yield device.unique_name, device.unique_name
        kinds = [(device.device_type, device.version)]
        kinds += [(service.service_type, service.version) for service in device.services]
        for kind, newest in kinds:
            for version in range(newest, 0, -1):
                target = f"{kind.rpartition(':')[0]}:{version}"
                yield target, f"{device.unique_name}::{target}"


def is_newest(target: str, root: Device) -> bool:
    """Tell whether a target is no older version of a part."""
    newest = {device.device_type for device in root.tree()}
    newest |= {service.service_type for device in root.tree() for service in device.services}
    return not target.startswith("urn:") or target in newest
