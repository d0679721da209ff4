"""TCP: listens and dials from the same port, so that observed addresses mean something.

Rules: specs/connections.md (S1, S3, S5).
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, from_endpoint, tcp_endpoint
from p2pnet.core.env import ByteStream, Network, StreamListener
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported
from p2pnet.interfaces import CapableConnection, Ends, Kit, Role, Upgrader

PORT_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TCP:
    """The TCP transport: ``/ip4/…/tcp/…`` and ``/ip6/…/tcp/…``."""

    connect_timeout: float = 10.0
    """Seconds until a SYN that nobody answers is given up."""
    reuse_port: bool = True
    """Dial from the port that is listened on. Hole punching does not work without it."""

    def __post_init__(self) -> None:
        if self.connect_timeout <= 0:
            raise ValueError("connect_timeout must be positive")

    def build(self, kit: Kit) -> TcpTransport:
        return TcpTransport(self, kit.env.network, kit.upgrader)


class TcpTransport:
    """Dials and listens on the network of the host's Env."""

    def __init__(self, config: TCP, network: Network, upgrader: Upgrader) -> None:
        self._config = config
        self._network = network
        self._upgrader = upgrader
        self._listening: set[Endpoint] = set()

    def can_dial(self, address: Multiaddr) -> bool:
        return tcp_endpoint(address) is not None

    def can_listen(self, address: Multiaddr) -> bool:
        return tcp_endpoint(address) is not None

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        remote = tcp_endpoint(address)
        if remote is None:
            raise AddressUnsupported(address)
        with trio.fail_after(self._config.connect_timeout):
            source = None if any_port else self.source_for(remote)
            stream = await self._connect(remote, source, role)
        ends = Ends(from_endpoint(stream.local), from_endpoint(remote))
        return await self._upgrader.upgrade(stream, role, ends=ends, expected=peer_id)

    async def _connect(self, remote: Endpoint, local: Endpoint | None, role: Role) -> ByteStream:
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

    def source_for(self, remote: Endpoint) -> Endpoint | None:
        """Return the listening endpoint to dial from, or None for any port (S1)."""
        if not self._config.reuse_port or remote in self._listening:
            return None
        return source_endpoint(remote, self._listening)

    async def listen(self, address: Multiaddr) -> TcpListener:
        local = tcp_endpoint(address)
        if local is None:
            raise AddressUnsupported(address)
        listener = await self._network.listen_tcp(local)
        self._listening.add(listener.local)
        return TcpListener(listener, self)

    def forget(self, local: Endpoint) -> None:
        self._listening.discard(local)

    def pending(self, stream: ByteStream) -> TcpPending:
        return TcpPending(stream, self._upgrader)


class TcpListener:
    """Accepts raw connections; each is yet to be upgraded."""

    def __init__(self, listener: StreamListener, transport: TcpTransport) -> None:
        self._listener = listener
        self._transport = transport
        self.address = from_endpoint(listener.local)

    async def accept(self) -> TcpPending:
        return self._transport.pending(await self._listener.accept())

    async def aclose(self) -> None:
        self._transport.forget(self._listener.local)
        await self._listener.aclose()


class TcpPending:
    """An inbound TCP connection of which nothing is known but where it comes from."""

    def __init__(self, stream: ByteStream, upgrader: Upgrader) -> None:
        self._stream = stream
        self._upgrader = upgrader
        self.remote_address = from_endpoint(stream.remote)

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        ends = Ends(from_endpoint(self._stream.local), self.remote_address)
        return await self._upgrader.upgrade(
            self._stream, Role.LISTENER, ends=ends, patience=patience
        )

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


def source_endpoint(remote: Endpoint, listening: Iterable[Endpoint]) -> Endpoint | None:
    """Choose the listening endpoint that can reach ``remote``: same family, same scope.

    A listener on a certain address is preferred to one on all of them, as it says more; one
    on loopback reaches only loopback, and nothing else reaches that from a certain address.
    """
    to_loopback = ipaddress.ip_address(remote.host).is_loopback
    fitting = [
        local
        for local in sorted(listening)
        if local.is_ipv6 == remote.is_ipv6
        and (local.is_unspecified or ipaddress.ip_address(local.host).is_loopback == to_loopback)
    ]
    return min(fitting, key=lambda local: local.is_unspecified, default=None)
