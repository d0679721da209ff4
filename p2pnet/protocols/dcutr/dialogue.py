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
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from p2pnet.core.addresses import Multiaddr
from p2pnet.errors import ProtocolError
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect, HolePunch, Side, Sync

MAX_WAIT = 5.0
"""Seconds the initiator waits after SYNC at most: no relay is that slow, but a liar may be."""


class Channel(Protocol):
    """Where a dialogue speaks and listens."""

    async def send(self, message: HolePunch, /) -> None: ...

    async def receive(self) -> HolePunch: ...


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


async def initiate(
    channel: Channel,
    ours: Connect,
    now: Callable[[], float],
    *,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> Punch:
    """Play the side that was called over the relay (D4).

    ``ready`` is waited for before SYNC: until then, nobody punches (D3).

    Raises:
        ProtocolError: if the remote breaks a rule.
    """
    sent = now()
    await channel.send(ours)
    theirs = await receive_connect(channel)
    round_trip = now() - sent
    if ready is not None:
        await ready()
    await channel.send(Sync())
    at = now() + min(round_trip / 2, MAX_WAIT)
    return Punch(theirs.addresses, at, round_trip, side_taken(ours, theirs))


async def respond(
    channel: Channel,
    ours: Callable[[tuple[Multiaddr, ...]], Awaitable[Connect]],
    now: Callable[[], float],
    *,
    offered: Callable[[tuple[Multiaddr, ...]], None] = lambda addresses: None,
) -> Punch:
    """Play the side that called over the relay (D4).

    ``offered`` is told the remote's addresses as soon as they are here. ``ours`` answers them,
    and may take its time: to the initiator that is a part of the round trip, of which it waits
    for half.

    Raises:
        ProtocolError: if the remote breaks a rule.
    """
    theirs = await receive_connect(channel)
    offered(theirs.addresses)
    heard = now()
    answer = await ours(theirs.addresses)
    await channel.send(answer)
    sent = now()
    match await channel.receive():
        case Sync():
            wait = min((sent - heard) / 2, MAX_WAIT)
            at = now() + wait
            return Punch(theirs.addresses, at, now() - sent, side_taken(answer, theirs))
        case Connect():
            raise ProtocolError(PROTOCOL_ID, "CONNECT where SYNC was due")


def side_taken(ours: Connect, theirs: Connect) -> Side | None:
    """Return our side, if the peer's is the other one (D21)."""
    return ours.side if {ours.side, theirs.side} == {*Side} else None


async def receive_connect(channel: Channel) -> Connect:
    match await channel.receive():
        case Connect() as connect:
            return connect
        case Sync():
            raise ProtocolError(PROTOCOL_ID, "SYNC where CONNECT was due")
