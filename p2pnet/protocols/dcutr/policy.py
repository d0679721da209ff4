"""Whom to dial, in which role, how often, and when to leave a peer alone. Rules: specs/dcutr.md."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from p2pnet.core.addresses import (
    Multiaddr,
    Place,
    Scope,
    components,
    ip_of,
    peer_id_of,
    place_of,
    scope,
    without_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Role

PUNCHED = (["tcp"], ["udp", "quic-v1"])
MAX_TARGETS = 8
MAX_TARGET_IPS = 4
MAX_NEIGHBOURS = 4
"""Private addresses that are offered, and dialled."""
NEAR_BITS = {4: 16, 6: 64}
"""Of a private address; what begins with others is not in our network."""
SWAPPED_ATTEMPT = 3
BIRTHDAY_ATTEMPT = 2
"""In the first, the filter of the easy side may turn out to let any port in."""
MAX_PAUSE = 5.0
SHORTEST_PAUSE = 0.004
PAUSE_GROWTH = 1.1
SHORTEST_PATIENCE = 0.05
LONGEST_PATIENCE = 1.0
ASSUMED_ROUND_TRIP = 2.0
"""Seconds; what the responder takes it for until SYNC tells: as long as it can well be."""
THIRD_SYN = 3.5
"""Seconds, with some to spare: SYNs leave after 0, 1 and 3 s, and no more before 7."""
CONVERSATION_GAP = 45.0
"""Seconds: a conversation that begins so long after the one before is a first attempt again."""
MAX_DESERTED = 3
"""As many as there are attempts: who calls, hangs up and calls again has had as many dials."""
REST_SPREAD = 0.8, 1.2
"""How much of a rest there is; the first is longer than that gap all the same."""


def targets(
    offered: Iterable[Multiaddr],
    *,
    peer_id: PeerId,
    own: Iterable[Multiaddr],
    allow_private: bool,
) -> tuple[Multiaddr, ...]:
    """Choose from the addresses that a remote offers whom to dial, without ``/p2p`` (D6, D7).

    Nobody may aim this host at others: public addresses only, no names to look up, and few
    addresses at few IPs. And only TCP and QUIC: nothing else is punched.
    """
    allowed = {Scope.PUBLIC}
    if allow_private:
        allowed |= {Scope.PRIVATE, Scope.LOOPBACK}
    not_these = {place_of(address) for address in own}
    chosen: dict[Multiaddr, None] = {}
    ips: set[str] = set()
    for address in offered:
        place = punchable(address)
        if place is None or place.endpoint.port == 0 or place in not_these:
            continue
        if peer_id_of(address) not in (None, peer_id) or scope(address) not in allowed:
            continue
        host = place.endpoint.host
        if host not in ips and len(ips) == MAX_TARGET_IPS:
            continue
        ips.add(host)
        chosen[without_peer(address)] = None
    return tuple(chosen)[:MAX_TARGETS]


Way = tuple[str, bool]
"""``tcp`` or ``udp``, and whether by IPv6: two hosts that have none in common cannot punch."""


def ways(addresses: Iterable[Multiaddr]) -> frozenset[Way]:
    """Return how a host can be dialled at its addresses (D8)."""
    places = (punchable(address) for address in addresses)
    return frozenset((p.protocol, p.endpoint.is_ipv6) for p in places if p is not None)


def share_outside(offered: Iterable[Multiaddr], own: Iterable[Multiaddr]) -> bool:
    """Tell if two hosts are seen at the same public IPv4 address: perhaps behind one NAT (D19)."""
    return not outside_hosts(offered).isdisjoint(outside_hosts(own))


def says_it_all(ahead: Sequence[Multiaddr], own: Sequence[Multiaddr]) -> bool:
    """Tell if what a peer offered ahead is all that it has for us (D31).

    If nothing suits, it may have something that does, once it is asked; and so it may where both
    are perhaps behind one NAT, as ahead it has offered no private address.
    """
    return bool(ways(ahead) & ways(own)) and not share_outside(ahead, own)


def outside_hosts(addresses: Iterable[Multiaddr]) -> set[str]:
    places = (place_of(each) for each in addresses if scope(each) is Scope.PUBLIC)
    return {p.endpoint.host for p in places if p is not None and not p.endpoint.is_ipv6}


def private(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return those that lead into a private network, without ``/p2p`` (D19)."""
    found = (without_peer(each) for each in addresses if punchable(each) is not None)
    return tuple(dict.fromkeys(each for each in found if scope(each) is Scope.PRIVATE))


