"""PCP's requests and answers, version 2. Rules: specs/port-mapping.md (PM1, PM2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from p2pnet.connectivity.portmap.asking import NotSpoken, TransportName, read_outside_address
from p2pnet.errors import ProtocolError

NAME = "PCP"
PORT = 5351
VERSION = 2
ANSWER = 0x80
ANNOUNCE, MAP = 0, 1
PROTOCOLS: dict[TransportName, int] = {"udp": 17, "tcp": 6}
TRANSPORTS = {number: transport for transport, number in PROTOCOLS.items()}
REQUEST = struct.Struct("!BBHI16s")
RESPONSE = struct.Struct("!BBxBII12x")
MAPPING = struct.Struct("!12sB3xHH16s")
NONCE_BYTES = 12
MAX_BYTES = 1100
MAX_SECONDS = 0xFFFF_FFFF
SHORTEST_ERROR, LONGEST_ERROR = 30.0, 3600.0
"""Seconds for which a refusal is believed, whatever the router says (PM11)."""


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
    EXCESSIVE_REMOTE_PEERS = 13


@dataclass(frozen=True, slots=True)
class Announced:
    """The router is there, and this is its epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A port is forwarded; with 0 seconds, not any longer."""

    epoch: int
    nonce: bytes = field(repr=False)
    transport: TransportName
    inside_port: int
    outside_port: int
    outside_address: str | None
    """None if it is none that could be dialled."""
    seconds: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The router did not do what ``opcode`` asks for."""

    epoch: int
    opcode: int
    code: int
    nonce: bytes | None = field(repr=False)
    """Which mapping it is about, if it says."""
    lifetime: int

    @property
    def reason(self) -> str:
        known = [result.name for result in Result if result == self.code]
        return f"the router says {known[0] if known else f'result {self.code}'}"

    @property
    def seconds(self) -> float:
        """For how long there is no sense in asking again."""
        return min(max(float(self.lifetime), SHORTEST_ERROR), LONGEST_ERROR)


Answer = Announced | Mapped | Refusal


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What is asked for; 0 seconds delete."""

    own: str
    nonce: bytes = field(repr=False)
    transport: TransportName
    inside_port: int
    outside_port: int
    outside_address: str
    seconds: int


def encode_announce(own: str) -> bytes:
    return REQUEST.pack(VERSION, ANNOUNCE, 0, 0, mapped(own))


def encode_map(request: MapRequest) -> bytes:
    seconds = min(request.seconds, MAX_SECONDS)
    return REQUEST.pack(VERSION, MAP, 0, seconds, mapped(request.own)) + MAPPING.pack(
        request.nonce,
        PROTOCOLS[request.transport],
        request.inside_port,
        request.outside_port,
        mapped(request.outside_address),
    )


def mapped(ipv4: str) -> bytes:
    """Write an IPv4 address as an IPv4-mapped one."""
    return bytes(10) + b"\xff\xff" + IPv4Address(ipv4).packed


def decode_untrusted(data: bytes) -> Answer:
    """Read an answer; options are passed over.

    Raises:
        NotSpoken: if it is one of another version, as NAT-PMP's servers give.
        ProtocolError: if it is none.
    """
    if not 2 <= len(data) <= MAX_BYTES:  # PM1
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes")
    if not data[1] & ANSWER:
        raise ProtocolError(NAME, "a request in place of an answer")
    if data[0] != VERSION:
        raise NotSpoken(f"the router does not speak PCP, but version {data[0]}")
    if len(data) < RESPONSE.size or len(data) % 4:
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes")
    _, answered, result, lifetime, epoch = RESPONSE.unpack_from(data)
    opcode = answered ^ ANSWER
    if result == Result.UNSUPP_VERSION:
        raise NotSpoken("the router does not speak version 2 of PCP")
    if result != Result.SUCCESS:
        nonce = data[RESPONSE.size :][:NONCE_BYTES]
        known = nonce if opcode == MAP and len(nonce) == NONCE_BYTES else None
        return Refusal(epoch, opcode, result, known, lifetime)
    if opcode == ANNOUNCE:
        return Announced(epoch)
    if opcode != MAP or len(data) < RESPONSE.size + MAPPING.size:
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes to request {opcode}")
    return decode_mapped(data, lifetime, epoch)


def decode_mapped(data: bytes, lifetime: int, epoch: int) -> Mapped:
    nonce, protocol, inside, outside, address = MAPPING.unpack_from(data, RESPONSE.size)
    if protocol not in TRANSPORTS:
        raise ProtocolError(NAME, f"a mapping of protocol {protocol}")
    ipv4 = IPv6Address(address).ipv4_mapped
    return Mapped(
        epoch,
        nonce,
        TRANSPORTS[protocol],
        inside,
        outside,
        None if ipv4 is None else read_outside_address(str(ipv4)),
        lifetime,
    )
