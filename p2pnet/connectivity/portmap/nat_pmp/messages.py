"""NAT-PMP's requests and answers, version 0. Rules: specs/port-mapping.md (PM1, PM2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from p2pnet.connectivity.portmap.asking import (
    LONG_REFUSAL,
    SHORT_REFUSAL,
    NotSpoken,
    TransportName,
    read_ipv4,
)
from p2pnet.errors import ProtocolError

NAME = "NAT-PMP"
PORT = 5351
VERSION = 0
ANSWER = 0x80
ADDRESS = 0
OPCODES: dict[TransportName, int] = {"udp": 1, "tcp": 2}
TRANSPORTS = {opcode: transport for transport, opcode in OPCODES.items()}
HEADER = struct.Struct("!BBHI")
ADDRESS_BYTES = 12
MAPPED = struct.Struct("!HHI")
MAX_BYTES = 1100
"""Of an answer, as in PCP (RFC 6886 has 16 at most, and lets later versions have more)."""
MAX_SECONDS = 0xFFFF_FFFF


class Result(IntEnum):
    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


PASSING = (Result.NETWORK_FAILURE, Result.OUT_OF_RESOURCES)


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """What the outside address is; None if there is none, or none that could be dialled."""

    epoch: int
    address: str | None


@dataclass(frozen=True, slots=True)
class MapAnswer:
    """A port is forwarded; with 0 seconds, not any longer."""

    epoch: int
    transport: TransportName
    inside_port: int
    outside_port: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The router did not do what ``opcode`` asks for."""

    epoch: int
    opcode: int
    code: int

    @property
    def reason(self) -> str:
        known = [result.name for result in Result if result == self.code]
        return f"the router says {known[0] if known else f'result {self.code}'}"

    @property
    def seconds(self) -> float:
        """For how long there is no sense in asking again."""
        return SHORT_REFUSAL if self.code in PASSING else LONG_REFUSAL


Answer = AddressAnswer | MapAnswer | Refusal


def encode_address_request() -> bytes:
    return bytes([VERSION, ADDRESS])


def encode_map_request(
    transport: TransportName, inside_port: int, *, outside_port: int, seconds: int
) -> bytes:
    head = struct.pack("!BBH", VERSION, OPCODES[transport], 0)
    return head + MAPPED.pack(inside_port, outside_port, min(seconds, MAX_SECONDS))


def decode_untrusted(data: bytes) -> Answer:
    """Read an answer.

    Raises:
        NotSpoken: if it is one of another protocol, as PCP's servers give.
        ProtocolError: if it is none.
    """
    if not 2 <= len(data) <= MAX_BYTES:  # PM1
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes")
    if not data[1] & ANSWER:
        raise ProtocolError(NAME, "a request in place of an answer")
    if data[0] != VERSION:
        raise NotSpoken(f"the router does not speak NAT-PMP, but version {data[0]}")
    if len(data) < HEADER.size:
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes")
    _, answered, result, epoch = HEADER.unpack_from(data)
    opcode = answered ^ ANSWER
    if result == Result.UNSUPPORTED_VERSION:
        raise NotSpoken("the router does not speak version 0 of NAT-PMP")
    if result != Result.SUCCESS:
        return Refusal(epoch, opcode, result)
    if opcode == ADDRESS:
        if len(data) < ADDRESS_BYTES:
            raise ProtocolError(NAME, "an answer without an address")
        return AddressAnswer(epoch, read_ipv4(data[HEADER.size : ADDRESS_BYTES]))
    if opcode not in TRANSPORTS or len(data) < HEADER.size + MAPPED.size:
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes to request {opcode}")
    inside_port, outside_port, seconds = MAPPED.unpack_from(data, HEADER.size)
    return MapAnswer(epoch, TRANSPORTS[opcode], inside_port, outside_port, seconds)
