"""The seams: what a transport, a security, a muxer and a service are to the rest.

Structural types; whoever fits them is a plug-in. Streams alone are classes, because they are
trio streams. A *part* is the frozen description of a plug-in, and builds it: ``Yamux(...)``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol, TypeVar, runtime_checkable

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr
from p2pnet.core.bus import Subscription
from p2pnet.core.env import ByteStream, Env
from p2pnet.core.foreword import Foreword, Forewords
from p2pnet.core.keepalive import Hush, Pace
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.events import ConnectionRef, Reachability

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E")

LimitedUse = Literal["allow", "wait", "refuse"]
"""May a stream be opened on a limited (relayed) connection? ``wait`` waits for a direct one."""


class Role(Enum):
    """Which end of a new connection this host plays in every negotiation on it.

    Usually whoever dialled is the DIALER; after a hole punch both did, and DCUtR decides.
    """

    DIALER = "dialer"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True)
class CircuitLimit:
    """What a relay allows on a circuit; None means without limit."""

    seconds: float | None = None
    data_bytes: int | None = None
    """In each direction."""


# ---- floor 2: one hop, from bytes to a capable connection --------------------------------


class MuxedStream(trio.abc.HalfCloseableStream):
    """A stream of a muxer. As every trio stream: one sender and one receiver at a time."""

    def reset(self, code: int = 0) -> None:
        """End both directions at once, without waiting; ``code`` is told to the remote."""
        raise TypeError("a muxed stream must define reset")

    def receive_nowait(self, max_bytes: int) -> bytes | bytearray | None:
        """Return what ``receive_some`` would without waiting; None if there is nothing yet.

        A muxer that can't tell has nothing.
        """
        return None

    def bound_unread(self, max_bytes: int) -> None:
        """Have the remote send no more than that ahead of what is read, once it is granted anew.

        What it has been granted before holds, as does what a muxer grants in the beginning; one
        whose windows do not grow has nothing to do.
        """
        return

    def send_along(self, data: bytes) -> bool:
        """Send a few bytes with what is sent next, or before the next wait to receive.

        Returns False, and sends nothing, if there is no room, or if the muxer can't.
        """
        return False


class MuxedConnection(Protocol):
    """Many streams over one secured stream."""

    @property
    def is_over(self) -> bool:
        """Tell if it takes no more streams: what ended it is known, though ``run`` may go on."""
        ...

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        """Move bytes until the connection ends; hand each stream the remote opens to ``accept``.

        Returns when the remote closed it in good order, or after ``aclose``; it is closed then.

        Raises:
            ConnectionLost: if it broke.
            ProtocolError: if the remote broke a rule; it has been told, and all is closed.
            SecurityError: if what came was changed on its way.
        """
        ...

    async def open_stream(self) -> MuxedStream:
        """Open a stream, without a round trip; wait while too many are unacknowledged.

        Raises:
            ConnectionLost: if the connection has ended.
            LimitExceeded: if the config allows no more streams.
        """
        ...

    async def aclose(self) -> None:
        """Say goodbye and close; every stream ends. Idempotent; closes even if cancelled."""
        ...


class Muxer(Protocol):
    """Makes muxed connections."""

    @property
    def protocol_id(self) -> str: ...

    def start(self, stream: trio.abc.Stream, role: Role) -> MuxedConnection:
        """Wrap a secured stream. Nothing is sent or read before ``run``."""
        ...


@dataclass(frozen=True, slots=True)
class Secured:
    """A stream that nobody else can read or change, and who is at the other end."""

    stream: trio.abc.Stream
    remote_key: PublicKey
    peer_id: PeerId
    muxer: str | None
    """The muxer agreed on during the handshake; None if that is still to be negotiated."""
    forewords: Forewords | None = None


class Security(Protocol):
    """Authenticates the remote and encrypts."""

    @property
    def protocol_id(self) -> str: ...

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        """Do the handshake on a raw stream; ``muxers`` are ours in order of preference.

        Raises:
            PeerIdMismatch: if another than the ``expected`` peer answers.
            SecurityError: if the remote cannot prove who it is, or does not encrypt as agreed.
            ProtocolError: if its messages are malformed.
        """
        ...


@runtime_checkable
class TalkativeSecurity(Security, Protocol):
    """Can take a foreword along with its handshake, as the dialer; a listener always listens."""

    async def secure_saying(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
        foreword: Callable[[], bytes],
    ) -> Secured:
        """Do as ``secure`` does, and tell the peer something, once it has proved who it is."""
        ...


class CapableConnection(Protocol):
    """What a transport delivers: authenticated and multiplexed."""

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def local_address(self) -> Multiaddr: ...
    @property
    def remote_address(self) -> Multiaddr: ...
    @property
    def security(self) -> str: ...
    @property
    def muxer(self) -> str: ...
    @property
    def limit(self) -> CircuitLimit | None:
        """The relay's limit; None on a direct connection and on an unlimited circuit."""
        ...

    @property
    def is_over(self) -> bool:
        """See MuxedConnection.is_over."""
        ...

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        """See MuxedConnection.run."""
        ...

    async def open_stream(self) -> MuxedStream:
        """See MuxedConnection.open_stream."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Prefaced(Protocol):
    """A connection whose handshake can take a foreword along."""

    @property
    def forewords(self) -> Forewords | None: ...


@runtime_checkable
class Pulsing(Protocol):
    """A connection that pings its remote when it was silent for long, or passes that on."""

    def hush(self, seconds: float) -> Hush | None:
        """Ping no more for so long, and see if all is silent; None if it would not live so long."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """A connection that can look more often if its remote is there, or passes that on."""

    def stay_alert(self, silence: float | None) -> None:
        """Ping after so many seconds of silence at most, so as to notice if the remote is gone.

        None: as seldom as ever again.
        """
        ...

    def prove_alive(self, patience: float) -> None:
        """Ping now, and be over unless anything is heard within so many seconds."""
        ...


@runtime_checkable
class Roaming(Protocol):
    """A connection that goes on when an end gets another address, as from a router's reboot."""

    on_path_changed: Callable[[bool], None]
    """Called with False when ``remote_address`` has become another, which is proved by then.

    With True if it is our end that the remote sees elsewhere, as far as can be told here.
    """


