"""Identify: the message, how several become one, and what is believed of it."""

from __future__ import annotations

from p2pnet.core.addresses import Scope, decode_many_untrusted, encode, parse, scope
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.identify.messages import IdentifyMessage, decode_untrusted, split
from p2pnet.protocols.identify.messages import encode as encode_message
from p2pnet.protocols.identify.policy import (
    is_evidence,
    next_sequence,
    own_addresses,
    sensible_addresses,
)
from tests.specs.forms import Codec, Fields

CODECS = {"Identify": Codec(decode=lambda data: decode_untrusted([data]), encode=encode_message)}


def merge(given: Fields) -> IdentifyMessage:
    """Read several messages, given in hex."""
    return decode_untrusted([bytes.fromhex(part) for part in given["merge"]])


def divide(given: Fields) -> list[str]:
    """Split a message whose parts have these sizes; say what each part holds."""
    sizes = given["split"]
    message = IdentifyMessage(
        public_key=bytes(36),
        addresses=(bytes(sizes["addresses"]),),
        protocols=tuple(f"/{number:0>{sizes['name'] - 1}}" for number in range(sizes["protocols"])),
        signed_record=bytes(sizes["record"]),
    )
    return [describe(decode_untrusted([part])) for part in split(message)]


def describe(part: IdentifyMessage) -> str:
    words = ["key"] * bool(part.public_key) + ["addresses"] * bool(part.addresses)
    words += [f"{len(part.protocols)} protocols"] * bool(part.protocols)
    return ", ".join(words + ["record"] * bool(part.signed_record))


def sensible(given: Fields) -> tuple[object, ...]:
    """Say which addresses of a peer are kept."""
    return sensible_addresses(
        [encode(parse(text)) for text in given["sensible"]],
        peer_id=PeerId.parse(given["peer"]),
        own_id=PeerId.parse(given["own"]),
        seen_from=scope(parse(given["seen_from"])),
        maximum=100,
    )


def evidence(given: Fields) -> bool:
    return is_evidence(
        parse(given["evidence"]),
        local=parse(given["local"]),
        remote=parse(given["remote"]),
        listening={
            (kind, int(port))
            for kind, _, port in (text.partition("/") for text in given["listening"])
        },
    )


def told(given: Fields) -> tuple[object, ...]:
    """Say which of our addresses are told, in which order."""
    own = PeerId.parse(given["own"])
    advertised = [parse(text) for text in given["told"]]
    return decode_many_untrusted(
        own_addresses(
            advertised, own_id=own, told_to=Scope(given["to"]), max_bytes=given["max_bytes"]
        )
    )


FORMS = {
    "merge": merge,
    "split": divide,
    "sensible": sensible,
    "evidence": evidence,
    "told": told,
    "sequence": lambda given: next_sequence(given["sequence"], given["last"]),
}
