"""CONNECT and SYNC, as bytes and as values. Rules: specs/dcutr.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from google.protobuf.message import DecodeError

from p2pnet.core.addresses import Multiaddr, decode_many_untrusted, encode
from p2pnet.errors import ProtocolError
from p2pnet.pb import dcutr_pb2 as pb

PROTOCOL_ID = "/libp2p/dcutr"
MAX_MESSAGE_BYTES = 4096
MAX_OFFERED = 16
"""Addresses in a CONNECT of ours."""
MAX_READ = 64
"""Addresses of a remote's CONNECT that are looked at: with QUIC and IPv6, others offer many."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Where the sender may be reached directly."""

    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Dial now."""


HolePunch = Connect | Sync


def encode_message(message: HolePunch) -> bytes:
    match message:
        case Connect(addresses):
            offered = [encode(address) for address in addresses[:MAX_OFFERED]]
            encoded = pb.HolePunch(type=pb.HolePunch.CONNECT, obs_addrs=offered)
        case Sync():
            encoded = pb.HolePunch(type=pb.HolePunch.SYNC)
        case _:
            assert_never(message)
    return encoded.SerializeToString(deterministic=True)


def decode_untrusted(data: bytes) -> HolePunch:
    """Read a message of a remote; addresses that make no sense are left out (D6).

    Raises:
        ProtocolError: if it is too large or malformed, or neither CONNECT nor SYNC.
    """
    if len(data) > MAX_MESSAGE_BYTES:  # D1
        raise ProtocolError(PROTOCOL_ID, f"message of {len(data)} bytes")
    try:
        message = pb.HolePunch.FromString(data)
    except DecodeError:
        raise ProtocolError(PROTOCOL_ID, "malformed message") from None
    if not message.HasField("type"):  # D1
        raise ProtocolError(PROTOCOL_ID, "message without type")
    match message.type:
        case pb.HolePunch.CONNECT:
            return Connect(decode_many_untrusted(message.obs_addrs[:MAX_READ]))
        case pb.HolePunch.SYNC:
            return Sync()  # D5: addresses in it mean nothing
        case other:
            raise ProtocolError(PROTOCOL_ID, f"message of unknown type {other}")
