"""Ping service: answers pings, and sends them. Rules: specs/ping.md."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

import trio

from p2pnet.core.addresses import Multiaddr, parse, peer_id_of
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import LimitExceeded, PeerLeft, ProtocolError, StreamReset
from p2pnet.interfaces import Connection, Kit, LimitedUse, ServiceHost, Stream, Target
from p2pnet.protocols.ping.dialogue import PING_BYTES, PROTOCOL_ID, echo, measure

logger = logging.getLogger("p2pnet.ping")

PLACE_SECONDS = 1.0
"""Who pings on one stream after the other may have ended those before, and it was not heard yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Answers pings; lets this host measure its round trips."""

    echo_timeout: float = 20.0
    """Seconds to wait for an echo."""
    idle_timeout: float = 60.0
    """Seconds without a ping after which an inbound stream is closed."""
    max_inbound_per_peer: int = 2
    """Streams a peer may have open at once to ping this host."""
    max_echoes_per_second: int = 100
    """On one inbound stream; faster pings wait their turn."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value: float = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name} must be positive, not {value}")

    def build(self, kit: Kit) -> PingService:
        return PingService(self, kit.env)


class PingService:
    """Made by the part ``Ping``: ``await host.service(Ping).ping(peer_id)``."""

    def __init__(self, config: Ping, env: Env) -> None:
        self._config = config
        self._env = env
        self._host: ServiceHost | None = None
        self._inbound: dict[PeerId, Places] = {}
        self._turns: dict[PeerId, Turn] = {}

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        self._host = host
        host.handle(PROTOCOL_ID, self._serve)
        task_status.started()
        await trio.sleep_forever()

    # ---- the side that asks --------------------------------------------------------------

    async def ping(self, target: Target | Connection, *, limited: LimitedUse = "allow") -> float:
        """Measure the round trip to a peer, in seconds, on a stream of its own.

        Raises:
            DialError, NegotiationFailed, LimitedConnection: if there is no such stream.
            ProtocolError: if the echo was wrong; the connection is closed.
            ConnectionLost, StreamReset: if the peer gave no answer, twice.
            trio.TooSlowError: if the echo did not come within ``echo_timeout``.
        """
        [seconds] = [seconds async for seconds in self.pings(target, 1, limited=limited)]
        return seconds

    async def pings(
        self, target: Target | Connection, count: int, *, limited: LimitedUse = "allow"
    ) -> AsyncGenerator[float, None]:
        """Yield ``count`` round trips, in seconds, measured one by one on the same stream.

        A peer may close a stream that was idle; it is then opened anew, once a ping (PI5).
        Wrap it in ``contextlib.aclosing`` to leave early. Raises as ``ping`` does.
        """
        if count < 1:
            raise ValueError("ping at least once")
        session = Session(self._running, target, limited, self._config.echo_timeout)
        async with self._turn(peer_of(target)):
            try:
                for _ in range(count):
                    yield await session.ping(self._env.random_bytes(PING_BYTES))
                await session.finish()
            finally:
                session.abandon()

    @asynccontextmanager
    async def _turn(self, peer_id: PeerId) -> AsyncGenerator[None, None]:
        """Have the only outbound stream to a peer (PI6)."""
        turn = self._turns.setdefault(peer_id, Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[peer_id]

    @property
    def _running(self) -> ServiceHost:
        if self._host is None:
            raise trio.ClosedResourceError("the ping service is not running")
        return self._host

    # ---- the side that answers -----------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        peer_id, maximum = stream.peer_id, self._config.max_inbound_per_peer
        places = self._inbound.setdefault(peer_id, Places(maximum))
        places.wanted += 1
        try:
            if not await places.take(at_most=2 * maximum):  # PI4
                raise LimitExceeded("max_inbound_per_peer", maximum)
            try:
                await self._echo(stream)
            finally:
                places.free.release()
        finally:
            places.wanted -= 1
            if not places.wanted:
                del self._inbound[peer_id]

    async def _echo(self, stream: Stream) -> None:
        with trio.CancelScope(deadline=trio.current_time() + self._config.idle_timeout) as idle:
            count = await echo(EchoChannel(stream, idle, self._config))
            logger.debug("echoed %d pings of %s", count, stream.peer_id)
        if idle.cancelled_caught:
            logger.debug("closed an idle ping stream of %s", stream.peer_id)


class Places:
    """For the streams of one peer, and how many streams want one or have it."""

    def __init__(self, count: int) -> None:
        self.free = trio.Semaphore(count)
        self.wanted = 0

    async def take(self, *, at_most: int) -> bool:
        """Take a place, or wait for one a little, if there are not too many who want one."""
        if self.free.value:
            self.free.acquire_nowait()
            return True
        if self.wanted > at_most:
            return False
        with trio.move_on_after(PLACE_SECONDS):
            await self.free.acquire()
            return True
        return False


class Turn:
    """Who may ping a peer now, and how many want to."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.wanted = 0


class Session:
    """Pings to one target, one stream at a time."""

    def __init__(
        self, host: ServiceHost, target: Target | Connection, limited: LimitedUse, seconds: float
    ) -> None:
        self._host = host
        self._target = target
        self._limited = limited
        self._seconds = seconds
        self._stream: Stream | None = None

    async def ping(self, payload: bytes) -> float:
        try:
            return await self._ping_once(payload)
        except (EOFError, StreamReset, PeerLeft):  # PI5
            self.abandon()
        try:
            return await self._ping_once(payload)
        except EOFError:
            raise StreamReset("the peer closed the stream instead of answering") from None

    async def _ping_once(self, payload: bytes) -> float:
        stream = self._stream = self._stream or await self._open()
        try:
            with trio.fail_after(self._seconds):
                return await measure(PingChannel(stream), payload, trio.current_time)
        except ProtocolError:
            await stream.connection.aclose()  # PI2
            raise

    async def _open(self) -> Stream:
        if isinstance(self._target, PeerId | Multiaddr | str):
            return await self._host.open_stream(self._target, PROTOCOL_ID, limited=self._limited)
        return await self._target.open_stream(PROTOCOL_ID)

    async def finish(self) -> None:
        """End the stream in good order."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    def abandon(self) -> None:
        """Drop the stream, if there is one."""
        if self._stream is not None:
            self._stream.reset()
            self._stream = None


class PingChannel:
    """Cuts a stream into pings."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, ping: bytes, /) -> None:
        await self._stream.send_all(ping)

    async def receive(self) -> bytes:
        ping = bytearray()
        while len(ping) < PING_BYTES:
            data = await self._stream.receive_some(PING_BYTES - len(ping))
            if not data:
                if ping:
                    raise ProtocolError(PROTOCOL_ID, "the stream ended within a ping")
                raise EOFError("the stream ended")
            ping += data
        return bytes(ping)


class EchoChannel(PingChannel):
    """A channel that is neither idle for long nor hurried (PI4)."""

    def __init__(self, stream: Stream, idle: trio.CancelScope, config: Ping) -> None:
        super().__init__(stream)
        self._idle = idle
        self._config = config
        self._second = trio.current_time()
        self._echoed = 0

    async def receive(self) -> bytes:
        await self._slow_down()
        # Only whole pings count: bytes in drops do not keep a stream open.
        self._idle.deadline = trio.current_time() + self._config.idle_timeout
        return await super().receive()

    async def _slow_down(self) -> None:
        """Wait for the next second once this one has had its pings."""
        now = trio.current_time()
        if now >= self._second + 1.0:
            self._second, self._echoed = now, 0
        if self._echoed >= self._config.max_echoes_per_second:
            # The wait is ours, not the peer's.
            self._idle.deadline += 1.0
            await trio.sleep_until(self._second + 1.0)
            self._second, self._echoed = trio.current_time(), 0
        self._echoed += 1


def peer_of(target: Target | Connection) -> PeerId:
    """Return the peer that a target is about.

    Raises:
        ValueError: if it names none.
    """
    if isinstance(target, PeerId):
        return target
    if isinstance(target, str) and not target.startswith("/"):
        return PeerId.parse(target)
    if isinstance(target, str | Multiaddr):
        address = parse(target) if isinstance(target, str) else target
        peer_id = peer_id_of(address)
        if peer_id is None:
            raise ValueError(f"{address} does not end in /p2p/<peer id>: whom does it lead to?")
        return peer_id
    return target.peer_id
