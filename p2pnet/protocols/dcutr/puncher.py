"""What both sides of a hole punch do: know their own addresses, and dial together.

Rules: specs/dcutr.md (D6 to D11, D15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr, circuit_of, is_relayed
from p2pnet.core.channel import MessageChannel
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    AddressUnsupported,
    DialError,
    FailedAttempt,
    LimitExceeded,
    NoPunchAddress,
    P2PError,
    PunchFailed,
    describe,
)
from p2pnet.events import PunchStarted
from p2pnet.interfaces import Connection, Role, ServiceHost, Stream
from p2pnet.protocols.dcutr.birthday import Birthday, Birthdays
from p2pnet.protocols.dcutr.budget import TargetBudget
from p2pnet.protocols.dcutr.dialogue import Punch, Unsynced
from p2pnet.protocols.dcutr.messages import (
    MAX_MESSAGE_BYTES,
    MAX_OFFERED,
    PROTOCOL_ID,
    Connect,
    HolePunch,
    Side,
    Swift,
    decode_untrusted,
    encode_message,
)
from p2pnet.protocols.dcutr.policy import (
    BIRTHDAY_ATTEMPT,
    MAX_NEIGHBOURS,
    first_attempt,
    is_astray,
    longest_pause,
    neighbours,
    offered,
    patience,
    private,
    punchable,
    redial_pause,
    role_of,
    share_outside,
    targets,
    ways,
)
from p2pnet.protocols.dcutr.prediction import Forecast, Offering, with_predicted
from p2pnet.protocols.dcutr.sampling import Lookout, Sampler
from p2pnet.protocols.dcutr.witness import TRANSPORTS, Showing, unseen

STAGGER = 0.001
"""Seconds between two dials: each may move the port of the next one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long, how often, and at whom to punch; see ``DCUtR``."""

    attempts: int
    address_timeout: float
    direct_timeout: float
    punch_timeout: float
    shortest_pause: float
    max_redials: int
    allow_private: bool
    predicted_ports: int
    sample_timeout: float
    birthday: Birthday | None
    dials_per_ip: int
    dials_per_prefix: int


@dataclass(slots=True)
class Effort:
    """The dials of one attempt: when to begin, in which role, how it goes."""

    punch: Punch
    attempt: int
    initiator: bool
    pause: float
    lookout: Lookout
    own: tuple[Multiaddr, ...]
    failed: dict[Multiaddr, BaseException] = field(default_factory=dict)
    others: list[BaseException] = field(default_factory=list)
    """Causes that are of no single address."""
    is_over: bool = False

    def role_at(self, place: Multiaddr) -> Role:
        """Tell in which role a place is dialled (D9, D28)."""
        turned = self._unsynced is not None and transport_of(place) in self._unsynced.turned
        said = self.punch.dials
        return role_of(self.attempt, initiator=self.initiator, turned=turned, dials=said)

    def begins_at(self, place: Multiaddr) -> float:
        """Tell when a place is dialled, if it is the first one (D27)."""
        if self._unsynced is None or transport_of(place) not in self._unsynced.patient:
            return self.punch.at
        return self.punch.at + self._unsynced.patience

    @property
    def _unsynced(self) -> Unsynced | None:
        return self.punch.unsynced


class Puncher:
    """Dials for both sides."""

    def __init__(
        self, host: ServiceHost, bounds: Bounds, jitter: Callable[[float, float], float]
    ) -> None:
        self._host = host
        self._bounds = bounds
        self._jitter = jitter
        self._sampler = Sampler(host, bounds.sample_timeout)
        self._showing = Showing(host, self.candidates)
        self._birthdays = Birthdays(host, bounds.birthday)
        self._budget = TargetBudget(per_ip=bounds.dials_per_ip, per_prefix=bounds.dials_per_prefix)

    # ---- addresses -----------------------------------------------------------------------

    def lookout(self) -> Lookout:
        """Return who sees which ports the NAT will give next, for the attempts with a peer."""
        return Lookout(self._sampler, trio.current_time())

    def forget_nat(self) -> None:
        """Forget what the NAT does: it is another one now (D8, D29)."""
        self._sampler.forget()
        self._showing.forget()

    @property
    def looks_ahead(self) -> bool:
        """Tell if this host predicts ports, and its NAT is one for that."""
        return self._bounds.predicted_ports > 0 and self._sampler.is_of_use

    async def offer(
        self, lookout: Lookout, attempt: int, theirs: Sequence[Multiaddr], *, initiator: bool
    ) -> Connect:
        """Return what to offer: where this host may be dialled; wait for it if need be (D8, D17).

        ``theirs`` is what the peer has offered, if it has: is it behind the same NAT (D19)?
        There is nothing in it if nobody told us an address within ``address_timeout``.
        """
        found = await self._wait_candidates(theirs, attempt)
        if not found:
            return Connect(())
        forecasts = await lookout.look() if self.looks_ahead else ()
        near: tuple[Multiaddr, ...] = ()
        if share_outside(theirs, found):
            near = private(self._host.addresses.value)[:MAX_NEIGHBOURS]
        maximum = MAX_OFFERED - len(near)
        count = self._bounds.predicted_ports
        astray = is_astray(attempt, initiator=initiator)
        offering = Offering(attempt, count, maximum, lookout.dialled, astray)
        others = with_predicted(offered(found), forecasts, offering)
        side = self._birthdays.side(forecasts)
        return Connect(tuple(dict.fromkeys([*others, *near])), side, self._swift(forecasts))

    def foreword(self, peer_id: PeerId) -> bytes:
        """Return what to tell a peer that is called over a relay, in the handshake (D30).

        That is what ``offer`` would return, if it had not to wait for it; else nothing.
        """
        found = self.candidates()
        forecasts = self._sampler.to_tell() if self._bounds.predicted_ports else ()
        if not found or forecasts is None or has_direct(self._host, peer_id) is not None:
            return b""
        offering = Offering(1, self._bounds.predicted_ports, MAX_OFFERED)
        addresses = with_predicted(offered(found), forecasts, offering)
        return encode_message(Connect(addresses, swift=self._swift(forecasts)))

    def _swift(self, forecasts: Sequence[Forecast]) -> Swift:
        """Say over which transports no peer can know where we dial from, or all do (D28)."""
        foreseen = {forecast.transport for forecast in forecasts}
        moving = (each for each in TRANSPORTS if self._host.ports_move(each))
        hidden = tuple(each for each in moving if each not in foreseen)
        steady = tuple(each for each in TRANSPORTS if self._host.ports_move(each) is False)
        return Swift(0.0, hidden, steady)

    async def _wait_candidates(
        self, theirs: Sequence[Multiaddr], attempt: int
    ) -> tuple[Multiaddr, ...]:
        """Return where this host is seen; have it seen so as to suit the peer, if need be (D8)."""
        await trio.lowlevel.checkpoint()
        found = self.candidates()
        is_suited = bool(ways(found) & ways(theirs))
        wanted = unseen(self._host, found, theirs, attempt) if found else frozenset()
        if is_suited:
            wanted -= self._showing.in_vain()
        if found and not wanted:
            return found
        # It may be the peer that can do so, and here UDP, say, leads nowhere.
        is_short = bool(wanted) and (attempt == 1 or is_suited)
        bounds = self._bounds
        seconds = bounds.sample_timeout if is_short else bounds.address_timeout
        await self._showing.show(wanted, every=attempt > 1, seconds=seconds)
        return self.candidates()

    def candidates(self) -> tuple[Multiaddr, ...]:
        addresses = self._host.punch_addresses()
        if self._bounds.allow_private:
            direct = [a for a in self._host.addresses.value if not is_relayed(a)]
            addresses = (*addresses, *direct)
        return addresses

    def targets(self, peer_id: PeerId, addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
        return targets(
            addresses,
            peer_id=peer_id,
            own=self._own(),
            allow_private=self._bounds.allow_private,
        )

    def _own(self) -> tuple[Multiaddr, ...]:
        return (*self.candidates(), *self._host.addresses.value)

    # ---- dials ---------------------------------------------------------------------------

    async def dial_directly(self, peer_id: PeerId) -> Connection | None:
        """Dial a peer that says it can be dialled: no hole is needed then (D3).

        From any port: a NAT that saw this fail has not seen the port of the punch.
        """
        known = self.targets(peer_id, self._host.peers.addresses(peer_id))
        places = [place for place in known if self._budget.take(place, trio.current_time())]
        if places:
            with trio.move_on_after(self._bounds.direct_timeout):
                try:
                    return await self._host.dial(peer_id, places, any_port=True)
                except DialError:
                    return None
        return None

    async def punch(
        self, peer_id: PeerId, punch: Punch, attempt: int, lookout: Lookout, *, initiator: bool
    ) -> Connection:
        """Dial until there is a direct connection, whichever side opened it (D9, D10, D11, D15).

        Raises:
            P2PError: if there is nobody to dial.
            PunchFailed: if there is no connection within ``punch_timeout``.
        """
        places = self.targets(peer_id, punch.addresses)
        relays = ends_at_relays(self._host, peer_id)
        near = neighbours(punch.addresses, peer_id=peer_id, own=self._own(), relays=relays)
        if not places and not near:
            raise NoPunchAddress("the peer offered no public address")
        every = tuple(dict.fromkeys([*places, *near]))
        self._host.publish(
            PunchStarted(peer_id, attempt, initiator, every, punch.round_trip, punch.steady or ())
        )
        pause = longest_pause(punch.round_trip, self._bounds.shortest_pause)
        effort = Effort(punch, attempt, initiator, pause, lookout, self._own())
        spoken_to = [place for place in places if effort.role_at(place) is Role.DIALER]
        direct = None
        side = punch.side if attempt == BIRTHDAY_ATTEMPT else None
        whole = self._patience(punch, attempt) if initiator else self._bounds.punch_timeout
        seconds = max(whole, self._birthdays.seconds if side else 0.0)
        with (
            self.expecting(spoken_to, punch.round_trip),
            trio.move_on_at(punch.at + seconds) as limit,
        ):
            async with trio.open_nursery() as nursery:
                if side is not None:
                    nursery.start_soon(self._celebrate, peer_id, side, places, effort)
                for place in near:
                    nursery.start_soon(self._dial_neighbour, peer_id, place, effort)
                nursery.start_soon(self._begin, peer_id, places, effort, nursery)
                direct = await self._host.wait_direct(peer_id)
                # Had each side several handshakes under way and kept another one, both
                # would be cancelled. So they may end, but nothing new begins.
                effort.is_over = True
                limit.deadline = min(limit.deadline, trio.current_time() + effort.pause)
        if direct is not None:
            self._birthdays.found_at(direct.remote_address)
            return direct
        causes = [cause_of(place, effort) for place in every]
        raise PunchFailed(peer_id, [*causes, *effort.others])

    def _patience(self, punch: Punch, attempt: int) -> float:
        """Return how long to punch: not for long while there are ways yet to be seen by (D10)."""
        whole = self._bounds.punch_timeout
        if punch.unsynced is None or attempt == self._bounds.attempts:
            return whole
        own = self.candidates()
        more = unseen(self._host, own, punch.addresses, attempt + 1) - self._showing.in_vain()
        if ways(own) | more <= ways(own) & ways(punch.addresses):
            return whole
        return first_attempt(punch.round_trip, whole)

    def expecting(
        self, places: Sequence[Multiaddr], round_trip: float
    ) -> AbstractContextManager[None]:
        """Speak first on what the peer's own dials become here, where that is our role (D15)."""
        if not places:
            return nullcontext()
        return self._host.expect_listeners(places, patience=patience(round_trip))

    def _may_dial(self, place: Multiaddr, effort: Effort) -> bool:
        """Take a dial out of the budget of that place, if there is one left (D25)."""
        if self._budget.take(place, trio.current_time()):
            return True
        effort.failed[place] = P2PError("too many dials at that IP or its network lately")
        return False

    async def _celebrate(
        self, peer_id: PeerId, side: Side, places: Sequence[Multiaddr], effort: Effort
    ) -> None:
        await trio.sleep_until(effort.punch.at)
        await self._birthdays.run(peer_id, side, places, effort.others)

    async def _dial_neighbour(self, peer_id: PeerId, place: Multiaddr, effort: Effort) -> None:
        """Dial an address in our own network: there is no NAT, and so no hole to punch (D20)."""
        if not self._may_dial(place, effort):
            return
        try:
            await self._host.dial(peer_id, [place], any_port=True)
        except DialError as error:
            effort.failed.setdefault(place, last_cause(error))

    async def _begin(
        self, peer_id: PeerId, places: Sequence[Multiaddr], effort: Effort, nursery: trio.Nursery
    ) -> None:
        """Dial all, one after the other (D18).

        Not each at a time of its own: those that are late would all begin at once, in any order.
        """
        for place in sorted(places, key=effort.begins_at):
            await trio.sleep_until(effort.begins_at(place))
            nursery.start_soon(self._keep_dialling, peer_id, place, effort)
            await trio.sleep(STAGGER)

    async def _keep_dialling(self, peer_id: PeerId, place: Multiaddr, effort: Effort) -> None:
        """Dial one address; when refused, again, after a random pause (D10).

        A dial that nobody answers is left alone: a socket that keeps sending its SYN is what
        the other side's SYN has to meet.
        """
        for number in range(1 + self._bounds.max_redials):
            began = trio.current_time()
            if effort.is_over or not self._may_dial(place, effort):
                return
            effort.lookout.note(place)
            try:
                await self._host.dial(peer_id, [place], role=effort.role_at(place))
                return
            except DialError as error:
                effort.failed[place] = last_cause(error)
            if isinstance(effort.failed[place], AddressUnsupported | LimitExceeded):  # D32
                return
            # With fixed pauses, two NATs that refuse lock both sides into step.
            pause = redial_pause(number, trio.current_time() - began, effort.pause)
            await trio.sleep(self._jitter(0.0, pause))


