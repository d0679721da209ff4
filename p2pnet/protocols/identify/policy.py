"""What to believe of what peers tell, and what of our own to tell. Rules: specs/identify.md."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    circuit_of,
    components,
    decode_many_untrusted,
    decode_untrusted,
    encode,
    ip_of,
    is_relayed,
    peer_id_of,
    place_of,
    scope,
    unwrapped,
    without_peer,
)
from p2pnet.core.envelope import claimed_peer_record_untrusted, open_peer_record_untrusted
from p2pnet.core.keys import PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.events import PeerIdentified
from p2pnet.protocols.identify.messages import IDENTIFY, IdentifyMessage

ALLOWED_FROM: dict[Scope, frozenset[Scope]] = {
    Scope.LOOPBACK: frozenset({Scope.LOOPBACK, Scope.PRIVATE, Scope.PUBLIC}),
    Scope.PRIVATE: frozenset({Scope.PRIVATE, Scope.PUBLIC}),
    Scope.PUBLIC: frozenset({Scope.PUBLIC}),
    Scope.UNROUTABLE: frozenset({Scope.PUBLIC}),
}
"""By where a peer connects from (a relayed one, its relay): which of its addresses can make
sense (I9)."""


# ---- what peers tell ---------------------------------------------------------------------


def check_key(message: IdentifyMessage, peer_id: PeerId) -> None:
    """Refuse a message that names another key than the connection was secured with (I4).

    Raises:
        ProtocolError: if it does, or if the key is malformed.
    """
    if message.public_key is None:
        return
    if not peer_id.matches(PublicKey.decode_untrusted(message.public_key)):
        raise ProtocolError(IDENTIFY, f"the public key told is not that of {peer_id}")


def told_addresses(
    message: IdentifyMessage, peer_id: PeerId, accept_sequence: Callable[[PeerId, int], bool]
) -> tuple[bytes, ...]:
    """Choose between the addresses of the signed record and the plain ones (I7).

    The plain ones are as good: whoever sent them has proved who it is. But a record that a
    peer sends of somebody else speaks against all that it says of addresses.
    """
    if message.signed_record is None:
        return message.addresses
    try:
        claimed = claimed_peer_record_untrusted(message.signed_record)
        if (claimed.peer_id, claimed.addresses) == (peer_id, message.addresses):
            return message.addresses  # I7: nothing depends on the signature, which costs most.
        record = open_peer_record_untrusted(message.signed_record)
    except ProtocolError:
        return message.addresses
    if record.peer_id != peer_id:
        return ()
    if not accept_sequence(peer_id, record.sequence):
        return message.addresses
    return record.addresses


def sensible_addresses(
    told: Iterable[bytes], *, peer_id: PeerId, own_id: PeerId, seen_from: Scope, maximum: int
) -> tuple[Multiaddr, ...]:
    """Return those addresses of a peer that can be of use, without ``/p2p`` (I8, I9)."""
    allowed = ALLOWED_FROM[seen_from]
    sensible = []
    for address in decode_many_untrusted(told):
        place = leading_to(address, peer_id, own_id)
        if place is None or not is_allowed(place, allowed):
            continue
        sensible.append(place)
    return tuple(dict.fromkeys(sensible))[:maximum]


def leading_to(address: Multiaddr, peer_id: PeerId, own_id: PeerId) -> Multiaddr | None:
    """Take the peer's own ``/p2p`` off; None if the address leads to somebody else (I8)."""
    if is_relayed(address):
        try:
            circuit = circuit_of(address)
        except ValueError:
            return None
        if circuit.target not in (None, peer_id) or circuit.relay in (peer_id, own_id):
            return None
        return without_peer(address) if circuit.target else address
    if any(name == "p2p" for name, _ in components(address)[:-1]):
        return None
    if peer_id_of(address) not in (None, peer_id):
        return None
    place = without_peer(address)
    return None if peer_id_of(place) is not None else place


def is_allowed(place: Multiaddr, allowed: Collection[Scope]) -> bool:
    direct = place_of(place)
    if direct is not None and direct.endpoint.port == 0:
        return False
    # A relay may be given by its name alone; where it is, is known elsewhere.
    return scope(place) in allowed or components(place)[0][0] == "p2p"


def merged(told: PeerIdentified, before: PeerIdentified | None) -> PeerIdentified:
    """Fill the gaps of a push with what the peer said before (I15)."""
    if before is None or not told.pushed:
        return told
    return replace(
        told,
        agent_version=told.agent_version or before.agent_version,
        protocol_version=told.protocol_version or before.protocol_version,
        protocols=told.protocols or before.protocols,
        addresses=told.addresses or before.addresses,
    )


