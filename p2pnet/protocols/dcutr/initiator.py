"""The side that was called over a relay: dials, else punches, else rests and tries again.

Rules: specs/dcutr.md (D2, D3, D12 to D14).

::

    called --+--> identified --> plain dial --> direct
             |                       |  (head start before SYNC)
             |                       v
             +--> attempt 1: CONNECT, SYNC; 2, 3 --> resting --+
                                 |                      ^      |  while the relayed
                                 v                      |      |  connection lives
                               direct                   +------+
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, bare_exceptions, boundary
from p2pnet.errors import (
    ConnectionLost,
    NegotiationFailed,
    NoPunchAddress,
    PunchFailed,
    describe,
)
from p2pnet.events import ConnectionRef, HolePunched, PunchAttemptFailed, PunchGivenUp
from p2pnet.interfaces import Connection, ServiceHost, Stream
from p2pnet.protocols.dcutr.ahead import has_just_said_ahead, heard_ahead, is_fresh
from p2pnet.protocols.dcutr.dialogue import Punch, answer_ahead, initiate
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect
from p2pnet.protocols.dcutr.plain import ANSWER_PATIENCE, PlainDial
from p2pnet.protocols.dcutr.policy import (
    ASSUMED_ROUND_TRIP,
    REST_SPREAD,
    CoolDown,
    dials_in,
    gives_way,
    says_it_all,
)
from p2pnet.protocols.dcutr.puncher import Puncher, channel_on, has_direct, retire
from p2pnet.protocols.dcutr.upgrade import Deserted, NotSpoken, Persistence, Upgrade

logger = logging.getLogger("p2pnet.dcutr")


class Initiator:
    """Upgrades the relayed connections that others opened to this host."""

    def __init__(
        self, host: ServiceHost, puncher: Puncher, persistence: Persistence, cool_down: CoolDown
    ) -> None:
        self._host = host
        self._puncher = puncher
        self._persistence = persistence
        self._cool_down = cool_down
        self._slots = trio.CapacityLimiter(persistence.max_parallel)
        self._busy: set[PeerId] = set()
        self._strangers: dict[PeerId, trio.Event] = {}
        """Of those: who has not identified itself yet."""
        self._resting: dict[PeerId, trio.CancelScope] = {}
        self._under_way: dict[PeerId, Upgrade] = {}
        self._conversed: set[int] = set()
        """Relayed connections that live, and on which there was a conversation."""
        self._alternating: set[int] = set()
        """Of those: where the peer has shown that it hears who is to dial (D9)."""

    def begin(self, peer_id: PeerId, nursery: trio.Nursery, *, identified: bool) -> None:
        """Upgrade the relayed connection of a peer, unless that is under way (D2, D13).

        ``identified`` tells if the peer has said what it speaks and where it is, or will not.
        """
        if identified and peer_id in self._strangers:
            self._strangers.pop(peer_id).set()
        if peer_id not in self._busy:
            self._busy.add(peer_id)
            if not identified:
                self._strangers[peer_id] = trio.Event()
            nursery.start_soon(self._keep_upgrading, peer_id, nursery)
        else:
            self._take_over(peer_id)

    def _take_over(self, peer_id: PeerId) -> None:
        """End a procedure whose relayed connection ended, as there is another one (D13).

        Without one it goes on, for it may succeed all the same (D11).
        """
        upgrade = self._under_way.get(peer_id)
        if upgrade is not None and upgrade.is_deserted and self._is_wanted(peer_id):
            upgrade.scope.cancel()

    def prepare(self, nursery: trio.Nursery) -> None:
        """Look ahead when a relay says that somebody calls this host (D16).

        By the time that there is a connection, and CONNECT can be sent, that is done.
        """
        if self._puncher.looks_ahead:
            nursery.start_soon(self._puncher.lookout().look)

    def network_may_have_changed(self) -> None:
        """Forget what was found out of the NAT (D29)."""
        self._puncher.forget_nat()

    def network_changed(self) -> None:
        """Begin anew, with all who rest, too (D12)."""
        self.network_may_have_changed()
        self._cool_down.forget()
        for scope in self._resting.values():
            scope.cancel()

    def called_anew(self, peer_id: PeerId, *, is_answered: bool) -> None:
        """Let a peer rest for the first pause at most: it may call from elsewhere (D12).

        One that this host answers already goes on, as it has begun (D13).
        """
        now = trio.current_time()
        self._cool_down.shorten(peer_id, now)
        if is_answered:
            self._cool_down.yielded(peer_id, now)
        if peer_id in self._resting:
            self._resting[peer_id].cancel()

    def connection_closed(self, ref: ConnectionRef, nursery: trio.Nursery) -> None:
        """Begin if a relayed connection is all that is left; end a rest if not even that is."""
        self._conversed.discard(ref.number)
        self._alternating.discard(ref.number)
        peer_id = ref.peer_id
        if self._relayed(peer_id) is not None:
            nursery.start_soon(self._begin_with_rest, peer_id, nursery)
        elif peer_id in self._resting:
            self._resting[peer_id].cancel()

    def forget_closed(self) -> None:
        """Forget all connections that live no more."""
        self._conversed = {n for n in self._conversed if self._host.connection(n) is not None}
        self._alternating &= self._conversed

    async def _begin_with_rest(self, peer_id: PeerId, nursery: trio.Nursery) -> None:
        """Upgrade what is left of the connections of a peer, if it does not end, too (D2)."""
        await trio.sleep(self._persistence.retry_pause)
        if self._relayed(peer_id) is not None:
            self.begin(peer_id, nursery, identified=self._speaks(peer_id) is not None)

    def make_way(self, peer_id: PeerId) -> bool:
        """Leave it to a peer that begins; False if it has to answer us instead (D13).

        That is a question only if each called the other over a relay.
        """
        upgrade = self._under_way.get(peer_id)
        is_heard = upgrade is not None and upgrade.is_conversing and not upgrade.is_deserted
        if is_heard and not gives_way(self._host.peer_id, peer_id):
            return False
        if self._relayed(peer_id) is not None:
            self._cool_down.yielded(peer_id, trio.current_time())
        if upgrade is not None:
            upgrade.scope.cancel()
        return True

    async def _let_begin(self, peer_id: PeerId, relayed: Connection | None) -> None:
        """Wait for a peer that is to begin and has all it needs: our CONNECT ahead (D13, D31).

        Each called the other, and neither would hear that the other began before it dials.
        """
        if relayed is None or heard_ahead(relayed) is None:
            return
        has_said = has_just_said_ahead(self._host.connections(peer_id), trio.current_time())
        if has_said and gives_way(self._host.peer_id, peer_id):
            await trio.sleep(ASSUMED_ROUND_TRIP)

    async def _keep_upgrading(self, peer_id: PeerId, nursery: trio.Nursery) -> None:
        try:
            while self._is_wanted(peer_id):
                rest = self._cool_down.remaining(peer_id, trio.current_time())
                if rest:
                    with trio.move_on_after(rest) as self._resting[peer_id]:
                        await trio.sleep_forever()
                    del self._resting[peer_id]
                    continue
                is_deserted = False
                async with self._slots:
                    with boundary(logger, f"hole punch with {peer_id}"):
                        try:
                            if await self._upgrade(peer_id, nursery):
                                return
                        except NotSpoken:  # D2: at that time; it may be wanted now
                            continue
                        except Deserted:
                            is_deserted = True
                            raise
                # Unless it made way: then the peer has its time.
                now = trio.current_time()
                if not self._cool_down.remaining(peer_id, now):
                    drawn = self._persistence.jitter(*REST_SPREAD)
                    self._cool_down.failed(peer_id, now, drawn, is_deserted=is_deserted)
                    if is_deserted:  # It has called anew, or will have to (D12).
                        self._cool_down.shorten(peer_id, now)
        finally:
            self._busy.discard(peer_id)
            self._resting.pop(peer_id, None)
            self._strangers.pop(peer_id, None)

    def _is_wanted(self, peer_id: PeerId) -> bool:
        if self._speaks(peer_id) is False:
            return False  # D2: should it speak it later, it will say so
        return self._relayed(peer_id) is not None and has_direct(self._host, peer_id) is None

    def _identified(self, peer_id: PeerId) -> trio.Event:
        """Return what is set as soon as the peer has identified itself, or failed to."""
        known = trio.Event()
        known.set()
        return self._strangers.get(peer_id, known)

    def _relayed(self, peer_id: PeerId) -> Connection | None:
        """Return a relayed connection that the peer opened, as others we may not initiate on."""
        for connection in self._host.connections(peer_id):
            if connection.is_relayed and connection.is_inbound and not connection.is_closed:
                return connection
        return None

    async def _upgrade(self, peer_id: PeerId, nursery: trio.Nursery) -> bool:
        """Go through the whole procedure once; False if it made way for the peer's.

        Raises:
            PunchFailed: if all attempts failed.
            NotSpoken: see there.
            Deserted: see there.
        """
        began = trio.current_time()
        relayed = self._relayed(peer_id)
        identified = self._identified(peer_id)
        is_asked = not identified.is_set() and relayed is not None and is_fresh(relayed, began)
        patience = ANSWER_PATIENCE if is_asked else 0.0
        plain = PlainDial(identified, self._persistence.head_start, patience)
        with trio.CancelScope() as scope:
            upgrade = self._under_way[peer_id] = Upgrade(
                scope, self._puncher.lookout(), plain, nursery
            )
            ahead = None if relayed is None else heard_ahead(relayed)
            upgrade.theirs = () if ahead is None else ahead.addresses  # D19
            try:
                await self._let_begin(peer_id, relayed)
                attempt, direct = await self._try_all(peer_id, upgrade)
            except PunchFailed as error:
                self._host.publish(PunchGivenUp(peer_id, tuple(map(describe, error.causes))))
                if upgrade.is_deserted and len(error.causes) < self._persistence.attempts:
                    raise Deserted(describe(error)) from error
                raise
            finally:
                del self._under_way[peer_id]
            self._cool_down.worked(peer_id)
            seconds = trio.current_time() - began
            self._host.publish(HolePunched(peer_id, direct.remote_address, attempt, seconds))
            if self._persistence.close_relayed_after is not None:
                nursery.start_soon(
                    retire, self._host, peer_id, self._persistence.close_relayed_after
                )
            return True
        if upgrade.is_deserted:
            raise Deserted("the peer is on another relayed connection")
        return False

    async def _try_all(self, peer_id: PeerId, upgrade: Upgrade) -> tuple[int, Connection]:
        """Return the number of the attempt that worked, and the direct connection.

        Raises:
            PunchFailed: with the cause of each failure.
        """
        plain = upgrade.plain
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(plain.run, partial(self._puncher.dial_directly, peer_id))
                try:
                    found = await self._punch_repeatedly(peer_id, upgrade)
                except PunchFailed:
                    connection = await plain.found()
                    if connection is None:
                        raise
                    found = 0, connection
                nursery.cancel_scope.cancel()
        return found

    async def _punch_repeatedly(self, peer_id: PeerId, upgrade: Upgrade) -> tuple[int, Connection]:
        causes: list[BaseException] = []
        for attempt in range(1, self._persistence.attempts + 1):
            if causes:
                await trio.sleep(self._persistence.retry_pause)
            direct = has_direct(self._host, peer_id)
            if direct is not None:
                return attempt - 1, direct
            try:
                return await self._attempt(peer_id, attempt, upgrade)
            except NotSpoken:
                raise
            except EXPECTED as error:
                direct = has_direct(self._host, peer_id)
                if direct is not None:
                    return attempt - 1, direct
                causes.append(error)
                self._host.publish(PunchAttemptFailed(peer_id, attempt, describe(error), error))
            if isinstance(causes[-1], NegotiationFailed) or self._relayed(peer_id) is None:
                break
        raise PunchFailed(peer_id, causes)

    async def _attempt(
        self, peer_id: PeerId, attempt: int, upgrade: Upgrade
    ) -> tuple[int, Connection]:
        ours = await self._puncher.offer(upgrade.lookout, attempt, upgrade.theirs, initiator=True)
        upgrade.is_conversing = True
        relayed = upgrade.relayed = self._relayed(peer_id)
        if relayed is None:
            raise ConnectionLost("the relayed connection ended")
        plain, is_told = upgrade.plain, self._speaks(peer_id)
        try:
            punch = await self._converse(relayed, ours, upgrade, attempt)
        except EXPECTED as error:
            told_since = is_told is None and await self._will_tell(peer_id, plain)
            # A refusal may arrive as a reset: CONNECT behind the proposal made no sense there.
            refused = isinstance(error, NegotiationFailed) or not self._speaks(peer_id)
            if told_since and refused:
                raise NotSpoken(describe(error)) from None
            raise
        upgrade.theirs = punch.addresses
        direct = has_direct(self._host, peer_id)
        if direct is not None:  # D11
            return attempt - 1, direct
        punching = self._puncher.punch(peer_id, punch, attempt, upgrade.lookout, initiator=True)
        return attempt, await punching

    async def _converse(
        self, relayed: Connection, ours: Connect, upgrade: Upgrade, attempt: int
    ) -> Punch:
        plain, number = upgrade.plain, relayed.ref.number
        with trio.fail_after(self._persistence.exchange_timeout):
            stream = await relayed.open_stream(PROTOCOL_ID, lazy=True)
            try:
                swiftly = attempt == 1 and is_fresh(relayed, trio.current_time())
                # D31: A procedure begun anew is no reason to answer that again.
                is_first = number not in self._conversed
                self._conversed.add(number)
                ahead = heard_ahead(relayed) if swiftly and is_first else None
                if ahead is not None and says_it_all(ahead.addresses, ours.addresses):
                    punch = await answer_ahead(channel_on(stream), ours, ahead, trio.current_time)
                    self._alternating.add(number)
                    plain.is_needless = True
                    upgrade.nursery.start_soon(self._end, stream)
                    return punch
                if not swiftly and number in self._alternating:
                    ours = replace(ours, dials=dials_in(attempt))
                punch = await initiate(
                    channel_on(stream),
                    ours,
                    trio.current_time,
                    ready=plain.give_head_start,
                    opened=relayed.opened_at if swiftly else None,  # D26
                )
                plain.is_needless = punch.unsynced is not None
                if punch.unsynced is not None:
                    self._alternating.add(number)
                await stream.aclose()
            except NoPunchAddress:  # D8: a reset could overtake the word that tells the peer why
                upgrade.nursery.start_soon(self._end, stream)
                raise
            except BaseException:
                stream.reset()
                raise
            finally:
                plain.answered.set()
            return punch

    async def _end(self, stream: Stream) -> None:
        """Close a stream on which no answer is awaited: only whether the peer speaks it (M12)."""
        with boundary(logger, f"the end of {stream!r}", expected=logging.DEBUG):
            with trio.move_on_after(self._persistence.exchange_timeout):
                await stream.aclose()

    def _speaks(self, peer_id: PeerId) -> bool | None:
        """Tell if the peer speaks the protocol; None if it has not said so or otherwise."""
        protocols = self._host.peers.protocols(peer_id)
        return None if protocols is None else PROTOCOL_ID in protocols

    async def _will_tell(self, peer_id: PeerId, plain: PlainDial) -> bool:
        """Wait, but not for long, for the peer to say whether it speaks the protocol (D2)."""
        with trio.move_on_after(self._persistence.head_start):
            await plain.identified.wait()
        return self._speaks(peer_id) is not None
