"""From the addresses of a peer to a capable connection: screened, ranked, raced.

Rules: specs/dialing.md.

::

    addresses -> resolved (A10) -> usable (DI2) -> not resting (DI3) -> not swallowed (DI22)
                                                                             |
        what is left out goes into the error, with its reason (DI14)         v
        <------------------------------------------------------- ranked (DI4), raced (DI9)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from p2pnet.core.addresses import Multiaddr, peer_id_of, place_of, without_peer
from p2pnet.core.env import Network
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    AddressMisleads,
    AddressUnsupported,
    BothDialed,
    DialError,
    FailedAttempt,
    LeftOut,
    NotDialled,
    describe,
)
from p2pnet.events import AddressFailed, DialPlanned
from p2pnet.interfaces import CapableConnection, Role, Transport
from p2pnet.swarm.backoff import Backoff
from p2pnet.swarm.black_hole import BlackHoles, Class, Outcome
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.dialer import Bounds, Race, race
from p2pnet.swarm.peerstore import Peerstore
from p2pnet.swarm.ranking import PUBLIC_STEP, Attempt, canonical, rank
from p2pnet.swarm.resolver import resolve
from p2pnet.swarm.slots import PromptSlots

CONNECTED_SECONDS = 900.0
"""An address that worked is remembered for so long after it did."""
SILENCE_STEP = PUBLIC_STEP / 2
"""Not a whole one: on a busy machine one dial begins later than its turn, and the next does not."""
SWALLOWED = {
    Class.UDP: "this network seems to let no UDP through",
    Class.IPV6: "this network seems to lead no IPv6 anywhere",
}


@dataclass(frozen=True, slots=True)
class How:
    """How a dial is made; see Transport.dial."""

    role: Role = Role.DIALER
    any_port: bool = False
    deadline: float = math.inf
    may_wait: bool = True
    """For the slot of another dial to be free (DI11, DI29)."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a dialler is told of the swarm it belongs to."""

    transports: Sequence[Transport]
    listen_addresses: Callable[[], Sequence[Multiaddr]]
    publish: Callable[[object], None]


