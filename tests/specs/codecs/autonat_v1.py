"""AutoNAT v1: its messages, its conversation by script, whom it dials and what it learns."""

from __future__ import annotations

import errno
import ipaddress

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported
from p2pnet.protocols.autonat_v1.dialogue import ask, hear
from p2pnet.protocols.autonat_v1.messages import (
    KNOWN_STATUS,
    Dial,
    DialResponse,
    Message,
    Status,
    decode_untrusted,
    encode_message,
)
from p2pnet.protocols.autonat_v1.policy import learned, outcome, targets
from tests.specs.forms import Codec, Dialogue, Fields, Toml, plain

OWN = PeerId.parse("12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv")
CAUSES: dict[str, BaseException] = {
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    "no transport": AddressUnsupported("there"),
    "no sockets": OSError(errno.EMFILE, "too many open files"),
}


def described(message: Message) -> Toml:
    match message:
        case Dial(peer_id, addresses):
            return plain({"type": "DIAL", "peer": peer_id, "addresses": addresses})
        case DialResponse():
            return {"type": "DIAL_RESPONSE", **told(message)}


def told(response: DialResponse) -> dict[str, Toml]:
    status = KNOWN_STATUS.get(response.status)
    named = response.status if status is None else status.name
    found = plain({"status": named, "text": response.text, "address": response.address})
    assert isinstance(found, dict)
    return found


def message(name: str, given: Fields) -> object:
    """Build a message, or what a decoder makes of its bytes."""
    match name:
        case "Dial":
            return Dial(PeerId.parse(given["peer"]), parsed(given["addresses"]))
        case "DialResponse":
            return response(given)
        case _:
            return decode_untrusted(bytes.fromhex(name))


def response(given: Fields) -> DialResponse:
    address = parse(given["address"]) if "address" in given else None
    return DialResponse(Status[given["status"]], "", address)


def parsed(texts: list[str]) -> tuple[Multiaddr, ...]:
    return tuple(map(parse, texts))


def read(given: Fields) -> dict[str, bool]:
    answer = response(given["learned"])
    found = learned(
        answer,
        offered=parsed(given["offered"]),
        observed=parse(given["observed"]) if "observed" in given else None,
        own_id=OWN,
    )
    return {str(address): reached for address, reached in found}


def became(text: str) -> str:
    """Say what a server answers after dials of which each word tells one."""
    words = text.split(", ")
    reached = parse("/ip4/11.0.0.1/tcp/1") if "reached" in words else None
    answer = outcome(reached, [CAUSES[word] for word in words if word != "reached"])
    assert answer.address == reached
    return Status(answer.status).name


CODECS = {
    "Message": Codec(decode=decode_untrusted, encode=encode_message, describe=described),
}


async def play_ask(channel: Toml, own: str, ours: list[str]) -> dict[str, Toml]:
    return told(await ask(channel, PeerId.parse(own), parsed(ours)))


async def play_hear(channel: Toml, asker: str) -> object:
    heard = await hear(channel, PeerId.parse(asker))
    return told(heard) if isinstance(heard, DialResponse) else heard


DIALOGUES = {
    "ask": Dialogue(
        play=lambda channel, now, given: play_ask(channel, given["own"], given["ours"]),
        message=message,
    ),
    "hear": Dialogue(
        play=lambda channel, now, given: play_hear(channel, given["asker"]),
        message=message,
    ),
}
FORMS = {
    "targets": lambda given: targets(
        parsed(given["targets"]),
        asker=PeerId.parse(given["asker"]),
        observed=parse(given["observed"]),
        own=[ipaddress.ip_address(text) for text in given["own"]],
        allow_private=False,
    ),
    "learned": read,
    "outcomes": lambda given: list(map(became, given["outcomes"])),
}
