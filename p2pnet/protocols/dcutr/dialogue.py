"""The DCUtR conversation, as pure coroutines. Rules: specs/dcutr.md.

::

    initiator (was called over the relay)      responder (called)
        | -- CONNECT, my addresses ------------> |
        | <------------ CONNECT, my addresses -- |   the initiator knows the round trip
        | -- SYNC, when a plain dial failed ---> |   the responder knows it, too
        |  waits for half a round trip           |   dials at once, or waits for half of the
        |                                        |   time that it took itself to answer
        |  dials                                 |

Both begin to dial at about the same moment, and each SYN opens its own NAT for the other's.

Two p2pnet peers do without SYNC in their first attempt (D26, D27)::

    initiator                                  responder
        | -- CONNECT, waited so long ----------> |   the responder knows the round trip
        | <-- CONNECT, took so long to answer -- |
        |  dials                                 |  dials a little later (``turn_after``)

If the responder's CONNECT came ahead, in the handshake of the relayed connection, the initiator
answers that, and both know the round trip by the handshake (D30, D31)::

    initiator                                  responder
        | <-- (message 3 of Noise) CONNECT ----- |
        | -- CONNECT, has heard ---------------> |
        |  dials a little later                  |  dials
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from p2pnet.core.addresses import Multiaddr
from p2pnet.errors import NoPunchAddress, ProtocolError
from p2pnet.protocols.dcutr.messages import (
    PROTOCOL_ID,
    Connect,
    HolePunch,
    Side,
    Swift,
    Sync,
)

MAX_WAIT = 5.0
"""Seconds the initiator waits after SYNC at most: no relay is that slow, but a liar may be."""
MAX_AGE = 10.0
"""Seconds since the relayed connection opened: later its round trip cannot be told from that."""
MAX_SWIFT_ROUND_TRIP = 1.0
BEGINS_SECONDS = 0.01
"""What a peer may need from the last word until it dials."""
DISORDER = 0.05
"""Seconds by which the answer to a CONNECT may seem to be older than the question: jitter."""


class Channel(Protocol):
    """Where a dialogue speaks and listens."""

    async def send(self, message: HolePunch, /) -> None: ...

    async def receive(self) -> HolePunch: ...


@dataclass(frozen=True, slots=True)
class Unsynced:
    """What two peers agree on that do without SYNC."""

    turned: tuple[str, ...]
    """The transports over which the roles are the other way round (D28)."""
    patient: tuple[str, ...] = ()
    """The transports over which what comes too early is lost for long, or for good (D27)."""
    patience: float = 0.0
    """Seconds to wait further before dialling by these."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A responder's CONNECT in the handshake of the relayed connection (D30)."""

    addresses: tuple[Multiaddr, ...]
    """As the remote offered them: not yet judged."""
    swift: Swift
    round_trip: float
    """Seconds over the relay, as the handshake showed."""


@dataclass(frozen=True, slots=True)
class Punch:
    """What a finished conversation asks for: dial these addresses at this time."""

    addresses: tuple[Multiaddr, ...]
    """As the remote offered them: not yet judged."""
    at: float
    round_trip: float
    """Seconds over the relay."""
    side: Side | None = None
    """What this host does in birthday punching, if both are willing and their NATs fit (D21)."""
    unsynced: Unsynced | None = None
    """None if there was a SYNC."""
    steady: tuple[str, ...] | None = None
    """Transports over which all see the remote's ports at one place (D28); None if it says of
    none."""
    dials: bool | None = None
    """Whether the initiator plays the dialer, if it has said so before a SYNC (D9)."""


async def initiate(
    channel: Channel,
    ours: Connect,
    now: Callable[[], float],
    *,
    ready: Callable[[], Awaitable[None]] | None = None,
    opened: float | None = None,
) -> Punch:
    """Play the side that was called over the relay (D4).

    ``ready`` is waited for before SYNC: until then, nobody punches (D3). ``opened`` is when the
    relayed connection was there, if this may be done without SYNC.

    Raises:
        NoPunchAddress: if one side has nothing to offer (D8).
        ProtocolError: if the remote breaks a rule.
    """
    sent = now()
    ours = having_waited(ours, None if opened is None else sent - opened)
    await send_connect(channel, ours)
    theirs = await receive_connect(channel)
    steady = steady_of(theirs)
    round_trip = now() - sent
    side = side_taken(ours, theirs)
    if ours.swift is not None and theirs.swift is not None:
        round_trip = max(round_trip - theirs.swift.waited, 0.0)
        unsynced = Unsynced(turned(initiator=ours.swift, responder=theirs.swift))
        return Punch(theirs.addresses, now(), round_trip, side, unsynced, steady)  # D27
    if ready is not None:
        await ready()
    await channel.send(Sync())
    at = now() + min(round_trip / 2, MAX_WAIT)
    return Punch(theirs.addresses, at, round_trip, side, steady=steady, dials=ours.dials)


async def answer_ahead(
    channel: Channel, ours: Connect, ahead: Ahead, now: Callable[[], float]
) -> Punch:
    """Play the side that was called, and that has heard what the caller offers (D31).

    Raises:
        NoPunchAddress: if this side has nothing to offer (D8).
    """
    swift = replace(ours.swift or Swift(0.0), heard=True)
    await send_connect(channel, replace(ours, swift=swift))
    turns = turned(initiator=swift, responder=ahead.swift)
    after, unsynced = turn_after(ahead.round_trip, turns, ours=swift, theirs=ahead.swift)
    steady = ahead.swift.steady or None
    return Punch(ahead.addresses, now() + after, ahead.round_trip, None, unsynced, steady)