# ---- where peers see us ------------------------------------------------------------------


def read_observed(message: IdentifyMessage, own_id: PeerId) -> Multiaddr | None:
    """Return where a peer sees this host, without ``/p2p``; None if that makes no sense (I10)."""
    if message.observed_address is None:
        return None
    try:
        observed = decode_untrusted(message.observed_address)
    except ProtocolError:
        return None
    if is_relayed(observed) or peer_id_of(observed) not in (None, own_id):
        return None
    return without_peer(observed)


def is_evidence(
    observed: Multiaddr,
    *,
    local: Multiaddr,
    remote: Multiaddr,
    listening: Collection[tuple[str, int]],
) -> bool:
    """Tell if others may reach this host where a peer sees it, at a direct connection (I11)."""
    seen, ours = place_of(observed), place_of(local)
    ip = ip_of(observed)
    if seen is None or ours is None or ip is None or seen.protocol != ours.protocol:
        return False
    if seen.endpoint.is_ipv6 != ours.endpoint.is_ipv6 or unwrapped(ip) != ip:
        return False
    # A connection that left from any port says only where that one port went.
    if seen.endpoint.port == 0 or (ours.protocol, ours.endpoint.port) not in listening:
        return False
    # Loopback is of no use to others; and who sees a public address from a private one, or the
    # reverse, is wrong or lies.
    return scope(observed) in (Scope.PRIVATE, Scope.PUBLIC) and scope(observed) is scope(remote)


def ports_of(advertised: Iterable[Multiaddr]) -> frozenset[tuple[str, int]]:
    """Return the TCP and UDP ports this host listens on, as its direct addresses say."""
    places = map(place_of, advertised)
    return frozenset((place.protocol, place.endpoint.port) for place in places if place)


# ---- what we tell ------------------------------------------------------------------------


def own_addresses(
    advertised: Sequence[Multiaddr], *, own_id: PeerId, told_to: Scope, max_bytes: int
) -> tuple[bytes, ...]:
    """Return the addresses to tell a peer, without ``/p2p``: the most useful, while they fit (I6).

    Only those that make sense where the peer is: nobody else learns what is in this network (I17).
    """
    places = dict.fromkeys(
        without_peer(address) if peer_id_of(address) == own_id else address
        for address in advertised
    )
    allowed = ALLOWED_FROM[told_to]
    told, size = [], 0
    for place in sorted(places, key=usefulness):
        if not is_allowed(place, allowed):
            continue
        data = encode(place)
        size += len(data) + 3
        if size > max_bytes:
            break
        told.append(data)
    return tuple(told)


def usefulness(place: Multiaddr) -> int:
    """Order addresses: public before relayed before private before loopback."""
    if scope(place) is Scope.PUBLIC and not is_relayed(place):
        return 0
    if is_relayed(place):
        return 1
    return 2 if scope(place) is Scope.PRIVATE else 3


def observed_by_us(remote: Multiaddr, peer_id: PeerId) -> bytes:
    """Return what to tell a peer of where we see it (I12)."""
    return encode(without_peer(remote) if peer_id_of(remote) == peer_id else remote)


def next_sequence(wall_clock: float, last: int) -> int:
    """Number a record: nanoseconds since the epoch, and always more than the last one (I6)."""
    return max(int(wall_clock * 1e9), last + 1)


# ---- how much to listen ------------------------------------------------------------------


@dataclass(slots=True)
class Bucket:
    tokens: float
    filled_at: float


class PushLimiter:
    """Lets each peer push so often: a burst, then one every ``interval`` seconds (I14).

    Remembers ``max_peers``; of the one heard of longest ago it forgets what it used up.
    """

    def __init__(self, *, burst: int, interval: float, max_peers: int) -> None:
        self._burst = burst
        self._interval = interval
        self._max_peers = max_peers
        self._buckets: OrderedDict[PeerId, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, peer_id: PeerId, now: float) -> bool:
        bucket = self._buckets.setdefault(peer_id, Bucket(self._burst, now))
        self._buckets.move_to_end(peer_id)
        if len(self._buckets) > self._max_peers:
            self._buckets.popitem(last=False)
        gained = (now - bucket.filled_at) / self._interval
        bucket.tokens = min(self._burst, bucket.tokens + gained)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
