"""A stand-in for QUIC: its handshake's datagrams and timers (RFC 9002), and nothing behind them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, components
from p2pnet.core.env import Env, Network
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import answered
from p2pnet.errors import AddressUnsupported
from p2pnet.interfaces import CapableConnection, Kit, Listener, Role
from tests.swarm.fakes import Line

FIRST_TIMEOUT = 1.0
"""Until the first flight is sent again; it doubles each time. Three times the initial RTT."""
FLIGHT = (b"certificate 1", b"certificate 2", b"finished")
"""What a server answers: all of it is needed."""
PADDED = bytes(1200)
PORT = 4001


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagrams:
    """The part."""

    def build(self, kit: Kit) -> DatagramTransport:
        return DatagramTransport(kit.env.network)


class DatagramTransport:
    """Dials ``/udp/…/quic-v1``: one round trip, if nothing is lost."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def can_dial(self, address: Multiaddr) -> bool:
        return [name for name, _ in components(address)][1:] == ["udp", "quic-v1"]

    def can_listen(self, address: Multiaddr) -> bool:
        return False

    async def listen(self, address: Multiaddr) -> Listener:
        raise AddressUnsupported(address)

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        (_, host), (_, port), *_ = components(address)
        remote = Endpoint(host, int(port))
        socket = await self._network.bind_udp(Endpoint("::" if remote.is_ipv6 else "0.0.0.0", 0))
        try:
            seen: set[bytes] = set()
            timeout = FIRST_TIMEOUT
            while len(seen) < len(FLIGHT):
                await socket.send(PADDED, remote)
                with trio.move_on_after(timeout):
                    while len(seen) < len(FLIGHT):
                        seen.add((await socket.receive())[0])
                        answered()
                timeout *= 2
        finally:
            await socket.aclose()
        return Line(peer_id, address)


@asynccontextmanager
async def answering(env: Env) -> AsyncGenerator[None]:
    """Be the server at ``PORT`` of both families."""
    async with trio.open_nursery() as nursery:
        for host in ("0.0.0.0", "::"):
            await nursery.start(answer_at, env.network, Endpoint(host, PORT))
        yield
        nursery.cancel_scope.cancel()


async def answer_at(
    network: Network, local: Endpoint, *, task_status: trio.TaskStatus[None]
) -> None:
    socket = await network.bind_udp(local)
    try:
        task_status.started()
        while True:
            _, remote = await socket.receive()
            for datagram in FLIGHT:
                await socket.send(datagram, remote)
    finally:
        await socket.aclose()
