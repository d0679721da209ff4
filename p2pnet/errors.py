"""Everything p2pnet raises.

P2PError
├── ProtocolError          the remote broke a rule of a spec
│   ├── BothDialed         two dials met in one connection, and nobody listens in it
│   └── ClocksDiffer       what it granted is over already: one of the two clocks is wrong
├── SecurityError          the handshake failed
│   ├── PeerIdMismatch     another peer answered than the one asked for
│   ├── HandshakeCut       the remote hung up before the handshake was over
│   │   └── ProofRefused   it did so behind our last message; also a trio.BrokenResourceError
│   ├── AnotherNetwork     the remote has another pre-shared key, or none
│   └── StreamTampered     a secured stream was changed on its way; also a trio.BrokenResourceError
├── NegotiationFailed      no protocol in common
├── DialError              no address of the peer worked; .attempts says why, one by one
├── AddressUnsupported     no transport of this host can use the address
│   ├── AddressMisleads    it leads to another peer, or to this host itself
│   └── NotARelay          the relay in it serves none
├── NotDialled             an address was left out of a dial; .reason says why
├── NameNotFound           the DNS knows no address by that name
├── NameServersSilent      no name server gave an answer
├── RelayRefused           a relay said no; .status is its word for it
├── NoPunchAddress         one side has no public address to be punched at
├── PunchFailed            no attempt ended direct; .causes says why, one by one
├── LimitedConnection      only a relayed connection is there and the caller refused one
├── LimitExceeded          our own limit; .limit names it
├── ExtraMissing           a part needs a package that is not installed; also an ImportError
├── EventsMissed           a subscriber was too slow; .count are gone
├── ConnectionLost         also a trio.BrokenResourceError
│   ├── PeerLeft           the peer said goodbye, in good order
│   └── PeerSilent         the peer answers no more
└── StreamReset            also a trio.BrokenResourceError

Misuse by the caller is ValueError, TypeError or trio.ClosedResourceError; time running out
is trio.TooSlowError. Neither is wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import trio


class P2PError(Exception):
    """Base of all errors of p2pnet."""


class ProtocolError(P2PError):
    """The remote broke a rule of a spec."""

    def __init__(self, protocol_id: str, reason: str) -> None:
        super().__init__(f"{protocol_id}: {reason}")
        self.protocol_id = protocol_id
        self.reason = reason


class BothDialed(ProtocolError):
    """Both ends took the part of the dialer: their dials met in one connection."""


class ClocksDiffer(ProtocolError):
    """What the remote grants is over by our clock: one of the two is wrong."""


class SecurityError(P2PError):
    """The remote could not prove who it is, or the channel to it was tampered with."""


class HandshakeCut(SecurityError):
    """The remote hung up before the handshake was over."""


class ProofRefused(HandshakeCut, trio.BrokenResourceError):
    """The handshake seemed to be over, but the remote did not take our proof of who we are."""


class AnotherNetwork(SecurityError):
    """This host is in a private network, and the remote is not, or in another one."""


class PeerIdMismatch(SecurityError):
    """Another peer answered than the one the caller asked for."""

    def __init__(self, expected: object, actual: object) -> None:
        super().__init__(f"expected peer {expected}, but {actual} answered")
        self.expected = expected
        self.actual = actual


class StreamTampered(SecurityError, trio.BrokenResourceError):
    """What came over a secured stream is not what the remote sent; the stream is closed."""


class NegotiationFailed(P2PError):
    """The remote speaks none of the proposed protocols."""

    def __init__(self, proposals: Sequence[str]) -> None:
        super().__init__(f"the remote speaks none of: {', '.join(proposals)}")
        self.proposals = tuple(proposals)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One address that was tried, and why it did not work."""

    address: object
    cause: BaseException

    def __str__(self) -> str:
        return f"{self.address}: {describe(self.cause)}"


