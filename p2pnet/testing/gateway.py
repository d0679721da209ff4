"""A router's port mapping at work: the servers of ``portmap`` on the router's own sockets."""

from __future__ import annotations

from functools import partial

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, DatagramSocket
from p2pnet.testing.portmap.router_service import ANNOUNCED_AFTER, Outgoing, PortMapping
from p2pnet.testing.sites import Router
from p2pnet.testing.sockets import SimulatedNetwork

RECEIVE_BYTES = 4096


class Gateway:
    """Serves the inside of a router until cancelled."""

    def __init__(self, router: Router) -> None:
        setup = router.setup
        self._router = router
        self._mapping = PortMapping(
            router.nat,
            inside_address=router.address,
            outside_address=router.outside_addresses[0],
            now=trio.current_time(),
            protocols=setup.port_mapping,
            config=setup.port_map_config,
        )
        self._network = SimulatedNetwork(router.kernel, no_names)
        self._sockets: dict[int, DatagramSocket] = {}
        self._announcing = trio.CancelScope()

    async def run(self) -> None:
        """Open the sockets, and answer whoever asks."""
        async with trio.open_nursery() as tasks:
            for port in self._mapping.udp_ports:
                sock = await self._network.bind_udp(Endpoint(self._router.address, port))
                self._sockets[port] = sock
                tasks.start_soon(self._answer, sock, port)
            for group in self._mapping.groups:
                sock = await self._network.bind_udp(group)
                tasks.start_soon(self._answer, sock, group.port)
            if self._mapping.http_endpoint is not None:
                tasks.start_soon(self._serve_http, self._mapping.http_endpoint)
            self._router.when_rebooted = partial(self._restart, tasks)
            self._router.when_renumbered = partial(self._renumber, tasks)

    async def _answer(self, sock: DatagramSocket, port: int) -> None:
        try:
            while True:
                data, source = await sock.receive()
                await self._send(self._mapping.receive(port, data, source, trio.current_time()))
        finally:
            with trio.CancelScope(shield=True):
                await sock.aclose()

    async def _send(self, datagrams: tuple[Outgoing, ...]) -> None:
        for datagram in datagrams:
            await self._sockets[datagram.local_port].send(datagram.data, datagram.destination)

    async def _serve_http(self, endpoint: Endpoint) -> None:
        listener = await self._network.listen_tcp(endpoint)
        try:
            async with trio.open_nursery() as clients:
                while True:
                    clients.start_soon(self._serve_client, await listener.accept())
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def _serve_client(self, stream: ByteStream) -> None:
        exchange = self._mapping.connect(stream.remote)
        try:
            while not exchange.is_over:
                data = await stream.receive_some(RECEIVE_BYTES)
                if not data:
                    break
                await stream.send_all(exchange.receive(bytes(data), trio.current_time()))
        except trio.BrokenResourceError:
            pass  # The client has gone; what it asked for was done or not.
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    def _restart(self, tasks: trio.Nursery) -> None:
        tasks.start_soon(self._announce, self._mapping.restart(trio.current_time()))

    def _renumber(self, tasks: trio.Nursery) -> None:
        outside = self._router.outside_addresses[0]
        due = self._mapping.renumber(outside, trio.current_time())
        tasks.start_soon(self._announce, due)

    async def _announce(self, first: tuple[Outgoing, ...]) -> None:
        self._announcing.cancel()
        began = trio.current_time()
        with trio.CancelScope() as self._announcing:
            await self._send(first)
            for seconds in ANNOUNCED_AFTER[1:]:
                await trio.sleep_until(began + seconds)
                await self._send(self._mapping.announcements(trio.current_time()))


async def no_names(name: str, kind: str) -> tuple[str, ...]:
    raise OSError(f"a router does not look up names, not even {name}")
