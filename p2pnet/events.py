"""Every fact a host publishes, as a frozen value. Subscribe with ``host.subscribe(Kind, ...)``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError, FailedAttempt


class Reachability(Enum):
    """What this host believes of itself: can strangers dial it?"""

    UNKNOWN = "unknown"
    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class ConnectionRef:
    """Which connection an event is about; ``number`` is unique within its host."""

    number: int
    peer_id: PeerId
    local_address: Multiaddr
    remote_address: Multiaddr
    is_inbound: bool
    is_relayed: bool


@dataclass(frozen=True, slots=True)
class ListeningOn:
    """A listener is open at ``address`` (without ``/p2p``)."""

    address: Multiaddr


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """The advertised addresses of this host are now these, each with ``/p2p``."""

    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """This machine is somewhere else, or was asleep: what was found out before counts no more."""

    reason: str


@dataclass(frozen=True, slots=True)
class NetworkRenewed:
    """An address or a default route of this machine was set, and all is as it was before.

    Or it looks so: another home may have the same private addresses.
    """


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    connection: ConnectionRef


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A connection goes on though an end of it is elsewhere now, as after a router's reboot."""

    connection: ConnectionRef
    """With the address of the remote as it is now."""
    is_ours: bool
    """It is our end, as it seems: what the peer said of where it sees this host is outdated."""


@dataclass(frozen=True, slots=True)
class DialPlanned:
    """A peer is about to be dialled; not told of hole punches, which dial all at once."""

    peer_id: PeerId
    plan: tuple[tuple[float, Multiaddr], ...]
    """Each address after so many seconds: earlier if all before it failed, never if one worked."""
    left_out: tuple[FailedAttempt, ...]
    """What is not even tried, and why."""


@dataclass(frozen=True, slots=True)
class AddressFailed:
    """One address of a plan did not work; others may."""

    peer_id: PeerId
    attempt: FailedAttempt


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No address of a peer worked; ``error.attempts`` has one cause for each."""

    peer_id: PeerId
    error: DialError


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    connection: ConnectionRef
    reason: str
    error: BaseException | None = field(default=None, compare=False)
    """What ended it: ``PeerLeft`` if the peer did; None if this host closed it."""


@dataclass(frozen=True, slots=True)
class PeerIdentified:
    """A peer told of itself, on opening (identify) or later (push)."""

    connection: ConnectionRef
    agent_version: str
    protocol_version: str
    protocols: tuple[str, ...]
    addresses: tuple[Multiaddr, ...]
    """Those of its addresses that made sense, without ``/p2p``."""
    observed_address: Multiaddr | None
    """Where the peer sees this host, as it says; None on relayed connections."""
    pushed: bool


@dataclass(frozen=True, slots=True)
class IdentifyFailed:
    connection: ConnectionRef
    reason: str


@dataclass(frozen=True, slots=True)
class AddressObserved:
    """A peer says at which address it sees this host; fit to be dialled by others."""

    connection: ConnectionRef
    address: Multiaddr


@dataclass(frozen=True, slots=True)
class AddressTested:
    """A peer has dialled an address of this host because it was asked to, or has failed to."""

    address: Multiaddr
    """Without ``/p2p``."""
    reached: bool
    server: PeerId
    server_address: Multiaddr
    """Where the server is connected from; its dial comes from the same IP, as a rule."""
    protocol: str


@dataclass(frozen=True, slots=True)
class FilteringTested:
    """Whether a peer got through to a fresh port of this host, behind whatever NAT there is."""

    transport: str
    """``tcp`` or ``udp``."""
    by_stranger: bool
    """False: the port had spoken to that peer's IP before, at another port of it."""
    reached: bool
    server: PeerId


@dataclass(frozen=True, slots=True)
class MappingTested:
    """Whether a peer sees one port of this host alike from two ports of its own."""

    transport: str
    """``tcp`` or ``udp``."""
    same: bool
    server: PeerId


