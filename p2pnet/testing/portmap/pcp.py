"""The server's side of PCP (RFC 6887), version 2, on UDP port 5351.

    request:   version 2 | 0 + opcode | reserved 16 | lifetime 32 | client's address 128
    answer:    version 2 | 128 + opcode | reserved 8 | result 8 | lifetime 32 | epoch 32 |
               reserved 96
    MAP:       nonce 96 | protocol 8 (6 TCP, 17 UDP) | reserved 24 | inside port 16 |
               outside port 16 | outside address 128
    option:    code 8 (128 and over may be ignored) | reserved 8 | length 16 | data, padded to 4

IPv4 addresses are written as IPv4-mapped IPv6 ones. An error is answered with a copy of the
request, and its lifetime tells for how long the error is to be expected. What the gate cannot
do is refused: PEER and unknown opcodes with UNSUPP_OPCODE, FILTER and unknown mandatory
options with UNSUPP_OPTION, mappings of all ports, of all protocols or of others than UDP and
TCP with UNSUPP_PROTOCOL. Silence: for what is shorter than two bytes, and for answers.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import TransportName
from p2pnet.testing.portmap.leases import Lease, Leases, Refusal, Wish
from p2pnet.testing.portmap.settings import PortMapConfig

VERSION = 2
ANSWER = 0x80
HEADER_BYTES = 24
MAX_BYTES = 1_100
MAP_BYTES = 36
MANDATORY_OPTIONS_END = 128
UDP, TCP = 17, 6
ALL_PROTOCOLS = 0
REQUEST = struct.Struct("!BBHI16s")
RESPONSE = struct.Struct("!BBBBII12s")
MAP = struct.Struct("!12sB3xHH16s")
OPTION = struct.Struct("!BxH")
TRANSPORTS: dict[int, tuple[TransportName, ...]] = {
    UDP: ("udp",),
    TCP: ("tcp",),
    ALL_PROTOCOLS: ("udp", "tcp"),
}


class Opcode(IntEnum):
    ANNOUNCE = 0
    MAP = 1


class Option(IntEnum):
    THIRD_PARTY = 1
    PREFER_FAILURE = 2


OPTION_BYTES = {Option.THIRD_PARTY: 16, Option.PREFER_FAILURE: 0}


class Result(IntEnum):
    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12

    @property
    def seconds(self) -> int:
        """For how long the same answer is to be expected (RFC 6887, 7.4)."""
        return 30 if self in SHORT_ERRORS else 1_800


SHORT_ERRORS = (
    Result.NETWORK_FAILURE,
    Result.NO_RESOURCES,
    Result.USER_EX_QUOTA,
    Result.CANNOT_PROVIDE_EXTERNAL,
)
UNPARSED = (Result.UNSUPP_VERSION, Result.MALFORMED_REQUEST)
"""Here the last 96 bits of the header are a copy of the request's, elsewhere they are zero."""
REFUSALS = {
    Refusal.NOT_AUTHORIZED: Result.NOT_AUTHORIZED,
    Refusal.NO_NETWORK: Result.NETWORK_FAILURE,
    Refusal.TAKEN: Result.CANNOT_PROVIDE_EXTERNAL,
    Refusal.NO_PORT: Result.NO_RESOURCES,
    Refusal.FULL: Result.NO_RESOURCES,
    Refusal.QUOTA: Result.USER_EX_QUOTA,
}


class Refused(Exception):
    """The request is answered with an error; never leaves this module."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.name)
        self.result = result


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A MAP request; ``host`` is whose port is to be mapped."""

    host: str
    seconds: int
    nonce: bytes
    protocol: int
    inside_port: int
    outside_port: int
    outside_address: bytes
    options: tuple[Option, ...]
    third_party: bytes


@dataclass(frozen=True, slots=True)
class AnnounceRequest:
    """A client wants to know the epoch, nothing else."""


