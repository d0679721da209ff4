"""UDP sockets of the operating system: many datagrams in one system call, where it can.

Linux sends a train of equal datagrams as one (GSO), hands over a received one as one (GRO),
and tells to which of this machine's addresses it came (PKTINFO). Where one of the three is
not to be had, each datagram is sent and received by itself.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import trio

from p2pnet.core.addresses import Endpoint

MAX_DATAGRAM_BYTES = 65_535
MAX_TRAIN_BYTES = 64_000
MAX_TRAIN_DATAGRAMS = 64
MAX_RECEIVED_AT_ONCE = 16
"""System calls until other tasks have their turn; each may bring a whole train."""
ALWAYS_CARRIED_BYTES = 1232
"""In one datagram, by each interface that has IPv6."""
WANTED_BUFFER_BYTES = 2 * 1024 * 1024
ANCILLARY_BYTES = 256

IS_LINUX = sys.platform == "linux"
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
IP_PKTINFO, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 8, 10, 3
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE = 23, 3
LOST = (errno.EMSGSIZE, errno.ECONNREFUSED, errno.EPERM)
"""What becomes of a datagram, not of a socket: as if it had been lost on its way."""
NO_OFFLOAD = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT)


class Arrival(NamedTuple):
    """A datagram, where it came from, and to which of our IP addresses."""

    data: bytes
    remote: Endpoint
    local_host: str


class UdpSocket:
    """A bound UDP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._batches: Batches | None = None
        self.local = endpoint_of(sock.getsockname())

    async def send(self, data: bytes, remote: Endpoint) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            try:
                self._sock.sendto(data, (remote.host, remote.port))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            else:
                return

    async def send_many(
        self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = ""
    ) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        gone = self.send_now(datagrams, remote, source=source)
        while gone < len(datagrams):
            await trio.lowlevel.wait_writable(self._sock)
            gone += self.send_now(datagrams[gone:], remote, source=source)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_now(self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = "") -> int:
        """Do as ``send_many`` does, but without waiting; return how many have gone."""
        self._check_open()
        batches, gone = self._bulk(), 0
        try:
            for train in batches.trains(datagrams):
                batches.send(train, remote, source)
                gone += len(train)
        except BlockingIOError:
            return gone
        return gone

    async def receive(self) -> tuple[bytes, Endpoint]:
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            if self._batches is not None:
                raise RuntimeError("this socket receives many at once")
            try:
                data, name = self._sock.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError:
                # The kernel tells here that an earlier datagram found nobody: not our concern.
                await trio.lowlevel.checkpoint()
            else:
                return data, endpoint_of(name)

    async def receive_many(self) -> Sequence[Arrival]:
        self._check_open()
        batches = self._bulk()
        if batches.is_drained:
            await trio.lowlevel.wait_readable(self._sock)
        else:
            await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            arrivals = batches.receive(self.local)
            if arrivals:
                return arrivals
            await trio.lowlevel.wait_readable(self._sock)

    def _bulk(self) -> Batches:
        if self._batches is None:
            self._batches = Batches(self._sock)
        return self._batches

    def source_for(self, remote: Endpoint) -> str:
        if not self.local.is_unspecified:
            return self.local.host
        # Connecting a UDP socket sends nothing: it only asks the kernel for the way.
        with new_socket(remote, socket.SOCK_DGRAM) as probe:
            probe.connect((remote.host, remote.port))
            return endpoint_of(probe.getsockname()).host

    async def aclose(self) -> None:
        close_socket(self._sock)
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket is closed")


