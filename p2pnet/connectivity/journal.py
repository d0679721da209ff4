"""What happened with each peer, as far as it explains something: bounded. Pure.

Errors are read when they are noted, and not kept: each holds the frames it came through.
Rules: specs/reachability.md (V23).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field

from p2pnet.connectivity.causes import (
    Cause,
    Finding,
    cause_of,
    cause_of_attempt,
    causes_below,
)
from p2pnet.core.addresses import Multiaddr, circuit_of, is_relayed
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError, describe
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
MAX_ATTEMPTS = 32
"""Addresses of one failed dial that are told of."""
MAX_SILENCES = 256

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
    """Seconds since the host began."""
    kind: type[Noted]
    words: str
    finding: Finding | None = None
    """What it shows to be wrong, if something; of a dial what says most (V21)."""
    relays: tuple[PeerId, ...] = ()
    """Of a dial: those over which it went, if the finding is about a circuit."""

    def __str__(self) -> str:
        return f"{self.time:.3f} s: {self.words}"


@dataclass(frozen=True, slots=True)
class Unread:
    """An event that holds no error, put into words only when somebody asks."""

    time: float
    event: ConnectionOpened | ConnectionClosed


Note = Entry | Unread


@dataclass(frozen=True, slots=True)
class Aim:
    """What is known of a peer by the hole punches over the newest relayed connection with it."""

    targets: tuple[Multiaddr, ...] = ()
    """Where the last one went."""
    steady: frozenset[str] = frozenset()
    """``tcp``, ``udp``: over which all see its ports at one place, as it said (D28)."""


NO_AIM = Aim()


@dataclass(slots=True)
class Journal:
    """The newest events of the peers heard of last."""

    peers: OrderedDict[PeerId, list[Note]] = field(default_factory=OrderedDict)
    relay_failures: dict[PeerId, Finding] = field(default_factory=dict)
    reservations: set[PeerId] = field(default_factory=set)
    aims: dict[PeerId, Aim] = field(default_factory=dict)
    failures: deque[Cause] = field(default_factory=lambda: deque(maxlen=MAX_SILENCES))
    """Of all dials since the last connection was opened."""

    def note(self, event: Noted, now: float) -> None:
        """Take an event; the peer heard of longest ago gives way at the limit (V23)."""
        peer_id = peer_of(event)
        notes = self.peers.setdefault(peer_id, [])
        self.peers.move_to_end(peer_id)
        notes.append(note_of(event, now))
        del notes[:-MAX_ENTRIES]
        while len(self.peers) > MAX_PEERS:
            gone, _ = self.peers.popitem(last=False)
            self.relay_failures.pop(gone, None)
            self.reservations.discard(gone)
            self.aims.pop(gone, None)
        match event:
            case ReservationFailed(relay):
                self.relay_failures[relay] = finding_of_relay(event)
            case ReservationAccepted(relay):
                self.relay_failures.pop(relay, None)
                self.reservations.add(relay)
            case ReservationLost(relay):
                self.reservations.discard(relay)
            case DialFailed(error=error):
                self.failures.extend(causes_below(error))
            case ConnectionOpened(ref):
                self.failures.clear()
                if ref.is_relayed:
                    self.aims.pop(peer_id, None)
            case PunchStarted(addresses=targets, steady=steady):
                known = self.aims.get(peer_id, NO_AIM).steady  # Said in the first attempt alone.
                self.aims[peer_id] = Aim(targets, frozenset(steady) or known)

    def entries(self, peer_id: PeerId) -> tuple[Entry, ...]:
        return tuple(
            note if isinstance(note, Entry) else entry_of(note.event, note.time)
            for note in self.peers.get(peer_id, ())
        )


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


# ---- what events show --------------------------------------------------------------------


def note_of(event: Noted, now: float) -> Note:
    """Make a note; that of a connection costs next to nothing, as there are many."""
    match event:
        case ConnectionOpened() | ConnectionClosed(error=None):
            return Unread(now, event)
        case _:
            return entry_of(event, now)


def entry_of(event: Noted, now: float) -> Entry:
    match event:
        case DialFailed(error=error):
            finding, relays = finding_of_dial(error)
            return Entry(now, type(event), words(event), finding, relays)
        case ConnectionClosed(error=None) | PunchAttemptFailed(error=None):
            return Entry(now, type(event), words(event))
        case ConnectionClosed(_, reason, error) if error is not None:
            finding = Finding(cause_of(error), f"{event.connection.remote_address}: {reason}")
            return Entry(now, type(event), words(event), finding)
        case PunchAttemptFailed(reason=reason, error=error) if error is not None:
            return Entry(now, type(event), words(event), Finding(cause_of(error), reason))
        case _:
            return Entry(now, type(event), words(event))


def finding_of_dial(error: DialError) -> tuple[Finding, tuple[PeerId, ...]]:
    """Say why no address worked, by the one that says most (V21), and over which relays."""
    cause = cause_of(error)
    told = [each for each in error.attempts if cause_of_attempt(each) is cause]
    relays = [relay for each in told if (relay := relay_of(each.address)) is not None]
    detail = str(told[-1]) if told else error.hint or describe(error)
    return Finding(cause, detail), tuple(relays)


def relay_of(address: object) -> PeerId | None:
    """Return the relay of a circuit's address; None if it is none, or none that makes sense."""
    if isinstance(address, Multiaddr) and is_relayed(address):
        with suppress(ValueError):  # Whoever named the address may have named anything.
            return circuit_of(address).relay
    return None


def finding_of_relay(event: ReservationFailed) -> Finding:
    """Say what keeps this host from a reservation."""
    cause = Cause.UNKNOWN if event.error is None else cause_of(event.error)
    if cause is Cause.NOTHING_IN_COMMON and not isinstance(event.error, DialError):
        cause = Cause.NO_RELAY_SERVICE  # Only the hop protocol was proposed.
    elif cause in (Cause.NO_ANSWER, Cause.REFUSED, Cause.RESTING, Cause.NO_ADDRESS):
        cause = Cause.RELAY_UNREACHABLE
    return Finding(cause, f"relay {event.relay}: {event.reason}")


# ---- in words ----------------------------------------------------------------------------


def words(event: Noted) -> str:
    """Say an event in words."""
    match event:
        case ConnectionOpened(ref):
            way = "in" if ref.is_inbound else "out"
            return f"connected ({way}{', relayed' if ref.is_relayed else ''}): {ref.remote_address}"
        case ConnectionClosed(ref, reason):
            return f"connection closed ({reason}): {ref.remote_address}"
        case DialFailed(error=error):
            return words_of_dial(error)
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


def words_of_dial(error: DialError) -> str:
    told = [str(attempt) for attempt in error.attempts[:MAX_ATTEMPTS]]
    if len(error.attempts) > MAX_ATTEMPTS:
        told.append(f"and {len(error.attempts) - MAX_ATTEMPTS} more")
    return f"dial failed: {'; '.join(told) or error.hint or describe(error)}"
