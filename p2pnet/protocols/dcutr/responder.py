"""The side that called over a relay: answers, and dials when it is told to.

Rules: specs/dcutr.md (D2, D9, D12, D13, D15).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr, is_relayed
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, boundary, start_in
from p2pnet.errors import LimitExceeded, NoPunchAddress, P2PError, ProtocolError, describe
from p2pnet.events import HolePunched, PunchAttemptFailed, PunchGivenUp
from p2pnet.interfaces import Connection, Role, ServiceHost, Stream
from p2pnet.protocols.dcutr.ahead import said_ahead
from p2pnet.protocols.dcutr.dialogue import Punch, respond
from p2pnet.protocols.dcutr.initiator import Initiator
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect
from p2pnet.protocols.dcutr.policy import ASSUMED_ROUND_TRIP, Conversations, role_of
from p2pnet.protocols.dcutr.puncher import Puncher, channel_on, has_direct
from p2pnet.protocols.dcutr.sampling import Lookout

logger = logging.getLogger("p2pnet.dcutr")


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One conversation with a peer: which it is, and since when."""

    peer_id: PeerId
    relayed: Connection
    conversations: Conversations
    lookout: Lookout
    attempt: int
    is_first: bool
    """On its relayed connection."""
    began: float


class Responder:
    """Answers the peers that this host called over a relay."""

    def __init__(
        self,
        host: ServiceHost,
        puncher: Puncher,
        initiator: Initiator,
        *,
        attempts: int,
        exchange_timeout: float,
    ) -> None:
        self._host = host
        self._puncher = puncher
        self._initiator = initiator
        self._attempts = attempts
        self._exchange_timeout = exchange_timeout
        self._heard: dict[int, Conversations] = {}
        self._lookouts: dict[int, Lookout] = {}
        self._punching: dict[PeerId, trio.CancelScope] = {}
        self._answering: set[Answer] = set()

    def is_answering(self, peer_id: PeerId) -> bool:
        """Tell if a conversation with a peer is under way, or the punch that follows.

        Not if it was on a relayed connection that has ended: there the peer goes on no more.
        """
        return any(
            answer.peer_id == peer_id and not answer.relayed.is_closed for answer in self._answering
        )

    def prepare(self, number: int, nursery: trio.Nursery) -> None:
        """Look ahead on a relayed connection that this host opened (D16).

        The peer will ask soon, and whoever looks only then keeps it waiting.
        """
        if number not in self._lookouts and self._puncher.looks_ahead:
            self._lookouts[number] = lookout = self._puncher.lookout()
            nursery.start_soon(lookout.look)

    def plan(self, addresses: Sequence[Multiaddr], nursery: trio.Nursery) -> None:
        """Look ahead when this host is about to dial, and only relays lead there (D16).

        By the time that the peer asks, which it does at once, that will be done.
        """
        if addresses and all(map(is_relayed, addresses)) and self._puncher.looks_ahead:
            nursery.start_soon(self._puncher.lookout().look)

    def connection_closed(self, number: int) -> None:
        self._heard.pop(number, None)
        self._lookouts.pop(number, None)

    def forget_closed(self) -> None:
        """Forget all connections that live no more."""
        known = {*self._heard, *self._lookouts}
        for number in [n for n in known if self._host.connection(n) is None]:
            self.connection_closed(number)

    async def answer(self, nursery: trio.Nursery, stream: Stream) -> None:
        """Handle an inbound stream; punch in a task of the ``nursery``.

        For the stream's own task ends with the relayed connection, and the other side may close
        that as soon as *its* end of the direct one is ready.
        """
        answer = self._admit(stream)
        self._answering.add(answer)
        # D13: the initiator has given the attempt before up, for the patience of both differs.
        # Its dials would only be in the way of the new ones.
        self._supersede(answer.peer_id)
        try:
            with trio.fail_after(self._exchange_timeout):
                punch = await self._converse(answer, stream)
            start_in(nursery, self._punch, answer, punch)
        except NoPunchAddress as error:  # D8: said in order, which a reset could overtake
            self._answering.discard(answer)
            self._failed(answer, describe(error), error)
            await stream.aclose()
            return
        except BaseException as error:
            self._answering.discard(answer)
            if isinstance(error, EXPECTED):
                self._failed(answer, describe(error), error)
            raise

    async def _converse(self, answer: Answer, stream: Stream) -> Punch:
        with ExitStack() as until_sync:
            # D8: the initiator's clock runs while we wait, but without addresses it is in vain.
            offer = self._puncher.offer
            ours = partial(offer, answer.lookout, answer.attempt, initiator=False)

            def expect(theirs: Connect) -> None:
                # D15: should SYNC be late, the peer's SYN may be here before.
                role = role_of(answer.attempt, initiator=False, dials=theirs.dials)
                if role is Role.DIALER:
                    places = self._puncher.targets(answer.peer_id, theirs.addresses)
                    expecting = self._puncher.expecting(places, ASSUMED_ROUND_TRIP)
                    until_sync.enter_context(expecting)

            punch = await respond(
                channel_on(stream),
                ours,
                trio.current_time,
                offered=expect,
                opened=stream.connection.opened_at if answer.is_first else None,  # D26
                ahead=said_ahead(stream.connection) if answer.is_first else None,  # D31
            )
            await stream.aclose()
            return punch

    def _admit(self, stream: Stream) -> Answer:
        relayed, peer_id = stream.connection, stream.peer_id
        if not relayed.is_relayed or relayed.is_inbound:  # D2
            raise ProtocolError(PROTOCOL_ID, "not on a relayed connection that we opened")
        if not self._initiator.make_way(peer_id):  # D13
            raise P2PError("this host initiates a hole punch with that peer itself")
        is_first = relayed.ref.number not in self._heard
        conversations = self._heard.setdefault(relayed.ref.number, Conversations())
        began = trio.current_time()
        attempt = conversations.begin(began)
        if attempt > self._attempts:  # D12
            raise LimitExceeded("attempts", self._attempts)
        lookout = self._lookout(relayed.ref.number, attempt)
        return Answer(peer_id, relayed, conversations, lookout, attempt, is_first, began)

    def _lookout(self, number: int, attempt: int) -> Lookout:
        """Return the lookout of all attempts that follow each other, a new one in the first."""
        known = self._lookouts.get(number)
        if known is None or (attempt == 1 and known.is_stale(trio.current_time())):
            known = self._lookouts[number] = self._puncher.lookout()
        return known

    def _supersede(self, peer_id: PeerId) -> None:
        if peer_id in self._punching:
            self._punching[peer_id].cancel()

    async def _punch(self, answer: Answer, punch: Punch) -> None:
        try:
            await self._punch_once(answer, punch)
        finally:
            self._answering.discard(answer)

    async def _punch_once(self, answer: Answer, punch: Punch) -> None:
        peer_id = answer.peer_id
        there = has_direct(self._host, peer_id)
        if there is not None:  # D11: the initiator's plain dial worked
            self._worked(answer, there, answer.attempt - 1)
            return
        self._supersede(peer_id)
        with boundary(logger, f"hole punch with {peer_id}"), trio.CancelScope() as scope:
            self._punching[peer_id] = scope
            try:
                direct = await self._puncher.punch(
                    peer_id, punch, answer.attempt, answer.lookout, initiator=False
                )
            except EXPECTED as error:
                self._failed(answer, describe(error), error)
                raise
            finally:
                if self._punching.get(peer_id) is scope:
                    del self._punching[peer_id]
            self._worked(answer, direct, answer.attempt)
            return
        if scope.cancelled_caught:
            self._failed(answer, "the peer began another attempt")

    def _worked(self, answer: Answer, direct: Connection, attempt: int) -> None:
        answer.conversations.forget()
        seconds = trio.current_time() - answer.began
        event = HolePunched(answer.peer_id, direct.remote_address, attempt, seconds)
        self._host.publish(event)

    def _failed(self, answer: Answer, reason: str, error: BaseException | None = None) -> None:
        reasons = answer.conversations.reasons
        reasons.append(reason)
        self._host.publish(PunchAttemptFailed(answer.peer_id, answer.attempt, reason, error))
        if answer.attempt == self._attempts:
            self._host.publish(PunchGivenUp(answer.peer_id, tuple(reasons)))
