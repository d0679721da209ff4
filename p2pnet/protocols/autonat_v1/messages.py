"""The request to be dialled, and its answer, as bytes and as values. Rules: specs/autonat-v1.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from google.protobuf.message import DecodeError

from p2pnet.core import addresses
from p2pnet.core.addresses import Multiaddr, encode
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import autonat_v1_pb2 as pb

PROTOCOL_ID = "/libp2p/autonat/1.0.0"
MAX_MESSAGE_BYTES = 4096
MAX_READ = 64
"""Addresses of a request that are looked at; the rest is passed over."""
MAX_TEXT = 256
"""Characters of a status text that are written or read."""


class Status(IntEnum):
    """How a server answers."""

    OK = 0
    E_DIAL_ERROR = 100
    E_DIAL_REFUSED = 101
    E_BAD_REQUEST = 200
    E_INTERNAL_ERROR = 300


KNOWN_STATUS = {int(status): status for status in Status}


def status_name(status: int) -> str:
    """Say a status as the spec does; one that it does not know, by its number."""
    known = KNOWN_STATUS.get(status)
    return f"status {status}" if known is None else known.name


@dataclass(frozen=True, slots=True)
class Dial:
    """The sender asks to be dialled."""

    peer_id: PeerId
    """Who it says it is."""
    addresses: tuple[Multiaddr, ...]
    """Where it may be; not yet judged."""


@dataclass(frozen=True, slots=True)
class DialResponse:
    """What came of it."""

    status: int
    """A ``Status``, or a number that this version does not know."""
    text: str = ""
    """For people; without control characters."""
    address: Multiaddr | None = None
    """Where the dial got through, if it did."""


Message = Dial | DialResponse


def encode_message(message: Message) -> bytes:
    match message:
        case Dial(peer_id, offered):
            peer = pb.PeerInfo(id=peer_id.to_bytes(), addrs=[encode(each) for each in offered])
            encoded = pb.Message(type=pb.Message.DIAL, dial=pb.Dial(peer=peer))
        case DialResponse(status, text, address):
            response = pb.DialResponse(
                status=Status(status).name,
                status_text=text[:MAX_TEXT] or None,  # AO14
                addr=None if address is None else encode(address),
            )
            encoded = pb.Message(type=pb.Message.DIAL_RESPONSE, dial_response=response)
        case _:
            assert_never(message)
    # AO2: the numbers 0 are set, and so on the wire.
    return encoded.SerializeToString(deterministic=True)


def decode_untrusted(data: bytes) -> Message:
    """Read a message of a remote; addresses to dial that make no sense are left out (AO3).

    Raises:
        ProtocolError: if it is too large or malformed, or lacks what its type is about.
    """
    if len(data) > MAX_MESSAGE_BYTES:  # AO1
        raise ProtocolError(PROTOCOL_ID, f"message of {len(data)} bytes")
    try:
        message = pb.Message.FromString(data)
    except DecodeError:
        raise ProtocolError(PROTOCOL_ID, "malformed message") from None
    # AO2: an absent type is read as 0, as is an absent status.
    if message.type == pb.Message.DIAL:
        return read_dial(message)
    if message.type == pb.Message.DIAL_RESPONSE:
        return read_response(message)
    raise ProtocolError(PROTOCOL_ID, f"message of unknown type {int(message.type)}")


def read_dial(message: pb.Message) -> Dial:
    peer = message.dial.peer
    if not peer.id:  # AO3
        raise ProtocolError(PROTOCOL_ID, "DIAL that names no peer")
    offered = addresses.decode_many_untrusted(peer.addrs[:MAX_READ])
    return Dial(PeerId.decode_untrusted(peer.id), offered)


def read_response(message: pb.Message) -> DialResponse:
    if not message.HasField("dial_response"):  # AO4
        raise ProtocolError(PROTOCOL_ID, "DIAL_RESPONSE without a response")
    found = message.dial_response
    address = addresses.decode_untrusted(found.addr) if found.addr else None
    return DialResponse(int(found.status), printable(found.status_text), address)


def printable(text: str) -> str:
    """Make a remote's words fit for a log (AO4)."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])
