"""Read and rewrite IPv4 packets that hold TCP or UDP, as a router does.

What the kernel hands over is not always what would be on a wire: checksums may still be
missing, and many segments may come as one. `as_on_the_wire` makes proper packets of it, and
from then on checksums are only updated (RFC 1624), so that a damaged packet stays damaged.
"""

from __future__ import annotations

import struct
from functools import reduce
from operator import or_
from socket import inet_aton, inet_ntoa
from typing import Final

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment

TCP: Final = 6
UDP: Final = 17

_IP_BYTES: Final = 20
_TCP_BYTES: Final = 20
_UDP_BYTES: Final = 8
_IP_CHECKSUM: Final = 10  # Offsets, the latter two from the start of the TCP or UDP header.
_TCP_CHECKSUM: Final = 16
_UDP_CHECKSUM: Final = 6
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_FLAGS: Final = {0x01: Flags.FIN, 0x02: Flags.SYN, 0x04: Flags.RST, 0x10: Flags.ACK}
_FLAGS_OF: Final = tuple(
    reduce(or_, (flag for bit, flag in _FLAGS.items() if bits & bit), Flags.NONE)
    for bits in range(256)
)
_MORE_FRAGMENTS_OR_OFFSET: Final = 0x3FFF
_DONT_FRAGMENT: Final = 0x4000
_FIRST_TTL: Final = 64
_ALL_ONES: Final = 0xFFFF

_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_PORTS: Final = struct.Struct("!HH")
_UDP: Final = struct.Struct("!HHHH")
_WORD: Final = struct.Struct("!H")


def checksum(data: bytes | bytearray) -> int:
    """Sum up ``data`` as RFC 1071 says; 0 if it includes its own checksum, and that is right."""
    total = int.from_bytes(data) << 8 * (len(data) % 2)
    # 2**16 is 1 modulo 2**16 - 1: the remainder is the sum of all words, carries included.
    return _ALL_ONES - ((total - 1) % _ALL_ONES + 1) if total else _ALL_ONES


def updated(old_checksum: int, old: bytes, new: bytes | bytearray) -> int:
    """Give the checksum after ``old`` became ``new``, of one length, even (RFC 1624, eqn. 3)."""
    removed = len(old) // 2 * _ALL_ONES - int.from_bytes(old) % _ALL_ONES
    total = _ALL_ONES - old_checksum + removed + int.from_bytes(new) % _ALL_ONES
    return _ALL_ONES - ((total - 1) % _ALL_ONES + 1)


def as_on_the_wire(
    raw: bytes, *, checksum_missing: bool = False, segment_bytes: int = 0
) -> list[bytes]:
    """Make packets of what the kernel handed over as one: whole ones without anything behind.

    Args:
        raw: Begins with the IPv4 header.
        checksum_missing: TCP's or UDP's is still to be computed.
        segment_bytes: Most data of a packet, if there may be more in it than fits; else 0.

    Raises:
        ProtocolError: It is malformed, or something that no NAT here can translate.
    """
    at, end = _checked(raw)
    data_at = at + (_tcp_header_bytes(raw, at) if raw[9] == TCP else _UDP_BYTES)
    if data_at > end:
        raise ProtocolError("ipv4", "malformed: the packet ends within a header")
    if 0 < segment_bytes < end - data_at:
        return _segments(raw[:data_at], raw[data_at:end], segment_bytes)
    if checksum_missing:
        return [_with_new_checksums(bytearray(raw[:end]), at)]
    return [raw[:end]]


def read(raw: bytes) -> Packet:
    """Read a packet that `as_on_the_wire` made: as much of it as a NAT looks at."""
    at = (raw[0] & 15) * 4
    source, destination = inet_ntoa(raw[12:16]), inet_ntoa(raw[16:20])
    payload: Segment | Datagram
    if raw[9] == TCP:
        source_port, destination_port, sequence, acknowledgement, offset, bits, window, _, _ = (
            _TCP.unpack_from(raw, at)
        )
        data = raw[at + (offset >> 4) * 4 :]
        payload = Segment(_FLAGS_OF[bits], sequence, acknowledgement, window, data)
    else:
        source_port, destination_port, length, _ = _UDP.unpack_from(raw, at)
        payload = Datagram(raw[at + _UDP_BYTES : at + length])
    return Packet(Endpoint(source, source_port), Endpoint(destination, destination_port), payload)


def readdressed(raw: bytes, source: Endpoint, destination: Endpoint) -> bytes:
    """Give a packet other endpoints; of the rest, only the checksums change."""
    at = (raw[0] & 15) * 4
    checksum_at = at + (_TCP_CHECKSUM if raw[9] == TCP else _UDP_CHECKSUM)
    addresses = inet_aton(source.host) + inet_aton(destination.host)
    ports = _PORTS.pack(source.port, destination.port)
    changed = bytearray(raw)
    changed[12:20] = addresses
    changed[at : at + 4] = ports
    _update(changed, _IP_CHECKSUM, raw[12:20], addresses)
    if raw[9] == TCP:
        _update(changed, checksum_at, raw[12:20] + raw[at : at + 4], addresses + ports)
    elif raw[checksum_at : checksum_at + 2] != b"\0\0":  # Without a checksum it stays so.
        _update(changed, checksum_at, raw[12:20] + raw[at : at + 4], addresses + ports)
        if changed[checksum_at : checksum_at + 2] == b"\0\0":
            _WORD.pack_into(changed, checksum_at, _ALL_ONES)
    return bytes(changed)