class DialError(P2PError):
    """No address of the peer worked; ``attempts`` holds one cause per address."""

    def __init__(self, peer_id: object, attempts: Sequence[FailedAttempt], hint: str = "") -> None:
        lines = [f"cannot reach {peer_id}" + (f": {hint}" if hint else "")]
        lines += [f"  {attempt}" for attempt in attempts]
        super().__init__("\n".join(lines))
        self.peer_id = peer_id
        self.attempts = tuple(attempts)
        self.hint = hint


class AddressUnsupported(P2PError):
    """No transport of this host can use the address."""

    def __init__(self, address: object, reason: str = "no transport for it") -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class AddressMisleads(AddressUnsupported):
    """The address leads to another peer than the one it is dialled for, or to this host itself."""


class NotARelay(AddressUnsupported):
    """The peer that should relay does not serve as one."""


class LeftOut(Enum):
    """Why an address was left out of a dial."""

    BLACK_HOLE = "black hole"
    """This network seems to swallow all of its kind."""
    NO_TURN = "no turn"
    """The time was over before its turn came."""


class NotDialled(P2PError):
    """An address was left out of a dial."""

    def __init__(self, reason: LeftOut, detail: str) -> None:
        super().__init__(f"not dialled: {detail}")
        self.reason = reason
        self.detail = detail


class NameNotFound(P2PError):
    """The DNS knows no address by that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"DNS: no such name or address: {name}")
        self.name = name


class NameServersSilent(P2PError):
    """No name server gave an answer about the name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"no answer about {name}: {reason}")
        self.name = name
        self.reason = reason


class RelayRefused(P2PError):
    """A relay refused a reservation or a circuit; ``status`` is its word for it."""

    def __init__(self, relay: object, status: str, hint: str = "") -> None:
        super().__init__(f"relay {relay} refused: {status}" + (f" ({hint})" if hint else ""))
        self.relay = relay
        self.status = status
        self.hint = hint


class NoPunchAddress(P2PError):
    """One side has no public address at which the other could punch."""


class PunchFailed(P2PError):
    """No attempt at a direct connection worked; ``causes`` says why, one by one."""

    def __init__(self, peer_id: object, causes: Sequence[BaseException]) -> None:
        told = "; ".join(describe(cause) for cause in causes) or "nothing could be tried"
        super().__init__(f"no direct connection to {peer_id}: {told}")
        self.peer_id = peer_id
        self.causes = tuple(causes)


class LimitedConnection(P2PError):
    """Only a relayed connection to the peer is there, and the caller refused to use one."""

    def __init__(self, peer_id: object) -> None:
        super().__init__(
            f"only a relayed connection to {peer_id}: pass limited='allow' to use it, "
            "or limited='wait' to wait for a direct one"
        )
        self.peer_id = peer_id


class LimitExceeded(P2PError):
    """A limit of ours was reached; ``limit`` is the name of its config field."""

    def __init__(self, limit: str, maximum: float, detail: str = "") -> None:
        super().__init__(f"{limit} = {maximum} reached" + (f": {detail}" if detail else ""))
        self.limit = limit
        self.maximum = maximum


class ExtraMissing(P2PError, ImportError):
    """A part needs a package that is not installed; ``extra`` of p2pnet brings it along."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need}: pip install 'p2pnet[{extra}]'")
        self.extra = extra


class EventsMissed(P2PError):
    """The reader of a subscription was too slow; ``count`` events are gone."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} events missed")
        self.count = count


class ConnectionLost(P2PError, trio.BrokenResourceError):
    """The connection ended; everything on it is gone."""


class PeerLeft(ConnectionLost):
    """The peer ended the connection in good order."""


class PeerSilent(ConnectionLost):
    """The peer answers no more: it was switched off, or the network between is gone."""


class StreamReset(P2PError, trio.BrokenResourceError):
    """The remote ended the stream at once."""


def describe(error: BaseException) -> str:
    """Say an error in one line, with its type's name when it has no words of its own."""
    text = "; ".join(line.strip() for line in str(error).strip().splitlines())
    if isinstance(error, trio.TooSlowError):
        return "timed out"
    if not text:
        return type(error).__name__
    return text if isinstance(error, P2PError) else f"{type(error).__name__}: {text}"
