"""Env: sockets, wall clock and chance; the one seam between p2pnet and the outside.

Replace ``Env`` and the whole stack is a simulation: nothing else opens a socket, reads the
wall clock or draws a random number. Monotonic time is ``trio.current_time()``.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import psutil
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.changes import Changes, open_changes
from p2pnet.core.dns import lookup_dns
from p2pnet.core.options import only_ipv6, reset_when_closed, retransmissions, share_port
from p2pnet.core.prompt import Prompt, SendNow
from p2pnet.core.routes import gateways
from p2pnet.core.udp import Arrival, UdpSocket, close_socket, endpoint_of, new_socket

RecordKind = Literal["A", "AAAA", "TXT"]

LISTEN_BACKLOG = 1024
RECEIVE_BYTES = 262_144
"""Most bytes taken from the kernel at once; the buffer lives only while it holds bytes."""
MAX_UNSENT_BYTES = 262_144
"""A TCP socket takes no more while it holds so many bytes that wait for the network."""
DRAINED_BYTES = 4096
"""Who was given less, though it asked for more, waits for more without trying first."""
OPERATIONS_PER_CHECKPOINT = 16
"""A socket that never blocks lets other tasks run after this many operations."""
SILENT_RETRANSMISSIONS = 2
"""A remote that leaves so many unanswered in a row is taken for gone when a stream is closed."""
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ByteStream(trio.abc.HalfCloseableStream):
    """A raw connection to an endpoint, which knows both its ends."""

    local: Endpoint
    remote: Endpoint
    resets: bool = False
    """True: closing it resets it, so that its two ports are free at once, at both ends (S3)."""


class StreamListener(Protocol):
    """Accepts raw connections on one endpoint."""

    @property
    def local(self) -> Endpoint: ...

    async def accept(self) -> ByteStream:
        """Wait for the next connection; trio.ClosedResourceError once closed."""
        ...

    async def aclose(self) -> None: ...


class DatagramSocket(Protocol):
    """Sends and receives datagrams on one endpoint."""

    @property
    def local(self) -> Endpoint: ...

    async def send(self, data: bytes, remote: Endpoint) -> None:
        """Send one datagram; waits while the socket is full. Raises OSError.

        Raises:
            trio.ClosedResourceError: once closed.
        """
        ...

    async def receive(self) -> tuple[bytes, Endpoint]:
        """Wait for the next datagram; return it and where it came from.

        Raises:
            trio.ClosedResourceError: once closed.
        """
        ...

    async def send_many(
        self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = ""
    ) -> None:
        """Send datagrams to one endpoint, as few system calls as the kernel allows.

        They leave from the IP ``source``, if the socket is bound to all. Raises OSError.

        Raises:
            trio.ClosedResourceError: once closed.
        """
        ...

    async def receive_many(self) -> Sequence[Arrival]:
        """Wait for datagrams; return those that are there, at least one and not too many.

        Raises:
            trio.ClosedResourceError: once closed.
        """
        ...

    def source_for(self, remote: Endpoint) -> str:
        """Return the IP from which datagrams to ``remote`` leave. Raises OSError."""
        ...

    async def aclose(self) -> None: ...


class Network(Protocol):
    """All that p2pnet asks of a network."""

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        """Connect, from ``local`` if given (shared with a listener there). Raises OSError.

        Its port 0 takes a free one, of no order: without ``local`` a system may take ports one
        after the other for each destination, and come back to many of them at once.
        """
        ...

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        """Listen; port 0 takes a free one. Raises OSError."""
        ...

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        """Send and receive datagrams there; port 0 takes a free one. Raises OSError.

        At a multicast address others on this machine may listen, too. Only that of all hosts
        is joined by itself.
        """
        ...

    def interface_addresses(self) -> tuple[str, ...]:
        """Return the IP addresses of this machine, loopback included, as text. Raises OSError."""
        ...

    def gateways(self) -> tuple[str, ...]:
        """Return the IP addresses of the default gateways, IPv4 first. Raises OSError."""
        ...

    def changes(self) -> Changes:
        """Hear from now on of changes of both; of none where the system does not tell."""
        ...

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        """Ask the DNS; an empty answer if there is none. Raises OSError if nobody answers."""
        ...


@dataclass(frozen=True, slots=True)
class Env:
    """The outside world, as p2pnet sees it."""

    network: Network
    wall_clock: Callable[[], float]
    """Seconds since the epoch; only for expiry times and sequence numbers on the wire."""
    random_bytes: Callable[[int], bytes] = field(repr=False)
    """Bytes fit for keys and nonces."""
    jitter: Callable[[float, float], float] = field(repr=False)
    """A number between two bounds, for spreading things out; not secret."""

    @classmethod
    def system(cls) -> Env:
        """Return the real world."""
        return cls(SystemNetwork(), time.time, os.urandom, random.SystemRandom().uniform)


class SystemNetwork:
    """The sockets of the operating system."""

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        sock = new_socket(remote)
        try:
            if local is not None:
                if local.port:
                    share_port(sock)
                sock.bind((local.host, local.port))
            await connect(sock, remote)
            return SocketStream(sock)
        except BaseException:
            sock.close()
            raise

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        await trio.lowlevel.checkpoint()
        if local.port:
            refuse_port_in_use(local)
        sock = new_socket(local)
        try:
            share_port(sock)
            only_ipv6(sock, local)
            sock.bind((local.host, local.port))
            sock.listen(LISTEN_BACKLOG)
            return SocketListener(sock)
        except BaseException:
            sock.close()
            raise

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        await trio.lowlevel.checkpoint()
        sock = new_socket(local, socket.SOCK_DGRAM)
        try:
            only_ipv6(sock, local)
            if ipaddress.ip_address(local.host).is_multicast:
                share_port(sock)
            sock.bind((local.host, local.port))
            return UdpSocket(sock)
        except BaseException:
            sock.close()
            raise

    def interface_addresses(self) -> tuple[str, ...]:
        found = [
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
        # A link-local IPv6 address means nothing without its zone, which no peer shares.
        return tuple(dict.fromkeys(ip for ip in found if "%" not in ip))

    def gateways(self) -> tuple[str, ...]:
        return gateways()

    def changes(self) -> Changes:
        return open_changes()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        return await lookup_dns(name, kind)


class SocketListener:
    """A listening TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.local = endpoint_of(sock.getsockname())

    async def accept(self) -> ByteStream:
        await trio.lowlevel.checkpoint_if_cancelled()
        has_waited = False
        while True:
            if self._sock.fileno() < 0:
                raise trio.ClosedResourceError("this listener is closed")
            try:
                stream = accepted(self._sock)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                # One client that is gone already, or a moment without descriptors, must not
                # end the listening.
                await trio.sleep(0.1 if error.errno in OUT_OF_DESCRIPTORS else 0)
            else:
                if not has_waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return stream
            has_waited = True

    async def aclose(self) -> None:
        close_socket(self._sock)
        await trio.lowlevel.checkpoint()


