"""What the tests of port mapping say to a router, written from the RFCs and the UPnP papers.

Independent of the code under test: formats are spelled out here once more.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from html import unescape
from ipaddress import IPv4Address, IPv6Address

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Hop, Nat, NatKind, Side
from p2pnet.testing.packet import Datagram, Packet
from p2pnet.testing.portmap.http import HttpExchange
from p2pnet.testing.portmap.leases import Leases
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.portmap.upnp import UpnpServer

ROUTER = "192.168.1.1"
OUTSIDE = "11.0.1.2"
ANN = "192.168.1.2"
BOB = "192.168.1.3"
STRANGER = Endpoint("11.0.9.9", 4242)
NONCE = bytes(range(12))
OTHER_NONCE = bytes(12)
UDP, TCP = 17, 6


def make_nat(kind: NatKind | None = None) -> Nat:
    return Nat(kind or NatKind(), outside=[OUTSIDE], choose=lambda n: 0)


def make_leases(
    nat: Nat | None = None, config: PortMapConfig | None = None, outside: str | None = OUTSIDE
) -> Leases:
    return Leases(nat or make_nat(), config or PortMapConfig(), outside_address=outside, now=0.0)


def inside_of(nat: Nat, port: int, now: float) -> Endpoint | None:
    """Tell where a stranger's datagram to an outside port goes, if it gets in."""
    packet = Packet(STRANGER, Endpoint(OUTSIDE, port), Datagram(b"hello"))
    hop = nat.inbound(packet, now)
    return hop.packet.destination if isinstance(hop, Hop) and hop.to is Side.INSIDE else None


# ---- NAT-PMP -----------------------------------------------------------------------------


def pmp_map(opcode: int, inside: int, outside: int, seconds: int) -> bytes:
    return struct.pack("!BBHHHI", 0, opcode, 0, inside, outside, seconds)


@dataclass(frozen=True)
class PmpAnswer:
    opcode: int
    result: int
    epoch: int
    inside: int = 0
    outside: int = 0
    seconds: int = 0
    address: str = ""


def read_pmp(data: bytes | None) -> PmpAnswer:
    assert data is not None
    version, opcode, result, epoch = struct.unpack_from("!BBHI", data)
    assert version == 0
    match len(data):
        case 8:
            return PmpAnswer(opcode, result, epoch)
        case 12:
            return PmpAnswer(opcode, result, epoch, address=str(IPv4Address(data[8:])))
        case 16:
            return PmpAnswer(opcode, result, epoch, *struct.unpack_from("!HHI", data, 8))
    raise AssertionError(f"an answer of {len(data)} bytes")


# ---- PCP ---------------------------------------------------------------------------------


def ip16(host: str) -> bytes:
    return IPv6Address(host if ":" in host else f"::ffff:{host}").packed


def pcp_request(opcode: int, seconds: int, client: str, rest: bytes = b"") -> bytes:
    return struct.pack("!BBHI", 2, opcode, 0, seconds) + ip16(client) + rest


def pcp_map(
    inside: int,
    *,
    outside: int = 0,
    address: str = "::",
    seconds: int = 3600,
    client: str = ANN,
    protocol: int = UDP,
    nonce: bytes = NONCE,
    options: bytes = b"",
) -> bytes:
    payload = nonce + struct.pack("!B3xHH", protocol, inside, outside) + ip16(address)
    return pcp_request(1, seconds, client, payload + options)


def pcp_option(code: int, data: bytes = b"") -> bytes:
    return struct.pack("!BBH", code, 0, len(data)) + data + bytes(-len(data) % 4)


PREFER_FAILURE = pcp_option(2)


@dataclass(frozen=True)
class PcpAnswer:
    opcode: int
    result: int
    seconds: int
    epoch: int
    reserved: bytes
    rest: bytes

    @property
    def nonce(self) -> bytes:
        return self.rest[:12]

    @property
    def ports(self) -> tuple[int, int]:
        """Inside and outside."""
        inside, outside = struct.unpack_from("!HH", self.rest, 16)
        return inside, outside

    @property
    def address(self) -> str:
        ip = IPv6Address(self.rest[20:36])
        return str(ip.ipv4_mapped or ip)

    @property
    def options(self) -> bytes:
        return self.rest[36:]


