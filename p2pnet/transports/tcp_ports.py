"""Listening TCP ports, which transports share: the first bytes tell for whom an arrival is.

            one door       accept -> its pending connection, as it came
 a port
            many doors     accept -> UndecidedConnection -> upgrade: listen -> the door's own

An arrival is told apart within its own upgrade. So how long that may take, and how many may
be undecided at once, is bounded by what bounds all handshakes (S6); whoever is silent holds
up nobody else; and a port with one door works as if there were nothing else.

Rules: specs/connections.md (S1, S2, S3), specs/websocket.md (W20 to W24).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping

import trio

from p2pnet.core.addresses import Endpoint, from_endpoint, ip_from_text
from p2pnet.core.env import ByteStream, Network, StreamListener
from p2pnet.core.rewound import RewoundStream
from p2pnet.errors import ProtocolError
from p2pnet.interfaces import (
    CapableConnection,
    Door,
    Kit,
    Opening,
    PendingConnection,
    Role,
    TcpPorts,
)

PORT_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
METHODS = tuple(
    f"{method} ".encode()
    for method in (
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PRI",
    )
)
"""What HTTP begins with. All but GET are refused, but by who speaks HTTP."""
TLS_RECORD = (
    range(0x16, 0x17),  # a handshake
    range(3, 4),  # of TLS
    range(5),  # whatever version this field claims
    range(0x41),  # at most 16 KiB long
    range(0x100),
    range(1, 2),  # a ClientHello
)
"""What each of the first bytes may be. Six, as a private network's nonce may begin like two."""
LONGEST_OPENING = max(map(len, [*METHODS, TLS_RECORD]))


def ports_of(kit: Kit) -> TcpPorts:
    """Return the ports that a host's transports share, or some for one transport alone."""
    return kit.tcp_ports or SharedTcpPorts(kit.env.network)


class SharedTcpPorts:
    """See interfaces.TcpPorts."""

    def __init__(self, network: Network, *, scattered: bool = False) -> None:
        self._network = network
        self._is_scattered = scattered
        """Any port is one of no order (dcutr.md, D16)."""
        self._ports: dict[Endpoint, Port] = {}

    async def dial(
        self, remote: Endpoint, opening: Opening, *, role: Role, any_port: bool
    ) -> ByteStream:
        """See TcpPorts.dial."""
        local = None if any_port else self.source_for(remote, opening)
        if local is None and self._is_scattered:
            local = Endpoint("::" if remote.is_ipv6 else "0.0.0.0", 0)
        if local is None:
            return await self._network.dial_tcp(remote)
        try:
            return await self._network.dial_tcp(remote, local=local)
        except OSError as error:
            # S3: an old connection between the same two ports may still be dying. Any port
            # will do then, but not in a hole punch, where only the known one is open.
            if error.errno not in PORT_TAKEN or role is Role.LISTENER:
                raise
            return await self._network.dial_tcp(remote)

    def source_for(self, remote: Endpoint, opening: Opening) -> Endpoint | None:
        """Return the listening endpoint to dial from, or None for any port (S1, W24)."""
        if remote in self._ports:
            return None
        fitting = (local for local, port in self._ports.items() if opening in port.doors)
        return source_endpoint(remote, fitting)

    async def listen(self, local: Endpoint, door: Door) -> PortListener:
        """See TcpPorts.listen."""
        # First, as nothing may change between the look at the doors and the new one.
        await trio.lowlevel.checkpoint()
        port = self._ports.get(local)
        if port is None:
            listener = await self._network.listen_tcp(local)
            port = self._ports[listener.local] = Port(listener)
        elif door.opening in port.doors:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        port.doors[door.opening] = door
        return PortListener(self, port, door)

    async def close(self, port: Port, door: Door) -> None:
        """Close a door, and with the last one the port (W23)."""
        if port.doors.get(door.opening) is door:
            del port.doors[door.opening]
        if not port.doors:
            self._ports.pop(port.local, None)
            await port.aclose()


class Port:
    """A listening port, and the doors behind it."""

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self._turn = trio.Lock()
        self.local = listener.local
        self.doors: dict[Opening, Door] = {}

    async def accept(self) -> ByteStream:
        try:
            self._turn.acquire_nowait()  # A turn of the scheduler each would halve the rate.
        except trio.WouldBlock:
            await self._turn.acquire()  # A socket has only one who waits for it.
        try:
            return await self._listener.accept()
        finally:
            self._turn.release()

    async def aclose(self) -> None:
        await self._listener.aclose()


