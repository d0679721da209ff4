"""What a peer tells of itself, in bytes and as a value. Rules: specs/identify.md.

What is told may come in several messages, which are merged before anything is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from p2pnet.core.framing import encode_frame
from p2pnet.errors import ProtocolError
from p2pnet.pb import identify_pb2 as pb

IDENTIFY = "/ipfs/id/1.0.0"
PUSH = "/ipfs/id/push/1.0.0"

MAX_MESSAGE_BYTES = 8192
MAX_MESSAGES = 10
MAX_PROTOCOLS = 1024
MAX_PROTOCOL_BYTES = 256
MAX_ADDRESSES = 500
MAX_VERSION_CHARACTERS = 128
MAX_FIRST_BYTES = 4096
"""rust-libp2p reads one message, and none larger than this."""
MAX_SINGLE_BYTES = 2048
"""Above this, the signed record travels in a message of its own, as from go-libp2p."""


@dataclass(frozen=True, slots=True)
class IdentifyMessage:
    """All that one side tells; None or nothing means: not told."""

    public_key: bytes | None = None
    addresses: tuple[bytes, ...] = ()
    protocols: tuple[str, ...] = ()
    observed_address: bytes | None = None
    protocol_version: str | None = None
    agent_version: str | None = None
    signed_record: bytes | None = None


def encode(message: IdentifyMessage) -> bytes:
    encoded = pb.Identify(
        public_key=message.public_key,
        listen_addrs=message.addresses,
        protocols=message.protocols,
        observed_addr=message.observed_address,
        protocol_version=message.protocol_version,
        agent_version=message.agent_version,
        signed_peer_record=message.signed_record,
    )
    return encoded.SerializeToString(deterministic=True)


def decode_untrusted(messages: Sequence[bytes]) -> IdentifyMessage:
    """Merge messages into one value: of a repeated field all count, of others the last (I3).

    Raises:
        ProtocolError: if there is none, one too many, or one too large or malformed.
    """
    if not 0 < len(messages) <= MAX_MESSAGES:  # I2
        raise ProtocolError(IDENTIFY, f"{len(messages)} messages")
    merged = pb.Identify()
    for data in messages:
        if len(data) > MAX_MESSAGE_BYTES:  # I2
            raise ProtocolError(IDENTIFY, f"message of {len(data)} bytes")
        try:
            merged.MergeFromString(data)
        except DecodeError:
            raise ProtocolError(IDENTIFY, "malformed message") from None
    return IdentifyMessage(
        public_key=merged.public_key if merged.HasField("public_key") else None,
        addresses=tuple(merged.listen_addrs[:MAX_ADDRESSES]),  # I5
        protocols=sound_protocols(merged.protocols),
        observed_address=merged.observed_addr if merged.HasField("observed_addr") else None,
        protocol_version=(
            clean(merged.protocol_version) if merged.HasField("protocol_version") else None
        ),
        agent_version=clean(merged.agent_version) if merged.HasField("agent_version") else None,
        signed_record=merged.signed_peer_record if merged.HasField("signed_peer_record") else None,
    )


def sound_protocols(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that can be names of protocols, each once (I5)."""
    sound = dict.fromkeys(
        name
        for name in names
        if name.startswith("/") and name.isprintable() and len(name.encode()) <= MAX_PROTOCOL_BYTES
    )
    return tuple(sound)[:MAX_PROTOCOLS]


def clean(text: str) -> str:
    """Take control characters out, and cut to a length that fits a line (I5)."""
    short = text[:MAX_VERSION_CHARACTERS]
    return short if short.isprintable() else "".join(filter(str.isprintable, short))


def split(message: IdentifyMessage) -> tuple[bytes, ...]:
    """Encode in as few messages as others can read (I6).

    A reader of one message gets all but the signed record, and as many protocols as fit; the
    readers of several get everything, up to what ten messages hold.
    """
    whole = encode(message)
    if len(whole) <= MAX_SINGLE_BYTES:
        return (whole,)
    head = replace(message, signed_record=None, protocols=())
    first, rest = fill(head, sound_protocols(message.protocols))
    parts = [first]
    while rest and len(parts) < MAX_MESSAGES - 1:
        part, rest = fill(IdentifyMessage(), rest)
        parts.append(part)
    if message.signed_record is not None:
        parts.append(encode(IdentifyMessage(signed_record=message.signed_record)))
    return tuple(parts)


def fill(message: IdentifyMessage, protocols: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Put protocols into a message while it stays readable for all; return what is left over."""
    room = MAX_FIRST_BYTES - len(encode(message))
    taken = 0
    for name in protocols:
        room -= len(name.encode()) + 3  # its tag, and a length of at most two bytes
        if room < 0:
            break
        taken += 1
    return encode(replace(message, protocols=tuple(protocols[:taken]))), tuple(protocols[taken:])


def frames(message: IdentifyMessage) -> bytes:
    """Return all that goes on the wire for a message."""
    return b"".join(encode_frame(part) for part in split(message))
