"""One UDP socket, for listening and for dialling: which datagram belongs to which connection.

There is no task of its own. Whoever waits for something on the socket attends to it: one of
them receives, for all, and when it leaves another takes its place:

    accept ---+
    dial -----+--> attend: receive --> by connection ID --> connection.receive
    run ------+                    +-> no connection: answered from the datagram alone
    upgrade --+

The socket is closed when the last of its users is gone. Rules: specs/quic.md (Q1 to Q3, Q18, Q32).
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket
from p2pnet.core.tasks import boundary
from p2pnet.core.udp import Arrival
from p2pnet.transports.quic.packets import (
    MAX_RESET_BYTES,
    MIN_INITIAL_BYTES,
    RESET_TOKEN_BYTES,
    VERSION_1,
    Header,
    Secrets,
    Unreadable,
    read_header,
    version_negotiation,
)

logger = logging.getLogger("p2pnet.quic")

MAX_TOMBS = 4096
TOMB_SECONDS = 3.0
"""How long what comes late for a closed connection is told so."""
MAX_LAST_WORDS = 8
"""How often one closed connection repeats its goodbye."""
ANSWERS_PER_SECOND = 200.0
"""Most datagrams a second that are answered though they belong to no connection."""
NOISE_BYTES = 64


class Route(Protocol):
    """A connection, as its socket sees it."""

    @property
    def remote(self) -> Endpoint: ...

    def receive(self, datagrams: Sequence[bytes], remote: Endpoint, now: float) -> None:
        """Take datagrams that came in a row from one place."""
        ...

    def knocked(self, now: float) -> None:
        """Hear that a datagram of no connection came from where the remote is."""
        ...

    def is_disowned_by(self, token: bytes) -> bool: ...


@dataclass(slots=True)
class Tomb:
    """A connection that is over."""

    expires_at: float
    last_words: bytes
    """What closed it; empty if the remote did."""
    visits: int = 0
    spoken: int = 0

    def answer(self) -> bytes:
        """Return the last words: at the first visit, the second, the fourth, the eighth ..."""
        self.visits += 1
        if self.visits & (self.visits - 1) or self.spoken >= MAX_LAST_WORDS:
            return b""
        self.spoken += 1
        return self.last_words


def deliver(row: Sequence[bytes], owner: tuple[Route, Endpoint], now: float) -> None:
    """Hand datagrams to their connection. What fails there is nothing to whoever attends."""
    route, remote = owner
    with boundary(logger, "a connection over QUIC"):
        route.receive(row, remote, now)


class QuicSocket:
    """A socket that many connections share."""

    def __init__(
        self,
        socket: DatagramSocket,
        secrets: Secrets,
        random_bytes: Callable[[int], bytes],
        on_closed: Callable[[QuicSocket], None],
    ) -> None:
        self.local = socket.local
        self.on_initial: Callable[[Header, Arrival, float], None] | None = None
        self._socket = socket
        self._secrets = secrets
        self._random_bytes = random_bytes
        self._on_closed = on_closed
        self._routes: dict[bytes, Route] = {}
        self._peers: dict[Endpoint, list[Route]] = {}
        self._tombs: OrderedDict[bytes, Tomb] = OrderedDict()
        self._answers: deque[tuple[bytes, Arrival]] = deque()
        self._allowance = ANSWERS_PER_SECOND
        self._allowed_at = 0.0
        self._users = 0
        self._attending = trio.Lock()

    def source_for(self, remote: Endpoint) -> Endpoint:
        """Return the endpoint from which a remote is reached. Raises OSError."""
        return Endpoint(self._socket.source_for(remote), self.local.port)

    # ---- who uses it ---------------------------------------------------------------------

    def hold(self) -> None:
        self._users += 1

    async def release(self) -> None:
        """Leave; the last one closes the socket. Cancelled or not."""
        self._users -= 1
        if self._users == 0:
            self._on_closed(self)
            self._tombs.clear()
            with trio.CancelScope(shield=True):
                await self._socket.aclose()

    # ---- what comes ----------------------------------------------------------------------

    async def attend(self) -> None:
        """Receive for all connections, one task at a time, until cancelled or closed."""
        async with self._attending:
            while True:
                await self._send_answers()
                try:
                    arrivals = await self._socket.receive_many()
                except trio.ClosedResourceError:
                    return
                self._sort(arrivals)

    def _sort(self, arrivals: Sequence[Arrival]) -> None:
        now = trio.current_time()
        row: list[bytes] = []
        owner: tuple[Route, Endpoint] | None = None
        for arrival in arrivals:
            try:
                header = read_header(arrival.data)
            except Unreadable:  # Q18
                self._knocked(arrival.remote, now)
                continue
            route = self._routes.get(header.target)
            following = None if route is None else (route, arrival.remote)
            if owner is not None and owner != following:
                deliver(row, owner, now)
                row = []
            owner = following
            if owner is None:
                self._knocked(arrival.remote, now)
                with boundary(logger, "a datagram of no connection"):
                    self._stray(header, arrival, now)
            else:
                row.append(arrival.data)
        if owner is not None:
            deliver(row, owner, now)

    def _knocked(self, remote: Endpoint, now: float) -> None:
        for route in self._peers.get(remote, ()):
            with boundary(logger, "a dial over QUIC"):
                route.knocked(now)

    def _stray(self, header: Header, arrival: Arrival, now: float) -> None:
        tomb = self._tombs.get(header.target)
        if tomb is not None and tomb.expires_at > now:
            self._answer(tomb.answer(), arrival, now)
        elif header.version is None:
            self._disown(header, arrival, now)
        elif len(arrival.data) < MIN_INITIAL_BYTES or self.on_initial is None:
            return
        elif header.version != VERSION_1:
            if header.version:  # Q3: never answer version negotiation itself
                first = self._random_bytes(1)[0]
                self._answer(version_negotiation(header, first), arrival, now)
        elif header.is_initial:
            self.on_initial(header, arrival, now)

    def _disown(self, header: Header, arrival: Arrival, now: float) -> None:
        """Take a stateless reset for what it is, or send one (Q17)."""
        token = arrival.data[-RESET_TOKEN_BYTES:]
        for route in self._peers.get(arrival.remote, ()):
            if route.is_disowned_by(token):
                route.receive([arrival.data], arrival.remote, now)
                return
        noise = self._random_bytes(MAX_RESET_BYTES)
        reset = self._secrets.stateless_reset(header.target, len(arrival.data), noise)
        if reset is not None:
            self._answer(reset, arrival, now)

    def answer(self, data: bytes, arrival: Arrival, now: float) -> None:
        """Answer a datagram that belongs to no connection, if that is not done too often."""
        self._answer(data, arrival, now)

    def _answer(self, data: bytes, arrival: Arrival, now: float) -> None:
        gained = (now - self._allowed_at) * ANSWERS_PER_SECOND
        self._allowance = min(self._allowance + gained, ANSWERS_PER_SECOND)
        self._allowed_at = now
        if data and self._allowance >= 1:
            self._allowance -= 1
            self._answers.append((data, arrival))

    async def _send_answers(self) -> None:
        while self._answers:  # Who attends may be cancelled: then the next one goes on.
            data, arrival = self._answers.popleft()
            await self.send([data], arrival.remote, arrival.local_host)

    # ---- what goes -----------------------------------------------------------------------

    async def send(self, datagrams: Sequence[bytes], remote: Endpoint, source: str) -> None:
        """Send, and take whatever the network says for a loss."""
        try:
            await self._socket.send_many(datagrams, remote, source=source)
        except (OSError, trio.ClosedResourceError):
            return

    async def try_to_send(self, datagrams: Sequence[bytes], remote: Endpoint, source: str) -> None:
        """Send the first of a dial. Raises OSError if the network knows no way."""
        await self._socket.send_many(datagrams, remote, source=source)

    # ---- whose it is ---------------------------------------------------------------------

    def enter(self, route: Route, ids: Iterable[bytes]) -> None:
        """Let a connection use the socket, until it is buried and has released it."""
        self.hold()
        self._peers.setdefault(route.remote, []).append(route)
        for id_ in ids:
            self._routes[id_] = route

    def move(self, route: Route, remote: Endpoint) -> None:
        """Look for a connection at another place: ``route.remote`` is still the one before."""
        self._leave_place(route)
        self._peers.setdefault(remote, []).append(route)

    def _leave_place(self, route: Route) -> None:
        neighbours = self._peers.get(route.remote, [])
        if route in neighbours:
            neighbours.remove(route)
        if not neighbours:
            self._peers.pop(route.remote, None)

    def add(self, id_: bytes, route: Route) -> None:
        self._routes[id_] = route

    def remove(self, id_: bytes) -> None:
        self._routes.pop(id_, None)

    def bury(self, route: Route, ids: Iterable[bytes], last_words: bytes) -> None:
        """Forget a connection; what comes late for it is answered, for a while (Q18)."""
        self._leave_place(route)
        now = trio.current_time()
        tomb = Tomb(now + TOMB_SECONDS, last_words)
        for id_ in ids:
            self._routes.pop(id_, None)
            self._tombs[id_] = tomb
        while self._tombs:
            oldest = next(iter(self._tombs))
            if self._tombs[oldest].expires_at > now and len(self._tombs) <= MAX_TOMBS:
                break
            del self._tombs[oldest]