def read_pcp(data: bytes | None) -> PcpAnswer:
    assert data is not None
    assert len(data) % 4 == 0
    assert len(data) <= 1100
    version, opcode, reserved, result, seconds, epoch = struct.unpack_from("!BBBBII", data)
    assert version == 2
    assert opcode & 0x80
    assert reserved == 0
    return PcpAnswer(opcode & 0x7F, result, seconds, epoch, data[12:24], data[24:])


# ---- UPnP --------------------------------------------------------------------------------

WAN_IP = "urn:schemas-upnp-org:service:WANIPConnection:1"
WAN_IP_2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
CONTROL = "/control/connection"


def search_for(target: str, man: str = '"ssdp:discover"') -> bytes:
    return (
        "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
        f"MAN: {man}\r\nMX: 2\r\nST: {target}\r\n\r\n"
    ).encode()


def soap(action: str, arguments: dict[str, str], service: str = WAN_IP) -> bytes:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service}">{inner}</u:{action}></s:Body></s:Envelope>'
    ).encode()


def post(
    action: str, arguments: dict[str, str], service: str = WAN_IP, path: str = CONTROL
) -> bytes:
    body = soap(action, arguments, service)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {ROUTER}:5000\r\nContent-Type: text/xml\r\n"
        f'SOAPAction: "{service}#{action}"\r\nContent-Length: {len(body)}\r\n\r\n'
    )
    return head.encode() + body


def mapping(
    outside: int,
    inside: int,
    client: str = ANN,
    *,
    protocol: str = "UDP",
    seconds: int = 0,
    description: str = "p2p",
    **changed: str,
) -> dict[str, str]:
    """Return the arguments of AddPortMapping."""
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(outside),
        "NewProtocol": protocol,
        "NewInternalPort": str(inside),
        "NewInternalClient": client,
        "NewEnabled": "1",
        "NewPortMappingDescription": description,
        "NewLeaseDuration": str(seconds),
    }
    return arguments | changed


def at_port(port: int, protocol: str = "UDP") -> dict[str, str]:
    """Return the arguments of DeletePortMapping and GetSpecificPortMappingEntry."""
    return {"NewRemoteHost": "", "NewExternalPort": str(port), "NewProtocol": protocol}


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    head: str
    body: str

    @property
    def values(self) -> dict[str, str]:
        found = re.findall(r"<(New\w+|errorCode)>(.*?)</\1>", self.body, re.DOTALL)
        return {name: plain(value) for name, value in found}

    @property
    def error(self) -> int:
        return int(self.values.get("errorCode", 0))


def plain(text: str) -> str:
    cdata = re.fullmatch(r"<!\[CDATA\[(.*)\]\]>", text, re.DOTALL)
    return cdata[1] if cdata else unescape(text)


def read_http(data: bytes) -> HttpAnswer:
    head, _, body = data.decode().partition("\r\n\r\n")
    return HttpAnswer(int(head.split()[1]), head, body)


def exchange(connection: HttpExchange, data: bytes, now: float = 0.0) -> HttpAnswer:
    answer = connection.receive(data, now)
    assert connection.is_over
    return read_http(answer)


class Gateway:
    """A router that speaks UPnP, and what its clients ask of it."""

    def __init__(self, config: PortMapConfig | None = None, outside: str | None = OUTSIDE) -> None:
        self.config = config or PortMapConfig()
        self.nat: Nat = make_nat()
        self.leases = make_leases(self.nat, self.config, outside)
        self.server = UpnpServer(self.leases, self.config, inside_address=ROUTER)

    def send(self, data: bytes, host: str = ANN, now: float = 0.0) -> HttpAnswer:
        return exchange(self.server.connect(Endpoint(host, 50_000)), data, now)

    def call(
        self,
        action: str,
        arguments: dict[str, str] | None = None,
        host: str = ANN,
        *,
        now: float = 0.0,
        service: str = "",
    ) -> HttpAnswer:
        service = service or (WAN_IP_2 if self.config.igd_version == 2 else WAN_IP)
        answer = self.send(post(action, arguments or {}, service), host, now)
        assert (answer.status == 500) == bool(answer.error)
        return answer

    def get(self, path: str) -> HttpAnswer:
        return self.send(f"GET {path} HTTP/1.1\r\nHost: {ROUTER}\r\n\r\n".encode())

    def found(self, target: str) -> list[str]:
        answers = b"".join(self.server.search(search_for(target))).decode()
        return re.findall(r"^ST: (.*)\r$", answers, re.MULTILINE)