@dataclass(frozen=True, slots=True)
class HairpinTested:
    """Whether this host got through to itself at an outside address of its own."""

    transport: str
    """``tcp`` or ``udp``."""
    address: Multiaddr
    """Without ``/p2p``."""
    is_fresh: bool
    """It is of a fresh port, which had knocked at where the dial came from.

    Else strangers get through to it, as far as is known.
    """
    reached: bool


@dataclass(frozen=True, slots=True)
class PortMapped:
    """A router forwards an outside address to one that this host listens on."""

    protocol: str
    """``upnp``, ``nat-pmp`` or ``pcp``."""
    listen_address: Multiaddr
    outside_address: Multiaddr
    seconds: float
    """How long the router promised to keep it; it is renewed before."""


@dataclass(frozen=True, slots=True)
class PortMappingLost:
    protocol: str
    listen_address: Multiaddr
    reason: str


@dataclass(frozen=True, slots=True)
class ReservationAccepted:
    """A relay will carry circuits to this host; ``addresses`` end in ``/p2p-circuit``."""

    relay: PeerId
    addresses: tuple[Multiaddr, ...]
    seconds: float
    """How long the relay promised to keep it."""
    renewal: bool


@dataclass(frozen=True, slots=True)
class ReservationFailed:
    """No reservation could be had at a relay; it is asked again after so many seconds."""

    relay: PeerId
    reason: str
    retry_seconds: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class ReservationLost:
    relay: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class ReservationGranted:
    """This relay gave a peer a reservation."""

    peer_id: PeerId
    seconds: float
    renewal: bool


@dataclass(frozen=True, slots=True)
class ReservationEnded:
    """A reservation at this relay expired, or its peer disconnected."""

    peer_id: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class RelayRefusedRequest:
    """This relay refused a reservation or a circuit; ``status`` is the word on the wire."""

    peer_id: PeerId
    request: str
    status: str
    reason: str
    limit: str = ""
    """The field of ``RelayServer`` that said no; empty if none did."""


@dataclass(frozen=True, slots=True)
class CircuitOpened:
    """This relay joined two peers."""

    source: PeerId
    destination: PeerId


@dataclass(frozen=True, slots=True)
class CircuitClosed:
    source: PeerId
    destination: PeerId
    bytes_forward: int
    bytes_backward: int
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitOffered:
    """A relay says that a peer calls this host, which takes the call; the peer may be another."""

    peer_id: PeerId
    relay: PeerId


@dataclass(frozen=True, slots=True)
class CircuitNearLimit:
    """A circuit that ends here has used most of what its relay allows, and will be cut."""

    peer_id: PeerId
    relay: PeerId
    limit: str
    """``seconds``, or ``bytes`` in one direction."""
    used: float
    maximum: float
    circuit: object = field(default=None, compare=False, repr=False)
    """The very ``limit`` of the connection over it: there may be more circuits through a relay."""


@dataclass(frozen=True, slots=True)
class PunchStarted:
    """An attempt at a direct connection begins; both sides know each other's addresses."""

    peer_id: PeerId
    attempt: int
    initiator: bool
    addresses: tuple[Multiaddr, ...]
    round_trip: float
    """Seconds over the relay."""
    steady: tuple[str, ...] = ()
    """``tcp``, ``udp``: over which all see the peer's ports at one place, as it says now."""


@dataclass(frozen=True, slots=True)
class PunchAttemptFailed:
    peer_id: PeerId
    attempt: int
    reason: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class HolePunched:
    """There is a direct connection now. ``attempt`` 0 means a plain dial was enough."""

    peer_id: PeerId
    address: Multiaddr
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PunchGivenUp:
    """All attempts failed; the connection stays relayed. ``reasons`` holds one per attempt."""

    peer_id: PeerId
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamMoved:
    """A stream is carried by another connection now; not a byte of it was lost or repeated."""

    protocol_id: str
    before: ConnectionRef
    connection: ConnectionRef