async def respond(
    channel: Channel,
    ours: Callable[[tuple[Multiaddr, ...]], Awaitable[Connect]],
    now: Callable[[], float],
    *,
    offered: Callable[[Connect], None] = lambda theirs: None,
    opened: float | None = None,
    ahead: Ahead | None = None,
) -> Punch:
    """Play the side that called over the relay (D4).

    ``offered`` is told the remote's CONNECT as soon as it is here. ``ours`` answers them,
    and may take its time: to the initiator that is a part of the round trip, of which it waits
    for half. ``opened`` is when the relayed connection was there, if this may be done without
    SYNC. ``ahead`` is what we offered in the handshake, if we did.

    Raises:
        NoPunchAddress: if one side has nothing to offer (D8).
        ProtocolError: if the remote breaks a rule.
    """
    theirs = await receive_connect(channel)
    offered(theirs)
    heard, steady = now(), steady_of(theirs)
    if ahead is not None and theirs.swift is not None and theirs.swift.heard:
        unsynced = Unsynced(turned(initiator=theirs.swift, responder=ahead.swift))
        return Punch(theirs.addresses, heard, ahead.round_trip, None, unsynced, steady)  # D31
    known = None if opened is None else round_trip_told(theirs.swift, heard - opened)
    answer = await ours(theirs.addresses)
    answer = having_waited(answer, None if known is None else now() - heard)
    await send_connect(channel, answer)
    sent = now()
    if known is not None and theirs.swift is not None and answer.swift is not None:
        turns = turned(initiator=theirs.swift, responder=answer.swift)
        after, unsynced = turn_after(known, turns, ours=answer.swift, theirs=theirs.swift)
        side = side_taken(answer, theirs)
        return Punch(theirs.addresses, sent + after, known, side, unsynced, steady)  # D27
    match await channel.receive():
        case Sync():
            wait = min((sent - heard) / 2, MAX_WAIT)
            at, side = now() + wait, side_taken(answer, theirs)
            trip, dials = now() - sent, theirs.dials
            return Punch(theirs.addresses, at, trip, side, steady=steady, dials=dials)
        case Connect():
            raise ProtocolError(PROTOCOL_ID, "CONNECT where SYNC was due")


def having_waited(ours: Connect, seconds: float | None) -> Connect:
    """Say how long we waited before CONNECT, or nothing of doing without SYNC (D26)."""
    if ours.swift is None or seconds is None or seconds > MAX_AGE:
        return replace(ours, swift=None)
    return replace(ours, swift=replace(ours.swift, waited=seconds))


def round_trip_told(theirs: Swift | None, age: float) -> float | None:
    """Tell the round trip, as the responder knows it when it hears CONNECT (D26).

    ``age`` is how long we have had the relayed connection: the peer has it half a round trip
    later, waits as long as it says, and what it sends takes the other half. None if it does not
    say, or nothing that can be believed.
    """
    if theirs is None or theirs.waited > MAX_AGE:
        return None
    round_trip = age - theirs.waited
    return max(round_trip, 0.0) if -DISORDER <= round_trip <= MAX_SWIFT_ROUND_TRIP else None


def turn_after(
    round_trip: float, turned: tuple[str, ...], *, ours: Swift, theirs: Swift
) -> tuple[float, Unsynced]:
    """Tell who has the last word of the two how long to wait before dialling (D27, D31).

    The other dials half a round trip later, when that word is there. Where either SYN can open
    the connection it is a little sooner, for who waits may be the one whose SYN has to. Where only
    ours can, it is then: it finds the other side's hole, however short the direct way is.
    """
    half = round_trip / 2
    after = min(half, half / 2 + BEGINS_SECONDS)
    patient = ("udp", *hidden_alone(ours, theirs))
    return after, Unsynced(turned, patient, half - after)


def turned(*, initiator: Swift, responder: Swift) -> tuple[str, ...]:
    """Return the transports over which only the initiator's dial can come through (D28)."""
    return hidden_alone(initiator, responder)


def hidden_alone(one: Swift, other: Swift) -> tuple[str, ...]:
    """Return the transports over which the ports of the one are not known, and the other's are."""
    return tuple(each for each in one.hidden if each not in other.hidden)


def side_taken(ours: Connect, theirs: Connect) -> Side | None:
    """Return our side, if the peer's is the other one (D21)."""
    return ours.side if {ours.side, theirs.side} == {*Side} else None


def steady_of(theirs: Connect) -> tuple[str, ...] | None:
    return None if theirs.swift is None else theirs.swift.steady or None


async def send_connect(channel: Channel, ours: Connect) -> None:
    """Offer what there is; if there is nothing, that is the last word (D8)."""
    await channel.send(ours)
    if not ours.addresses:
        raise NoPunchAddress("no peer has told this host a public address of its own")


async def receive_connect(channel: Channel) -> Connect:
    match await channel.receive():
        case Connect(addresses=()):  # D8
            raise NoPunchAddress("the peer offered no public address")
        case Connect() as connect:
            return connect
        case Sync():
            raise ProtocolError(PROTOCOL_ID, "SYNC where CONNECT was due")
