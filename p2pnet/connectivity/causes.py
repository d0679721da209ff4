"""Why something cannot be done, in words, each with what to do about it. Pure.

Rules: specs/reachability.md (V20, V21, V23).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import trio

from p2pnet.core.addresses import Multiaddr, Scope, is_relayed, scope
from p2pnet.errors import (
    AddressMisleads,
    AddressUnsupported,
    AnotherNetwork,
    BothDialed,
    ClocksDiffer,
    ConnectionLost,
    DialError,
    FailedAttempt,
    HandshakeCut,
    LimitedConnection,
    LimitExceeded,
    NameNotFound,
    NameServersSilent,
    NegotiationFailed,
    NoPunchAddress,
    NotARelay,
    NotDialled,
    PeerIdMismatch,
    PeerSilent,
    ProtocolError,
    PunchFailed,
    RelayRefused,
    SecurityError,
    StreamReset,
)
from p2pnet.swarm.backoff import BackingOff


class Cause(Enum):
    """What is wrong, and what to do about it."""

    # Of this host.
    NO_NETWORK = "this machine has no network", "connect it to one"
    NO_LISTENER = "this host listens nowhere", "give it an address to listen at"
    LOOPBACK_ONLY = (
        "this host listens on loopback only",
        "listen at /ip4/0.0.0.0/tcp/0, or at an address of this machine",
    )
    NO_PEERS = (
        "no peer is connected, so nobody can tell where this host is",
        "connect to a relay or to any public peer",
    )
    OFFLINE = (
        "nobody who was dialled has answered",
        "see whether this machine reaches the internet at all",
    )
    SYMMETRIC_NAT = (
        "the NAT gives another port for each destination (it is symmetric)",
        "forward the listen port on the router, or let it map ports (UPnP, NAT-PMP, PCP)",
    )
    NAT = (
        "a NAT lets nobody in who was not spoken to first",
        "to be punched to, nothing; to be dialled, forward the listen port on the router",
    )
    FILTERED = (
        "the NAT lets in only IP addresses that were spoken to first",
        "to be punched to, nothing; to be dialled, forward the listen port on the router",
    )
    FIREWALL = (
        "a firewall lets nobody in who was not spoken to first",
        "to be punched to, nothing; to be dialled, open the listen port in it for incoming TCP",
    )
    UDP_BLOCKED = (
        "nobody answers over UDP, and this host listens over nothing else",
        "let the firewall pass UDP, or listen by TCP as well",
    )
    CARRIER_NAT = (
        "the router's own outside address is a private one: the provider has a NAT, too",
        "ask the provider for a public address, or use IPv6",
    )
    MAPPING_USELESS = (
        "the router forwards the port, and yet strangers do not get through",
        "see whether a firewall or another router stands in between",
    )
    NO_RELAY = "no relay is configured", "give this host the address of a relay"
    RESERVING = "no relay has answered yet", "wait some seconds"
    NOT_TESTED = (
        "no peer could be asked to dial this host",
        "connect to peers that serve AutoNAT; public p2pnet and go-libp2p nodes do",
    )
    TESTING = "peers are being asked to dial this host", "wait half a minute"
    # Of dialling somebody.
    NO_ADDRESS = (
        "no address of the peer is known, and it is behind no relay of this host",
        "give an address of it, or a relay at which it has a reservation",
    )
    REFUSED = (
        "nobody listens at that port",
        "see whether the peer runs, and whether the port is right",
    )
    NO_ANSWER = (
        "nobody answered",
        "see whether the peer is online; if it is behind a NAT or firewall, reach it over a relay",
    )
    NO_ROUTE = (
        "this machine has no way to such an address",
        "give an address of the other IP family, or a relay",
    )
    NAME_NOT_FOUND = "the name was not found", "see whether it is spelled right"
    NAME_SERVERS = "no name server answered", "see whether this machine reaches the internet at all"
    UNSUPPORTED = (
        "no transport of this host can use the address",
        "give another address of the peer, or add the transport: pip install 'p2pnet[quic,ws]'",
    )
    MISLEADING = (
        "the address leads to another peer, or to this host itself",
        "ask for an address of the peer",
    )
    RESTING = (
        "the address failed lately, and is left alone for a while",
        "wait, or name the address, which dials it at once",
    )
    LEFT_OUT = (
        "the address was left out, as it promised less than the others",
        "name the address, which dials it in any case",
    )
    WRONG_PEER = (
        "another peer answered at that address",
        "see whether the peer id is right: the peer has another key now, or another its address",
    )
    NOT_A_PEER = (
        "something else than a peer answered there",
        "see whether the port is right",
    )
    NOT_SECURE = (
        "the handshake failed: the other end could not prove who it is",
        "see whether something in between changes the traffic",
    )
    OTHER_NETWORK = (
        "this host is in a private network, and the peer is not in the same one",
        "give both the same pre-shared key, or neither any",
    )
    NOTHING_IN_COMMON = (
        "the peer speaks none of the protocols that this host offers",
        "see which ones it serves: p2pnet identify",
    )
    MISBEHAVES = "the peer broke a rule of a protocol", "tell its makers, with the reason"
    HUNG_UP = "the peer hung up", "it may be full or leaving: try again later"
    OWN_LIMIT = "a limit of this host was reached", "raise it in the config, or close something"
    LIMITED = (
        "only a relayed connection to the peer is there, which is limited",
        "wait for a direct one, or allow the use of the relayed one",
    )
    SYSTEM = "the operating system refused", "see the reason that it gives"
    # Of relays.
    NOT_RESERVED = (
        "the peer has no reservation at that relay",
        "see whether the peer runs, and whether it uses this relay",
    )
    RELAY_FULL = "the relay has no room", "try again later, or another relay"
    RELAY_DENIES = "the relay denies its service to this host", "use another relay"
    RELAY_LOST_PEER = (
        "the relay could not reach the peer, though it has a reservation",
        "the peer is leaving or has lost its network: try again later",
    )
    RELAY_UNREACHABLE = (
        "the relay cannot be reached",
        "see whether it runs; give another one as well",
    )
    NO_RELAY_SERVICE = "that peer does not serve as a relay", "use another relay"
    WRONG_CLOCK = (
        "what the relay grants has expired already: its clock or that of this machine is wrong",
        "set the clock",
    )
    # Of hole punches.
    PEER_SYMMETRIC = (
        "the peer's NAT seems to give another port for each destination",
        "the peer should forward its port or let its router map it; the relay goes on working",
    )
    OWN_SYMMETRIC = (
        "this host's NAT gives another port for each destination, so its port cannot be known",
        "forward the listen port or let the router map it; the relay goes on working",
    )
    SIMULTANEOUS_OPEN = (
        "NATs or firewalls let no TCP connection through that both sides open at once",
        "let both listen by QUIC as well: pip install 'p2pnet[quic]'; the relay goes on working",
    )
    NO_DCUTR = "the peer does not speak DCUtR", "it has to be made with it"
    NO_OWN_DCUTR = "this host does not speak DCUtR", "add DCUtR() to its services"
    NO_PUNCH_ADDRESS = (
        "one side does not know a public address of its own",
        "it has to be connected, by what it listens on, to a public peer that tells it",
    )
    NO_COMMON_WAY = (
        "the two have no transport and IP family in common, so there is nothing to punch by",
        "let both listen by TCP and QUIC, and have IPv4 or IPv6 both; the relay goes on working",
    )
    PUNCH_PENDING = "no hole punch has ended yet", "wait some seconds"
    PUNCH_UNANSWERED = (
        "none of the packets got through",
        "see what kind of NAT both have: p2pnet doctor",
    )
    UNKNOWN = "the reason is not known", "look at the log with -v"

    @property
    def words(self) -> str:
        return str(self.value[0])

    @property
    def remedy(self) -> str:
        return str(self.value[1])


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, and what shows it."""

    cause: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.cause.words} ({self.detail}): {self.cause.remedy}"


