"""AutoNAT v2: its messages, its conversations by script, and what servers and clients decide."""

from __future__ import annotations

from collections.abc import Iterable

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.autonat.dialogue import (
    ask,
    collect,
    deliver,
    receive_request,
    take_dial_back,
)
from p2pnet.protocols.autonat.messages import (
    DialBack,
    DialBackResponse,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    Message,
    decode_dial_back_response_untrusted,
    decode_dial_back_untrusted,
    decode_message_untrusted,
    encode_dial_back,
    encode_dial_back_response,
    encode_message,
)
from p2pnet.protocols.autonat.policy import (
    Place,
    choose,
    is_consistent,
    is_foreign,
    judge,
    network_of,
    stack_of,
    toll,
)
from tests.specs.forms import Channel, Codec, Dialogue, Fields, Toml, plain

REQUEST = DialRequest((parse("/ip4/11.0.0.1/tcp/4001"),), 7)


def nonce_of(text: str) -> int:
    return int(text, 16)


def in_hex(nonce: int) -> str:
    return f"{nonce:016x}"


def readable(text: str) -> Multiaddr | None:
    """Read an address; an empty text stands for one that cannot be read."""
    return parse(text) if text else None


def described(message: Message) -> Toml:
    name = type(message).__name__
    match message:
        case DialRequest(addresses, nonce, padding):
            texts = ["" if address is None else str(address) for address in addresses]
            padded = {"padding": padding} if padding else {}
            return {name: {"addresses": texts, "nonce": in_hex(nonce), **padded}}
        case _:
            return {name: plain(message)}


def message(name: str, given: Fields) -> object:
    match name:
        case "DialRequest":
            return DialRequest(tuple(map(readable, given["addresses"])), nonce_of(given["nonce"]))
        case "DialDataRequest":
            return DialDataRequest(given["index"], given["num_bytes"])
        case "data":
            return DialDataResponse(bytes(given["bytes"]))
        case "DialResponse":
            return DialResponse(given["status"], given["index"], given["dial_status"])
        case "DialBack":
            return DialBack(nonce_of(given["nonce"]))
        case "DialBackResponse":
            return DialBackResponse(given["status"])
        case _:
            raise ValueError(name)


class TurnByTurn:
    """A channel whose remote answers only when all is said."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def converse(self, messages: Iterable[Message], /) -> Message:
        for each in messages:
            await self._channel.send(each)
        answer: Message = await self._channel.receive()
        return answer


def pay(num_bytes: int) -> None:
    """Agree to any payment."""


async def collected(channel: Channel, num_bytes: int) -> str:
    await collect(channel, DialDataRequest(2, num_bytes))
    return "paid"


async def delivered(channel: Channel, nonce: int) -> str:
    await deliver(channel, nonce)
    return "delivered"


CODECS = {
    "Message": Codec(decode=decode_message_untrusted, encode=encode_message, describe=described),
    "DialBack": Codec(
        decode=decode_dial_back_untrusted,
        encode=encode_dial_back,
        describe=lambda value: {"nonce": in_hex(value.nonce)},
    ),
    "DialBackResponse": Codec(
        decode=decode_dial_back_response_untrusted, encode=encode_dial_back_response
    ),
}
DIALOGUES = {
    "ask": Dialogue(
        play=lambda channel, now, given: ask(TurnByTurn(channel), REQUEST, pay), message=message
    ),
    "receive_request": Dialogue(
        play=lambda channel, now, given: receive_request(channel), message=message
    ),
    "collect": Dialogue(
        play=lambda channel, now, given: collected(channel, given["num_bytes"]), message=message
    ),
    "deliver": Dialogue(
        play=lambda channel, now, given: delivered(channel, nonce_of(given["nonce"])),
        message=message,
    ),
    "take_dial_back": Dialogue(
        play=lambda channel, now, given: take_dial_back(
            channel, {nonce_of(text) for text in given["awaited"]}.__contains__
        ),
        message=message,
    ),
}
FORMS = {
    "choose": lambda given: choose(
        [readable(text) for text in given["choose"]],
        PeerId.parse(given["client"]),
        Place(
            dials=lambda address: "/".join(stack_of(address)[1:]) in given["dials"],
            own=frozenset(given["own"]),
            has_ipv6=False,
        ),
    ),
    "foreign": lambda given: [
        is_foreign(parse(text), parse(given["seen_at"])) for text in given["foreign"]
    ],
    "tolls": lambda given: [
        toll(
            parse(text), padding=given["padding"], connected_from=list(map(parse, given["from"]))
        ).name
        for text in given["tolls"]
    ],
    "judge": lambda given: [
        judge(
            DialResponse(int(text.split()[0]), 0, int(text.split()[1])), delivered=given["heard"]
        ).name
        for text in given["judge"]
    ],
    "consistent": lambda given: [
        is_consistent(parse(pair.split()[0]), parse(pair.split()[1]))
        for pair in given["consistent"]
    ],
    "network": lambda given: [network_of(parse(text)) for text in given["network"]],
}