def neighbours(
    offered: Sequence[Multiaddr],
    *,
    peer_id: PeerId,
    own: Sequence[Multiaddr],
    relays: Iterable[tuple[Multiaddr, Multiaddr]] = (),
) -> tuple[Multiaddr, ...]:
    """Choose whom to dial in our private network, if the peer may be there (D20).

    ``relays`` has both ends, ours first, of our connections to the relays over which we met.
    """
    if share_outside(offered, own):
        near = {network_of(address) for address in private(own)}
    else:
        near = {network_of(here) for here, there in relays if are_near(here, there)}
    not_these = {place_of(address) for address in own}
    named = (each for each in offered if peer_id_of(each) in (None, peer_id))
    found = (
        each
        for each in private(named)
        if network_of(each) in near and place_of(each) not in not_these and has_port(each)
    )
    return tuple(found)[:MAX_NEIGHBOURS]


def are_near(here: Multiaddr, there: Multiaddr) -> bool:
    """Tell if both are private addresses of what is one network, as far as can be told (D20)."""
    is_private = scope(here) is Scope.PRIVATE and scope(there) is Scope.PRIVATE
    return is_private and network_of(here) == network_of(there)


def network_of(address: Multiaddr) -> IPv4Network | IPv6Network | None:
    ip = ip_of(address)
    return None if ip is None else ip_network((ip, NEAR_BITS[ip.version]), strict=False)


def has_port(address: Multiaddr) -> bool:
    place = place_of(address)
    return place is not None and place.endpoint.port != 0


def punchable(address: Multiaddr) -> Place | None:
    """Return where an address of TCP or QUIC leads; None for whatever has other layers."""
    above_ip = [name for name, _ in components(address)[1:] if name != "p2p"]
    return place_of(address) if above_ip in PUNCHED else None


def role_of(
    attempt: int, *, initiator: bool, turned: bool = False, dials: bool | None = None
) -> Role:
    """Tell who plays the dialer on the punched connection: the responder (D9).

    From the third attempt on it is the initiator, as in go-libp2p since 0.41; and the
    responder goes along with that, since two dialers cannot agree on anything. ``turned`` is
    what both know to be better the other way round (D28). If the initiator has said whether it
    ``dials``, that counts and nothing else.
    """
    swapped = (attempt >= SWAPPED_ATTEMPT) != turned if dials is None else dials
    return Role.LISTENER if initiator != swapped else Role.DIALER


def dials_in(attempt: int) -> bool:
    """Tell if the initiator plays the dialer, where the roles change with each attempt (D9)."""
    return attempt % 2 == 0


def is_astray(attempt: int, *, initiator: bool) -> bool:
    """Tell if predicted ports are offered in another order than the NAT's (D17).

    By one side alone: only the difference of both orders finds what both forecasts are off by.
    """
    return not initiator and attempt % 2 == 0


def first_attempt(round_trip: float, whole: float) -> float:
    """Return how long to punch, in seconds, if the next attempt can go by more ways (D10)."""
    return min(THIRD_SYN + 3 * round_trip, whole)


def longest_pause(round_trip: float, shortest: float) -> float:
    """Bound the random pause before a refused dial is repeated: a round trip (D10)."""
    return min(max(round_trip, shortest), MAX_PAUSE)


def redial_pause(number: int, took: float, longest: float) -> float:
    """Bound the random pause before a dial is repeated that was refused after ``took`` seconds.

    A SYN gets through only while the other side's is on its way: the pauses have to suit the
    direct way, which may be far shorter than that over the relay, as who refused has shown
    (D10). They grow, so that all of them together last until a late peer begins.
    """
    return min(max(2 * took, SHORTEST_PAUSE) * PAUSE_GROWTH**number, longest)