def transport_of(address: Multiaddr) -> str | None:
    """Return ``tcp`` or ``udp``; None for what is not punched."""
    place = punchable(address)
    return None if place is None else place.protocol


def cause_of(place: Multiaddr, effort: Effort) -> BaseException:
    """Say why there is no connection to a place."""
    cause = effort.failed.get(place)
    reason = "no answer" if cause is None else describe(cause)
    if cause is None and share_outside([place], effort.own):
        reason += ", and this host is seen at the same address: the NAT sends nothing back in"
    return P2PError(f"{place}: {reason}")


def last_cause(error: DialError) -> BaseException:
    attempts: tuple[FailedAttempt, ...] = error.attempts
    return attempts[-1].cause if attempts else error


def has_direct(host: ServiceHost, peer_id: PeerId) -> Connection | None:
    """Return the best connection to a peer that no relay carries."""
    for connection in host.connections(peer_id):
        if not connection.is_relayed:
            return connection
    return None


async def retire(host: ServiceHost, peer_id: PeerId, seconds: float) -> None:
    """Close the relayed connections with a peer that is direct, once nothing uses them (D14)."""
    circuits = [each for each in host.connections(peer_id) if each.is_relayed]
    while circuits:
        # Nothing tells when the last stream of a connection ends, and there is no hurry.
        await trio.sleep(seconds)
        if has_direct(host, peer_id) is None:
            return
        for circuit in circuits:
            if not circuit.streams:
                await circuit.aclose()
        circuits = [each for each in circuits if not each.is_closed]


def ends_at_relays(host: ServiceHost, peer_id: PeerId) -> list[tuple[Multiaddr, Multiaddr]]:
    """Return both ends, ours first, of the connections to the relays over which a peer is met."""
    relayed = (each for each in host.connections(peer_id) if each.is_relayed)
    relays = {circuit_of(each.remote_address).relay for each in relayed}
    return [
        (each.local_address, each.remote_address)
        for relay in relays
        for each in host.connections(relay)
        if not each.is_relayed
    ]


def channel_on(stream: Stream) -> MessageChannel[HolePunch]:
    return MessageChannel(
        stream,
        PROTOCOL_ID,
        encode=encode_message,
        decode=decode_untrusted,
        max_bytes=MAX_MESSAGE_BYTES,
    )