class SocketStream(ByteStream, Prompt):
    """A connected TCP socket.

    Leaner than trio's: no lock and no checkpoint on an operation that need not wait, but for
    every sixteenth, so that a busy socket lets other tasks run and can be cancelled.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # What the kernel holds unsent can't be overtaken by a stream that has its turn (Y21).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        self._sock = sock
        self._sending = False
        self._ended = False
        self._kept = b""
        self._is_drained = False
        self._operations = 0
        self.local = endpoint_of(sock.getsockname())
        self.remote = endpoint_of(sock.getpeername())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        self._sending = True
        try:
            await self._breathe()
            if self._kept:
                await self._send_kept()
            with memoryview(data) as view:
                await self._send(view)
        finally:
            self._sending = False

    async def _send(self, view: memoryview) -> None:
        self._check_open()
        sent = self._try_to_send(view) if view else 0
        while sent < len(view):
            await trio.lowlevel.wait_writable(self._sock)
            sent += self._try_to_send(view[sent:])

    async def _send_kept(self) -> None:
        while self._kept:
            self._check_open()
            await trio.lowlevel.wait_writable(self._sock)
            self._kept = self._kept[self._try_to_send(self._kept) :]

    def _try_to_send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what fits; return how much that was."""
        self._check_open()
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"send failed: {error}") from error

    def prompt_sender(self) -> SendNow:
        return self._send_now

    def _send_now(self, data: bytes | bytearray) -> bool:
        self._check_sender()
        if self._kept:
            raise trio.BusyResourceError("what was sent before still waits")
        sent = self._try_to_send(data)
        if sent < len(data):
            self._kept = bytes(data[sent:])
        return not self._kept

    def _check_sender(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        if self._ended:
            raise trio.ClosedResourceError("the end was sent already")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        await trio.lowlevel.wait_writable(self._sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await self._breathe()
        asked = max_bytes or RECEIVE_BYTES
        while True:
            self._check_open()
            try:
                if self._is_drained:
                    await trio.lowlevel.wait_readable(self._sock)
                    self._check_open()
                data = self._sock.recv(asked)
                self._is_drained = len(data) < min(asked, DRAINED_BYTES)
                return data
            except BlockingIOError:
                self._is_drained = True
            except OSError as error:
                raise trio.BrokenResourceError(f"receive failed: {error}") from error

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        await trio.lowlevel.checkpoint()
        if self._ended:
            return
        await self._send_kept()
        self._check_open()
        self._ended = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(f"shutdown failed: {error}") from error

    async def aclose(self) -> None:
        if self._sock.fileno() >= 0 and (
            self.resets or retransmissions(self._sock) >= SILENT_RETRANSMISSIONS
        ):
            # S3: closed politely, it would keep its two ports for minutes of farewells, and
            # no dial, nor any hole punch, could leave from there.
            reset_when_closed(self._sock)
        close_socket(self._sock)
        await trio.lowlevel.checkpoint()

    async def _breathe(self) -> None:
        self._operations += 1
        if self._operations % OPERATIONS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket is closed")


def refuse_port_in_use(local: Endpoint) -> None:
    """Raise EADDRINUSE if somebody listens there: a shared port would hide it (S2).

    With SO_REUSEPORT two programs of one user may listen on one port, and each gets half of
    the connections.
    """
    with new_socket(local) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        only_ipv6(probe, local)
        probe.bind((local.host, local.port))


async def connect(sock: socket.socket, remote: Endpoint) -> None:
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        sock.connect((remote.host, remote.port))
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()


def accepted(listening: socket.socket) -> SocketStream:
    """Take the next connection; OSError if its client has left already."""
    sock, _ = listening.accept()
    try:
        return SocketStream(sock)
    except BaseException:
        sock.close()
        raise
