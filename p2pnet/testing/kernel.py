"""The kernel of a simulated machine: its addresses, its ports, and who gets which packet.

Knows no tasks: sockets (``sockets.py``) wait on its flows and ports, and it wakes them.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from ipaddress import ip_address
from random import Random

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.ground import Ground
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment
from p2pnet.testing.tcp import TcpConnection
from p2pnet.testing.tcp_states import answer_without_connection
from p2pnet.testing.timeline import Timer

FIRST_EPHEMERAL_PORT, LAST_EPHEMERAL_PORT = 32_768, 60_999
MAX_BACKLOG = 1024
MAX_WAITING_DATAGRAMS = 256
KEPT = 4096
"""Hosts of which is known what they are: it is asked for each packet, and takes long to tell."""
HEADERS = 40
"""Bytes of a packet that are no data of a segment: without options, and IPv4."""

Ends = tuple[Endpoint, Endpoint]
"""Local, remote."""


class Flow:
    """A TCP connection with its timer, and those who wait for it."""

    def __init__(self, kernel: Kernel, ends: Ends, connection: TcpConnection) -> None:
        self.kernel = kernel
        self.local, self.remote = ends
        self.connection = connection
        self.changed = trio.lowlevel.ParkingLot()
        self.is_released = False
        """No socket holds it, not yet or not any more: it ends by itself."""
        self.backlog: Port | None = None
        """The listener that waits for the end of its handshake."""
        self._timer: Timer | None = None

    def settle(self) -> None:
        """Send what is due, set the timer, wake who waits; after everything that happens."""
        for segment in self.connection.segments_to_send():
            self.kernel.emit(Packet(self.local, self.remote, segment))
        if self.connection.is_over:
            self.kernel.forget(self)
        self._set_timer()
        if self.backlog is not None and self.connection.is_open:
            self.backlog.offer(self)
            self.backlog = None
        self.changed.unpark_all()

    def _set_timer(self) -> None:
        deadline = self.connection.deadline()
        timer = self._timer
        if deadline is None:
            if timer is not None:
                timer.cancel()
                self._timer = None
        elif timer is None or timer.is_off or timer.time > deadline:
            # A timer that is too early is left alone: it is set anew when it fires.
            if timer is not None:
                timer.cancel()
            self._timer = self.kernel.timeline.at(deadline, self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        deadline, now = self.connection.deadline(), trio.current_time()
        if deadline is not None and deadline <= now:
            self.connection.timeout(now)
            self.settle()
        else:
            self._set_timer()

    def vanish(self) -> None:
        """Be gone without a word: the machine lost its power."""
        if self._timer is not None:
            self._timer.cancel()
        self.connection.abort(trio.current_time())
        self.connection.segments_to_send()
        self.changed.unpark_all()


class Port:
    """What a listening or a UDP socket is to the kernel: a bounded queue."""

    def __init__(self, local: Endpoint, limit: int) -> None:
        self.local = local
        self.is_closed = False
        self.changed = trio.lowlevel.ParkingLot()
        self.flows: deque[Flow] = deque()
        self.datagrams: deque[tuple[bytes, Endpoint]] = deque()
        self._limit = limit

    @property
    def is_full(self) -> bool:
        return len(self.flows) + len(self.datagrams) >= self._limit

    def offer(self, flow: Flow) -> None:
        """Queue a connection for ``accept``."""
        if self.is_closed or self.is_full:
            flow.connection.abort(trio.current_time())
            flow.settle()
            return
        self.flows.append(flow)
        self.changed.unpark_all()

    def put(self, data: bytes, source: Endpoint) -> None:
        """Queue a datagram, or drop it if too many wait."""
        if not self.is_full:
            self.datagrams.append((data, source))
            self.changed.unpark_all()


class Kernel:
    """Sends and receives the packets of one machine."""

    def __init__(self, ground: Ground, chance: Random, transmit: Callable[[Packet], None]) -> None:
        self.timeline = ground.timeline
        self.mtu = 1500
        self.addresses: list[str] = []
        """Those of its interfaces, without loopback."""
        self.is_told = trio.Event()
        """Set, and another in its place, whenever its addresses or routes have changed."""
        self._chance = chance
        self._config = ground.tcp
        self._transmit = transmit
        self._flows: dict[Ends, Flow] = {}
        self._listening: dict[Endpoint, Port] = {}
        self._bound: dict[Endpoint, Port] = {}
        self._next_port = FIRST_EPHEMERAL_PORT + chance.randrange(1000)
        self.is_off = False

    # ---- packets -------------------------------------------------------------------------

    def emit(self, packet: Packet) -> None:
        """Send a packet from this machine."""
        if self.is_off:
            return
        if self.owns(packet.destination.host):
            self.timeline.at(trio.current_time(), partial(self.receive, packet))
        elif packet.source.host in self.addresses:
            self._transmit(packet)
        # Otherwise it would leave from an address that the machine has lost: nobody routes that.

    def receive(self, packet: Packet) -> None:
        """Take a packet that arrived."""
        if self.is_off:
            return
        if isinstance(packet.payload, Datagram):
            port = find(self._bound, packet.destination)
            if port is not None:
                port.put(packet.payload.data, packet.source)
        elif self.owns(packet.destination.host):
            self._receive_segment(packet, packet.payload)

    def _receive_segment(self, packet: Packet, segment: Segment) -> None:
        ends = (packet.destination, packet.source)
        flow = self._flows.get(ends)
        is_new = Flags.SYN in segment.flags and Flags.ACK not in segment.flags
        if flow is not None and flow.connection.is_replaceable_by(segment):
            self.forget(flow)
            flow.vanish()
            flow = None
        if flow is None:
            port = find(self._listening, packet.destination)
            if is_new and Flags.RST not in segment.flags and port is not None:
                self._begin(ends, segment, port)
            elif (answer := answer_without_connection(segment)) is not None:
                self.emit(Packet(packet.destination, packet.source, answer))
            return
        flow.connection.receive(segment, trio.current_time())
        flow.settle()

    def _begin(self, ends: Ends, syn: Segment, port: Port) -> None:
        if port.is_full:
            return
        flow = self._new_flow(ends)
        flow.backlog, flow.is_released = port, True
        flow.connection.accept(syn, trio.current_time())
        flow.settle()

    def _new_flow(self, ends: Ends) -> Flow:
        connection = TcpConnection(
            self._config,
            initial_sequence=self._chance.getrandbits(32),
            max_segment=self.mtu - HEADERS - (20 if ends[0].is_ipv6 else 0),
        )
        flow = self._flows[ends] = Flow(self, ends, connection)
        return flow

    def forget(self, flow: Flow) -> None:
        if self._flows.get((flow.local, flow.remote)) is flow:
            del self._flows[flow.local, flow.remote]

    # ---- addresses and ports -------------------------------------------------------------

    def owns(self, host: str) -> bool:
        return host in self.addresses or is_loopback(host)

    def source_for(self, remote: Endpoint) -> str:
        """Return the address from which this machine reaches another.

        Raises:
            OSError: if it has none of that family.
        """
        if is_loopback(remote.host):
            return remote.host
        for own in self.addresses:
            if (":" in own) == remote.is_ipv6:
                return own
        raise failure(errno.ENETUNREACH)

    def dial(self, remote: Endpoint, local: Endpoint | None) -> Flow:
        """Send a SYN.

        Raises:
            OSError: if there is no way, or the two ends are in use.
        """
        host = self.source_for(remote) if local is None or local.is_unspecified else local.host
        if not self.owns(host):
            raise failure(errno.EADDRNOTAVAIL)
        port = local.port if local is not None else 0
        ends = (Endpoint(host, port or self._free_port(self._listening)), remote)
        if ends in self._flows:
            raise failure(errno.EADDRNOTAVAIL)
        flow = self._new_flow(ends)
        flow.connection.connect(trio.current_time())
        flow.settle()
        return flow

    def listen(self, local: Endpoint) -> Port:
        """Accept connections at an endpoint. Raises OSError."""
        return self._bind(self._listening, local, MAX_BACKLOG)

    def bind(self, local: Endpoint) -> Port:
        """Take datagrams at an endpoint. Raises OSError."""
        return self._bind(self._bound, local, MAX_WAITING_DATAGRAMS)

    def _bind(self, table: dict[Endpoint, Port], local: Endpoint, limit: int) -> Port:
        if not (local.is_unspecified or self.owns(local.host) or is_multicast(local.host)):
            raise failure(errno.EADDRNOTAVAIL)
        if local.port == 0:
            local = Endpoint(local.host, self._free_port(table))
        for other in table:
            if other.port == local.port and overlap(other, local):
                raise failure(errno.EADDRINUSE)
        port = table[local] = Port(local, limit)
        return port

    def unbind(self, port: Port) -> None:
        """Close a listening or UDP port; connections that nobody accepted are refused."""
        if port.is_closed:
            return
        port.is_closed = True
        for table in (self._listening, self._bound):
            if table.get(port.local) is port:
                del table[port.local]
        while port.flows:
            flow = port.flows.popleft()
            flow.connection.abort(trio.current_time())
            flow.settle()
        port.changed.unpark_all()

    def _free_port(self, table: dict[Endpoint, Port]) -> int:
        taken = {local.port for local in table} | {local.port for local, _ in self._flows}
        for _ in range(FIRST_EPHEMERAL_PORT, LAST_EPHEMERAL_PORT):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_EPHEMERAL_PORT else FIRST_EPHEMERAL_PORT
            if port not in taken:
                return port
        raise failure(errno.EADDRNOTAVAIL)

    def tell_change(self) -> None:
        """Tell all who listen of a change of its addresses or routes."""
        self.is_told, told = trio.Event(), self.is_told
        told.set()

    # ---- the end -------------------------------------------------------------------------

    def power_off(self) -> None:
        """Stop without a word to anybody."""
        self.is_off = True
        for flow in list(self._flows.values()):
            flow.vanish()
        self._flows.clear()
        for port in [*self._listening.values(), *self._bound.values()]:
            self.unbind(port)

    def left_open(self) -> Sequence[str]:
        """Name the sockets that nobody closed."""
        flows = [f"tcp {f.local} - {f.remote}" for f in self._flows.values() if not f.is_released]
        listening = [f"listening at {local}" for local in self._listening]
        return [*flows, *listening, *(f"udp {local}" for local in self._bound)]

    @property
    def flows(self) -> int:
        """How many TCP connections there are, those included that are dying."""
        return len(self._flows)


def find(table: dict[Endpoint, Port], destination: Endpoint) -> Port | None:
    exact = table.get(destination)
    if exact is not None or is_multicast(destination.host):
        return exact
    return table.get(Endpoint("::" if destination.is_ipv6 else "0.0.0.0", destination.port))


def overlap(one: Endpoint, other: Endpoint) -> bool:
    if one.is_ipv6 != other.is_ipv6:
        return False
    return one.host == other.host or one.is_unspecified or other.is_unspecified


@lru_cache(maxsize=KEPT)
def is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


@lru_cache(maxsize=KEPT)
def is_multicast(host: str) -> bool:
    return ip_address(host).is_multicast


def failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))
