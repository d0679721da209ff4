"""The server's side of NAT-PMP (RFC 6886), version 0, on UDP port 5351.

    request, address:   version 0 | opcode 0
    request, mapping:   version 0 | opcode 1 UDP, 2 TCP | reserved 16 |
                        inside port 16 | suggested outside port 16 | lifetime 32
    answer:             version 0 | 128 + opcode | result 16 | seconds since epoch 32, and then
             address:   outside IPv4 address 32
             mapping:   inside port 16 | outside port 16 | lifetime 32

All numbers are big-endian. Lifetime 0 deletes the mapping of the inside port; with inside
port 0, all of the client's in that transport. Refused mappings are answered with the ports
that were asked for and lifetime 0. Silence: for what is not IPv4, too short, or an answer.
"""

from __future__ import annotations

import ipaddress
import struct
from enum import IntEnum

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import TransportName
from p2pnet.testing.portmap.leases import Lease, Leases, Refusal, Wish
from p2pnet.testing.portmap.settings import PortMapConfig

VERSION = 0
ANSWER = 0x80
ADDRESS, MAP_UDP, MAP_TCP = 0, 1, 2
REQUEST = struct.Struct("!BBHHHI")
HEADER = struct.Struct("!BBHI")
MAPPED = struct.Struct("!HHI")


class Result(IntEnum):
    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


REFUSALS = {
    Refusal.NOT_AUTHORIZED: Result.NOT_AUTHORIZED,
    Refusal.NO_NETWORK: Result.NETWORK_FAILURE,
    Refusal.TAKEN: Result.OUT_OF_RESOURCES,
    Refusal.NO_PORT: Result.OUT_OF_RESOURCES,
    Refusal.FULL: Result.OUT_OF_RESOURCES,
    Refusal.QUOTA: Result.OUT_OF_RESOURCES,
}


class NatPmpServer:
    """Answers NAT-PMP requests from the inside."""

    def __init__(self, leases: Leases, config: PortMapConfig) -> None:
        self._leases = leases
        self._config = config

    def receive(self, data: bytes, source: Endpoint, now: float) -> bytes | None:
        """Answer a datagram, or return None where silence is due."""
        if source.is_ipv6 or len(data) < 2 or data[1] & ANSWER:
            return None
        version, opcode = data[0], data[1]
        if version != VERSION:
            return self._header(opcode, Result.UNSUPPORTED_VERSION, now)
        if opcode == ADDRESS:
            return self._address(now)
        if opcode not in (MAP_UDP, MAP_TCP):
            return self._header(opcode, Result.UNSUPPORTED_OPCODE, now)
        if len(data) < REQUEST.size:
            return None
        _, _, _, inside_port, outside_port, seconds = REQUEST.unpack_from(data)
        inside = Endpoint(source.host, inside_port)
        transport: TransportName = "udp" if opcode == MAP_UDP else "tcp"
        if seconds == 0:
            result = self._delete(transport, inside, now)
            return self._header(opcode, result, now) + MAPPED.pack(inside_port, 0, 0)
        outcome = self._map(transport, inside, outside_port, seconds, now)
        if isinstance(outcome, Result):
            refused = MAPPED.pack(inside_port, outside_port, 0)
            return self._header(opcode, outcome, now) + refused
        left = outcome.seconds_left(now) or min(seconds, self._config.longest_seconds)
        mapped = MAPPED.pack(inside_port, outcome.outside.port, left)
        return self._header(opcode, Result.SUCCESS, now) + mapped

    def announcement(self, now: float) -> bytes:
        """Make what is told to 224.0.0.1:5350 after a reboot, or with a new address."""
        return self._address(now)

    def _address(self, now: float) -> bytes:
        address = self._leases.outside_address
        if address is None or ":" in address:
            return self._header(ADDRESS, Result.NETWORK_FAILURE, now) + bytes(4)
        packed = ipaddress.IPv4Address(address).packed
        return self._header(ADDRESS, Result.SUCCESS, now) + packed

    def _map(
        self, transport: TransportName, inside: Endpoint, port: int, seconds: int, now: float
    ) -> Lease | Result:
        if inside.port == 0:
            return Result.NOT_AUTHORIZED
        wish = Wish(
            transport=transport,
            inside=inside,
            port=port,
            seconds=min(seconds, self._config.longest_seconds),
            protocol="nat-pmp",
            description="NAT-PMP",
        )
        outcome = self._leases.grant_endpoint(wish, now)
        return REFUSALS[outcome] if isinstance(outcome, Refusal) else outcome

    def _delete(self, transport: TransportName, inside: Endpoint, now: float) -> Result:
        if inside.port == 0:
            for lease in self._leases.live(now):
                ours = lease.protocol == "nat-pmp" and lease.transport == transport
                if ours and lease.inside.host == inside.host:
                    self._leases.release(lease)
            return Result.SUCCESS
        held = self._leases.of(transport, inside, now)
        if held is None:
            return Result.SUCCESS
        if held.protocol != "nat-pmp":  # not made by this protocol, not to be deleted by it
            return Result.NOT_AUTHORIZED
        self._leases.release(held)
        return Result.SUCCESS

    def _header(self, opcode: int, result: Result, now: float) -> bytes:
        return HEADER.pack(VERSION, ANSWER | opcode, result, self._leases.epoch(now))
