"""What QUIC asks of the library that speaks it: packets in, packets out, and events.

Two libraries fit behind it (``aioquic_core``, ``qh3_core``). Neither opens a socket nor reads
a clock: time is an argument, and a datagram is bytes.

    datagram --> receive --+                       +--> transmit --> datagrams
                           |  streams, handshake,  |
        time --> on_timer -+  loss, congestion     +--> timer
                           |                       |
       write, reset, ... --+                       +--> events
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from p2pnet.core.addresses import Endpoint

ALPN = "libp2p"
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How a library may fail on what it did not expect from a remote."""
ID_BYTES = 8
"""Length of the connection IDs we choose."""
MAX_IDS = 4
"""How many connection IDs of a remote are kept (Q31)."""
MAX_HANDSHAKE_BYTES = 65_536
"""Most of a TLS message that a remote may send before it has proved anything."""


class Cause(Enum):
    """Why a connection ended, or begins to."""

    REMOTE = "the remote closed it"
    """With an application code: one of libp2p's."""
    REMOTE_REFUSED = "the remote refused it"
    """With a code of QUIC's own: to it we broke a rule, or failed the handshake."""
    VIOLATION = "the remote broke a rule"
    SILENCE = "the remote went silent"
    VERSION = "no version in common"


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """TLS is over; whose certificate it was is yet to be judged."""


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes of a stream, in order; the stream is new if its number is."""

    stream: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The remote gave up sending."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The remote wants no more of what we send."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class IdIssued:
    """The remote may address us by another connection ID, too."""

    id: bytes


@dataclass(frozen=True, slots=True)
class IdRetired:
    """The remote uses a connection ID no more."""

    id: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The remote goes on from another place, and has proved that it is there."""

    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Challenged:
    """Whom we dialled asks for such a proof of us: it sees us elsewhere than before."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more will come."""

    cause: Cause
    code: int
    reason: str


Event = (
    HandshakeDone
    | StreamData
    | StreamReset
    | StreamStopped
    | IdIssued
    | IdRetired
    | Moved
    | Challenged
    | Ended
)


class Whereabouts:
    """Where a remote is, as far as that is proved (Q29)."""

    def __init__(self, dialled: tuple[str, int] | None = None) -> None:
        self._known = dialled

    def begin(self, place: tuple[str, int]) -> None:
        """Take where the first packet came from."""
        self._known = self._known or place

    def look(self, proved: tuple[str, int] | None) -> Moved | None:
        """Tell if the remote has moved, each move once."""
        if proved is None or proved == self._known:
            return None
        self._known = proved
        return Moved(Endpoint(*proved))


class Core(Protocol):
    """One connection, without sockets and without time of its own."""

    @property
    def id(self) -> bytes:
        """The first connection ID of ours."""
        ...

    @property
    def is_begun(self) -> bool:
        """True once any packet of the remote could be read."""
        ...

    @property
    def certificates(self) -> Sequence[bytes]:
        """The chain of the remote, as DER; empty if it showed none."""
        ...

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence after which one of the ends gives up, as agreed."""
        ...

    @property
    def reset_tokens(self) -> Sequence[bytes]:
        """By which of these the remote may say that it knows nothing of the connection."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes written to streams that were never sent so far."""
        ...

    @property
    def is_settled(self) -> bool:
        """True if the remote has acknowledged all of the streams that we ended."""
        ...

    @property
    def is_owed(self) -> bool:
        """True if the remote has yet to acknowledge something that was sent."""
        ...

    @property
    def probe_timeout(self) -> float:
        """Seconds after which a packet without answer is sent again."""
        ...

    def receive(self, datagrams: Sequence[bytes], remote: Endpoint, now: float) -> None:
        """Take datagrams that came in a row from one place, whatever is in them."""
        ...

    def transmit(self, now: float) -> Sequence[tuple[bytes, Endpoint]]:
        """Return the datagrams that are to be sent now."""
        ...

    @property
    def has_more(self) -> bool:
        """True if more than was returned last may go at once: the remote can begin meanwhile."""
        ...

    def timer(self) -> float | None:
        """Return when ``on_timer`` is due."""
        ...

    def on_timer(self, now: float) -> None: ...

    def resend(self, now: float) -> None:
        """Have the next ``transmit`` return the first packets again, of a dial without answer."""
        ...

    def next_event(self) -> Event | None: ...

    def open_stream(self) -> int | None:
        """Return the number of a new stream; None while the remote allows no more."""
        ...

    def room(self, stream: int) -> int:
        """Return how many bytes the remote lets us send on a stream beyond those written."""
        ...

    def unsent_on(self, stream: int) -> int:
        """Return how many of the bytes written to a stream were never sent so far."""
        ...

    def write(self, stream: int, data: bytes, *, is_last: bool = False) -> None: ...

    def reset(self, stream: int, code: int) -> None:
        """Give up sending."""
        ...

    def stop(self, stream: int, code: int) -> None:
        """Ask the remote to send no more."""
        ...

    def consume(self, stream: int, count: int, now: float) -> bool:
        """Note that the application read; True if the remote is to be told of new credit."""
        ...

    def bound(self, stream: int, max_bytes: int) -> None:
        """Let the window of a stream grow no further than that, if it grows at all."""
        ...

    def ping(self) -> None: ...

    def close(self, code: int, reason: str, *, is_application: bool) -> None:
        """Say goodbye with the next ``transmit``, the last one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """What all connections of a transport have in common."""

    certificate: bytes
    """Ours, as PEM."""
    private_key: bytes = field(repr=False)
    """Of the certificate: PKCS #8, as PEM."""
    reset_token: Callable[[bytes], bytes] = field(repr=False)
    """Makes the token by which we disown a connection ID."""
    idle_timeout: float
    datagram_bytes: int
    max_datagram_bytes: int
    max_streams: int
    stream_window: int
    max_stream_window: int
    connection_window: int
    max_connection_window: int


class Library(Protocol):
    """Makes the cores of connections."""

    def dial(self, remote: Endpoint, now: float) -> Core: ...

    def answer(self, original_id: bytes, retry_id: bytes | None) -> Core:
        """Make the core of an inbound connection; ``retry_id`` if it was sent back once."""
        ...

    def retry(self, *, source: bytes, target: bytes, original: bytes, token: bytes) -> bytes:
        """Make the packet that sends a client back to prove its address."""
        ...


def addressed(
    datagrams: Iterable[tuple[bytes, tuple[str, int]]],
) -> list[tuple[bytes, Endpoint]]:
    """Say where datagrams go; as a rule all of them go to the same place."""
    endpoints: dict[tuple[str, int], Endpoint] = {}
    going: list[tuple[bytes, Endpoint]] = []
    for data, to in datagrams:
        endpoint = endpoints.get(to)
        if endpoint is None:
            endpoint = endpoints[to] = Endpoint(*to)
        going.append((data, endpoint))
    return going


def in_rows(
    datagrams: Sequence[tuple[bytes, Endpoint]],
) -> Iterator[tuple[list[bytes], Endpoint]]:
    """Put together what goes to the same place in a row."""
    for remote, row in groupby(datagrams, key=itemgetter(1)):
        yield [data for data, _ in row], remote
