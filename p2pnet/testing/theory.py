"""Which two homes can open a direct connection, derived from how their NATs behave.

The derivation is in specs/nat.md. Both sides send at the agreed moment, to the endpoint at which
a third party sees the other, and go on. There is a connection if a packet of one of them comes
through to the other, since the answer then takes the same way back::

    sender  ==>  receiver       comes through, if
                                 - the sender knows from where the receiver sends to it
                                 - the receiver's filter was opened for the sender
                                 - it is no SYN that the receiver's NAT refuses
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2pnet.connectivity.causes import Cause
from p2pnet.testing.kinds import MATRIX, Kind
from p2pnet.testing.nat_kind import Dependence, NatKind, PortChoice
from p2pnet.testing.packet import TransportName

STRICTNESS = tuple(Dependence)
INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two homes can have a direct connection, and why or why not."""

    direct: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Chain:
    """How the NATs of a home behave together."""

    name: str
    mapping: Dependence
    filtering: Dependence
    is_guessable: bool
    """Whether the next outside port can be told from those before."""
    lets_strangers_in: bool
    """Whether anyone comes in where an observer sees it, though its mapping is dependent."""
    refuses_simultaneous_open: bool
    udp_blocked: bool


def chained(kind: Kind) -> Chain:
    """Put the NATs of a home together: the most dependent one decides (NT22)."""
    return Chain(
        name=kind.name,
        mapping=strictest(nat.mapping for nat in kind.nats if nat.translates),
        filtering=strictest(nat.filtering for nat in kind.nats),
        is_guessable=is_guessable(kind.nats),
        lets_strangers_in=lets_strangers_in(kind.nats),
        refuses_simultaneous_open=any(nat.refuses_simultaneous_open for nat in kind.nats),
        udp_blocked=any(nat.udp_blocked for nat in kind.nats),
    )


def strictest(dependences: Iterable[Dependence]) -> Dependence:
    return max(dependences, key=STRICTNESS.index, default=INDEPENDENT)


def divided(nats: tuple[NatKind, ...]) -> tuple[tuple[NatKind, ...], tuple[NatKind, ...]]:
    """Divide the NATs of a home into those before the first dependent mapping, and the rest."""
    for number, nat in enumerate(nats):
        if nat.translates and nat.mapping is not INDEPENDENT:
            return nats[:number], nats[number:]
    return nats, ()


def is_guessable(nats: tuple[NatKind, ...]) -> bool:
    """Tell whether all ports that move follow a rule (NT27)."""
    _, moving = divided(nats)
    return all(nat.ports is not PortChoice.RANDOM for nat in moving if nat.translates)


def lets_strangers_in(nats: tuple[NatKind, ...]) -> bool:
    """Tell whether a stranger comes in by the mapping that an observer sees (NT24).

    That mapping is the observer's, from the first dependent NAT outwards, and only an open filter
    lets others use it. Before that NAT there is one mapping for all.
    """
    before, beyond = divided(nats)
    return (
        bool(beyond)
        and strictest(nat.filtering for nat in beyond) is INDEPENDENT
        and strictest(nat.filtering for nat in before) is not Dependence.ADDRESS_AND_PORT
    )


def can_punch(
    a: Kind, b: Kind, transport: TransportName, *, predicts_ports: bool = False
) -> Verdict:
    """Tell whether two hosts behind different NATs can get a direct connection.

    Args:
        a: the home of the one.
        b: the home of the other.
        transport: what they want to speak over.
        predicts_ports: whether they try the ports that a peer's NAT will probably give next.
    """
    one, other = chained(a), chained(b)
    if transport == "udp" and (one.udp_blocked or other.udp_blocked):  # NT26
        return Verdict(False, f"{one.name if one.udp_blocked else other.name} blocks UDP")
    for sender, receiver in ((one, other), (other, one)):
        attempt = Attempt(sender, receiver, transport, predicts_ports)
        if attempt.comes_through:  # NT23
            return Verdict(True, attempt.reason)
    return Verdict(False, obstacle(one, other, predicts_ports))


