"""Birthday punching: many sockets on one side, many probes on the other, and one hit.

The NAT of the one gives each socket a random port outside; the other knocks at random ports of
that NAT, from its one socket. Rules: specs/dcutr.md (D21 to D24)::

    256 sockets --> NAT, 256 random ports <-- 2,048 probes -- one socket
                          |
                          +-- one fits: its socket dials, the others are closed
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket, Env
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary, close_at_once
from p2pnet.interfaces import Spread
from p2pnet.transports.quic.connection import QuicConnection
from p2pnet.transports.quic.endpoint import QuicSocket
from p2pnet.transports.quic.listening import Admission
from p2pnet.transports.quic.terms import Way

logger = logging.getLogger("p2pnet.quic")

PROBE_BYTES = 64
SOCKET_INTERVAL = 0.002
"""Seconds from one socket to the next: a burst would be lost in a router."""
FIRST_PORT, PORTS = 1024, 64_512
STRIDE = 39_871
"""Without a common divisor with PORTS, and near their golden section: each port once, anywhere."""
PROBING = 0.75
"""The part of the time in which probes are sent; the rest is for what comes of the last ones."""


def ports_to_try(start: int, count: int) -> Iterator[int]:
    """Return different ports, spread over all that a NAT may give."""
    for number in range(count):
        yield FIRST_PORT + (start + number * STRIDE) % PORTS


async def knock(socket: QuicSocket, host: str, spread: Spread, env: Env) -> None:
    """Send one probe to each of many ports, and so let in who answers from one of them (D22)."""
    pause = spread.seconds * PROBING / spread.count
    began, start = trio.current_time(), int(env.jitter(0, PORTS - 1))
    for number, port in enumerate(ports_to_try(start, spread.count)):
        await trio.sleep_until(began + number * pause)
        remote = Endpoint(host, port)
        source = socket.source_for(remote).host
        await socket.send([env.random_bytes(PROBE_BYTES)], remote, source)


class ManySockets:
    """The sockets of the other side, of which one gets through (D23)."""

    def __init__(
        self, admission: Admission, remote: Endpoint, adopt: Callable[[DatagramSocket], QuicSocket]
    ) -> None:
        self._admission = admission
        self._env = admission.terms.env
        self._remote = remote
        self._adopt = adopt
        self._hits: deque[DatagramSocket] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    async def dial(self, peer_id: PeerId, spread: Spread) -> QuicConnection:
        """Wait until one socket is heard by the peer, and dial from it; close all others.

        Whoever hits without being the peer costs one handshake.

        Raises:
            trio.TooSlowError: if the time was too short.
        """
        found: list[QuicConnection] = []
        try:
            with trio.fail_after(spread.seconds):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._open_all, spread)
                    while not found:
                        while not self._hits:
                            await self._changed.park()
                        await self._try(self._hits.popleft(), peer_id, found)
                    nursery.cancel_scope.cancel()
        except BaseException:
            for connection in found:
                await close_at_once(connection)
            raise
        finally:
            with trio.CancelScope(shield=True):
                for raw in self._hits:
                    await raw.aclose()
        return found[0]

    async def _try(self, raw: DatagramSocket, peer_id: PeerId, found: list[QuicConnection]) -> None:
        socket = self._adopt(raw)
        socket.hold()
        try:
            with boundary(logger, f"a hit of {self._remote}"):
                local = socket.source_for(self._remote)
                core = self._admission.cores.dial(self._remote, trio.current_time())
                way = Way(socket, local, self._remote, is_dialed=True)
                connection = QuicConnection(core, way, self._admission.terms, expected=peer_id)
                await connection.handshake()
                found.append(connection)
        finally:
            await socket.release()

    async def _open_all(self, spread: Spread) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(spread.count):
                nursery.start_soon(self._open, spread.seconds)
                await trio.sleep(SOCKET_INTERVAL)

    async def _open(self, seconds: float) -> None:
        with boundary(logger, "one of many sockets"):
            anywhere = "::" if self._remote.is_ipv6 else "0.0.0.0"
            raw = await self._env.network.bind_udp(Endpoint(anywhere, 0))
            try:
                is_hit = await self._is_hit(raw, seconds)
            except BaseException:
                await close_at_once(raw)
                raise
            if is_hit:
                self._hits.append(raw)
                self._changed.unpark_all()
            else:
                await raw.aclose()

    async def _is_hit(self, raw: DatagramSocket, seconds: float) -> bool:
        # Once more later: a packet may be lost, or a mapping may be short-lived.
        for _ in range(2):
            await raw.send(self._env.random_bytes(PROBE_BYTES), self._remote)
            with trio.move_on_after(seconds / 2):
                while True:
                    arrivals = await raw.receive_many()
                    if any(arrival.remote == self._remote for arrival in arrivals):
                        return True
        return False
