"""Vectors of specs/relay.md."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.protocols.relay import dialogue
from p2pnet.protocols.relay.messages import (
    HOP,
    HopConnect,
    HopMessage,
    HopStatus,
    Limit,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
    decode_hop_untrusted,
    decode_stop_untrusted,
    encode_hop,
    encode_stop,
    status_name,
)
from p2pnet.protocols.relay.policy import (
    Reservations,
    circuit_addresses,
    circuit_limit,
    lifetime,
    prefix_of,
)
from p2pnet.protocols.relay.voucher import Voucher, decode_untrusted, seal
from tests.specs.forms import Channel, Codec, Dialogue, Fields, plain

KEYS = {n: PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3)}
IDS = {n: PeerId.from_public_key(key.public_key) for n, key in KEYS.items()}
NAMES = {"relay": IDS[1], "alice": IDS[2], "bob": IDS[3]}
"""The peers of the page, whose keys come from the seeds 1, 2 and 3."""


# ---- messages ----------------------------------------------------------------------------


def describe(message: HopMessage | StopMessage) -> dict[str, Any]:
    match message:
        case Reserve():
            return {"type": "RESERVE"}
        case HopConnect(peer_id):
            return {"type": "CONNECT", "peer": str(peer_id)}
        case StopConnect(peer_id, limit):
            return {"type": "CONNECT", "peer": str(peer_id), **optional(limit=limit)}
        case StopStatus(status):
            return {"type": "STATUS", "status": status_name(status)}
        case HopStatus(status, reservation, limit):
            return {
                "type": "STATUS",
                "status": status_name(status),
                **optional(reservation=reservation, limit=limit),
            }


def optional(**values: object) -> dict[str, Any]:
    return {name: plain(value) for name, value in values.items() if value is not None}


def sign(voucher: Voucher) -> bytes:
    return seal(voucher, next(key for n, key in KEYS.items() if IDS[n] == voucher.relay))


CODECS = {
    "Hop": Codec(decode_hop_untrusted, encode_hop, describe),
    "Stop": Codec(decode_stop_untrusted, encode_stop, describe),
    "Voucher": Codec(decode_untrusted, sign),
    "ReceivedHop": Codec(decode_hop_untrusted, None, describe),
    "ReceivedVoucher": Codec(decode_untrusted, None),
}


# ---- conversations -----------------------------------------------------------------------


def limit_in(fields: Fields) -> Limit | None:
    return Limit(*fields["limit"]) if "limit" in fields else None


def hop_message(name: str, fields: Fields) -> HopMessage:
    match name:
        case "RESERVE":
            return Reserve()
        case "CONNECT":
            return HopConnect(NAMES[fields["peer"]])
        case "STATUS":
            reservation = Reservation(fields["expire"]) if "expire" in fields else None
            return HopStatus(Status[fields["status"]], reservation, limit_in(fields))
        case _:
            raise ProtocolError(HOP, name)


def stop_message(name: str, fields: Fields) -> StopMessage:
    if name == "CONNECT":
        return StopConnect(NAMES[fields["peer"]], limit_in(fields))
    return StopStatus(Status[fields["status"]])


def told(
    play: Callable[[Channel], Coroutine[Any, Any, Any]],
) -> Callable[[Channel, Callable[[], float], Fields], Coroutine[Any, Any, object]]:
    """Run a dialogue that needs no clock, and say its result as a table."""

    async def run(channel: Channel, _now: Callable[[], float], _given: Fields) -> object:
        match await play(channel):
            case (Reservation() as reservation, limit):
                return {"expire": reservation.expire, **optional(limit=limit)}
            case dialogue.Refusal(status):
                return {"refusal": status.name}
            case Reserve() | HopConnect() | StopConnect() as message:
                return describe(message)
            case int(status):
                return {"status": status_name(status)}
            case limit:
                return optional(limit=limit)

    return run


RELAY, ALICE, BOB = NAMES["relay"], NAMES["alice"], NAMES["bob"]
DIALOGUES = {
    "reserve": Dialogue(told(lambda channel: dialogue.reserve(channel, RELAY)), hop_message),
    "connect": Dialogue(told(lambda channel: dialogue.connect(channel, RELAY, ALICE)), hop_message),
    "receive_request": Dialogue(told(dialogue.receive_request), hop_message),
    "offer": Dialogue(
        told(lambda channel: dialogue.offer(channel, BOB, Limit(120, 131_072))), stop_message
    ),
    "receive_offer": Dialogue(told(dialogue.receive_offer), stop_message),
}


# ---- what is granted and made of it ------------------------------------------------------


def read_limit(given: Fields) -> object:
    return circuit_limit(Limit(*given["limit"]))


def read_lifetime(given: Fields) -> float:
    return lifetime(given["expire"], given["lifetime_at"])


def advertise(given: Fields) -> object:
    addresses = tuple(parse(text.format(**NAMES)) for text in given["advertise"])
    reached_at = [parse(given["reached_at"])]
    chosen = circuit_addresses(Reservation(1, addresses), RELAY, reached_at, maximum=8)
    return [str(address).replace(str(RELAY), "{relay}") for address in chosen]


def admit(given: Fields) -> list[str]:
    """Play requests for reservations, one after the other."""
    held = Reservations(
        max_total=given["max_reservations"],
        max_per_prefix=given["max_reservations_per_prefix"],
        seconds=3600.0,
    )
    answers = []
    for at, peer, address in given["reservations"]:
        held.drop_expired(at)
        renewal = held.holds(NAMES[peer], at)
        refusal = held.reserve(NAMES[peer], prefix_of(parse(address)), at)
        answers.append(refusal.status.name if refusal else "renewed" if renewal else "granted")
    return answers


FORMS = {
    "limit": read_limit,
    "lifetime_at": read_lifetime,
    "advertise": advertise,
    "reservations": admit,
}