class PcpServer:
    """Answers PCP requests from the inside."""

    def __init__(self, leases: Leases, config: PortMapConfig) -> None:
        self._leases = leases
        self._config = config

    def receive(self, data: bytes, source: Endpoint, now: float) -> bytes | None:
        """Answer a datagram, or return None where silence is due."""
        if len(data) < 2 or data[1] & ANSWER:
            return None
        try:
            request = decode_untrusted(data, source.host, any_host=self._config.any_host)
            if isinstance(request, AnnounceRequest):
                return self._header(Opcode.ANNOUNCE, Result.SUCCESS, 0, now)
            return self._map(request, now)
        except Refused as refused:
            return self._error(data, refused.result, now)

    def announcement(self, now: float) -> bytes:
        """Make what is told to 224.0.0.1:5350 after a reboot, or with a new address."""
        return self._header(Opcode.ANNOUNCE, Result.SUCCESS, 0, now)

    def _map(self, request: MapRequest, now: float) -> bytes:
        if request.seconds == 0:
            self._delete(request, now)
            return self._mapped(request, None, now)
        if request.protocol not in (UDP, TCP) or request.inside_port == 0:
            raise Refused(Result.UNSUPP_PROTOCOL)
        inside = Endpoint(request.host, request.inside_port)
        transport = TRANSPORTS[request.protocol][0]
        self._check_wanted_address(request)
        held = self._leases.of(transport, inside, now)
        if held is not None and held.nonce not in (b"", request.nonce):
            raise Refused(Result.NOT_AUTHORIZED)
        seconds = max(request.seconds, self._config.shortest_seconds)
        wish = Wish(
            transport=transport,
            inside=inside,
            port=request.outside_port,
            exact=Option.PREFER_FAILURE in request.options,
            seconds=min(seconds, self._config.longest_seconds),
            protocol="pcp",
            nonce=request.nonce,
            description="PCP",
        )
        outcome = self._leases.grant_endpoint(wish, now)
        if isinstance(outcome, Refusal):
            raise Refused(REFUSALS[outcome])
        return self._mapped(request, outcome, now)

    def _check_wanted_address(self, request: MapRequest) -> None:
        if Option.PREFER_FAILURE not in request.options:
            return
        wants_any = request.outside_address in (bytes(16), mapped("0.0.0.0"))
        if wants_any and request.outside_port == 0:  # nothing that could be preferred
            raise Refused(Result.MALFORMED_OPTION)
        ours = request.host if ":" in request.host else self._leases.outside_address
        if not wants_any and ours is not None and request.outside_address != mapped(ours):
            raise Refused(Result.CANNOT_PROVIDE_EXTERNAL)

    def _delete(self, request: MapRequest, now: float) -> None:
        if request.protocol not in TRANSPORTS:
            raise Refused(Result.UNSUPP_PROTOCOL)
        every = request.inside_port == 0 or request.protocol == ALL_PROTOCOLS
        doomed = [
            lease
            for lease in self._leases.live(now)
            if lease.transport in TRANSPORTS[request.protocol]
            and lease.inside.host == request.host
            and (every or lease.inside.port == request.inside_port)
        ]
        ours = [lease for lease in doomed if lease.nonce == request.nonce]
        if doomed and not ours:
            raise Refused(Result.NOT_AUTHORIZED)
        for lease in ours:
            self._leases.release(lease)

    def _mapped(self, request: MapRequest, lease: Lease | None, now: float) -> bytes:
        """Answer with the lease, or with none after a deletion."""
        seconds, port, address = 0, request.outside_port, request.outside_address
        if lease is not None:
            seconds = lease.seconds_left(now) or self._config.longest_seconds
            port = lease.outside.port
            address = mapped(self._leases.address_of(lease))
        return (
            self._header(Opcode.MAP, Result.SUCCESS, seconds, now)
            + MAP.pack(request.nonce, request.protocol, request.inside_port, port, address)
            + encode_options(request)
        )

    def _error(self, data: bytes, result: Result, now: float) -> bytes:
        body = data[:MAX_BYTES]
        body += bytes(max(-len(body) % 4, HEADER_BYTES - len(body)))
        reserved = body[12:HEADER_BYTES] if result in UNPARSED else bytes(12)
        header = RESPONSE.pack(
            VERSION, ANSWER | data[1], 0, result, result.seconds, self._leases.epoch(now), reserved
        )
        return header + body[HEADER_BYTES:]

    def _header(self, opcode: int, result: Result, seconds: int, now: float) -> bytes:
        epoch = self._leases.epoch(now)
        return RESPONSE.pack(VERSION, ANSWER | opcode, 0, result, seconds, epoch, bytes(12))