class Dialling:
    """Dials peers, and remembers what failed."""

    def __init__(
        self, config: SwarmConfig, network: Network, *, own: Own, peers: Peerstore
    ) -> None:
        self._config = config
        self._network = network
        self._own = own
        self._peers = peers
        self._backoff = Backoff(config.max_backoffs)
        self._slots = trio.CapacityLimiter(config.max_dials)
        self._prompt_slots = PromptSlots("max_dials_at_once", config.max_dials_at_once)
        self._interfaces: tuple[str, ...] | None = None
        self.black_holes = BlackHoles(
            window=config.black_hole_window, minimum=config.black_hole_minimum
        )

    async def ranked(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        insist: frozenset[Multiaddr],
        result: Race,
    ) -> CapableConnection:
        """Dial a peer's addresses in their order; those in ``insist`` whatever is thought of them.

        Raises:
            DialError: with one cause per address.
        """
        usable, failed = await self._usable(peer_id, addresses, insist)
        self._look_around()
        dialled = self._screen(peer_id, usable, failed)
        how = How(deadline=trio.current_time() + self._config.connect_timeout)
        attempts = rank(dialled, self._interfaces)
        plan = tuple((each.delay, each.address) for each in attempts)
        self._own.publish(DialPlanned(peer_id, plan, tuple(failed)))
        result.report = lambda failure: self._own.publish(AddressFailed(peer_id, failure))
        try:
            return await self._race(peer_id, attempts, how, failed=failed, result=result)
        finally:
            self.black_holes.learn(shown_by(result, trio.current_time()), peer_id)

    async def at_once(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], how: How, *, result: Race
    ) -> CapableConnection:
        """Dial all addresses at the same moment: no order, no back-off, no black holes (DI25).

        One for which there is no room fails at once (DI29).

        Raises:
            DialError: with one cause per address.
        """
        usable, failed = await self._usable(peer_id, addresses, frozenset())
        attempts = [Attempt(0.0, address) for address in usable]
        how = replace(how, may_wait=False)
        return await self._race(peer_id, attempts, how, failed=failed, result=result)

    def forget(self) -> None:
        """Give every address another chance: this machine is in another network (DI24)."""
        self._backoff.forget()
        self.black_holes.forget()

    def _look_around(self) -> None:
        """Look where this machine is: what failed at another place says nothing of this one."""
        try:
            interfaces = self._network.interface_addresses()
        except OSError:
            return  # Looking takes a descriptor; without one the last look has to do.
        if self._interfaces is not None and set(interfaces) != set(self._interfaces):
            self.forget()
        self._interfaces = interfaces

    async def _usable(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], insist: frozenset[Multiaddr]
    ) -> tuple[dict[Multiaddr, bool], list[FailedAttempt]]:
        """Resolve names, and set aside what cannot be dialled, with the reason (DI2).

        What is left is without the peer, and stands with whether it was insisted on.
        """
        found = await resolve(
            tuple(addresses), self._network, max_addresses=self._config.max_addresses_per_dial
        )
        insisted = {without_peer(address) for address in insist}
        own = {place_of(address) for address in self._own.listen_addresses()} - {None}
        spelled: dict[Multiaddr, Multiaddr] = {}
        usable: dict[Multiaddr, bool] = {}
        failed = list(found.failed)
        for full, origin in found.addresses.items():
            address = without_peer(full)
            if peer_id_of(full) not in (None, peer_id):
                error = AddressMisleads(full, "it leads to another peer")
                failed.append(FailedAttempt(full, error))
            elif place_of(address) in own:
                failed.append(FailedAttempt(address, AddressMisleads(address, "our own address")))
            elif self._transport_for(address) is None:
                failed.append(FailedAttempt(address, AddressUnsupported(address)))
            else:
                address = spelled.setdefault(canonical(address), address)  # DI1
                usable[address] = usable.get(address, False) or without_peer(origin) in insisted
        return usable, failed

    def _screen(
        self, peer_id: PeerId, usable: dict[Multiaddr, bool], failed: list[FailedAttempt]
    ) -> list[Multiaddr]:
        """Leave out what failed lately, or would be swallowed; note why."""
        now = trio.current_time()
        awake = []
        for address, is_insisted in usable.items():
            refusal = self._backoff.check(peer_id, address, now)  # DI3
            if refusal is None or is_insisted:
                awake.append(address)
            else:
                failed.append(FailedAttempt(address, refusal))
        insisted = frozenset(address for address in awake if usable[address])
        suspects = self.black_holes.screen(awake, insisted)  # DI22
        for address, swallowed in suspects.items():
            refused = NotDialled(LeftOut.BLACK_HOLE, SWALLOWED[swallowed])
            failed.append(FailedAttempt(address, refused))
        return [address for address in awake if address not in suspects]

    def _transport_for(self, address: Multiaddr) -> Transport | None:
        return next((t for t in self._own.transports if t.can_dial(address)), None)

    async def _race(
        self,
        peer_id: PeerId,
        attempts: list[Attempt],
        how: How,
        *,
        failed: list[FailedAttempt],
        result: Race,
    ) -> CapableConnection:
        async def dial_one(address: Multiaddr) -> CapableConnection:
            transport = self._transport_for(address)
            if transport is None:
                raise AddressUnsupported(address)
            with trio.fail_after(config.dial_timeout):
                try:
                    return await transport.dial(
                        address, peer_id=peer_id, role=how.role, any_port=how.any_port
                    )
                except BothDialed:  # DI15
                    return await transport.dial(
                        address, peer_id=peer_id, role=how.role, any_port=True
                    )

        config = self._config
        bounds = Bounds(
            max_parallel=config.max_parallel_dials,
            deadline=how.deadline,
            slots=self._slots if how.may_wait else self._prompt_slots,
        )
        await race(attempts, dial_one, bounds, result=result)
        now = trio.current_time()
        for attempt in result.failed:
            if attempt.address in result.runs and isinstance(attempt.address, Multiaddr):
                self._backoff.failed(peer_id, attempt.address, describe(attempt.cause), now)
        if result.winner is None or result.winning_address is None:
            late = [FailedAttempt(each, too_late(each, result)) for each in result.unfinished]
            hint = f"no answer within {config.connect_timeout:.0f} s" if late else ""
            raise DialError(peer_id, [*failed, *result.failed, *late], hint)
        self._backoff.worked(peer_id, result.winning_address)
        self._peers.add_addresses(peer_id, [result.winning_address], seconds=CONNECTED_SECONDS)
        return result.winner


def too_late(address: Multiaddr, result: Race) -> Exception:
    """Say what became of an address that has no outcome when the time is over."""
    if address in result.runs:
        return trio.TooSlowError()
    return NotDialled(LeftOut.NO_TURN, "the time was over before its turn came")


def shown_by(result: Race, now: float) -> Outcome:
    """Draw from a race what it says about black holes (DI20)."""
    winner = result.winning_address
    won = now if winner is None else result.runs[winner].began
    silent = [
        address
        for address, run in result.runs.items()
        if run.answered is None
        and address != winner
        and was_silent(address, result)
        and won - run.began >= SILENCE_STEP
    ]
    return Outcome(winner, result.answered, tuple(silent))


def was_silent(address: Multiaddr, result: Race) -> bool:
    """Tell if nothing was heard from an address; a refusal is an answer of somebody's."""
    if address in result.unfinished:
        return True
    causes = [attempt.cause for attempt in result.failed if attempt.address == address]
    return any(isinstance(cause, trio.TooSlowError | TimeoutError) for cause in causes)