class Batches:
    """Sends and receives many datagrams of one socket at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._can_send_trains = IS_LINUX
        self.is_drained = False
        """True if there was nothing more to be received the last time."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._try_option(socket.SOL_SOCKET, option, WANTED_BUFFER_BYTES)
        if not IS_LINUX:
            return
        self._try_option(SOL_UDP, UDP_GRO, 1)
        if self._is_ipv6:
            self._try_option(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            self._try_option(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
        else:
            self._try_option(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._try_option(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)

    def _try_option(self, level: int, option: int, value: int) -> None:
        try:
            self._sock.setsockopt(level, option, value)
        except OSError:
            return  # An older kernel: it goes without.

    def trains(self, datagrams: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Cut into runs that may be sent at once: equal sizes, only the last may be shorter."""
        start = 0
        while start < len(datagrams):
            size = total = len(datagrams[start])
            end = start + 1
            most = MAX_TRAIN_DATAGRAMS if self._can_send_trains else 1
            while end < len(datagrams) and end - start < most:
                following = len(datagrams[end])
                total += following
                if following > size or total > MAX_TRAIN_BYTES:
                    break
                end += 1
                if following < size:
                    break
            yield datagrams[start:end]
            start = end

    def send(self, train: Sequence[bytes], remote: Endpoint, source: str) -> None:
        """Send a train. Raises OSError, and BlockingIOError while the socket is full."""
        ancillary = self._leaving_from(source) if source and IS_LINUX else []
        try:
            if len(train) == 1:
                self._send(train[0], ancillary, remote)
                return
            segment = (SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(train[0])))
            self._send(b"".join(train), [*ancillary, segment], remote)
        except BlockingIOError:
            raise
        except OSError as error:
            if len(train) > 1 and error.errno in NO_OFFLOAD:
                # An older kernel says EINVAL of segments larger than the interface takes, too.
                self._can_send_trains = (
                    error.errno == errno.EINVAL and len(train[0]) > ALWAYS_CARRIED_BYTES
                )
                for datagram in train:
                    self.send([datagram], remote, source)
            elif error.errno not in LOST:
                raise

    def _send(self, data: bytes, ancillary: list[tuple[int, int, bytes]], to: Endpoint) -> None:
        if ancillary:
            self._sock.sendmsg([data], ancillary, 0, (to.host, to.port))
        else:
            self._sock.sendto(data, (to.host, to.port))

    def _leaving_from(self, source: str) -> list[tuple[int, int, bytes]]:
        if self._is_ipv6:
            packed = socket.inet_pton(socket.AF_INET6, source)
            return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, struct.pack("=16si", packed, 0))]
        packed = socket.inet_pton(socket.AF_INET, source)
        return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, packed, bytes(4)))]

    def receive(self, local: Endpoint) -> list[Arrival]:
        """Take what is there; nothing if nothing is."""
        arrivals: list[Arrival] = []
        self.is_drained = False
        for _ in range(MAX_RECEIVED_AT_ONCE):
            try:
                data, ancillary, _, name = self._sock.recvmsg(MAX_DATAGRAM_BYTES, ANCILLARY_BYTES)
            except BlockingIOError:
                self.is_drained = True
                break
            except OSError:
                continue  # An earlier datagram found nobody: not our concern.
            size, host = self._told(ancillary, len(data), local.host)
            remote = endpoint_of(name)
            if len(data) <= size:
                arrivals.append(Arrival(data, remote, host))
                continue
            arrivals += [
                Arrival(data[start : start + size], remote, host)
                for start in range(0, len(data), size)
            ]
        return arrivals

    def _told(
        self, ancillary: list[tuple[int, int, bytes]], size: int, host: str
    ) -> tuple[int, str]:
        """Return the size of each datagram of a train, and to which address it came."""
        for level, kind, value in ancillary:
            if level == SOL_UDP and kind == UDP_GRO:
                size = max(int.from_bytes(value[:4], sys.byteorder), 1)
            elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                host = socket.inet_ntop(socket.AF_INET, value[8:12])
            elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
                host = socket.inet_ntop(socket.AF_INET6, value[:16])
        return size, host


def new_socket(endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    family = socket.AF_INET6 if endpoint.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def close_socket(sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()


def endpoint_of(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    return Endpoint(name[0].partition("%")[0], name[1])
