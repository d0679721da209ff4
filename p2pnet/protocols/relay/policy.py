"""What a relay grants, and what its client makes of that. Rules: specs/relay.md.

``now`` is any clock that only goes forward; ``wall`` is Unix time. Both in seconds.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    circuit_address,
    components,
    encode,
    ip_of,
    is_relayed,
    peer_id_of,
    scope,
    unwrapped,
    with_peer,
    without_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ClocksDiffer
from p2pnet.interfaces import CircuitLimit
from p2pnet.protocols.relay.dialogue import Refusal
from p2pnet.protocols.relay.messages import HOP, Limit, Reservation, Status

MAX_SKEW_SECONDS = 300.0
SKEWED_SECONDS = 60.0
"""What a reservation counts for whose end lies in the past, but within the skew."""
MIN_RESERVATION_SECONDS = 10.0
MAX_RESERVATION_SECONDS = 86_400.0
MAX_LIMIT_SECONDS = 86_400
"""More than this is taken for milliseconds, which js-libp2p writes."""
MAX_LIMIT_BYTES = 2**50
MAX_DURATION = 2**32 - 1
MAX_DATA = 2**64 - 1
MAX_OFFERED_ADDRESSES = 16
MAX_OFFERED_BYTES = 1536
"""A reservation has to fit into one message, beside a voucher signed with a large RSA key."""
IPV6_PREFIX = 56


# ---- the relay ---------------------------------------------------------------------------


def prefix_of(address: Multiaddr) -> str | None:
    """Return the network whose reservations count together: an IPv4 address, an IPv6 /56 (R15).

    None if the address does not begin with an IP.
    """
    ip = ip_of(address)
    if ip is None:
        return None
    ip = unwrapped(ip)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


@dataclass(frozen=True, slots=True)
class Entry:
    """One reservation held here."""

    prefix: str
    expires_at: float


class Reservations:
    """Who may be called through this relay, and until when (R14 to R16)."""

    def __init__(self, *, max_total: int, max_per_prefix: int, seconds: float) -> None:
        self._max_total = max_total
        self._max_per_prefix = max_per_prefix
        self._seconds = seconds
        self._entries: OrderedDict[PeerId, Entry] = OrderedDict()
        """In the order in which they end: all last equally long, and a renewal goes last."""
        self._per_prefix: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def peers(self) -> tuple[PeerId, ...]:
        return tuple(self._entries)

    def holds(self, peer_id: PeerId, now: float) -> bool:
        entry = self._entries.get(peer_id)
        return entry is not None and now < entry.expires_at

    def reserve(self, peer_id: PeerId, prefix: str | None, now: float) -> Refusal | None:
        """Give a peer a reservation, or a longer one; or say why not.

        A renewal takes the place of the old one, so it finds room in a full relay (R14). If
        it is refused, the old one stays until it expires.
        """
        refusal = self._check_room(peer_id, prefix)
        if refusal is None and prefix is not None:
            self.drop(peer_id)
            self._entries[peer_id] = Entry(prefix, now + self._seconds)
            self._per_prefix[prefix] += 1
        return refusal

    def _check_room(self, peer_id: PeerId, prefix: str | None) -> Refusal | None:
        if prefix is None:
            return Refusal(Status.RESERVATION_REFUSED, "no IP address to count it under")
        own = self._entries.get(peer_id)
        if own is None and len(self._entries) >= self._max_total:
            return exceeded("max_reservations", self._max_total, Status.RESERVATION_REFUSED)
        beside = self._per_prefix[prefix] - (own is not None and own.prefix == prefix)
        if beside >= self._max_per_prefix:
            return exceeded(
                "max_reservations_per_prefix", self._max_per_prefix, Status.RESERVATION_REFUSED
            )
        return None

    def drop(self, peer_id: PeerId) -> bool:
        """End a reservation; False if there was none."""
        entry = self._entries.pop(peer_id, None)
        if entry is None:
            return False
        self._per_prefix[entry.prefix] -= 1
        if not self._per_prefix[entry.prefix]:
            del self._per_prefix[entry.prefix]
        return True

    def drop_expired(self, now: float) -> tuple[PeerId, ...]:
        """End what has run out; return whose it was."""
        expired: list[PeerId] = []
        while self.next_expiry() <= now:
            peer_id = next(iter(self._entries))
            self.drop(peer_id)
            expired.append(peer_id)
        return tuple(expired)

    def next_expiry(self) -> float:
        """Return when the next one runs out; infinity if there is none."""
        first = next(iter(self._entries.values()), None)
        return math.inf if first is None else first.expires_at


@dataclass(frozen=True, slots=True)
class Call:
    """A circuit, as it is counted."""

    source: PeerId
    target: PeerId
    prefixes: frozenset[str] = frozenset()
    """Where its ends are (R30)."""


class Circuits:
    """How many circuits there are: counted from the request on, for both ends (R18)."""

    def __init__(
        self, *, max_total: int, max_per_peer: int, max_per_prefix: int = MAX_DURATION
    ) -> None:
        self._max_total = max_total
        self._max_per_peer = max_per_peer
        self._max_per_prefix = max_per_prefix
        self._total = 0
        self._per_peer: Counter[PeerId] = Counter()
        self._per_prefix: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._total

    def open(self, call: Call) -> Refusal | None:
        """Count a new circuit, or say why there is no room for it."""
        if self._total >= self._max_total:
            return exceeded("max_circuits", self._max_total)
        peers = (call.source, call.target)
        if any(self._per_peer[peer_id] >= self._max_per_peer for peer_id in peers):
            return exceeded("max_circuits_per_peer", self._max_per_peer)
        if any(self._per_prefix[prefix] >= self._max_per_prefix for prefix in call.prefixes):
            return exceeded("max_circuits_per_prefix", self._max_per_prefix)
        self._total += 1
        self._per_peer.update(peers)
        self._per_prefix.update(call.prefixes)
        return None

    def close(self, call: Call) -> tuple[PeerId, ...]:
        """Count one less; return those of its ends that have no other circuit."""
        self._total -= 1
        peers = (call.source, call.target)
        self._per_peer.subtract(peers)
        alone = tuple(peer_id for peer_id in peers if self._per_peer[peer_id] <= 0)
        for peer_id in alone:
            del self._per_peer[peer_id]
        for prefix in call.prefixes:
            self._per_prefix[prefix] -= 1
            if self._per_prefix[prefix] <= 0:
                del self._per_prefix[prefix]
        return alone


def exceeded(
    limit: str, maximum: float, status: Status = Status.RESOURCE_LIMIT_EXCEEDED
) -> Refusal:
    """Refuse for the sake of a limit, and name it (R33)."""
    return Refusal(status, f"{limit} = {maximum:.15g} reached", limit)


class Pending:
    """How many requests each peer has under way (R24)."""

    def __init__(self, max_per_peer: int) -> None:
        self._max_per_peer = max_per_peer
        self._per_peer: Counter[PeerId] = Counter()

    def begin(self, peer_id: PeerId) -> bool:
        """Count one more; False if that is too many."""
        if self._per_peer[peer_id] >= self._max_per_peer:
            return False
        self._per_peer[peer_id] += 1
        return True

    def end(self, peer_id: PeerId) -> None:
        self._per_peer[peer_id] -= 1
        if not self._per_peer[peer_id]:
            del self._per_peer[peer_id]


def offered_addresses(
    advertised: Sequence[Multiaddr], reached_at: Multiaddr, relay: PeerId
) -> tuple[Multiaddr, ...]:
    """Choose the addresses of a relay that go into a reservation, each with ``/p2p`` (R17).

    Public ones, else whatever it advertises, else where this very peer reached it: rust-libp2p
    takes a reservation without addresses for an error.
    """
    direct = [address for address in advertised if not is_relayed(address)]
    public = [address for address in direct if scope(address) is Scope.PUBLIC]
    chosen: list[Multiaddr] = []
    room = MAX_OFFERED_BYTES
    for address in public or direct or [reached_at]:
        full = with_peer(address, relay)
        room -= len(encode(full))
        if room < 0 or len(chosen) == MAX_OFFERED_ADDRESSES:
            break
        chosen.append(full)
    return tuple(chosen)


def limit_on_wire(limit: CircuitLimit) -> Limit | None:
    """Write a limit as the messages do; None if there is none (R6)."""
    if not limit.seconds and not limit.data_bytes:
        return None
    return Limit(math.ceil(limit.seconds or 0), limit.data_bytes or 0)


# ---- its client --------------------------------------------------------------------------


def circuit_limit(limit: Limit | None) -> CircuitLimit | None:
    """Read the limit of a relay; None if there is none, or none that means anything (R6)."""
    if limit is None:
        return None
    seconds = limit.duration / 1000 if limit.duration > MAX_LIMIT_SECONDS else limit.duration
    data_bytes = limit.data if limit.data <= MAX_LIMIT_BYTES else 0
    if not seconds and not data_bytes:
        return None
    return CircuitLimit(seconds=float(seconds) or None, data_bytes=data_bytes or None)


def lifetime(expire: int, wall: float) -> float:
    """Return for how many seconds a reservation is good, by our clock (R8).

    Raises:
        ProtocolError: if it expired longer ago than two clocks may differ.
    """
    seconds = expire - wall
    if seconds < -MAX_SKEW_SECONDS:
        ago = min(-seconds, MAX_RESERVATION_SECONDS)
        raise ClocksDiffer(HOP, f"reservation that expired {ago:.0f} s ago: is a clock wrong?")
    if seconds <= 0:
        return SKEWED_SECONDS
    return min(max(seconds, MIN_RESERVATION_SECONDS), MAX_RESERVATION_SECONDS)


def circuit_addresses(
    reservation: Reservation, relay: PeerId, reached_at: Sequence[Multiaddr], *, maximum: int
) -> tuple[Multiaddr, ...]:
    """Choose where this host can be called through a relay, each ending in ``/p2p-circuit``.

    The public ones of those the relay gave; if there is none, then where we reached it (R10).
    """
    given = [
        without_peer(address)
        for address in reservation.addresses
        if is_place_of(address, relay) and scope(address) is Scope.PUBLIC
    ]
    chosen = list(dict.fromkeys(given)) or list(reached_at)
    return tuple(circuit_address(with_peer(address, relay)) for address in chosen[:maximum])


def is_place_of(address: Multiaddr, relay: PeerId) -> bool:
    """Tell whether a direct address says where the relay is, and names no other peer."""
    names = [name for name, _ in components(address)]
    if "p2p-circuit" in names or "p2p" in names[:-1] or names == ["p2p"]:
        return False
    return peer_id_of(address) in (None, relay)


def backoff(failures: int, *, first: float, most: float) -> float:
    """Return how long to wait after so many failures in a row (R11)."""
    return 0.0 if failures < 1 else min(most, first * 2.0 ** min(failures - 1, 64))