def patience(round_trip: float) -> float:
    """Tell how many seconds the peer's end may take to show that it is a dialer (D15).

    A dialer's first word comes right behind its ACK, so this is for jitter only, and for a slow
    machine; and the round trip is what the peer makes us believe.
    """
    return min(max(round_trip / 4, SHORTEST_PATIENCE), LONGEST_PATIENCE)


def gives_way(own_id: PeerId, peer_id: PeerId) -> bool:
    """Tell if this host stops initiating when the peer initiates, too (D13)."""
    return own_id.to_bytes() > peer_id.to_bytes()


@dataclass(slots=True)
class Conversations:
    """The conversations that one peer began on one relayed connection: which attempt is it?"""

    attempt: int = 0
    began_at: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def begin(self, now: float) -> int:
        """Number a conversation as the initiator does, who does not say the number (D9)."""
        if now - self.began_at > CONVERSATION_GAP:
            self.forget()
        self.attempt += 1
        self.began_at = now
        return self.attempt

    def forget(self) -> None:
        """Begin to count anew: they were in vain for too long, or one was not."""
        self.attempt, self.reasons = 0, []


@dataclass(frozen=True, slots=True)
class Rest:
    failures: int
    until: float
    deserted: int = 0
    """Procedures since the last failure that ended with the relayed connection."""


class CoolDown:
    """Leaves a peer alone after all attempts failed, each time for longer (D12)."""

    def __init__(self, *, first: float, longest: float, max_peers: int) -> None:
        self._first = first
        self._longest = longest
        self._max_peers = max_peers
        self._resting: OrderedDict[PeerId, Rest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._resting)

    def failed(
        self, peer_id: PeerId, now: float, drawn: float, *, is_deserted: bool = False
    ) -> None:
        """Let the peer rest for ``drawn`` times its due: those who failed together part.

        Only the last of ``MAX_DESERTED`` procedures that ended with the relayed connection is a
        failure.
        """
        rest = self._of(peer_id)
        if is_deserted and rest.deserted + 1 < MAX_DESERTED:
            self._put(peer_id, replace(rest, deserted=rest.deserted + 1))
            return
        failures = rest.failures
        # 2**32 seconds are longer than any bound, and the power stays a sane number.
        seconds = min(self._first * 2 ** min(failures, 32), self._longest)
        self._put(peer_id, Rest(failures + 1, now + seconds * drawn))

    def yielded(self, peer_id: PeerId, now: float) -> None:
        """Let the peer try first; that is no failure."""
        rest = self._of(peer_id)
        self._put(peer_id, replace(rest, until=max(rest.until, now + self._first)))

    def _of(self, peer_id: PeerId) -> Rest:
        return self._resting.get(peer_id, Rest(0, 0.0))

    def _put(self, peer_id: PeerId, rest: Rest) -> None:
        self._resting[peer_id] = rest
        self._resting.move_to_end(peer_id)
        if len(self._resting) > self._max_peers:
            self._resting.popitem(last=False)

    def worked(self, peer_id: PeerId) -> None:
        self._resting.pop(peer_id, None)

    def shorten(self, peer_id: PeerId, now: float) -> None:
        """Let a rest last no longer than a first one would from now on."""
        rest = self._of(peer_id)
        if rest.until > now + self._first:
            self._put(peer_id, replace(rest, until=now + self._first))

    def forget(self) -> None:
        """Begin anew with everybody: what failed, failed from another network."""
        self._resting.clear()

    def remaining(self, peer_id: PeerId, now: float) -> float:
        """Return the seconds to wait before the next attempt; 0 if there is no need to."""
        return max(0.0, self._of(peer_id).until - now)


def offered(candidates: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return what to offer to others: without ``/p2p``, as go-libp2p does it."""
    return tuple(dict.fromkeys(without_peer(address) for address in candidates))