class PendingConnection(Protocol):
    """An inbound connection that has yet to prove itself."""

    @property
    def remote_address(self) -> Multiaddr: ...

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        """Do the handshakes, as listener, or with ``patience`` as ``Upgrader.upgrade`` says.

        Whoever calls sets the deadline; on any error it is closed.
        """
        ...

    async def aclose(self) -> None: ...


class Listener(Protocol):
    """A place where inbound connections arrive."""

    @property
    def address(self) -> Multiaddr: ...

    async def accept(self) -> PendingConnection:
        """Wait for the next one; trio.ClosedResourceError once closed."""
        ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Reaches some kinds of addresses."""

    def can_dial(self, address: Multiaddr) -> bool: ...

    def can_listen(self, address: Multiaddr) -> bool: ...

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        """Connect to ``peer_id`` at ``address`` (given without its last ``/p2p``).

        ``any_port``: leave from a fresh port, not from the one that is listened on.

        Raises:
            OSError, RelayRefused: if it can't be reached.
            PeerIdMismatch, SecurityError, NegotiationFailed, ProtocolError: if it is not as asked.
        """
        ...

    async def listen(self, address: Multiaddr) -> Listener:
        """Listen at ``address``; port 0 takes a free one.

        Raises:
            OSError: if the address is taken or not ours.
        """
        ...


@dataclass(frozen=True, slots=True)
class Spread:
    """How many sockets are opened, or ports knocked at, to find one that fits, and how long."""

    count: int
    seconds: float


@runtime_checkable
class SpreadingTransport(Transport, Protocol):
    """Gets through a NAT with random ports by trying many of them: birthday punching."""

    async def dial_from_many(
        self, address: Multiaddr, *, peer_id: PeerId, spread: Spread
    ) -> CapableConnection:
        """Send to an address from many sockets; dial from the one that hears from there.

        Raises:
            AddressUnsupported, trio.TooSlowError: if none does.
        """
        ...

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        """Send to many ports of the IP of an address, from the socket that is listened on.

        Raises:
            AddressUnsupported: if nothing listens that could.
        """
        ...


class Upgrader(Protocol):
    """Turns a raw stream into a capable connection: security, then muxer."""

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> CapableConnection:
        """Do the handshakes; the stream is closed on any error.

        A listener turns dialer if the remote proposes nothing for ``patience`` seconds.

        Raises:
            PeerIdMismatch, SecurityError, NegotiationFailed, ProtocolError: see there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a connection runs: its two addresses, and the limit of the relay between them."""

    local: Multiaddr
    remote: Multiaddr
    limit: CircuitLimit | None = None
    foreword: Callable[[], bytes] | None = None
    """Finds what to tell the peer within the handshake, if that can be."""


class Opening(Enum):
    """What connections to a TCP port begin with, by which transports can share one."""

    RAW = "raw"
    """Whatever is neither of the others: multistream-select, or a private network's nonce."""
    HTTP = "http"
    TLS = "tls"


