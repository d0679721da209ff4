"""A network that is sparing: with datagrams until somebody answers, and with ports once sealed.

A dial of an address at which somebody else may be must not send there more than was paid for.
The first datagrams of QUIC are large, and sent again and again, by each library at a pace of its
own; so they are counted where they leave, whatever sends them. What is beyond the allowance is
lost, as on the way: the dial goes on listening, for an answer may be long under way.

Each port that anything leaves from may have a NAT give one more of its own. Who counts on the next
one has to know how many have, whatever for, and have no more opened.
"""

from __future__ import annotations

import errno
import math
import os
from collections import Counter
from collections.abc import Sequence

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.changes import Changes
from p2pnet.core.env import ByteStream, DatagramSocket, Network, RecordKind, StreamListener
from p2pnet.core.udp import Arrival

HEADER_BYTES = 48
"""Of UDP and IPv6; those of IPv4 are smaller."""
KEPT_BYTES = HEADER_BYTES + 1232
"""Of an allowance, for a first datagram of QUIC that is sent back with a token (Retry)."""


class Allowance:
    """Bytes that may leave in datagrams, headers included, as long as nobody has answered.

    So many of them are ``kept`` until anything is heard at all: whoever sends the first datagram
    back has to be sent another, however far away he is, and whatever was repeated meanwhile.
    """

    def __init__(self, max_bytes: float = math.inf, *, kept: int = 0) -> None:
        self._left = max_bytes
        self._kept = kept
        self._is_lifted = False

    def hear(self) -> None:
        """Take that anything came, which may be no answer, and from anybody."""
        self._kept = 0

    def lift(self) -> None:
        """Take that somebody has answered who wants to be spoken to."""
        self._is_lifted = True

    def spend(self, data: bytes) -> bool:
        """Tell if a datagram may leave, and count it."""
        size = HEADER_BYTES + len(data)
        if self._is_lifted:
            return True
        if size > self._left - self._kept:
            return False
        self._left -= size
        return True


PortCount = Counter[str]
"""IPv4 ports that anything has left from: of ``udp``, and of ``tcp`` the dials tried."""


class SparingNetwork:
    """Another network, whose sockets keep to one allowance, all together, and are counted."""

    def __init__(
        self, network: Network, allowance: Allowance | None = None, ports: PortCount | None = None
    ) -> None:
        self._network = network
        self._allowance = allowance or Allowance()
        self._ports = PortCount() if ports is None else ports
        self._is_sealed = False
        self.last_port = 0
        """What the count was when the last port was opened here, that one included."""

    def seal(self) -> None:
        """Let nothing leave any more from a port that nothing has left from."""
        self._is_sealed = True

    def open_port(self, transport: str, remote: Endpoint) -> bool:
        """Tell if anything may leave from a port for the first time, and count it."""
        if self._is_sealed:
            return False
        if not remote.is_ipv6:
            self._ports[transport] += 1
            self.last_port = self._ports[transport]
        return True

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        if not self.open_port("tcp", remote):
            await trio.lowlevel.checkpoint()
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        return await self._network.dial_tcp(remote, local=local)

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        return await self._network.listen_tcp(local)

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        return SparingSocket(await self._network.bind_udp(local), self, self._allowance)

    def interface_addresses(self) -> tuple[str, ...]:
        return self._network.interface_addresses()

    def gateways(self) -> tuple[str, ...]:
        return self._network.gateways()

    def changes(self) -> Changes:
        return self._network.changes()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        return await self._network.lookup(name, kind)


class SparingSocket:
    """A socket of such a network."""

    def __init__(
        self, socket: DatagramSocket, network: SparingNetwork, allowance: Allowance
    ) -> None:
        self.local = socket.local
        self._socket = socket
        self._network = network
        self._allowance = allowance
        self._is_open = False

    async def send(self, data: bytes, remote: Endpoint) -> None:
        await self.send_many([data], remote)

    async def send_many(
        self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = ""
    ) -> None:
        allowed = [data for data in datagrams if self._allowance.spend(data)]
        if allowed and not self._is_open:
            self._is_open = self._network.open_port("udp", remote)
        if allowed and self._is_open:
            await self._socket.send_many(allowed, remote, source=source)
        else:
            await trio.lowlevel.checkpoint()

    async def receive(self) -> tuple[bytes, Endpoint]:
        came = await self._socket.receive()
        self._allowance.hear()
        return came

    async def receive_many(self) -> Sequence[Arrival]:
        came = await self._socket.receive_many()
        self._allowance.hear()
        return came

    def source_for(self, remote: Endpoint) -> str:
        return self._socket.source_for(remote)

    async def aclose(self) -> None:
        await self._socket.aclose()
