"""The messages of circuit relay v2, hop and stop. Rules: specs/relay.md (R1 to R6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from p2pnet.core.addresses import Multiaddr, decode_many_untrusted, encode
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import circuit_pb2 as pb

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"
MAX_MESSAGE_BYTES = 4096
MAX_ADDRESSES = 32
"""So many addresses of a reservation are read; the rest is passed over."""


class Status(IntEnum):
    """What a relay, or the target of a circuit, answers."""

    UNUSED = 0
    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


KNOWN_STATUS = {int(status): status for status in Status}


def status_name(status: int) -> str:
    """Say a status as the spec does; one that it does not know, by its number."""
    known = KNOWN_STATUS.get(status)
    return f"status {status}" if known is None else known.name


@dataclass(frozen=True, slots=True)
class Limit:
    """What the relay allows on a circuit, as it stands on the wire: 0 is without limit."""

    duration: int = 0
    """Seconds; some relays write milliseconds (R6)."""
    data: int = 0
    """Bytes in each direction."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a relay promises."""

    expire: int
    """Unix time in seconds, by the relay's clock."""
    addresses: tuple[Multiaddr, ...] = ()
    """Where the relay is, each with its ``/p2p``; without ``/p2p-circuit``."""
    voucher: bytes | None = None
    """A signed envelope, not yet opened."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hop: the sender asks for a reservation."""


@dataclass(frozen=True, slots=True)
class HopConnect:
    """Hop: the sender asks for a circuit to ``peer_id``."""

    peer_id: PeerId


@dataclass(frozen=True, slots=True)
class HopStatus:
    """Hop: the relay's answer to either."""

    status: int
    """A ``Status``, or a number that this version does not know."""
    reservation: Reservation | None = None
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class StopConnect:
    """Stop: the relay offers a circuit from ``peer_id``."""

    peer_id: PeerId
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class StopStatus:
    """Stop: the target's answer."""

    status: int


HopMessage = Reserve | HopConnect | HopStatus
StopMessage = StopConnect | StopStatus


def encode_hop(message: HopMessage) -> bytes:
    # R2: the type is set even where it is number 0, for it has to be on the wire.
    match message:
        case Reserve():
            return pb.HopMessage(type=pb.HopMessage.RESERVE).SerializeToString()
        case HopConnect(peer_id):
            connect = pb.HopMessage(type=pb.HopMessage.CONNECT, peer=encode_peer(peer_id))
            return connect.SerializeToString()
        case HopStatus(status, reservation, limit):
            answer = pb.HopMessage(
                type=pb.HopMessage.STATUS,
                reservation=None if reservation is None else encode_reservation(reservation),
                limit=None if limit is None else encode_limit(limit),
                status=Status(status).name,
            )
            return answer.SerializeToString()


def encode_stop(message: StopMessage) -> bytes:
    match message:
        case StopConnect(peer_id, limit):
            connect = pb.StopMessage(
                type=pb.StopMessage.CONNECT,
                peer=encode_peer(peer_id),
                limit=None if limit is None else encode_limit(limit),
            )
            return connect.SerializeToString()
        case StopStatus(status):
            answer = pb.StopMessage(type=pb.StopMessage.STATUS, status=Status(status).name)
            return answer.SerializeToString()


def encode_peer(peer_id: PeerId) -> pb.Peer:
    return pb.Peer(id=peer_id.to_bytes())


def encode_limit(limit: Limit) -> pb.Limit:
    return pb.Limit(duration=limit.duration or None, data=limit.data or None)


def encode_reservation(reservation: Reservation) -> pb.Reservation:
    return pb.Reservation(
        expire=reservation.expire,
        addrs=[encode(address) for address in reservation.addresses],
        voucher=reservation.voucher,
    )


def decode_hop_untrusted(data: bytes) -> HopMessage:
    """Read a hop message.

    Raises:
        ProtocolError: if it is malformed (R2 to R5).
    """
    message = pb.HopMessage()
    parse(message, data, HOP)
    if not message.HasField("type"):  # R2
        raise ProtocolError(HOP, "message without type")
    if message.type == pb.HopMessage.RESERVE:
        return Reserve()
    if message.type == pb.HopMessage.CONNECT:
        return HopConnect(decode_peer(message, HOP))
    if message.type == pb.HopMessage.STATUS:
        return HopStatus(
            status=decode_status(message, HOP),
            reservation=decode_reservation(message),
            limit=decode_limit(message),
        )
    raise ProtocolError(HOP, f"message of unknown type {int(message.type)}")


def decode_stop_untrusted(data: bytes) -> StopMessage:
    """Read a stop message.

    Raises:
        ProtocolError: if it is malformed (R2 to R4).
    """
    message = pb.StopMessage()
    parse(message, data, STOP)
    if not message.HasField("type"):  # R2
        raise ProtocolError(STOP, "message without type")
    if message.type == pb.StopMessage.CONNECT:
        return StopConnect(decode_peer(message, STOP), decode_limit(message))
    if message.type == pb.StopMessage.STATUS:
        return StopStatus(decode_status(message, STOP))
    raise ProtocolError(STOP, f"message of unknown type {int(message.type)}")


def parse(message: pb.HopMessage | pb.StopMessage, data: bytes, protocol_id: str) -> None:
    if len(data) > MAX_MESSAGE_BYTES:  # R1
        raise ProtocolError(protocol_id, f"message of {len(data)} bytes")
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise ProtocolError(protocol_id, "malformed message") from None


def decode_peer(message: pb.HopMessage | pb.StopMessage, protocol_id: str) -> PeerId:
    """Read who is meant; the addresses beside the ID are nobody's business (R3)."""
    if not message.HasField("peer") or not message.peer.HasField("id"):
        raise ProtocolError(protocol_id, "CONNECT that names no peer")
    return PeerId.decode_untrusted(message.peer.id)


def decode_status(message: pb.HopMessage | pb.StopMessage, protocol_id: str) -> int:
    if not message.HasField("status"):  # R4
        raise ProtocolError(protocol_id, "STATUS without a status")
    return int(message.status)


def decode_limit(message: pb.HopMessage | pb.StopMessage) -> Limit | None:
    if not message.HasField("limit"):
        return None
    return Limit(message.limit.duration, message.limit.data)


def decode_reservation(message: pb.HopMessage) -> Reservation | None:
    if not message.HasField("reservation"):
        return None
    found = message.reservation
    if not found.expire:  # R5
        raise ProtocolError(HOP, "reservation without expiry")
    return Reservation(
        expire=found.expire,
        addresses=decode_many_untrusted(found.addrs[:MAX_ADDRESSES]),
        voucher=found.voucher if found.HasField("voucher") else None,
    )