class Door(Protocol):
    """What a transport over TCP does with those who arrive at a port for it."""

    @property
    def opening(self) -> Opening: ...

    def address(self, local: Endpoint) -> Multiaddr:
        """Return the address of a listener there."""
        ...

    def pending(self, stream: ByteStream) -> PendingConnection:
        """Take in a raw connection; nothing of it was read yet."""
        ...


class TcpPorts(Protocol):
    """The listening TCP ports of a host, which all its transports over TCP share."""

    async def dial(
        self, remote: Endpoint, opening: Opening, *, role: Role, any_port: bool
    ) -> ByteStream:
        """Connect, from a port that is listened on for such openings if one can reach it.

        Raises:
            OSError: if it can't be reached.
        """
        ...

    async def listen(self, local: Endpoint, door: Door) -> Listener:
        """Open a door at a port, beside those that others have there; port 0 takes a free one.

        Raises:
            OSError: if the address is not ours, or taken for such openings.
        """
        ...


# ---- floors 3 and 5 as floor 4 sees them ------------------------------------------------


class Connection(Protocol):
    """A live connection to a peer."""

    @property
    def ref(self) -> ConnectionRef:
        """How events name this connection."""
        ...

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def local_address(self) -> Multiaddr: ...
    @property
    def remote_address(self) -> Multiaddr: ...
    @property
    def is_inbound(self) -> bool:
        """True if it arrived here, or was dialled here for a peer that plays the dialer."""
        ...

    @property
    def opened_at(self) -> float:
        """When this host had it, handshakes and all, by the clock of trio."""
        ...

    @property
    def is_relayed(self) -> bool: ...
    @property
    def is_limited(self) -> bool:
        """True if a relay limits its time or bytes."""
        ...

    @property
    def limit(self) -> CircuitLimit | None: ...
    @property
    def forewords(self) -> Forewords | None:
        """What the ends said within the handshake; None if it can take nothing along."""
        ...

    @property
    def security(self) -> str: ...
    @property
    def muxer(self) -> str: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def streams(self) -> int:
        """How many streams are open on it, both ways."""
        ...

    async def open_stream(self, protocol_id: str, *alternatives: str, lazy: bool = False) -> Stream:
        """Open a stream on this very connection, limited or not.

        ``lazy``, with one protocol: do not wait to hear if the remote speaks it, even if it has
        not said so. A refusal shows when something is to be received.

        Raises:
            NegotiationFailed: if the remote speaks none of the protocols.
            ConnectionLost, LimitExceeded, ProtocolError: see there.
        """
        ...

    async def aclose(self) -> None: ...


class Stream(trio.abc.HalfCloseableStream):
    """A stream to a peer, for one protocol. One sender and one receiver at a time."""

    @property
    def peer_id(self) -> PeerId:
        """The authenticated peer at the other end."""
        return self.connection.peer_id

    @property
    def connection(self) -> Connection:
        raise TypeError("a stream must define connection")

    @property
    def protocol_id(self) -> str:
        raise TypeError("a stream must define protocol_id")

    async def send_last(self, data: bytes) -> None:
        """Send a few bytes and then the end, both in one go where that can be done."""
        await self.send_all(data)
        await self.send_eof()

    def bound_unread(self, max_bytes: int) -> None:
        """See MuxedStream.bound_unread. One that is on several muxers by turns bounds itself."""
        return

    def reset(self, code: int = 0) -> None:
        """End both directions at once; the remote sees StreamReset."""
        raise TypeError("a stream must define reset")


StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream. The stream is closed when it returns, reset when it raises."""

StreamOpener = Callable[[Connection, Sequence[str]], Awaitable[Stream]]
"""Opens a stream that begins on a connection, for the first of the protocols the peer speaks."""

Target = PeerId | Multiaddr | str
"""A peer: its id, or an address that ends in ``/p2p/<id>`` (as text, too)."""


AddressFinder = Callable[[PeerId], Sequence[Multiaddr]]
"""Guesses where a peer may be: a relay client answers with circuits through its relays."""


Observer = Callable[["Connection"], Awaitable[Multiaddr | None]]
"""Asks the peer at the other end at which address it sees a connection of ours."""


class PeerBook(Protocol):
    """What is known of other peers: bounded, and with expiry."""

    def add_addresses(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, seconds: float
    ) -> None:
        """Remember addresses (without ``/p2p``) for a time; the oldest give way at the limit."""
        ...

    def addresses(self, peer_id: PeerId) -> tuple[Multiaddr, ...]: ...

    def set_protocols(self, peer_id: PeerId, protocols: Sequence[str]) -> None: ...

    def protocols(self, peer_id: PeerId) -> frozenset[str] | None:
        """Return the protocols the peer says it serves; None if it never said."""
        ...

    def accept_sequence(self, peer_id: PeerId, sequence: int) -> bool:
        """Take the sequence number of a signed record; False if it is not newer."""
        ...


class Apart(Protocol):
    """A swarm on ports of its own, which the host's peers know nothing of."""

    @property
    def last_port(self) -> int:
        """What ``ServiceHost.ports_apart`` was when a port was last opened here, that one included.

        Of the transport of that port, if it is one that dials by IPv4; 0 if none was.
        """
        ...

    def seal(self) -> None:
        """Let nothing leave any more from a port that nothing has left from.

        A datagram is lost then, and a dial of TCP fails.
        """
        ...

    async def listen(self, address: Multiaddr) -> Multiaddr:
        """Listen, and serve who comes; return where. Nobody is told. Raises OSError."""
        ...

    async def dial(self, peer_id: PeerId, address: Multiaddr) -> Connection:
        """Dial one address, from the port that is listened on here, if there is one.

        Raises:
            DialError: with the cause.
        """
        ...


