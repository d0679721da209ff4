"""In which order, and how far apart, the addresses of a peer are dialled. Pure.

Rules: specs/dialing.md (DI1, DI4 to DI8), after Happy Eyeballs (RFC 8305).

::

    seconds  0      0.25    0.5     0.75    1.0     1.25    ...
    near     q t w  (30 ms apart)
    public   QUIC6  QUIC4   others  TCP6    TCP4    others  WebSocket alike, then the rest
    far              private addresses of networks that this machine is not in, alike
    relayed                 one a second
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain

from p2pnet.core.addresses import (
    PRIVATE,
    IpAddress,
    Multiaddr,
    Scope,
    circuit_of,
    components,
    ip_from_text,
    ip_of,
    is_relayed,
    join,
    scope,
    unwrapped,
)
from p2pnet.core.peer_id import PeerId

PUBLIC_STEP = 0.25
PRIVATE_STEP = 0.03
FAR_DELAY = 0.25
RELAY_DELAY = 0.5
CIRCUIT_STEP = 1.0
"""Longer than others: that a circuit is not needed is known only once another is open, and by
then it has cost its relay, and the peer, as much as any."""
OTHER_STEPS = 4
"""How many steps behind all others the kinds come that are like none of them."""


class Kind(IntEnum):
    """What an address asks for, the best first."""

    QUIC = 0
    TCP = 1
    WEBSOCKET = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """Dial ``address`` so many seconds after the first one, or when all before it failed."""

    delay: float
    address: Multiaddr


def rank(addresses: Sequence[Multiaddr], interfaces: Sequence[str] | None = None) -> list[Attempt]:
    """Order the dials to one peer: QUIC before TCP, IPv6 before IPv4, relayed last; staggered.

    ``interfaces`` are the IPs of this machine; if they are not known, every private address
    is taken for one of a network that this machine is in.
    """
    unique = distinct(addresses)
    relayed = [address for address in unique if is_relayed(address)]
    direct = [address for address in unique if not is_relayed(address)]
    public = [address for address in direct if scope(address) is Scope.PUBLIC]
    private = [address for address in direct if scope(address) is not Scope.PUBLIC]
    here = None if interfaces is None else [ip_from_text(text) for text in interfaces]
    near = [address for address in private if is_near(address, here)]
    far = [address for address in private if address not in near]
    attempts = [
        *stagger(near, start=0.0, step=PRIVATE_STEP),  # DI4, DI6
        *stagger(public, start=0.0, step=PUBLIC_STEP),
        *stagger(far, start=FAR_DELAY if near or public else 0.0, step=PUBLIC_STEP),
        *line_up(relayed, start=RELAY_DELAY if direct else 0.0),  # DI7
    ]
    return sorted(attempts, key=lambda attempt: attempt.delay)


def distinct(addresses: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Keep the first of those addresses that mean the same (DI1)."""
    kept: dict[Multiaddr, Multiaddr] = {}
    for address in addresses:
        kept.setdefault(canonical(address), address)
    return list(kept.values())


def canonical(address: Multiaddr) -> Multiaddr:
    """Return the one way to write an address: ``/wss`` is short for ``/tls/ws``."""
    parts = components(address)
    if all(name != "wss" for name, _ in parts):
        return address
    spelled: list[tuple[str, str]] = []
    for name, value in parts:
        spelled += [("tls", ""), ("ws", "")] if name == "wss" else [(name, value)]
    return join(spelled)


def is_near(address: Multiaddr, here: Sequence[IpAddress] | None) -> bool:
    """Tell if this machine is in a network such as a private address belongs to."""
    ip = ip_of(address)
    if here is None or ip is None or scope(address) is Scope.LOOPBACK:
        return True
    ip = unwrapped(ip)
    network = next((network for network in PRIVATE if ip in network), None)
    return network is not None and any(own in network for own in here)


def stagger(addresses: Sequence[Multiaddr], *, start: float, step: float) -> Iterator[Attempt]:
    """Go through the kinds: of each, IPv6, IPv4, and the others, one step apart (DI5)."""
    turn = start
    for kind in Kind:
        of_kind = [each for each in addresses if kind_of(each) is kind]
        if len(of_kind) > 1:
            of_kind.sort(key=preference)
        if kind is Kind.OTHER and turn > start:
            turn += (OTHER_STEPS - 1) * step
        for together in eyeballs(of_kind):
            for address in together:
                yield Attempt(turn, address)
            turn += step


def line_up(relayed: Sequence[Multiaddr], *, start: float) -> Iterator[Attempt]:
    """Put circuits one behind the other; no relay's second address before another's first (DI7)."""
    rounds: list[list[Multiaddr]] = []
    of_relay = Counter[PeerId]()
    for attempt in stagger(relayed, start=0.0, step=PUBLIC_STEP):
        relay = circuit_of(attempt.address).relay
        if of_relay[relay] == len(rounds):
            rounds.append([])
        rounds[of_relay[relay]].append(attempt.address)
        of_relay[relay] += 1
    for place, address in enumerate(chain.from_iterable(rounds)):
        yield Attempt(start + place * CIRCUIT_STEP, address)


def eyeballs(addresses: Sequence[Multiaddr]) -> Iterator[list[Multiaddr]]:
    """Put the first of each family ahead, and all others behind."""
    heads: dict[bool, Multiaddr] = {}
    for address in addresses:
        heads.setdefault(is_ipv6(address), address)
    others = [address for address in addresses if address not in heads.values()]
    yield from ([head] for head in heads.values())
    if others:
        yield others


def kind_of(address: Multiaddr) -> Kind:
    """Tell what an address asks for; a relayed one is of the kind that its relay is."""
    names = [name for name, _ in components(address)]
    if "p2p" in names:
        names = names[: names.index("p2p")]
    match names[1:]:
        case ["udp", "quic-v1"]:
            return Kind.QUIC
        case ["tcp"]:
            return Kind.TCP
        case ["tcp", *_, "ws" | "wss"]:
            return Kind.WEBSOCKET
        case _:
            return Kind.OTHER


def is_ipv6(address: Multiaddr) -> bool:
    return components(address)[0][0] in ("ip6", "dns6")


def preference(address: Multiaddr) -> tuple[bool, int, str]:
    """IPv6 first; then the lowest port: the one a person chose rather than a NAT (DI8)."""
    parts = components(address)
    port = next((int(value) for name, value in parts if name in ("tcp", "udp")), 0)
    return (not is_ipv6(address), port, str(address))


def step_of(address: Multiaddr) -> float:
    """Return the seconds by which the next address waits for such a one."""
    return PUBLIC_STEP if scope(address) is Scope.PUBLIC else PRIVATE_STEP