@dataclass(frozen=True, slots=True)
class Attempt:
    """The packets that one side sends to the other."""

    sender: Chain
    receiver: Chain
    transport: TransportName
    predicts_ports: bool

    @property
    def comes_through(self) -> bool:
        is_known = knows(self.receiver, self.sender, self.predicts_ports)
        if not knows(self.sender, self.receiver, self.predicts_ports):
            return not is_known and self.receiver.lets_strangers_in  # NT24
        if self.receiver.filtering is Dependence.ADDRESS_AND_PORT and not is_known:
            return False
        # NT25: a SYN is unanswered only at the endpoint that it was sent to.
        refuses = self.transport == "tcp" and self.receiver.refuses_simultaneous_open
        return not (refuses and is_known)

    @property
    def reason(self) -> str:
        if not knows(self.sender, self.receiver, self.predicts_ports):
            return f"{self.receiver.name} lets anyone in where it was seen"
        match self.receiver.filtering:
            case Dependence.ENDPOINT_INDEPENDENT:
                return f"{self.receiver.name} lets anyone in"
            case Dependence.ADDRESS:
                return f"{self.receiver.name} lets in any port of an address it has sent to"
            case Dependence.ADDRESS_AND_PORT:
                return "each side knows the other's port, and has opened its filter for it"


def knows(who: Chain, whom: Chain, predicts_ports: bool) -> bool:
    """Tell whether one side can know from which endpoint the other will send to it.

    Who guesses sends to several ports. If its own mapping depends on them, each of those packets
    leaves from another port, and the other side has to guess that as well.
    """
    if whom.mapping is INDEPENDENT:
        return True
    is_followed = who.mapping is not Dependence.ADDRESS_AND_PORT or who.is_guessable
    return predicts_ports and whom.is_guessable and is_followed


def obstacle(one: Chain, other: Chain, predicts_ports: bool) -> str:
    """Say why no packet comes through, neither from one to the other nor back."""
    unknown = [
        whom for who, whom in ((one, other), (other, one)) if not knows(who, whom, predicts_ports)
    ]
    match unknown:
        case []:
            return "both refuse simultaneous open"
        case [hidden]:
            strict = other if hidden is one else one
            return (
                f"the mapping of {hidden.name} depends on the destination, and {strict.name} "
                "lets in only a port it has sent to"
            )
        case _:
            return "both mappings depend on the destination: neither side can know the other's port"


def causes(a: Kind, b: Kind, transport: TransportName) -> tuple[Cause, ...]:
    """Return what each of two hosts is to name that stay relayed, predicting ports (NT28).

    Nothing if they do not.
    """
    if can_punch(a, b, transport, predicts_ports=True).direct:
        return ()
    one, other = chained(a), chained(b)
    return cause_at(one, other, transport), cause_at(other, one, transport)


def cause_at(own: Chain, peer: Chain, transport: TransportName) -> Cause:
    if transport == "udp" and own.udp_blocked:
        return Cause.UDP_BLOCKED
    if transport == "udp" and peer.udp_blocked:
        return Cause.NO_PUNCH_ADDRESS
    if own.mapping is not INDEPENDENT:
        return Cause.OWN_SYMMETRIC
    return Cause.SIMULTANEOUS_OPEN if peer.mapping is INDEPENDENT else Cause.PEER_SYMMETRIC


def outcome_table(transport: TransportName, kinds: Iterable[Kind] = MATRIX.values()) -> str:
    """Write down in Markdown what becomes of each pair: ``+`` direct, ``-`` relayed."""
    kinds = tuple(kinds)
    lines = [
        "| | " + " | ".join(str(number) for number, _ in enumerate(kinds, 1)) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for number, row in enumerate(kinds, 1):
        marks = ("+" if can_punch(row, column, transport).direct else "-" for column in kinds)
        lines.append(f"| {number} {row.name} | " + " | ".join(marks) + " |")
    return "\n".join(lines)