class ServiceHost(Protocol):
    """The host, as its services see it."""

    @property
    def peer_id(self) -> PeerId: ...
    @property
    def peers(self) -> PeerBook: ...
    @property
    def addresses(self) -> Watch[tuple[Multiaddr, ...]]:
        """The advertised addresses, each with ``/p2p``."""
        ...

    @property
    def protocols(self) -> Watch[tuple[str, ...]]:
        """What this host serves."""
        ...

    @property
    def reachability(self) -> Watch[Reachability]: ...

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        """Return the direct addresses of this host worth dialling in a hole punch.

        Public listen addresses, and addresses at which at least one peer sees it.
        """
        ...

    def ports_move(self, transport: Literal["tcp", "udp"]) -> bool | None:
        """Tell if the NAT shows a port of ours at another one to each destination.

        None if that is not known.
        """
        ...

    def handle(self, protocol_id: str, handler: StreamHandler) -> None:
        """Serve a protocol; each inbound stream gets a task of its own."""
        ...

    def handler(self, protocol_id: str) -> StreamHandler | None:
        """Return what serves a protocol, if anything does."""
        ...

    def set_opener(self, opener: StreamOpener) -> None:
        """Let ``open_stream`` open its streams by this, once it has chosen a connection."""
        ...

    def subscribe(
        self, *kinds: type[E], limit: int = 1024
    ) -> AbstractContextManager[Subscription[E]]: ...

    def publish(self, event: object) -> None: ...

    def connections(self, peer_id: PeerId | None = None) -> tuple[Connection, ...]:
        """Return the live connections (to one peer): the best first."""
        ...

    def connection(self, number: int) -> Connection | None:
        """Return the connection that an event named by its number, if it still lives."""
        ...

    async def connect(self, target: Target) -> Connection:
        """Return the best connection to a peer; dial if there is none. Raises DialError."""
        ...

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> Connection:
        """Dial these very addresses, all at once, whatever connections and back-offs there are.

        With ``any_port`` the dial does not leave from the port that is listened on, so that
        a failure leaves no trace there in the NATs on the way.

        Raises:
            DialError: with one cause per address.
        """
        ...

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        """Connect as SpreadingTransport.dial_from_many does.

        Raises:
            AddressUnsupported, LimitExceeded, trio.TooSlowError: if that cannot be.
        """
        ...

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        """See SpreadingTransport.knock_at_many."""
        ...

    async def wait_direct(self, target: Target) -> Connection:
        """Wait for a connection to the peer that is not relayed."""
        ...

    async def open_stream(
        self, target: Target, *protocol_ids: str, limited: LimitedUse = "wait"
    ) -> Stream:
        """Open a stream to a peer for the first protocol it speaks, connecting if need be."""
        ...

    def can_dial(self, address: Multiaddr) -> bool:
        """Tell if a transport of this host reaches addresses of that kind."""
        ...

    def add_transport(self, transport: Transport) -> None:
        """Make another kind of address dialable, from now on."""
        ...

    def add_finder(self, finder: AddressFinder) -> None:
        """Ask this too for addresses of a peer, whenever one is dialled."""
        ...

    def add_observer(self, observer: Observer) -> None:
        """Let ``observe`` ask by this."""
        ...

    async def observe(self, connection: Connection) -> Multiaddr | None:
        """Ask a peer where it sees a connection, also one of a swarm apart; None if it can't.

        Raises:
            ConnectionLost, NegotiationFailed, ProtocolError, trio.TooSlowError: see identify.
        """
        ...

    def accept(self, pending: PendingConnection) -> None:
        """Take in a connection that arrived through a service (a circuit)."""
        ...

    def expect_listeners(
        self, addresses: Sequence[Multiaddr], *, patience: float
    ) -> AbstractContextManager[None]:
        """Be the dialer of those who arrive from these IPs and propose nothing, in this block.

        ``patience`` is how many seconds an arrival may take to speak. For hole punches.
        """
        ...

    def apart(
        self, *, stranger: bool, unanswered_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Apart]:
        """Run a swarm on ports of its own; with a key of its own, too, as a ``stranger``.

        ``unanswered_bytes``: no more leaves it in datagrams, headers included, until whoever
        is dialled has answered.
        """
        ...

    def ports_apart(self, transport: str) -> int:
        """Return from how many IPv4 ports apart anything has left so far; ``tcp`` or ``udp``.

        Each is one further, to a NAT that gives ports in sequence.
        """
        ...

    def protect(self, peer_id: PeerId, tag: str) -> None:
        """Never trim the connections to this peer while a tag is on it."""
        ...

    def unprotect(self, peer_id: PeerId, tag: str) -> None: ...


class Service(Protocol):
    """A protocol that runs as long as the host."""

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled; call ``task_status.started()`` once ready."""
        ...


# ---- parts -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kit:
    """What a part may use to build what it describes."""

    env: Env
    key: PrivateKey = field(repr=False)
    peer_id: PeerId
    upgrader: Upgrader
    is_private: bool = False
    """The host has a pre-shared key: a transport that cannot keep to it refuses to be built."""
    tcp_ports: TcpPorts | None = None
    """What the transports of the host listen and dial with over TCP; None has each by itself."""
    pace: Pace = field(default_factory=Pace)
    """How long connections may be silent in this network, as far as that was learned."""
    foreword: Foreword = field(default_factory=Foreword)
    """What is said ahead to whom this host calls over a relay."""


class Part(Protocol[T_co]):
    """A frozen description of one thing a host is made of."""

    def build(self, kit: Kit) -> T_co: ...