def decode_untrusted(
    data: bytes, source: str, *, any_host: bool = False
) -> MapRequest | AnnounceRequest:
    """Read a request of at least two bytes.

    Raises:
        Refused: with the result to answer.
    """
    if data[0] != VERSION:
        raise Refused(Result.UNSUPP_VERSION)
    if not HEADER_BYTES <= len(data) <= MAX_BYTES or len(data) % 4:
        raise Refused(Result.MALFORMED_REQUEST)
    _, opcode, _, seconds, client = REQUEST.unpack_from(data)
    if client != mapped(source):
        raise Refused(Result.ADDRESS_MISMATCH)
    match opcode:
        case Opcode.ANNOUNCE:
            decode_options(data, HEADER_BYTES, allowed=())
            return AnnounceRequest()
        case Opcode.MAP:
            return decode_map(data, seconds, source, any_host=any_host)
        case _:
            raise Refused(Result.UNSUPP_OPCODE)


def decode_map(data: bytes, seconds: int, source: str, *, any_host: bool) -> MapRequest:
    if len(data) < HEADER_BYTES + MAP_BYTES:
        raise Refused(Result.MALFORMED_REQUEST)
    nonce, protocol, inside_port, outside_port, address = MAP.unpack_from(data, HEADER_BYTES)
    allowed = (Option.PREFER_FAILURE, *((Option.THIRD_PARTY,) if any_host else ()))
    options = decode_options(data, HEADER_BYTES + MAP_BYTES, allowed=allowed)
    third_party = options.get(Option.THIRD_PARTY, b"")
    host = source
    if third_party:
        host = unmapped(third_party)
        if host == source:  # RFC 6887, 13.1
            raise Refused(Result.MALFORMED_REQUEST)
    return MapRequest(
        host=host,
        seconds=seconds,
        nonce=nonce,
        protocol=protocol,
        inside_port=inside_port,
        outside_port=outside_port,
        outside_address=address,
        options=tuple(options),
        third_party=third_party,
    )


def decode_options(data: bytes, offset: int, *, allowed: tuple[Option, ...]) -> dict[Option, bytes]:
    """Read options up to the end; those that may be ignored are.

    Raises:
        Refused: UNSUPP_OPTION for one that may not, MALFORMED_OPTION for what is no option.
    """
    found: dict[Option, bytes] = {}
    while offset < len(data):  # always a multiple of 4 away from the end
        code, length = OPTION.unpack_from(data, offset)
        start = offset + OPTION.size
        offset = start + length + -length % 4
        if offset > len(data):
            raise Refused(Result.MALFORMED_OPTION)
        if code >= MANDATORY_OPTIONS_END:
            continue
        if code not in allowed:
            raise Refused(Result.UNSUPP_OPTION)
        option = Option(code)
        if length != OPTION_BYTES[option] or option in found:
            raise Refused(Result.MALFORMED_OPTION)
        found[option] = data[start : start + length]
    return found


def encode_options(request: MapRequest) -> bytes:
    """Write those options of a request that were heeded, as its answer repeats them."""
    out = b""
    for option in request.options:
        data = request.third_party if option is Option.THIRD_PARTY else b""
        out += OPTION.pack(option, len(data)) + data
    return out


def mapped(host: str) -> bytes:
    """Write an IP address in 16 bytes, IPv4 as an IPv4-mapped one."""
    ip = ipaddress.ip_address(host)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def unmapped(packed: bytes) -> str:
    """Read an IP address of 16 bytes."""
    ip = ipaddress.IPv6Address(packed)
    return str(ip.ipv4_mapped or ip)
