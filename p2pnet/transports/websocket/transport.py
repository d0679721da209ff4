"""WebSocket as a transport: TCP, perhaps TLS, HTTP, and then what is spoken over TCP.

Rules: specs/websocket.md.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr
from p2pnet.core.env import ByteStream
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported
from p2pnet.interfaces import CapableConnection, Ends, Kit, Listener, Opening, Role, Upgrader
from p2pnet.transports.tcp_ports import ports_of
from p2pnet.transports.websocket.address import WebAddress, read, write
from p2pnet.transports.websocket.config import WebSocket
from p2pnet.transports.websocket.driver import WebSocketStream, open_as_client, open_as_server
from p2pnet.transports.websocket.engine import FrameLimits
from p2pnet.transports.websocket.outer_tls import (
    ServerIdentity,
    client_context,
    secure_as_client,
    secure_as_server,
)


class WebSocketTransport:
    """Dials and listens at the TCP ports of the host."""

    def __init__(self, config: WebSocket, kit: Kit) -> None:
        self._config = config
        self._upgrader = kit.upgrader
        self._ports = ports_of(kit)
        self._limits = FrameLimits(config.max_frame_bytes, config.max_message_bytes)
        self._trusted: ssl.SSLContext | None = None
        if config.authorities is not None:
            self._trusted = client_context(config.authorities)
        self._identity: ServerIdentity | None = None

    def can_dial(self, address: Multiaddr) -> bool:
        return read(address) is not None

    def can_listen(self, address: Multiaddr) -> bool:
        return read(address) is not None

    # ---- dialling ------------------------------------------------------------------------

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        """See Transport.dial.

        Raises:
            UpgradeRefused: if an HTTP server is there that serves no WebSocket.
            SecurityError: if its certificate is not one to trust for its name.
        """
        web = read(address)
        if web is None:
            raise AddressUnsupported(address)
        any_port = any_port or not self._config.reuse_port
        with trio.fail_after(self._config.connect_timeout):
            raw = await self._ports.dial(web.endpoint, web.opening, role=role, any_port=any_port)
        try:
            with trio.fail_after(self._config.handshake_timeout):
                stream = await self._open(raw, web, role)
        except BaseException:
            await trio.aclose_forcefully(raw)
            raise
        own = WebAddress(raw.local, is_secure=web.is_secure)
        ends = Ends(write(own), write(web))
        return await self._upgrader.upgrade(stream, role, ends=ends, expected=peer_id)

    async def _open(self, raw: ByteStream, web: WebAddress, role: Role) -> WebSocketStream:
        stream: trio.abc.Stream = raw
        if web.is_secure:
            stream = await secure_as_client(raw, self._trust(), web.server_name)
        maximum = self._config.max_head_bytes
        return await open_as_client(
            stream, web.host, role, limits=self._limits, max_head_bytes=maximum
        )

    def _trust(self) -> ssl.SSLContext:
        """Read the authorities of the system when they are needed first: there are many."""
        if self._trusted is None:
            self._trusted = client_context(None)
        return self._trusted

    # ---- listening -----------------------------------------------------------------------

    async def listen(self, address: Multiaddr) -> Listener:
        """See Transport.listen.

        Raises:
            AddressUnsupported: if it asks for TLS, and there is no certificate for that.
        """
        web = read(address)
        if web is None:
            raise AddressUnsupported(address)
        if web.is_secure and self._identity is None:
            if self._config.certificate is None or self._config.key is None:
                raise AddressUnsupported(address, "it needs WebSocket(certificate=…, key=…)")
            self._identity = ServerIdentity(self._config.certificate, self._config.key)
        return await self._ports.listen(web.endpoint, WebDoor(self, web, self._upgrader))

    async def serve(self, raw: ByteStream, *, is_secure: bool) -> WebSocketStream:
        """Do the handshakes with a client."""
        stream: trio.abc.Stream = raw
        with trio.fail_after(self._config.handshake_timeout):
            if is_secure and self._identity is not None:
                stream = await secure_as_server(raw, self._identity.context())
            maximum = self._config.max_head_bytes
            return await open_as_server(stream, limits=self._limits, max_head_bytes=maximum)


@dataclass(frozen=True, slots=True)
class WebDoor:
    """Takes in who comes to one listen address."""

    transport: WebSocketTransport
    web: WebAddress
    upgrader: Upgrader

    @property
    def opening(self) -> Opening:
        return self.web.opening

    def address(self, local: Endpoint) -> Multiaddr:
        return write(self.web.at(local))

    def pending(self, stream: ByteStream) -> WebPending:
        return WebPending(stream, self)


class WebPending:
    """An inbound connection that should become a WebSocket."""

    def __init__(self, raw: ByteStream, door: WebDoor) -> None:
        self._raw = raw
        self._door = door
        self.remote_address = write(WebAddress(raw.remote, is_secure=door.web.is_secure))

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        """See PendingConnection.upgrade; ``patience`` begins when there is a WebSocket."""
        door = self._door
        try:
            stream = await door.transport.serve(self._raw, is_secure=door.web.is_secure)
        except BaseException:
            await trio.aclose_forcefully(self._raw)
            raise
        ends = Ends(door.address(self._raw.local), self.remote_address)
        return await door.upgrader.upgrade(stream, Role.LISTENER, ends=ends, patience=patience)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._raw)
