"""Finds out that a network swallows UDP, or IPv6, and leaves such addresses out. Pure.

Rules: specs/dialing.md (DI20 to DI25). Only public addresses count, and one dial of a peer
counts once for each class::

    won, or answered at all                              worked
    was silent, while another class won at the same peer  was swallowed
    anything else (all silent, refused, too short)        says nothing

                  window full, successes >= minimum
    +---------+ -----------------------------------> +---------+
    | PROBING |                                      | ALLOWED | <-+ the window slides
    +---------+ -----------------+                   +---------+ --+
         ^        successes <    |                        | successes < minimum
         |         minimum       v                        v
         |                   +---------+ <----------------+
         +------------------ | BLOCKED |  one dial in ``window`` is let through
             one success     +---------+
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from p2pnet.core.addresses import Multiaddr, Scope, components, is_relayed, scope
from p2pnet.core.peer_id import PeerId

ACCUSERS = 10
"""It takes so many peers at least to have a class blocked: addresses may be invented (DI27)."""


class Class(Enum):
    """A class of addresses that some networks swallow."""

    UDP = "UDP"
    IPV6 = "IPv6"


class State(Enum):
    """What is thought of a class."""

    PROBING = "probing"
    """Too little is known; it is dialled."""
    ALLOWED = "allowed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a dial of a peer has shown."""

    winner: Multiaddr | None = None
    answered: tuple[Multiaddr, ...] = ()
    """Whoever said anything at all, whatever became of it."""
    silent: tuple[Multiaddr, ...] = ()
    """Who had time enough to answer before the winner was even dialled, and did not."""


def classes_of(address: Multiaddr) -> frozenset[Class]:
    """Return the classes an address belongs to; none if it is not public, or relayed (DI20)."""
    if not is_public(address):
        return frozenset()
    names = [name for name, _ in components(address)[:2]]
    found = {Class.IPV6} if names[0] == "ip6" else set()
    return frozenset(found | {Class.UDP} if "udp" in names else found)


class Counter:
    """What became of the last dials of one class."""

    def __init__(self, window: int, minimum: int) -> None:
        self._results: deque[bool] = deque(maxlen=window)
        self._accusers: deque[PeerId | None] = deque(maxlen=window)
        """Beside each result: at which peer the class was swallowed."""
        self._window = window
        self._minimum = minimum
        self._left_out = 0

    @property
    def state(self) -> State:
        if len(self._results) < self._window:
            return State.PROBING
        return State.ALLOWED if sum(self._results) >= self._minimum else State.BLOCKED

    @property
    def is_silent(self) -> bool:
        """Tell if it was swallowed, and has not worked once."""
        return bool(self._results) and not any(self._results)

    def learn(self, *, worked: bool, peer: PeerId | None = None) -> None:
        if worked and self.state is State.BLOCKED:
            self.forget()  # DI21: a hole is there or not; all anew rather than bit by bit
        accuser = None if worked else peer
        share = max(1, self._window // ACCUSERS)
        if accuser is not None and self._accusers.count(accuser) >= share:  # DI27
            return
        self._results.append(worked)
        self._accusers.append(accuser)

    def take_turn(self) -> bool:
        """Tell if this dial is the one in ``window`` that is let through."""
        self._left_out = (self._left_out + 1) % self._window
        return self._left_out == 0

    def forget(self) -> None:
        self._results.clear()
        self._accusers.clear()
        self._left_out = 0


class BlackHoles:
    """The classes of one host in one place of the network."""

    def __init__(self, *, window: int, minimum: int) -> None:
        self._counters = {each: Counter(window, minimum) for each in Class}

    def state(self, each: Class) -> State:
        """Return what is thought of a class."""
        return self._counters[each].state

    def is_silent(self, each: Class) -> bool:
        """Tell if nobody has answered in a class, and somebody has who was silent in it."""
        return self._counters[each].is_silent

    def screen(
        self, addresses: Sequence[Multiaddr], insisted: frozenset[Multiaddr] = frozenset()
    ) -> dict[Multiaddr, Class]:
        """Return which addresses to leave out of a dial, with the class that is swallowed.

        Those that somebody insists on are not; they may be reason enough to leave out others.
        """
        asked = {each for address in addresses for each in classes_of(address)}
        blocked = {each for each in asked if self.state(each) is State.BLOCKED}
        probed = {each for each in blocked if self._counters[each].take_turn()}  # DI22
        left_out = {}
        for address in addresses:
            suspects = classes_of(address) & blocked
            if suspects and not suspects & probed and address not in insisted:
                left_out[address] = min(suspects, key=lambda each: each.value)
        # DI23: without an alternative there is nothing to lose.
        return left_out if any(is_public(a) and a not in left_out for a in addresses) else {}

    def learn(self, outcome: Outcome, peer: PeerId | None = None) -> None:
        """Take in what a dial of a peer has shown (DI20)."""
        lively = [*outcome.answered, *([outcome.winner] if outcome.winner else [])]
        worked = union(map(classes_of, lively))
        for each in worked:
            self._counters[each].learn(worked=True)
        for each in swallowed(outcome) - worked:
            self._counters[each].learn(worked=False, peer=peer)

    def forget(self) -> None:
        """Begin anew: this machine is in another network (DI24)."""
        for counter in self._counters.values():
            counter.forget()


def swallowed(outcome: Outcome) -> frozenset[Class]:
    """Return the classes whose silence is plain: the peer is there, and reached otherwise."""
    winner = outcome.winner
    if winner is None or not is_public(winner):
        return frozenset()
    # Silent in two classes that both lost, an address tells nothing about either.
    suspects = [classes_of(address) - classes_of(winner) for address in outcome.silent]
    return union(each for each in suspects if len(each) == 1)


def is_public(address: Multiaddr) -> bool:
    return not is_relayed(address) and scope(address) is Scope.PUBLIC


def union(sets: Iterable[frozenset[Class]]) -> frozenset[Class]:
    return frozenset().union(*sets)
