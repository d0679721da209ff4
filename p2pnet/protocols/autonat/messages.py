"""The messages of AutoNAT v2, as bytes and as values. Rules: specs/autonat.md (AN1 to AN5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from google.protobuf.message import DecodeError

from p2pnet.core.addresses import Multiaddr, decode_untrusted, encode
from p2pnet.errors import ProtocolError
from p2pnet.pb import autonat_v2_pb2 as pb

DIAL_REQUEST = "/libp2p/autonat/2/dial-request"
DIAL_BACK = "/libp2p/autonat/2/dial-back"

MAX_MESSAGE_BYTES = 8192
MAX_DIAL_BACK_BYTES = 1024
MAX_SENT_BYTES = 4096
"""rust-libp2p reads no message longer than 4104 bytes."""
MAX_INSPECTED = 50
"""Addresses of a request that are looked at."""
MAX_DATA_BYTES = 4000
"""Data in one message of ours."""
MAX_NONCE = 2**64 - 1
PADDING = 3900
"""Bytes of padding that pay for a dial over UDP, which then sends no more (AN18)."""


class Status(IntEnum):
    """What a server makes of a request."""

    E_INTERNAL_ERROR = 0
    E_REQUEST_REJECTED = 100
    E_DIAL_REFUSED = 101
    OK = 200


class DialStatus(IntEnum):
    """What came of the dial, if the status is OK."""

    UNUSED = 0
    E_DIAL_ERROR = 100
    E_DIAL_BACK_ERROR = 101
    OK = 200


@dataclass(frozen=True, slots=True)
class DialRequest:
    """Client to server: dial the first of these that you can, and say the nonce there."""

    addresses: tuple[Multiaddr | None, ...]
    """None stands where one could not be read, so that the others keep their index."""
    nonce: int
    padding: int = 0
    """So many bytes that mean nothing pay for a dial beforehand (AN18)."""


@dataclass(frozen=True, slots=True)
class DialDataRequest:
    """Server to client: pay for the dial with so many bytes."""

    index: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class DialDataResponse:
    """Client to server: bytes that mean nothing."""

    data: bytes


@dataclass(frozen=True, slots=True)
class DialResponse:
    """Server to client: what came of the request."""

    status: int
    """A ``Status``, or a number that this version does not know."""
    index: int = 0
    """Which address was dialled, if the status is OK."""
    dial_status: int = DialStatus.UNUSED
    """A ``DialStatus``, or a number that this version does not know."""


@dataclass(frozen=True, slots=True)
class DialBack:
    """Server to client, on a connection of its own."""

    nonce: int


@dataclass(frozen=True, slots=True)
class DialBackResponse:
    """The client's answer to that."""

    status: int = 0
    """0 is OK, and there is no other."""


Message = DialRequest | DialDataRequest | DialDataResponse | DialResponse
DialBackMessage = DialBack | DialBackResponse


# ---- dial-request streams ----------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    # AN2: zeros are left out, as everybody leaves them out.
    match message:
        case DialRequest(addresses, nonce, padding):
            request = pb.DialRequest(
                addrs=[b"" if address is None else encode(address) for address in addresses],
                nonce=nonce or None,
                padding=bytes(padding) or None,
            )
            encoded = pb.Message(dial_request=request)
        case DialDataRequest(index, num_bytes):
            demand = pb.DialDataRequest(addr_idx=index or None, num_bytes=num_bytes or None)
            encoded = pb.Message(dial_data_request=demand)
        case DialDataResponse(data):
            encoded = pb.Message(dial_data_response=pb.DialDataResponse(data=data or None))
        case DialResponse(status, index, dial_status):
            encoded = pb.Message(dial_response=pb.DialResponse(addr_idx=index or None))
            # Numbers that nobody knows are written as well.
            if status:
                encoded.dial_response.status = status  # type: ignore[assignment]
            if dial_status:
                encoded.dial_response.dial_status = dial_status  # type: ignore[assignment]
        case _:
            assert_never(message)
    return encoded.SerializeToString(deterministic=True)


def decode_message_untrusted(data: bytes) -> Message:
    """Read a message of a remote.

    Raises:
        ProtocolError: if it is too large or malformed, or none of the four.
    """
    if len(data) > MAX_MESSAGE_BYTES:  # AN1
        raise ProtocolError(DIAL_REQUEST, f"message of {len(data)} bytes")
    try:
        message = pb.Message.FromString(data)
    except DecodeError:
        raise ProtocolError(DIAL_REQUEST, "malformed message") from None
    match message.WhichOneof("msg"):
        case "dial_request":
            return read_request(message.dial_request)
        case "dial_data_request":
            demand = message.dial_data_request
            return DialDataRequest(demand.addr_idx, demand.num_bytes)
        case "dial_data_response":
            return DialDataResponse(message.dial_data_response.data)
        case "dial_response":
            response = message.dial_response
            return DialResponse(response.status, response.addr_idx, response.dial_status)
        case _:
            raise ProtocolError(DIAL_REQUEST, "message without content")


def read_request(request: pb.DialRequest) -> DialRequest:
    if not request.nonce:  # AN3
        raise ProtocolError(DIAL_REQUEST, "request without nonce")
    addresses = tuple(map(read_address, request.addrs[:MAX_INSPECTED]))  # AN4
    return DialRequest(addresses, request.nonce, len(request.padding))


def read_address(data: bytes) -> Multiaddr | None:
    try:
        return decode_untrusted(data)
    except ProtocolError:
        return None


# ---- dial-back streams -------------------------------------------------------------------


def encode_dial_back(message: DialBack) -> bytes:
    return pb.DialBack(nonce=message.nonce or None).SerializeToString()


def decode_dial_back_untrusted(data: bytes) -> DialBack:
    """Read what a server says when it has dialled.

    Raises:
        ProtocolError: if it is too large or malformed, or has no nonce.
    """
    message = pb.DialBack()
    parse_dial_back(message, data)
    if not message.nonce:  # AN3
        raise ProtocolError(DIAL_BACK, "dial-back without nonce")
    return DialBack(message.nonce)


def encode_dial_back_response(message: DialBackResponse) -> bytes:
    # AN5: rust-libp2p wants to see the message of no bytes.
    encoded = pb.DialBackResponse()
    if message.status:
        encoded.status = message.status  # type: ignore[assignment]
    return encoded.SerializeToString()


def decode_dial_back_response_untrusted(data: bytes) -> DialBackResponse:
    """Read a client's answer to that.

    Raises:
        ProtocolError: if it is too large or malformed.
    """
    message = pb.DialBackResponse()
    parse_dial_back(message, data)
    return DialBackResponse(message.status)


def parse_dial_back(message: pb.DialBack | pb.DialBackResponse, data: bytes) -> None:
    if len(data) > MAX_DIAL_BACK_BYTES:  # AN1
        raise ProtocolError(DIAL_BACK, f"message of {len(data)} bytes")
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise ProtocolError(DIAL_BACK, "malformed message") from None