BY_ERRNO = {
    errno.ECONNREFUSED: Cause.REFUSED,
    errno.ENETUNREACH: Cause.NO_ROUTE,
    errno.EHOSTUNREACH: Cause.NO_ROUTE,
    errno.EADDRNOTAVAIL: Cause.NO_ROUTE,
    errno.EAFNOSUPPORT: Cause.NO_ROUTE,
    errno.ETIMEDOUT: Cause.NO_ANSWER,
    errno.ECONNRESET: Cause.HUNG_UP,
    errno.EPIPE: Cause.HUNG_UP,
}

BY_STATUS = {
    "NO_RESERVATION": Cause.NOT_RESERVED,
    "RESOURCE_LIMIT_EXCEEDED": Cause.RELAY_FULL,
    # By the words of the spec it may be a denial; every relay there is says it when it is full.
    "RESERVATION_REFUSED": Cause.RELAY_FULL,
    "PERMISSION_DENIED": Cause.RELAY_DENIES,
    "CONNECTION_FAILED": Cause.RELAY_LOST_PEER,
    "MALFORMED_MESSAGE": Cause.MISBEHAVES,
    "UNEXPECTED_MESSAGE": Cause.MISBEHAVES,
}

BY_KIND: tuple[tuple[type[BaseException], Cause], ...] = (
    (PeerIdMismatch, Cause.WRONG_PEER),
    (HandshakeCut, Cause.HUNG_UP),
    (AnotherNetwork, Cause.OTHER_NETWORK),
    (SecurityError, Cause.NOT_SECURE),
    (NegotiationFailed, Cause.NOTHING_IN_COMMON),
    (ClocksDiffer, Cause.WRONG_CLOCK),
    (ProtocolError, Cause.MISBEHAVES),
    (NoPunchAddress, Cause.NO_PUNCH_ADDRESS),
    (PunchFailed, Cause.PUNCH_UNANSWERED),
    (NameNotFound, Cause.NAME_NOT_FOUND),
    (NameServersSilent, Cause.NAME_SERVERS),
    (AddressMisleads, Cause.MISLEADING),
    (NotARelay, Cause.NO_RELAY_SERVICE),
    (AddressUnsupported, Cause.UNSUPPORTED),
    (BackingOff, Cause.RESTING),
    (NotDialled, Cause.LEFT_OUT),
    (LimitExceeded, Cause.OWN_LIMIT),
    (LimitedConnection, Cause.LIMITED),
    (PeerSilent, Cause.NO_ANSWER),
    (ConnectionLost, Cause.HUNG_UP),
    (StreamReset, Cause.HUNG_UP),
    (trio.BrokenResourceError, Cause.HUNG_UP),
    (trio.TooSlowError, Cause.NO_ANSWER),
)
"""The special before the general."""