def one_hop_further(raw: bytes) -> bytes:
    """Take one off the time to live.

    Raises:
        ProtocolError: There is none left.
    """
    if raw[8] <= 1:
        raise ProtocolError("ipv4", "time to live is over")
    changed = bytearray(raw)
    changed[8] -= 1
    _update(changed, _IP_CHECKSUM, raw[8:10], changed[8:10])
    return bytes(changed)


def build(packet: Packet) -> bytes:
    """Make a packet from nothing, such as a RST that a NAT answers; without TCP options."""
    payload = packet.payload
    if isinstance(payload, Segment):
        bits = sum(bit for bit, flag in _FLAGS.items() if flag in payload.flags)
        numbers = (payload.sequence, payload.acknowledgement, _TCP_BYTES // 4 << 4, bits)
        header = _TCP.pack(
            packet.source.port, packet.destination.port, *numbers, payload.window, 0, 0
        )
    else:
        length = _UDP_BYTES + len(payload.data)
        header = _UDP.pack(packet.source.port, packet.destination.port, length, 0)
    protocol = TCP if packet.transport == "tcp" else UDP
    ip_header = _IP.pack(
        0x45,
        0,
        _IP_BYTES + len(header) + len(payload.data),
        0,
        _DONT_FRAGMENT,
        _FIRST_TTL,
        protocol,
        0,
        inet_aton(packet.source.host),
        inet_aton(packet.destination.host),
    )
    return _with_new_checksums(bytearray(ip_header + header + payload.data), _IP_BYTES)


def _checked(raw: bytes) -> tuple[int, int]:
    """Give where the IPv4 header and where the packet ends."""
    if len(raw) < _IP_BYTES or raw[0] >> 4 != 4:
        raise ProtocolError("ipv4", "malformed: no IPv4 header")
    at, end = (raw[0] & 15) * 4, _WORD.unpack_from(raw, 2)[0]
    if raw[9] not in (TCP, UDP):
        raise ProtocolError("ipv4", "neither TCP nor UDP")
    if _WORD.unpack_from(raw, 6)[0] & _MORE_FRAGMENTS_OR_OFFSET:
        raise ProtocolError("ipv4", "fragment")
    header_bytes = _TCP_BYTES if raw[9] == TCP else _UDP_BYTES
    if at < _IP_BYTES or end > len(raw) or at + header_bytes > end:
        raise ProtocolError("ipv4", "malformed: lengths contradict one another")
    if raw[9] == UDP and _WORD.unpack_from(raw, at + 4)[0] != end - at:
        raise ProtocolError("ipv4", "malformed: a UDP length that is not the packet's")
    return at, end


def _tcp_header_bytes(raw: bytes, at: int) -> int:
    length = (raw[at + 12] >> 4) * 4
    if length < _TCP_BYTES:
        raise ProtocolError("ipv4", "malformed: a TCP header of less than 20 bytes")
    return length


def _segments(headers: bytes, data: bytes, segment_bytes: int) -> list[bytes]:
    """Cut data into packets, as a network card does for the kernel."""
    at = (headers[0] & 15) * 4
    identification = _WORD.unpack_from(headers, 4)[0]
    made: list[bytes] = []
    for offset in range(0, len(data), segment_bytes):
        piece = bytearray(headers + data[offset : offset + segment_bytes])
        number = identification + len(made) & _ALL_ONES
        _PORTS.pack_into(piece, 2, len(piece), number)
        if headers[9] == TCP:
            _number_segment(piece, at, offset, is_last=offset + segment_bytes >= len(data))
        else:
            _WORD.pack_into(piece, at + 4, len(piece) - at)
        made.append(_with_new_checksums(piece, at))
    return made


def _number_segment(piece: bytearray, at: int, offset: int, *, is_last: bool) -> None:
    sequence = int.from_bytes(piece[at + 4 : at + 8]) + offset & 0xFFFFFFFF
    piece[at + 4 : at + 8] = sequence.to_bytes(4)
    if not is_last:
        piece[at + 13] &= ~(_FIN | _PSH)
    if offset:
        piece[at + 13] &= ~_CWR  # RFC 3168: on the first one only.


def _with_new_checksums(packet: bytearray, at: int) -> bytes:
    _WORD.pack_into(packet, _IP_CHECKSUM, 0)
    _WORD.pack_into(packet, _IP_CHECKSUM, checksum(packet[:at]))
    protocol = packet[9]
    checksum_at = at + (_TCP_CHECKSUM if protocol == TCP else _UDP_CHECKSUM)
    _WORD.pack_into(packet, checksum_at, 0)
    pseudo_header = packet[12:20] + _PORTS.pack(protocol, len(packet) - at)
    found = checksum(pseudo_header + packet[at:])
    _WORD.pack_into(packet, checksum_at, found or (_ALL_ONES if protocol == UDP else 0))
    return bytes(packet)


def _update(packet: bytearray, checksum_at: int, old: bytes, new: bytes | bytearray) -> None:
    before = _WORD.unpack_from(packet, checksum_at)[0]
    _WORD.pack_into(packet, checksum_at, updated(before, old, new))
