"""The QUIC transport: dials and listens on one UDP socket, so that holes can be punched.

Rules: specs/quic.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_endpoint
from p2pnet.core.env import DatagramSocket, Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import AddressUnsupported, P2PError
from p2pnet.interfaces import CapableConnection, Role, Spread
from p2pnet.transports.quic.connection import QuicConnection
from p2pnet.transports.quic.endings import no_answer
from p2pnet.transports.quic.endpoint import QuicSocket
from p2pnet.transports.quic.listening import Admission, Expectation, QuicListener
from p2pnet.transports.quic.spread import ManySockets, knock
from p2pnet.transports.quic.terms import Way
from p2pnet.transports.tcp_ports import source_endpoint

PUNCH_BYTES = 64
PUNCH_INTERVAL = (0.010, 0.200)
"""Seconds between two packets that open the NAT on our side."""
PUNCH_PATIENCE = 0.1
"""Seconds after which who was to be dialled dials, too, if nobody comes from there ..."""
MEETING_SECONDS = 1.0
"""... or if somebody does, but shakes hands for so long."""


class QuicTransport:
    """Dials and listens on the network of the host's Env."""

    def __init__(self, admission: Admission, *, handshake_timeout: float) -> None:
        self._admission = admission
        self._handshake_timeout = handshake_timeout
        self._sockets: dict[Endpoint, QuicSocket] = {}
        self._listeners: dict[Endpoint, QuicListener] = {}

    @property
    def _env(self) -> Env:
        return self._admission.terms.env

    def can_dial(self, address: Multiaddr) -> bool:
        return quic_endpoint(address) is not None

    def can_listen(self, address: Multiaddr) -> bool:
        return quic_endpoint(address) is not None

    # ---- listening -----------------------------------------------------------------------

    async def listen(self, address: Multiaddr) -> QuicListener:
        local = quic_endpoint(address)
        if local is None:
            raise AddressUnsupported(address)
        socket = self._sockets.get(local)
        if socket is None or local in self._listeners:
            socket = await self._bind(local)
        listener = QuicListener(socket, self._admission, self._forget_listener)
        self._listeners[socket.local] = listener
        return listener

    async def _bind(self, local: Endpoint) -> QuicSocket:
        return self._adopt(await self._env.network.bind_udp(local))

    def _adopt(self, raw: DatagramSocket) -> QuicSocket:
        secrets, random_bytes = self._admission.secrets, self._env.random_bytes
        socket = QuicSocket(raw, secrets, random_bytes, self._forget_socket)
        self._sockets[socket.local] = socket
        return socket

    def _forget_listener(self, listener: QuicListener) -> None:
        self._listeners.pop(listener.socket.local, None)

    def _forget_socket(self, socket: QuicSocket) -> None:
        self._sockets.pop(socket.local, None)

    # ---- dialling ------------------------------------------------------------------------

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        remote = quic_endpoint(address)
        if remote is None:
            raise AddressUnsupported(address)
        with trio.move_on_after(self._handshake_timeout):
            if role is Role.LISTENER:
                return await self._punch(address, remote, peer_id)
            return await self._dial(remote, peer_id, any_port)
        raise no_answer()

    async def _dial(self, remote: Endpoint, peer_id: PeerId, any_port: bool) -> QuicConnection:
        async with self._leaving_for(remote, any_port) as socket:
            local = socket.source_for(remote)
            core = self._admission.cores.dial(remote, trio.current_time())
            way = Way(socket, local, remote, is_dialed=True)
            connection = QuicConnection(core, way, self._admission.terms, expected=peer_id)
            await connection.handshake()
            return connection

    @asynccontextmanager
    async def _leaving_for(self, remote: Endpoint, any_port: bool) -> AsyncGenerator[QuicSocket]:
        """Hold the socket to dial from: the one that is listened on, or a fresh one (Q2)."""
        source = None if any_port else source_endpoint(remote, self._listeners)
        if source is not None and source != remote:
            socket = self._listeners[source].socket
        else:
            anywhere = "::" if remote.is_ipv6 else "0.0.0.0"
            socket = await self._bind(Endpoint(anywhere, 0))
        socket.hold()
        try:
            yield socket
        finally:
            await socket.release()

    # ---- birthday punching ---------------------------------------------------------------

    async def dial_from_many(
        self, address: Multiaddr, *, peer_id: PeerId, spread: Spread
    ) -> CapableConnection:
        """See SpreadingTransport.dial_from_many."""
        remote = quic_endpoint(address)
        if remote is None:
            raise AddressUnsupported(address)
        return await ManySockets(self._admission, remote, self._adopt).dial(peer_id, spread)

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        """See SpreadingTransport.knock_at_many."""
        remote = quic_endpoint(address)
        source = None if remote is None else source_endpoint(remote, self._listeners)
        if remote is None or source is None:
            raise AddressUnsupported(address)
        socket = self._listeners[source].socket
        socket.hold()
        try:
            await knock(socket, remote.host, spread, self._env)
        finally:
            await socket.release()

    # ---- punching holes ------------------------------------------------------------------

    async def _punch(
        self, address: Multiaddr, remote: Endpoint, peer_id: PeerId
    ) -> CapableConnection:
        """Open the NAT on our side until the remote's dial gets in (Q20)."""
        source = source_endpoint(remote, self._listeners)
        if source is None:
            raise AddressUnsupported(address, "nothing listens that could be dialled from there")
        listener = self._listeners[source]
        expectation = listener.expect(remote)
        listener.socket.hold()
        found: list[QuicConnection] = []
        alone = trio.CancelScope()
        try:
            with bare_exceptions():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listener.socket.attend)
                    nursery.start_soon(self._knock, listener.socket, remote)
                    dial = partial(self._dial_too, remote, peer_id, found, alone=alone)
                    nursery.start_soon(dial, nursery.cancel_scope)
                    found.append(await self._meet(listener, expectation, peer_id, alone))
                    nursery.cancel_scope.cancel()
            first, *others = found
        except BaseException:
            for connection in found:  # Q20: the remote has it, and may use it.
                await listener.pass_on(connection)
            raise
        finally:
            await listener.unexpect(expectation)
            await listener.socket.release()
        for connection in others:
            await listener.pass_on(connection)
        return first

    async def _dial_too(
        self,
        remote: Endpoint,
        peer_id: PeerId,
        found: list[QuicConnection],
        scope: trio.CancelScope,
        *,
        alone: trio.CancelScope,
    ) -> None:
        """Dial the remote if it does not get in: our NAT may have given us another port for it.

        Then only we can reach the remote, if its own NAT lets everybody in (Q20). ``alone`` is
        cancelled as soon as somebody comes from there: that will be the remote.
        """
        for patience, while_alone in ((PUNCH_PATIENCE, alone), (MEETING_SECONDS, nullcontext())):
            with while_alone, suppress(P2PError, OSError):
                await trio.sleep(patience)
                found.append(await self._dial(remote, peer_id, any_port=False))
                scope.cancel()
            if not alone.cancelled_caught:
                return

    async def _knock(self, socket: QuicSocket, remote: Endpoint) -> None:
        while True:
            noise = self._env.random_bytes(PUNCH_BYTES)
            await socket.try_to_send([noise], remote, socket.source_for(remote).host)
            await trio.sleep(self._env.jitter(*PUNCH_INTERVAL))

    async def _meet(
        self,
        listener: QuicListener,
        expectation: Expectation,
        peer_id: PeerId,
        alone: trio.CancelScope,
    ) -> QuicConnection:
        while True:
            while not expectation.arrived:
                await expectation.changed.park()
            alone.cancel()
            connection = expectation.arrived.popleft()
            try:
                await connection.settle()
            except (P2PError, OSError):  # A stranger, or another try of the same peer.
                await connection.refuse()
                continue
            except BaseException:
                # Q20: the remote may be ready before this end is.
                await listener.pass_on(connection)
                raise
            if connection.peer_id == peer_id:
                return connection
            await listener.pass_on(connection)
