"""A CONNECT in the handshake of the relayed connection: read what was said, and what was heard.

Rules: specs/dcutr.md (D30, D31).
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pnet.errors import ProtocolError
from p2pnet.interfaces import Connection
from p2pnet.protocols.dcutr.dialogue import MAX_AGE, MAX_SWIFT_ROUND_TRIP, Ahead
from p2pnet.protocols.dcutr.messages import Connect, decode_untrusted


def heard_ahead(relayed: Connection) -> Ahead | None:
    """Return what the peer offered in the handshake, if there is something to be made of it."""
    words = relayed.forewords
    if words is None or words.round_trip > MAX_SWIFT_ROUND_TRIP:
        return None
    return read(words.heard, words.round_trip)


def said_ahead(relayed: Connection) -> Ahead | None:
    """Return what this host offered; the peer plays by that, whatever has changed since."""
    words = relayed.forewords
    if words is None:
        return None
    return read(words.said, min(words.round_trip, MAX_SWIFT_ROUND_TRIP))


def is_fresh(relayed: Connection, now: float) -> bool:
    """Tell if a conversation there may do without SYNC (D26)."""
    return now - relayed.opened_at <= MAX_AGE


def has_just_said_ahead(connections: Iterable[Connection], now: float) -> bool:
    """Tell if this host has called over one of them, and the peer can answer what it offered."""
    return any(
        each.is_relayed and not each.is_inbound and is_fresh(each, now) and said_ahead(each)
        for each in connections
    )


def read(word: bytes, round_trip: float) -> Ahead | None:
    """Read a foreword. One that is no CONNECT, or not of who does without SYNC, is none."""
    if not word:
        return None
    try:
        message = decode_untrusted(word)
    except ProtocolError:
        return None
    if not isinstance(message, Connect) or message.swift is None:
        return None
    return Ahead(message.addresses, message.swift, round_trip)
