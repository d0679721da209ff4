"""Inbound connections: who may come in, who is sent back first, and who waits.

An Initial from a stranger costs a handshake, and its sender may be nobody at all. So only so
many may be under way; above a threshold the stranger is sent back once with a token, which
costs nothing, to show that it is where it says. Rules: specs/quic.md (Q6 to Q8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_address
from p2pnet.core.udp import Arrival
from p2pnet.transports.quic.connection import QuicConnection
from p2pnet.transports.quic.core import ID_BYTES, Library
from p2pnet.transports.quic.endpoint import QuicSocket
from p2pnet.transports.quic.packets import MIN_ORIGINAL_ID_BYTES, Header, Secrets
from p2pnet.transports.quic.terms import Terms, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may come in."""

    cores: Library
    secrets: Secrets
    terms: Terms
    retry_above: int
    max_handshakes: int


class Expectation:
    """A hole punch: the next connection from this place is waited for."""

    def __init__(self, remote: Endpoint) -> None:
        self.remote = remote
        self.arrived: deque[QuicConnection] = deque()
        self.changed = trio.lowlevel.ParkingLot()

    def take(self, connection: QuicConnection) -> None:
        self.arrived.append(connection)
        self.changed.unpark_all()


class QuicListener:
    """Where inbound connections arrive."""

    def __init__(
        self, socket: QuicSocket, admission: Admission, on_close: Callable[[QuicListener], None]
    ) -> None:
        self.socket = socket
        self.address: Multiaddr = quic_address(socket.local)
        self._admission = admission
        self._on_close = on_close
        self._waiting: deque[QuicConnection] = deque()
        self._handshakes: set[QuicConnection] = set()
        self._expectations: list[Expectation] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._is_closed = False
        socket.hold()
        socket.on_initial = self._admit

    # ---- arrivals ------------------------------------------------------------------------

    def _admit(self, header: Header, arrival: Arrival, now: float) -> None:
        if len(header.target) < MIN_ORIGINAL_ID_BYTES:
            return
        admission = self._admission
        original = b""
        if header.token:
            original = admission.secrets.original_of(
                header.token, arrival.remote, retry=header.target, now=now
            )
        if not original and len(self._handshakes) >= admission.retry_above:  # Q6
            self._send_back(header, arrival, now)
        elif len(self._handshakes) < admission.max_handshakes:  # Q7
            retry = header.target if original else None
            self._begin(header, arrival, original or header.target, retry)

    def _send_back(self, header: Header, arrival: Arrival, now: float) -> None:
        admission = self._admission
        retry = admission.terms.env.random_bytes(ID_BYTES)
        token = admission.secrets.token(
            arrival.remote, original=header.target, retry=retry, now=now
        )
        packet = admission.cores.retry(
            source=retry, target=header.source, original=header.target, token=token
        )
        self.socket.answer(packet, arrival, now)

    def _begin(
        self, header: Header, arrival: Arrival, original: bytes, retry: bytes | None
    ) -> None:
        admission = self._admission
        core = admission.cores.answer(original, retry)
        now = trio.current_time()
        core.receive([arrival.data], arrival.remote, now)
        if not core.is_begun:  # Q8: it could not be read, so it leaves no trace.
            return
        local = Endpoint(arrival.local_host, self.socket.local.port)
        way = Way(self.socket, local, arrival.remote, is_dialed=False, ids=(header.target,))
        connection = QuicConnection(core, way, admission.terms, expected=None)
        self._handshakes.add(connection)
        connection.on_settled = lambda: self._handshakes.discard(connection)
        connection.begin(now)
        expectation = self._expectation_of(arrival.remote)
        if expectation is not None:
            expectation.take(connection)
        else:
            self.offer(connection)

    def _expectation_of(self, remote: Endpoint) -> Expectation | None:
        for expectation in self._expectations:
            if expectation.remote == remote:
                return expectation
        return None

    def offer(self, connection: QuicConnection) -> None:
        """Let a connection be accepted."""
        self._waiting.append(connection)
        self._changed.unpark_all()

    async def pass_on(self, connection: QuicConnection) -> None:
        """Let a connection be accepted; it is refused if nobody accepts any more. Cancelled or not.

        It uses the socket until somebody has it closed.
        """
        if self._is_closed:
            await connection.refuse()
        else:
            self.offer(connection)

    def expect(self, remote: Endpoint) -> Expectation:
        """Keep what comes from a place for who punches a hole to it, until ``unexpect``."""
        expectation = Expectation(remote)
        self._expectations.append(expectation)
        return expectation

    async def unexpect(self, expectation: Expectation) -> None:
        """Expect no more; what came and was not taken is there to be accepted."""
        self._expectations.remove(expectation)
        while expectation.arrived:
            await self.pass_on(expectation.arrived.popleft())

    # ---- accepting -----------------------------------------------------------------------

    async def accept(self) -> QuicPending:
        """Wait for the next connection; trio.ClosedResourceError once closed."""
        await trio.lowlevel.checkpoint()
        while not self._is_closed:
            if self._waiting:
                return QuicPending(self._waiting.popleft())
            await self._attend()
        raise trio.ClosedResourceError("this listener is closed")

    async def _attend(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.socket.attend)
            while not self._waiting and not self._is_closed:
                await self._changed.park()
            nursery.cancel_scope.cancel()

    async def aclose(self) -> None:
        """Accept no more; connections go on."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close(self)
            self.socket.on_initial = None
            self._changed.unpark_all()
            waiting, self._waiting = self._waiting, deque()
            for connection in waiting:
                await connection.refuse()
            await self.socket.release()
        await trio.lowlevel.checkpoint()


class QuicPending:
    """An inbound connection of which nothing is known but where it comes from."""

    def __init__(self, connection: QuicConnection) -> None:
        self._connection = connection
        self.remote_address: Multiaddr = connection.remote_address

    async def upgrade(self, *, patience: float | None = None) -> QuicConnection:
        """Shake hands. Who is the dialer is beyond doubt, so ``patience`` means nothing here."""
        await self._connection.handshake()
        return self._connection

    async def aclose(self) -> None:
        await self._connection.refuse()