class PortListener:
    """A transport's listener at a port. It may accept what is for another one at that port."""

    def __init__(self, ports: SharedTcpPorts, port: Port, door: Door) -> None:
        self._ports = ports
        self._port = port
        self._door = door
        self._is_closed = False
        self._waiting: set[trio.CancelScope] = set()
        self.address = door.address(port.local)

    async def accept(self) -> PendingConnection:
        """See Listener.accept."""
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if not self._is_closed:
                    return self._pending(await self._port.accept())
            finally:
                self._waiting.discard(scope)
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("this listener is closed")

    def _pending(self, stream: ByteStream) -> PendingConnection:
        doors = self._port.doors
        if len(doors) > 1:
            return UndecidedConnection(stream, dict(doors))
        return self._door.pending(stream)  # W20

    async def aclose(self) -> None:
        """Close this door, and no other."""
        self._is_closed = True
        for scope in self._waiting:
            scope.cancel()
        await self._ports.close(self._port, self._door)
        await trio.lowlevel.checkpoint()


class UndecidedConnection:
    """An arrival at a port with several doors: which one is it for?"""

    def __init__(self, stream: ByteStream, doors: Mapping[Opening, Door]) -> None:
        self._stream = stream
        self._doors = doors
        self.remote_address = from_endpoint(stream.remote)

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        """See PendingConnection.upgrade.

        Raises:
            ProtocolError: if nobody at this port is for such an opening; and as the door's.
        """
        try:
            heard, opening = await self._hear(patience)
            door = self._doors.get(opening) or self._doors.get(Opening.RAW)
            if door is None:
                raise ProtocolError("tcp", "only HTTP and TLS are spoken at this port")
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        if not heard and patience is not None:
            patience = 0.0  # W22: it was silent for long enough.
        return await door.pending(RewoundByteStream(self._stream, heard)).upgrade(patience=patience)

    async def _hear(self, patience: float | None) -> tuple[bytes, Opening]:
        """Listen until it is clear what this is. Who is silent plays the listener: raw (W22)."""
        heard = b""
        with trio.move_on_after(float("inf") if patience is None else patience):
            while (opening := opening_of(heard, self._doors)) is None:
                data = await self._stream.receive_some(LONGEST_OPENING - len(heard))
                if not data:
                    return heard, Opening.RAW
                heard += data
            return heard, opening
        return heard, Opening.RAW

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


class RewoundByteStream(RewoundStream, ByteStream):
    """A raw connection whose first bytes are received again."""

    def __init__(self, stream: ByteStream, heard: bytes) -> None:
        super().__init__(stream, heard)
        self.local, self.remote = stream.local, stream.remote


def opening_of(heard: bytes, doors: Collection[Opening]) -> Opening | None:
    """Tell for which of the doors an arrival is that begins so; None if that is not clear yet.

    What cannot become HTTP or TLS any more is raw: the first byte of multistream-select
    decides already (W21).
    """
    if Opening.HTTP in doors:
        if heard.startswith(METHODS):
            return Opening.HTTP
        if any(method.startswith(heard) for method in METHODS):
            return None
    fits_tls = all(byte in fit for byte, fit in zip(heard, TLS_RECORD, strict=False))
    if Opening.TLS in doors and fits_tls:
        return Opening.TLS if len(heard) >= len(TLS_RECORD) else None
    return Opening.RAW if heard else None


def source_endpoint(remote: Endpoint, listening: Iterable[Endpoint]) -> Endpoint | None:
    """Choose the listening endpoint that can reach ``remote``: same family, same scope.

    A listener on a certain address is preferred to one on all of them, as it says more; one
    on loopback reaches only loopback, and nothing else reaches that from a certain address.
    """
    to_loopback = ip_from_text(remote.host).is_loopback
    fitting = [
        local
        for local in sorted(listening)
        if local.is_ipv6 == remote.is_ipv6
        and (local.is_unspecified or ip_from_text(local.host).is_loopback == to_loopback)
    ]
    return min(fitting, key=lambda local: local.is_unspecified, default=None)
