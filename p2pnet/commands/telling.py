"""Tells the way to a peer as it happens: plan, dials, candidates, hole punches. Rule C13."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.commands.output import Field, Output
from p2pnet.connectivity.causes import Cause, cause_of, cause_of_attempt
from p2pnet.connectivity.explain import DCUTR, Explanation
from p2pnet.connectivity.journal import relay_of
from p2pnet.connectivity.nat import Mapping
from p2pnet.core.addresses import Multiaddr, parse, peer_id_of, without_peer
from p2pnet.core.bus import Subscription
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import EventsMissed, FailedAttempt, describe
from p2pnet.events import (
    AddressesChanged,
    AddressFailed,
    AddressObserved,
    CircuitNearLimit,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    DialPlanned,
    HolePunched,
    PeerIdentified,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
)
from p2pnet.host.host import Host, read_target
from p2pnet.interfaces import Connection, Target

KINDS = (
    AddressesChanged,
    AddressFailed,
    AddressObserved,
    CircuitNearLimit,
    ConnectionClosed,
    ConnectionOpened,
    DialPlanned,
    HolePunched,
    PeerIdentified,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
)
SECOND_RELAY = "another --relay: by what two of them see, the kind of our NAT shows"
OUTCOME_SECONDS = 1.0
"""How long to wait for the word of a hole punch whose connection is there already."""


def hint_of(host: Host, told: Explanation) -> str:
    """Return what would tell more of why a peer stays relayed, or nothing."""
    is_known = any(nat.mapping is not Mapping.UNKNOWN for _, nat in host.nat.value.told)
    return SECOND_RELAY if told.cause is Cause.PUNCH_UNANSWERED and not is_known else ""


@asynccontextmanager
async def telling(
    host: Host, target: Target, output: Output, *, relays: Iterable[str] = ()
) -> AsyncGenerator[Tale, None]:
    """Tell what happens on the way to a peer, and to those relays, while the block lasts."""
    peer_id, address = read_target(target)
    over = {peer_id_of(parse(relay)) for relay in relays} | {relay_of(address)}
    with host.subscribe(*KINDS) as events, bare_exceptions():
        tale = Tale(host, peer_id, output, events, frozenset(over))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tale.run)
            try:
                yield tale
            finally:
                tale.catch_up()
            nursery.cancel_scope.cancel()


@dataclass(eq=False)
class Tale:
    """Puts what concerns one peer into words and fields, and notes whether it is over."""

    host: Host
    peer_id: PeerId
    output: Output
    events: Subscription[object]
    relays: frozenset[PeerId | None]
    began: float = field(default_factory=trio.current_time)
    reasons: list[str] = field(default_factory=list)
    """Why hole punches failed."""
    _is_punching: bool = False
    _over: trio.Event = field(default_factory=trio.Event)
    """There is nothing to wait for: all failed, or nobody punches, or all is closed."""
    _punched: trio.Event = field(default_factory=trio.Event)
    _candidates: tuple[tuple[Multiaddr, ...], tuple[Multiaddr, ...]] = ((), ())

    async def run(self) -> None:
        while True:
            try:
                self.tell(await anext(self.events))
            except EventsMissed as missed:
                self._say("missed", str(missed), count=missed.count)

    def catch_up(self) -> None:
        """Tell what is not told yet: the end of a story must not come before its middle."""
        for event in self.events.take_waiting():
            self.tell(event)

    async def wait_direct(self, seconds: float) -> Connection | None:
        """Wait until a direct connection is there, or there is no hope, or the time is over."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._find_direct)
                await self._over.wait()
                nursery.cancel_scope.cancel()
        direct = next((c for c in self.host.connections(self.peer_id) if not c.is_relayed), None)
        if direct is not None and self._is_punching:
            with trio.move_on_after(OUTCOME_SECONDS):
                await self._punched.wait()
        self.catch_up()
        return direct

    async def _find_direct(self) -> None:
        await self.host.wait_direct(self.peer_id)
        self._over.set()

    # ---- what happened -------------------------------------------------------------------

    def tell(self, event: object) -> None:
        match event:
            case AddressObserved() | AddressesChanged():
                self._tell_candidates()
            case DialPlanned(peer_id) if self._concerns(peer_id):
                self._tell_plan(event)
            case AddressFailed(peer_id, attempt) if self._concerns(peer_id):
                self._tell_failed(peer_id, attempt)
            case ConnectionOpened(ref) if self._concerns(ref.peer_id):
                self._tell_opened(ref)
            case ConnectionClosed(ref, reason) if self._concerns(ref.peer_id):
                self._tell_closed(ref, reason)
            case PeerIdentified(ref) if ref.peer_id == self.peer_id:
                self._tell_identified(event)
            case _:
                self._tell_punch(event)

    def _tell_punch(self, event: object) -> None:
        match event:
            case PunchStarted(peer_id) if peer_id == self.peer_id:
                self._tell_punching(event)
            case PunchAttemptFailed(peer_id) if peer_id == self.peer_id:
                self._tell_punch_failed(event)
            case PunchGivenUp(peer_id, reasons) if peer_id == self.peer_id:
                words = f"hole punches given up after {len(reasons)}"
                self._say("given_up", words, peer=str(peer_id), reasons=reasons)
                self._over.set()
            case HolePunched(peer_id) if peer_id == self.peer_id:
                self._tell_punched(event)
            case CircuitNearLimit(peer_id) if peer_id == self.peer_id:
                self._tell_limit(event)

    def _concerns(self, peer_id: PeerId) -> bool:
        return peer_id == self.peer_id or peer_id in self.relays

    def _say(self, name: str, words: str, **fields: Field) -> None:
        at = trio.current_time() - self.began
        self.output.event(name, f"{at:8.3f} s  {words}", at=round(at, 6), **fields)

    def _who(self, peer_id: PeerId) -> str:
        return "the peer" if peer_id == self.peer_id else f"relay {peer_id}"

    def _tell_candidates(self) -> None:
        """Tell where each side could be dialled in a hole punch, when that is news."""
        theirs = tuple(map(without_peer, self.host.peers.addresses(self.peer_id)))
        candidates = self.host.punch_addresses(), theirs
        if candidates == self._candidates:
            return
        self._candidates = candidates
        own, peers = (tuple(map(str, each)) for each in candidates)
        words = f"candidates here: {listed(own)}; of the peer: {listed(peers)}"
        self._say("candidates", words, peer=str(self.peer_id), own=own, theirs=peers)

    def _tell_plan(self, event: DialPlanned) -> None:
        plan: list[Field] = [
            {"address": str(address), "after": after} for after, address in event.plan
        ]
        left_out: list[Field] = [fields_of(failed) for failed in event.left_out]
        turns = [
            f"{address} {f'after {after:g} s' if after else 'at once'}"
            for after, address in event.plan
        ]
        turns += [f"not {failed}" for failed in event.left_out]
        self._say(
            "plan",
            f"to dial {self._who(event.peer_id)}: {listed(turns)}",
            peer=str(event.peer_id),
            plan=plan,
            left_out=left_out,
        )

    def _tell_failed(self, peer_id: PeerId, attempt: FailedAttempt) -> None:
        words = f"no connection to {self._who(peer_id)} at {attempt}"
        self._say("address_failed", words, peer=str(peer_id), **fields_of(attempt))

    def _tell_opened(self, ref: ConnectionRef) -> None:
        kind, way = (
            ("relayed" if ref.is_relayed else "direct"),
            ("from" if ref.is_inbound else "to"),
        )
        self._say(
            "connection",
            f"{kind} connection {way} {self._who(ref.peer_id)} at {ref.remote_address}",
            peer=str(ref.peer_id),
            address=str(ref.remote_address),
            relayed=ref.is_relayed,
            inbound=ref.is_inbound,
        )

    def _tell_closed(self, ref: ConnectionRef, reason: str) -> None:
        address = str(ref.remote_address)
        words = f"closed the one to {self._who(ref.peer_id)} at {address}: {reason}"
        self._say("closed", words, peer=str(ref.peer_id), address=address, reason=reason)
        if ref.peer_id == self.peer_id and not self.host.connections(self.peer_id):
            self._over.set()

    def _tell_identified(self, event: PeerIdentified) -> None:
        speaks = DCUTR in event.protocols
        words = f"the peer is {event.agent_version}, and {'speaks' if speaks else 'lacks'} DCUtR"
        peer = str(self.peer_id)
        self._say("identified", words, peer=peer, agent=event.agent_version, dcutr=speaks)
        self._tell_candidates()
        if not speaks and event.connection.is_relayed:
            self._over.set()

    def _tell_punching(self, event: PunchStarted) -> None:
        self._is_punching = True
        addresses = tuple(map(str, event.addresses))
        side = "we begin" if event.initiator else "the peer begins"
        words = f"hole punch {event.attempt} ({side}, {event.round_trip * 1000:.0f} ms round trip)"
        self._say(
            "punching",
            f"{words} at {listed(addresses)}",
            peer=str(self.peer_id),
            attempt=event.attempt,
            initiator=event.initiator,
            addresses=addresses,
            round_trip=event.round_trip,
        )

    def _tell_punch_failed(self, event: PunchAttemptFailed) -> None:
        self._is_punching = False
        self.reasons.append(f"attempt {event.attempt}: {event.reason}")
        cause = None if event.error is None else cause_of(event.error).name.lower()
        self._say(
            "punch_failed",
            f"hole punch {event.attempt} failed: {event.reason}",
            peer=str(self.peer_id),
            attempt=event.attempt,
            reason=event.reason,
            cause=cause,
        )

    def _tell_punched(self, event: HolePunched) -> None:
        self._is_punching = False
        address = str(event.address)
        way = f"hole punch {event.attempt}" if event.attempt else "a plain dial"
        self._say(
            "punched",
            f"{way} worked, at {address}, after {event.seconds:.3f} s",
            peer=str(self.peer_id),
            address=address,
            attempt=event.attempt,
            seconds=round(event.seconds, 6),
        )
        self._punched.set()

    def _tell_limit(self, event: CircuitNearLimit) -> None:
        self._say(
            "near_limit",
            f"the circuit has used {event.used:.0f} of its {event.maximum:.0f} {event.limit}",
            peer=str(self.peer_id),
            relay=str(event.relay),
            limit=event.limit,
            used=event.used,
            maximum=event.maximum,
        )


def listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def fields_of(attempt: FailedAttempt) -> dict[str, Field]:
    return {
        "address": str(attempt.address),
        "cause": cause_of_attempt(attempt).name.lower(),
        "reason": describe(attempt.cause),
    }
