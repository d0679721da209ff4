"""What can be told of a QUIC packet before any key is known, and what is answered without one.

Pure. For datagrams that belong to no connection nothing is kept: whatever is answered is made
from the datagram alone (RFC 8999, RFC 9000 sections 8.1, 10.3 and 17).
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from hashlib import blake2b

from p2pnet.core.addresses import Endpoint
from p2pnet.transports.quic.core import ID_BYTES

VERSION_1 = 1
MIN_INITIAL_BYTES = 1200
MIN_ORIGINAL_ID_BYTES = 8
MAX_ID_BYTES = 20
TOKEN_LIFETIME = 10.0
"""Seconds; a client that is sent back returns at once."""
RESET_TOKEN_BYTES = 16
MIN_RESET_BYTES = 21
"""The shortest that can be taken for a packet."""
MAX_RESET_BYTES = 43
MAC_BYTES = 16
MAX_TOKEN_BYTES = 8 + MAX_ID_BYTES + MAC_BYTES
LONG, FIXED = 0x80, 0x40


@dataclass(frozen=True, slots=True)
class Header:
    """The front of a packet."""

    target: bytes
    """The connection ID it is for."""
    source: bytes = b""
    version: int | None = None
    """None in the short packets of a connection that stands."""
    is_initial: bool = False
    token: bytes = b""


class Unreadable(Exception):
    """What came is no packet of QUIC."""


def read_header(data: bytes) -> Header:
    """Read the front of the first packet in a datagram. Raises Unreadable."""
    if not data:
        raise Unreadable
    if not data[0] & LONG:
        if len(data) <= ID_BYTES or not data[0] & FIXED:
            raise Unreadable
        return Header(data[1 : 1 + ID_BYTES])
    version = int.from_bytes(data[1:5])
    target, at = take_id(data, 5)
    source, at = take_id(data, at)
    if version != VERSION_1:
        return Header(target, source, version)
    if not data[0] & FIXED or len(target) > MAX_ID_BYTES or len(source) > MAX_ID_BYTES:
        raise Unreadable
    if data[0] & 0x30:
        return Header(target, source, version)
    length, at = take_varint(data, at)
    if at + length > len(data):
        raise Unreadable
    return Header(target, source, version, is_initial=True, token=data[at : at + length])


def take_id(data: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(data) or at + 1 + data[at] > len(data):
        raise Unreadable
    end = at + 1 + data[at]
    return data[at + 1 : end], end


def take_varint(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise Unreadable
    end = at + (1 << (data[at] >> 6))
    if end > len(data):
        raise Unreadable
    bits = 8 * (end - at) - 2
    return int.from_bytes(data[at:end]) & ((1 << bits) - 1), end


def version_negotiation(header: Header, first: int) -> bytes:
    """Tell a client which versions there are; ``first`` is a random byte."""
    return b"".join(
        (
            bytes([LONG | FIXED | first & 0x3F]),
            bytes(4),
            bytes([len(header.source)]),
            header.source,
            bytes([len(header.target)]),
            header.target,
            VERSION_1.to_bytes(4),
        )
    )


class Secrets:
    """What only this host can make, and can check without having kept anything."""

    def __init__(self, key: bytes) -> None:
        self._reset_key = blake2b(key, person=b"p2pnet quic rst").digest()
        self._token_key = blake2b(key, person=b"p2pnet quic tok").digest()

    def __repr__(self) -> str:
        return "Secrets(...)"

    def reset_token(self, id_: bytes) -> bytes:
        """Make the token by which a connection ID is disowned."""
        return blake2b(id_, key=self._reset_key, digest_size=RESET_TOKEN_BYTES).digest()

    def stateless_reset(self, id_: bytes, size: int, noise: bytes) -> bytes | None:
        """Disown a connection ID, in fewer bytes than came; None if those were too few."""
        size = min(size - 1, MAX_RESET_BYTES)
        if size < MIN_RESET_BYTES:
            return None
        front = bytes([FIXED | noise[0] & 0x3F]) + noise[1 : size - RESET_TOKEN_BYTES]
        return front + self.reset_token(id_)

    def token(self, remote: Endpoint, *, original: bytes, retry: bytes, now: float) -> bytes:
        """Make the token that a client brings back to show that it is where it says."""
        front = int(now * 1000).to_bytes(8) + original
        return front + self._mac(remote, front, retry)

    def original_of(self, token: bytes, remote: Endpoint, *, retry: bytes, now: float) -> bytes:
        """Return the connection ID that the client began with; empty if the token is not good."""
        if len(token) > MAX_TOKEN_BYTES:
            return b""
        front, mac = token[:-MAC_BYTES], token[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(remote, front, retry)):
            return b""
        age = now - int.from_bytes(front[:8]) / 1000
        return front[8:] if -1.0 <= age <= TOKEN_LIFETIME else b""

    def _mac(self, remote: Endpoint, front: bytes, retry: bytes) -> bytes:
        address = ipaddress.ip_address(remote.host).packed + remote.port.to_bytes(2)
        parts = (address, retry, front)
        message = b"".join(bytes([len(part)]) + part for part in parts)
        return blake2b(message, key=self._token_key, digest_size=MAC_BYTES).digest()
