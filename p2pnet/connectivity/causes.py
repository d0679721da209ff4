"""Why something cannot be done, in words, each with what to do about it. Pure.

Rules: specs/reachability.md (V20, V21).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum

import trio

from p2pnet.errors import (
    AddressUnsupported,
    ConnectionLost,
    DialError,
    LimitExceeded,
    NameNotFound,
    NegotiationFailed,
    NoPunchAddress,
    PeerIdMismatch,
    ProtocolError,
    RelayRefused,
    SecurityError,
    StreamReset,
)


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
        "open the listen port in the firewall, for incoming TCP",
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
    NOT_TESTED = (
        "no peer could be asked to dial this host",
        "connect to peers that serve AutoNAT; public p2pnet and go-libp2p nodes do",
    )
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
        "give a TCP address, or add the transport to the host's config",
    )
    WRONG_PEER = (
        "another peer answered at that address",
        "the peer has another key now, or the address is another's: ask for a new address",
    )
    NOT_SECURE = (
        "the handshake failed: the other end could not prove who it is",
        "see whether something in between changes the traffic",
    )
    NOTHING_IN_COMMON = (
        "the peer speaks none of the protocols that this host offers",
        "see which ones it serves: p2pnet identify",
    )
    MISBEHAVES = "the peer broke a rule of a protocol", "tell its makers, with the reason"
    HUNG_UP = "the peer hung up", "it may be full or leaving: try again later"
    OWN_LIMIT = "a limit of this host was reached", "raise it in the config, or close something"
    # Of relays.
    NOT_RESERVED = (
        "the peer has no reservation at that relay",
        "see whether the peer runs, and whether it uses this relay",
    )
    RELAY_FULL = "the relay has no room", "use another relay, or one with higher limits"
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
    # Of hole punches.
    PEER_SYMMETRIC = (
        "the peer's NAT seems to give another port for each destination",
        "the peer should forward its port or let its router map it; the relay goes on working",
    )
    OWN_SYMMETRIC = (
        "this host's NAT gives another port for each destination, so its port cannot be known",
        "forward the listen port or let the router map it; the relay goes on working",
    )
    NO_DCUTR = "the peer does not speak DCUtR", "it has to be made with it"
    NO_PUNCH_ADDRESS = (
        "one side does not know a public address of its own",
        "it has to be connected to a public peer that tells it",
    )
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
    "RESERVATION_REFUSED": Cause.RELAY_DENIES,
    "PERMISSION_DENIED": Cause.RELAY_DENIES,
    "CONNECTION_FAILED": Cause.RELAY_LOST_PEER,
}

BY_KIND: tuple[tuple[type[BaseException], Cause], ...] = (
    (PeerIdMismatch, Cause.WRONG_PEER),
    (SecurityError, Cause.NOT_SECURE),
    (NegotiationFailed, Cause.NOTHING_IN_COMMON),
    (ProtocolError, Cause.MISBEHAVES),
    (NoPunchAddress, Cause.NO_PUNCH_ADDRESS),
    (NameNotFound, Cause.NAME_NOT_FOUND),
    (AddressUnsupported, Cause.UNSUPPORTED),
    (LimitExceeded, Cause.OWN_LIMIT),
    (ConnectionLost, Cause.HUNG_UP),
    (StreamReset, Cause.HUNG_UP),
    (trio.BrokenResourceError, Cause.HUNG_UP),
    (trio.TooSlowError, Cause.NO_ANSWER),
)


def cause_of(error: BaseException) -> Cause:
    """Tell the cause behind an error of a dial or of a relay."""
    if isinstance(error, RelayRefused):
        return BY_STATUS.get(error.status, Cause.RELAY_DENIES)
    if isinstance(error, DialError):
        causes = [cause_of(attempt.cause) for attempt in error.attempts]
        return weightiest(causes) if causes else Cause.NO_ADDRESS
    for kind, cause in BY_KIND:
        if isinstance(error, kind):
            return cause
    if isinstance(error, OSError):
        return BY_ERRNO.get(error.errno or 0, Cause.NAME_SERVERS)
    return Cause.UNKNOWN


UNTELLING = (Cause.UNSUPPORTED, Cause.NO_ROUTE, Cause.NO_ANSWER, Cause.REFUSED)
"""What any of several addresses may fail with; the later ones say more."""


def weightiest(causes: list[Cause]) -> Cause:
    """Choose the cause that says most, where several addresses failed."""
    return max(causes, key=lambda cause: UNTELLING.index(cause) if cause in UNTELLING else 99)
