"""CONNECT and SYNC, as bytes and as values. Rules: specs/dcutr.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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


class Side(Enum):
    """What a host can do in birthday punching, by its NAT (D21)."""

    EASY = pb.HolePunch.EASY
    """It has one UDP port outside for all, and looks for a port of the other."""
    HARD = pb.HolePunch.HARD
    """Its ports outside are random, and it opens many."""


HIDDEN_BITS = {"tcp": 1, "udp": 2}
STEADY_BITS = {"tcp": 4, "udp": 8}
MICROSECONDS = 1_000_000
MAX_MICROSECONDS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Swift:
    """That the sender does without SYNC, if the other side says so as well (D26)."""

    waited: float
    """Seconds from when it could have sent CONNECT until it did."""
    hidden: tuple[str, ...] = ()
    """The transports, ``tcp`` and ``udp``, over which nobody can tell its next port (D28)."""
    steady: tuple[str, ...] = ()
    """Those over which all see its ports at one place, as far as it knows (D28)."""
    heard: bool = False
    """The sender has had the other side's CONNECT, ahead, and awaits no answer (D31)."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Where the sender may be reached directly."""

    addresses: tuple[Multiaddr, ...]
    side: Side | None = None
    """What it is willing to do beyond; None if it says nothing of that, as others do."""
    swift: Swift | None = None
    dials: bool | None = None
    """Whether the sender, an initiator, plays the dialer; None if that goes by number (D9)."""


@dataclass(frozen=True, slots=True)
class Sync:
    """Dial now."""


HolePunch = Connect | Sync


def encode_message(message: HolePunch) -> bytes:
    match message:
        case Connect(addresses, side, swift, dials):
            offered = [encode(address) for address in addresses[:MAX_OFFERED]]
            encoded = pb.HolePunch(type=pb.HolePunch.CONNECT, obs_addrs=offered)
            if side is not None:
                encoded.birthday = side.value
            if swift is not None:
                encoded.swift.CopyFrom(encoded_swift(swift))
            if dials is not None:
                encoded.dials = dials
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
            addresses = decode_many_untrusted(message.obs_addrs[:MAX_READ])
            dials = message.dials if message.HasField("dials") else None
            return Connect(addresses, side_of(message), swift_of(message), dials)
        case pb.HolePunch.SYNC:
            return Sync()  # D5: addresses in it mean nothing
        case other:
            raise ProtocolError(PROTOCOL_ID, f"message of unknown type {other}")


def side_of(message: pb.HolePunch) -> Side | None:
    """Return the side, or None if there is none that we know (D21)."""
    return next((side for side in Side if side.value == message.birthday), None)


def encoded_swift(swift: Swift) -> pb.HolePunch.Swift:
    waited = min(max(round(swift.waited * MICROSECONDS), 0), MAX_MICROSECONDS)
    hidden = sum(bit for name, bit in HIDDEN_BITS.items() if name in swift.hidden)
    steady = sum(bit for name, bit in STEADY_BITS.items() if name in swift.steady)
    return pb.HolePunch.Swift(waited=waited, hidden=hidden | steady, heard=swift.heard)


def swift_of(message: pb.HolePunch) -> Swift | None:
    """Return what it says of doing without SYNC, if it does (D26)."""
    if not message.HasField("swift"):
        return None
    told = message.swift
    hidden = tuple(name for name, bit in HIDDEN_BITS.items() if told.hidden & bit)
    steady = tuple(name for name, bit in STEADY_BITS.items() if told.hidden & bit)
    return Swift(told.waited / MICROSECONDS, hidden, steady, told.heard)
