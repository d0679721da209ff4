"""Names, proofs, and which connection is better. Pure. Rules: specs/resume.md.

::

    secret (128 random bits, told once in OPEN, over an authenticated and encrypted connection)
      |-- name  = HMAC(secret, "name")                          finds the stream
      '-- proof = HMAC(secret, word, number, opener, responder)  good for one MOVE or ASK

A MOVE whose answer was lost needs no care: the next one has the next number, so a proof is
never needed twice, and one that was used, or was overtaken, is worth nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Literal, Protocol

from p2pnet.core.addresses import Multiaddr, components, ip_of
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.resume.messages import TOKEN_BYTES

BOUND_TO_CONNECTION = ("/libp2p/", "/ipfs/", "/p2pnet/resume/")
"""Protocols about the connection they run on; those begin like this and are never moved."""

SEEK_SECONDS = 60.0
SOUGHT_AT_ONE_PLACE = 4
PREFIX_BITS = {4: 24, 6: 48}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What proves that a MOVE or an ASK is about one stream between these two peers."""

    secret: bytes = field(repr=False)
    opener: PeerId
    responder: PeerId

    @property
    def name(self) -> bytes:
        """What the stream is called among those of the two peers."""
        return self._derive(b"name")

    def proof(self, word: Literal["move", "ask"], number: int) -> bytes:
        ids = b"".join(
            len(raw).to_bytes(2, "big") + raw
            for raw in (self.opener.to_bytes(), self.responder.to_bytes())
        )
        return self._derive(word.encode() + number.to_bytes(8, "big") + ids)

    def is_proof(self, word: Literal["move", "ask"], number: int, proof: bytes) -> bool:
        return hmac.compare_digest(self.proof(word, number), proof)

    def _derive(self, what: bytes) -> bytes:
        return hmac.digest(self.secret, b"p2pnet/resume " + what, "sha256")[:TOKEN_BYTES]


def may_move(protocol_id: str) -> bool:
    """Tell if a protocol is not about the very connection it runs on."""
    return not protocol_id.startswith(BOUND_TO_CONNECTION)


class Standing(Protocol):
    """What of a connection decides."""

    @property
    def is_limited(self) -> bool: ...
    @property
    def is_relayed(self) -> bool: ...


def rank(connection: Standing) -> tuple[bool, bool]:
    """Say how good a connection is: without limit before limited, direct before relayed."""
    return not connection.is_limited, not connection.is_relayed


LEASH_PART = 8
"""The next circuit takes some four round trips: the share of this one lasts for twice as many."""
LEAST_LEASH = 16_384


def leash(left: float, streams: int) -> int:
    """Return how much of a stream may be on its way over a circuit that so many share (RS22).

    ``left`` is how many bytes it will carry still.
    """
    return max(LEAST_LEASH, int(left) // (LEASH_PART * streams))


class Sought:
    """Peers that this host dials as they do not come back, and has not found yet (RS13).

    Where they are dialled is their own word, and may be the place of somebody else.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sought: dict[PeerId, tuple[float, frozenset[str]]] = {}
        """Since when, and where."""

    def admit(self, peer_id: PeerId, places: Iterable[Multiaddr], now: float) -> bool:
        """Tell if a peer may be dialled: it counts for a minute, or until it is found."""
        self._sought = {p: each for p, each in self._sought.items() if now < each[0] + SEEK_SECONDS}
        if peer_id in self._sought:
            return True
        targets = frozenset(map(target_of, places))
        others = [there for _, there in self._sought.values() if there & targets]
        if len(self._sought) >= self._most or len(others) >= SOUGHT_AT_ONE_PLACE:
            return False
        self._sought[peer_id] = now, targets
        return True

    def found(self, peer_id: PeerId) -> None:
        self._sought.pop(peer_id, None)


def target_of(place: Multiaddr) -> str:
    """Return whom a dial would trouble: a network, or what has a name."""
    ip = ip_of(place)
    if ip is None:
        return components(place)[0][1]
    return str(ip_network((ip, PREFIX_BITS[ip.version]), strict=False))


def pause(stood: float, *, first: float, longest: float) -> float:
    """Return how many seconds to wait before another attempt, after a stream stood for so many.

    What is over meanwhile goes unnoticed for no more than a quarter of its own time.
    """
    return min(longest, max(first, stood / 4))
