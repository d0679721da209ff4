"""Sockets of a simulated machine: ``core.env.Network`` on its kernel, as the real ones behave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from operator import index

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.changes import Changes
from p2pnet.core.env import (
    SILENT_RETRANSMISSIONS,
    ByteStream,
    DatagramSocket,
    RecordKind,
    StreamListener,
)
from p2pnet.core.udp import Arrival
from p2pnet.testing.kernel import Flow, Kernel, Port, failure
from p2pnet.testing.packet import Datagram, Packet

RECEIVE_BYTES = 262_144

Lookup = Callable[[str, RecordKind], Awaitable[tuple[str, ...]]]
Gateways = Callable[[], tuple[str, ...]]


def no_gateways() -> tuple[str, ...]:
    return ()


class SimulatedNetwork:
    """The network as programs on one machine see it."""

    def __init__(self, kernel: Kernel, lookup: Lookup, gateways: Gateways = no_gateways) -> None:
        self._kernel = kernel
        self._lookup = lookup
        self._gateways = gateways

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        await trio.lowlevel.checkpoint()
        flow = self._kernel.dial(remote, local)
        try:
            while not flow.connection.is_open and not flow.connection.is_over:
                await flow.changed.park()
        except trio.Cancelled:
            flow.is_released = True
            flow.connection.abort(trio.current_time())
            flow.settle()
            raise
        if flow.connection.is_over:
            flow.is_released = True
            raise failure(flow.connection.error or 0)
        return FlowStream(flow)

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        await trio.lowlevel.checkpoint()
        return FlowListener(self._kernel, self._kernel.listen(local))

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        await trio.lowlevel.checkpoint()
        return UdpPort(self._kernel, self._kernel.bind(local))

    def interface_addresses(self) -> tuple[str, ...]:
        return ("127.0.0.1", "::1", *self._kernel.addresses)

    def gateways(self) -> tuple[str, ...]:
        return self._gateways()

    def changes(self) -> Changes:
        return ToldChanges(self._kernel)

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        return await self._lookup(name, kind)


class ToldChanges:
    """What a kernel tells of its addresses and routes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._told = kernel.is_told

    async def wait(self) -> bool:
        await self._told.wait()
        self._told = self._kernel.is_told
        return True

    def close(self) -> None:
        pass


class FlowListener:
    """A listening TCP socket."""

    def __init__(self, kernel: Kernel, port: Port) -> None:
        self._kernel = kernel
        self._port = port
        self.local = port.local

    async def accept(self) -> ByteStream:
        await trio.lowlevel.checkpoint()
        while not self._port.flows:
            if self._port.is_closed:
                raise trio.ClosedResourceError("this listener is closed")
            await self._port.changed.park()
        return FlowStream(self._port.flows.popleft())

    async def aclose(self) -> None:
        self._kernel.unbind(self._port)
        await trio.lowlevel.checkpoint()


class UdpPort:
    """A bound UDP socket."""

    def __init__(self, kernel: Kernel, port: Port) -> None:
        self._kernel = kernel
        self._port = port
        self.local = port.local

    async def send(self, data: bytes, remote: Endpoint) -> None:
        await self.send_many([data], remote)

    async def send_many(
        self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = ""
    ) -> None:
        await trio.lowlevel.checkpoint()
        if self._port.is_closed:
            raise trio.ClosedResourceError("this socket is closed")
        host = source if source and self.local.is_unspecified else self.source_for(remote)
        for data in datagrams:
            packet = Packet(Endpoint(host, self.local.port), remote, Datagram(bytes(data)))
            self._kernel.emit(packet)

    async def receive(self) -> tuple[bytes, Endpoint]:
        await self._wait()
        return self._port.datagrams.popleft()

    async def receive_many(self) -> Sequence[Arrival]:
        await self._wait()
        waiting = self._port.datagrams
        arrivals = [Arrival(data, remote, self._reached_at(remote)) for data, remote in waiting]
        waiting.clear()
        return arrivals

    def _reached_at(self, remote: Endpoint) -> str:
        try:
            return self.source_for(remote)
        except OSError:  # The address it came to is gone already.
            return self.local.host

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._port.datagrams:
            if self._port.is_closed:
                raise trio.ClosedResourceError("this socket is closed")
            await self._port.changed.park()

    def source_for(self, remote: Endpoint) -> str:
        return self._kernel.source_for(remote) if self.local.is_unspecified else self.local.host

    async def aclose(self) -> None:
        self._kernel.unbind(self._port)
        await trio.lowlevel.checkpoint()


class FlowStream(ByteStream):
    """A connected TCP socket."""

    def __init__(self, flow: Flow) -> None:
        self.local, self.remote = flow.local, flow.remote
        self._flow = flow
        flow.is_released = False
        self._closed = False
        self._ended = False
        self._sending = False
        self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            with memoryview(data) as view:
                await self._send(view)
        finally:
            self._sending = False

    async def _send(self, view: memoryview) -> None:
        flow, sent = self._flow, 0
        while True:
            self._check_sending()
            if sent == len(view):
                return
            taken = flow.connection.write(view[sent:], trio.current_time())
            sent += taken
            if taken:
                flow.settle()
            elif not flow.connection.is_over:
                await flow.changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_sending()
            while not self._flow.connection.send_room() and not self._flow.connection.is_over:
                await self._flow.changed.park()
                self._check_open()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            return await self._receive(max_bytes or RECEIVE_BYTES)
        finally:
            self._receiving = False

    async def _receive(self, max_bytes: int) -> bytes:
        connection = self._flow.connection
        while True:
            self._check_open()
            data = connection.read(max_bytes, trio.current_time())
            if data:
                self._flow.settle()
                return data
            if connection.at_end:
                return b""
            if connection.is_over:
                raise trio.BrokenResourceError(f"receive failed: {self._reason}")
            await self._flow.changed.park()

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        await trio.lowlevel.checkpoint()
        if self._ended:
            return
        self._check_sending()
        self._ended = True
        self._flow.connection.shutdown(trio.current_time())
        self._flow.settle()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._flow.is_released = True
            silent = self._flow.connection.unanswered >= SILENT_RETRANSMISSIONS
            if self.resets or silent:  # S3
                self._flow.connection.abort(trio.current_time())
            else:
                self._flow.connection.close(trio.current_time())
            self._flow.settle()
        await trio.lowlevel.checkpoint()

    @property
    def _reason(self) -> str:
        return str(failure(self._flow.connection.error or 0))

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")

    def _check_sending(self) -> None:
        self._check_open()
        if self._ended:
            raise trio.ClosedResourceError("the end was sent already")
        if self._flow.connection.is_over:
            raise trio.BrokenResourceError(f"send failed: {self._reason}")