MULTISTREAM = "/multistream/1.0.0"
"""Whoever breaks the rules of the very first words is no peer."""


def cause_of(error: BaseException) -> Cause:
    """Tell the cause behind an error of a dial, of a relay or of a hole punch."""
    match error:
        case RelayRefused(status=status):
            return BY_STATUS.get(status, Cause.RELAY_DENIES)
        case DialError(attempts=attempts):
            return weightiest(attempts) if attempts else Cause.NO_ADDRESS
        case BothDialed():
            return Cause.HUNG_UP
        case ProtocolError(protocol_id=protocol_id) if protocol_id == MULTISTREAM:
            return Cause.NOT_A_PEER
    for kind, cause in BY_KIND:
        if isinstance(error, kind):
            return cause
    if isinstance(error, OSError):
        return BY_ERRNO.get(error.errno or 0, Cause.SYSTEM)
    return Cause.UNKNOWN


def cause_of_attempt(attempt: FailedAttempt) -> Cause:
    """Tell why one address did not work; a relay that cannot be dialled is another matter."""
    if isinstance(attempt.cause, DialError) and is_circuit(attempt.address):
        return Cause.RELAY_UNREACHABLE
    return cause_of(attempt.cause)


def is_circuit(address: object) -> bool:
    return isinstance(address, Multiaddr) and is_relayed(address)


def causes_below(error: BaseException) -> Iterator[Cause]:
    """Tell the causes of all that was tried, also of the dials within a dial."""
    if isinstance(error, DialError):
        for attempt in error.attempts:
            yield from causes_below(attempt.cause)
    else:
        yield cause_of(error)


UNTELLING = (
    Cause.LEFT_OUT,
    Cause.MISLEADING,
    Cause.RESTING,
    Cause.UNSUPPORTED,
    Cause.NO_ROUTE,
    Cause.NO_ANSWER,
    Cause.RELAY_UNREACHABLE,
    Cause.REFUSED,
)
"""What any of several addresses may fail with; the later ones say more, and all others most."""
BY_SOMEBODY = (
    Cause.WRONG_PEER,
    Cause.NOT_A_PEER,
    Cause.NOTHING_IN_COMMON,
    Cause.OTHER_NETWORK,
    Cause.NOT_SECURE,
)
"""What somebody else fails with who has the private address in *our* network."""


def weightiest(attempts: Sequence[FailedAttempt]) -> Cause:
    """Choose the cause that says most, where several addresses failed (V21)."""
    return max((weight(each) for each in attempts), key=lambda pair: pair[0])[1]


def weight(attempt: FailedAttempt) -> tuple[int, Cause]:
    cause, address = cause_of_attempt(attempt), attempt.address
    if cause in UNTELLING:
        return UNTELLING.index(cause), cause
    is_private = isinstance(address, Multiaddr) and scope(address) is not Scope.PUBLIC
    if is_private and cause in BY_SOMEBODY and not is_circuit(address):
        return len(UNTELLING), cause
    return len(UNTELLING) + 1, cause
