"""Two hosts that know each other's outside endpoints meet there: the punch itself.

TCP: one SYN is under way and one listener open, on the same port, until either ends in a
connection. The dial is repeated only when something refused it, and after a pause of chance:
with a fixed one, two sides that refuse each other can stay in step for ever. UDP: a datagram
every 50 ms, and from the first that comes in on, to where that came from.

In both each side says three things, which prove that the path works both ways::

    stage 0: I am here     stage 1: I hear you     stage 2: and I know that you hear me (UDP)
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, Network, StreamListener
from p2pnet.errors import ProtocolError
from p2pnet.testing.probing.lines import LOST, Datagrams, Lines, receive_datagram, send_datagram
from p2pnet.testing.probing.messages import NAME, Hello

Jitter = Callable[[float, float], float]

DATAGRAM_INTERVAL = 0.05
LINGER_SECONDS = 1.0
"""How long to stay after the meeting, in case the other side did not hear the last word."""
SHORTEST_ROUND_TRIP = 0.02
"""Seconds; the pause before a redial is a part of the round trip, and not of nothing."""
PORT_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Appointment:
    """Who is to be met where."""

    meeting: str
    """Tells this meeting from all others."""
    name: str
    peer: str
    remote: Endpoint
    round_trip: float = 0.0

    def hello(self, stage: int) -> Hello:
        return Hello(self.meeting, self.name, stage)

    def is_from_peer(self, hello: Hello) -> bool:
        return (hello.meeting, hello.name) == (self.meeting, self.peer)


@dataclass(frozen=True, slots=True)
class Met:
    """How two hosts met."""

    remote: Endpoint
    how: str
    """dialled, accepted or answered."""
    at: float
    """When the path had proved to work both ways, in trio's time."""


class TcpMeeting:
    """Meets a peer by TCP; ``met`` is the result, ``reason`` why there is none yet."""

    def __init__(
        self,
        network: Network,
        listener: StreamListener,
        appointment: Appointment,
        jitter: Jitter,
    ) -> None:
        self._network = network
        self._listener = listener
        self._appointment = appointment
        self._jitter = jitter
        self.met: Met | None = None
        self.reason = "silence"

    async def run(self) -> None:
        """Try until it worked, or for ever: cancelling is up to the caller."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._accept, nursery)
            nursery.start_soon(self._dial, nursery)

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            stream = await self._listener.accept()
            nursery.start_soon(self._greet, stream, "accepted", nursery)

    async def _dial(self, nursery: trio.Nursery) -> None:
        here, there = self._listener.local, self._appointment.remote
        while True:
            try:
                stream = await self._network.dial_tcp(there, local=here)
            except OSError as error:
                self.reason = reason_of(error)
            else:
                await self._greet(stream, "dialled", nursery)
            longest = max(self._appointment.round_trip, SHORTEST_ROUND_TRIP)
            await trio.sleep(self._jitter(0, longest))

    async def _greet(self, stream: ByteStream, how: str, nursery: trio.Nursery) -> None:
        """Say hello on a connection; end the meeting if the peer does, too."""
        async with stream:
            lines = Lines(stream)
            try:
                await lines.send(self._appointment.hello(0))
                await self._expect(lines, 0)
                at = trio.current_time()
                await lines.send(self._appointment.hello(1))
                await self._expect(lines, 1)
            except LOST:
                self.reason = "broken"
                return
            if self.met is None:
                self.met = Met(stream.remote, how, at)
            await end(lines, stream)
        nursery.cancel_scope.cancel()

    async def _expect(self, lines: Lines, stage: int) -> None:
        hello = await lines.receive()
        if not isinstance(hello, Hello) or not self._appointment.is_from_peer(hello):
            raise ProtocolError(NAME, "a stranger")
        if hello.stage != stage:
            raise ProtocolError(NAME, f"stage {hello.stage} instead of {stage}")


async def end(lines: Lines, stream: ByteStream) -> None:
    """Let the other side have all that was said before this one closes."""
    try:
        await stream.send_eof()
    except LOST:
        return
    await lines.drain(LINGER_SECONDS)


def reason_of(error: OSError) -> str:
    """Give a failure a short name that is the same on every machine."""
    if error.errno in PORT_TAKEN:
        return "port taken"  # the peer was accepted on it, most likely
    if error.errno == errno.ECONNREFUSED:
        return "refused"
    if error.errno == errno.ETIMEDOUT:
        return "silence"
    return errno.errorcode.get(error.errno or 0, "error")


class UdpMeeting:
    """Meets a peer by UDP; ``met`` is the result, ``reason`` why there is none yet."""

    def __init__(self, socket: Datagrams, appointment: Appointment) -> None:
        self._socket = socket
        self._appointment = appointment
        self._target = appointment.remote
        self._stage = 0
        self.met: Met | None = None
        self.reason = "silence"

    async def run(self) -> None:
        """Try until it worked, or for ever: cancelling is up to the caller."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say)
            await self._hear(nursery)
            nursery.cancel_scope.cancel()

    async def _say(self) -> None:
        while True:
            await self._send()
            await trio.sleep(DATAGRAM_INTERVAL)

    async def _send(self) -> None:
        await send_datagram(self._socket, self._appointment.hello(self._stage), self._target)

    async def _hear(self, nursery: trio.Nursery) -> None:
        """Listen until the peer knows, too, or has had time enough to learn it."""
        while True:
            message, source = await receive_datagram(self._socket)
            if not isinstance(message, Hello) or not self._appointment.is_from_peer(message):
                continue
            self._target = source
            if message.stage and self.met is None:
                now = trio.current_time()
                self.met = Met(source, "answered", now)
                nursery.cancel_scope.deadline = now + LINGER_SECONDS
            stage = 1 if self.met is None else 2
            if stage > self._stage:
                self._stage = stage
                await self._send()
            if message.stage == 2:
                return
