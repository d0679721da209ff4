"""What happened with each peer, as far as it explains something: bounded. Pure.

Rules: specs/reachability.md (V23).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    HolePunched,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)

MAX_PEERS = 1024
MAX_ENTRIES = 32
MAX_FAILED_DIALS = 32

Noted = (
    ConnectionClosed
    | ConnectionOpened
    | DialFailed
    | HolePunched
    | PunchAttemptFailed
    | PunchGivenUp
    | PunchStarted
    | ReservationAccepted
    | ReservationFailed
    | ReservationLost
)
KINDS: tuple[type[Noted], ...] = (
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    HolePunched,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, and when it was."""

    time: float
    event: Noted

    def __str__(self) -> str:
        return f"{self.time:.3f} s: {words(self.event)}"


@dataclass(slots=True)
class Journal:
    """The newest events of the peers heard of last."""

    peers: OrderedDict[PeerId, deque[Entry]] = field(default_factory=OrderedDict)
    relay_failures: dict[PeerId, ReservationFailed] = field(default_factory=dict)
    reservations: dict[PeerId, ReservationAccepted] = field(default_factory=dict)
    failed_dials: deque[DialError] = field(default_factory=lambda: deque(maxlen=MAX_FAILED_DIALS))
    """Since the last connection was opened."""

    def note(self, event: Noted, now: float) -> None:
        """Take an event; the peer heard of longest ago gives way at the limit."""
        peer_id = peer_of(event)
        entries = self.peers.setdefault(peer_id, deque(maxlen=MAX_ENTRIES))
        self.peers.move_to_end(peer_id)
        entries.append(Entry(now, event))
        while len(self.peers) > MAX_PEERS:
            gone, _ = self.peers.popitem(last=False)
            self.relay_failures.pop(gone, None)
            self.reservations.pop(gone, None)
        match event:
            case ReservationFailed(relay):
                self.relay_failures[relay] = event
            case ReservationAccepted(relay):
                self.relay_failures.pop(relay, None)
                self.reservations[relay] = event
            case ReservationLost(relay):
                self.reservations.pop(relay, None)
            case DialFailed(error=error):
                self.failed_dials.append(error)
            case ConnectionOpened():
                self.failed_dials.clear()

    def entries(self, peer_id: PeerId) -> tuple[Entry, ...]:
        return tuple(self.peers.get(peer_id, ()))


def peer_of(event: Noted) -> PeerId:
    match event:
        case ConnectionOpened(ref) | ConnectionClosed(ref):
            return ref.peer_id
        case ReservationAccepted(relay) | ReservationFailed(relay) | ReservationLost(relay):
            return relay
        case (
            DialFailed(peer_id)
            | HolePunched(peer_id)
            | PunchAttemptFailed(peer_id)
            | PunchGivenUp(peer_id)
            | PunchStarted(peer_id)
        ):
            return peer_id


def words(event: Noted) -> str:
    """Say an event in words."""
    match event:
        case ConnectionOpened(ref):
            way = "in" if ref.is_inbound else "out"
            return f"connected ({way}{', relayed' if ref.is_relayed else ''}): {ref.remote_address}"
        case ConnectionClosed(ref, reason):
            return f"connection closed ({reason}): {ref.remote_address}"
        case DialFailed(error=error):
            return str(error)
        case PunchStarted(attempt=attempt, addresses=addresses):
            return f"hole punch {attempt} at {', '.join(map(str, addresses))}"
        case PunchAttemptFailed(attempt=attempt, reason=reason):
            return f"hole punch {attempt} failed: {reason}"
        case HolePunched(address=address, attempt=attempt):
            return f"direct after hole punch {attempt}: {address}"
        case _:
            return further_words(event)


def further_words(event: Noted) -> str:
    match event:
        case PunchGivenUp(reasons=reasons):
            return f"hole punches given up after {len(reasons)}"
        case ReservationAccepted(seconds=seconds):
            return f"reservation for {seconds:.0f} s"
        case ReservationFailed(reason=reason):
            return f"no reservation: {reason}"
        case ReservationLost(reason=reason):
            return f"reservation lost: {reason}"
        case _:
            return type(event).__name__
