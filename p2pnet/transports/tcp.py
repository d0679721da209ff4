"""TCP: listens and dials from the same port, so that observed addresses mean something.

Rules: specs/connections.md (S1, S5).
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, from_endpoint, tcp_endpoint
from p2pnet.core.env import ByteStream
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported
from p2pnet.interfaces import (
    CapableConnection,
    Ends,
    Kit,
    Listener,
    Opening,
    Role,
    TcpPorts,
    Upgrader,
)
from p2pnet.transports.tcp_ports import ports_of, source_endpoint

__all__ = ["TCP", "TcpPending", "TcpTransport", "source_endpoint"]


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

    def anywhere(self, port: int) -> tuple[str, ...]:
        """Return the addresses to listen at on all interfaces; port 0 is a free one."""
        return (f"/ip4/0.0.0.0/tcp/{port}", f"/ip6/::/tcp/{port}")

    def build(self, kit: Kit) -> TcpTransport:
        return TcpTransport(self, ports_of(kit), kit.upgrader)


class TcpTransport:
    """Dials and listens at the ports of the host."""

    opening = Opening.RAW

    def __init__(self, config: TCP, ports: TcpPorts, upgrader: Upgrader) -> None:
        self._config = config
        self._ports = ports
        self._upgrader = upgrader

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
            stream = await self._connect(remote, role, any_port or not self._config.reuse_port)
        ends = Ends(from_endpoint(stream.local), from_endpoint(remote))
        # S3: only in a hole punch, as a reset destroys what was said last, such as a TLS alert.
        stream.resets = role is Role.LISTENER
        capable = await self._upgrader.upgrade(stream, role, ends=ends, expected=peer_id)
        stream.resets = False
        return capable

    async def _connect(self, remote: Endpoint, role: Role, any_port: bool) -> ByteStream:
        return await self._ports.dial(remote, self.opening, role=role, any_port=any_port)

    async def listen(self, address: Multiaddr) -> Listener:
        local = tcp_endpoint(address)
        if local is None:
            raise AddressUnsupported(address)
        return await self._ports.listen(local, self)

    def address(self, local: Endpoint) -> Multiaddr:
        return from_endpoint(local)

    def pending(self, stream: ByteStream) -> TcpPending:
        return TcpPending(stream, self._upgrader)


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
