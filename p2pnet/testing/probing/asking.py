"""One port of a host, from which observers are asked: a datagram socket, or a listener and dials.

TCP does as the transport of p2pnet does: it listens on the port and dials from it, so that
what is seen of the dials says where the listener can be reached.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, DatagramSocket, Network, StreamListener
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing.judging import Reaction, Unmeasurable
from p2pnet.testing.probing.lines import LOST, Lines, receive_datagram, send_datagram
from p2pnet.testing.probing.meeting import Appointment, Jitter, TcpMeeting, UdpMeeting
from p2pnet.testing.probing.messages import (
    Bye,
    Hit,
    Message,
    Origin,
    Outcome,
    Probe,
    Probed,
    Seen,
    Where,
)

REPEAT_SECONDS = 0.2
"""A datagram that nobody answers is sent again so much later."""
LISTEN_SECONDS = 1.5
"""How long datagrams that may be filtered are asked for."""
CLOSE_SECONDS = 1.0
NOBODYS_PORT = 9
"""The discard service: a NAT maps no port so low, and hosts do not listen there."""


class Asker(Protocol):
    """One local port. Ask before anything else: that makes the mapping."""

    @property
    def local(self) -> Endpoint: ...

    async def ask(self, observer: Endpoint) -> Endpoint | None:
        """Return the source an observer sees; None without an answer."""
        ...

    async def passes(self, observer: Endpoint, origin: Origin) -> bool:
        """Tell whether a probe comes in that an observer sends from elsewhere.

        Raises:
            Unmeasurable: if no such probe was sent.
        """
        ...

    async def unsolicited(self, observer: Endpoint) -> Reaction | None:
        """Tell what becomes of packets to an outside port without mapping, if it can be told."""
        ...

    def meeting(self, appointment: Appointment, jitter: Jitter) -> TcpMeeting | UdpMeeting: ...

    async def aclose(self) -> None: ...


async def open_asker(
    network: Network, transport: TransportName, local: Endpoint, *, patience: float
) -> Asker:
    """Open a port to ask from. Raises OSError."""
    if transport == "udp":
        return UdpAsker(await network.bind_udp(local), patience)
    return TcpAsker(network, await network.listen_tcp(local), patience)


class UdpAsker:
    """Asks from a datagram socket."""

    def __init__(self, socket: DatagramSocket, patience: float) -> None:
        self._socket = socket
        self._patience = patience
        self._tokens = 0

    @property
    def local(self) -> Endpoint:
        return self._socket.local

    async def ask(self, observer: Endpoint) -> Endpoint | None:
        token = self._new_token()
        found: list[Endpoint] = []

        def is_answer(message: Message) -> bool:
            if isinstance(message, Seen) and message.token == token:
                found.append(message.endpoint)
            return bool(found)

        with trio.move_on_after(self._patience):
            await self._repeat(Where(token), observer, is_answer)
        return found[0] if found else None

    async def passes(self, observer: Endpoint, origin: Origin) -> bool:
        token = self._new_token()
        outcomes: list[Outcome] = []

        def is_hit(message: Message) -> bool:
            if isinstance(message, Probed) and message.token == token:
                outcomes.append(message.outcome)
            return isinstance(message, Hit) and message.token == token

        with trio.move_on_after(LISTEN_SECONDS):
            await self._repeat(Probe(token, origin), observer, is_hit)
            return True
        if Outcome.SENT not in outcomes:
            raise Unmeasurable(f"{observer} sends no datagram from another {origin}")
        return False

    async def _repeat(
        self, request: Message, observer: Endpoint, is_enough: Callable[[Message], bool]
    ) -> None:
        """Send a request again and again until enough has come in."""

        async def send() -> None:
            while True:
                await send_datagram(self._socket, request, observer)
                await trio.sleep(REPEAT_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while not is_enough((await receive_datagram(self._socket))[0]):
                continue
            nursery.cancel_scope.cancel()

    async def unsolicited(self, observer: Endpoint) -> Reaction | None:
        await trio.lowlevel.checkpoint()
        return None

    def meeting(self, appointment: Appointment, jitter: Jitter) -> UdpMeeting:
        return UdpMeeting(self._socket, appointment)

    async def aclose(self) -> None:
        await self._socket.aclose()

    def _new_token(self) -> str:
        self._tokens += 1
        return f"{self.local.port}-{self._tokens}"


class TcpAsker:
    """Asks over connections from the port of a listener, and keeps them all until the end."""

    def __init__(self, network: Network, listener: StreamListener, patience: float) -> None:
        self._network = network
        self._listener = listener
        self._patience = patience
        self._sessions: dict[Endpoint, Lines] = {}
        self._opened = AsyncExitStack()
        self._tokens = 0

    @property
    def local(self) -> Endpoint:
        return self._listener.local

    async def ask(self, observer: Endpoint) -> Endpoint | None:
        with trio.move_on_after(self._patience):
            try:
                stream = await self._network.dial_tcp(observer, local=self.local)
            except OSError:
                return None
            lines = await self._enter(stream)
            try:
                await lines.send(Where(self._new_token()))
                answer = await lines.receive()
            except LOST:
                return None
            self._sessions[observer] = lines
            return answer.endpoint if isinstance(answer, Seen) else None
        return None

    async def _enter(self, stream: ByteStream) -> Lines:
        """Keep a connection until the end, and let the other side close it then.

        Whoever closes first cannot use the same two ports for a minute.
        """
        lines = Lines(stream)

        async def leave() -> None:
            try:
                await lines.send(Bye())
            except LOST:
                return
            await lines.drain(CLOSE_SECONDS)

        await self._opened.enter_async_context(stream)
        self._opened.push_async_callback(leave)
        return lines

    async def passes(self, observer: Endpoint, origin: Origin) -> bool:
        token = self._new_token()
        arrived = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._accept_hits, token, arrived)
            outcome = await self._probed(Probe(token, origin), observer)
            if outcome is Outcome.CONNECTED:
                # What the observer reached may have been the NAT itself: only this proves it.
                with trio.move_on_after(self._patience):
                    await arrived.wait()
            nursery.cancel_scope.cancel()
        if outcome is Outcome.UNABLE:
            raise Unmeasurable(f"{observer} does not dial from another {origin}")
        return arrived.is_set()

    async def _accept_hits(self, token: str, arrived: trio.Event) -> None:
        while True:
            async with await self._listener.accept() as stream:
                with trio.move_on_after(self._patience):
                    try:
                        message = await Lines(stream).receive()
                    except LOST:
                        continue
                    if message == Hit(token):
                        arrived.set()

    async def unsolicited(self, observer: Endpoint) -> Reaction | None:
        probe = Probe(self._new_token(), Origin.PORT, NOBODYS_PORT)
        match await self._probed(probe, observer):
            case Outcome.SILENT:
                return "dropped"
            case Outcome.UNABLE:
                raise Unmeasurable(f"{observer} does not dial")
            case _:
                return "answered"

    async def _probed(self, probe: Probe, observer: Endpoint) -> Outcome:
        lines = self._sessions[observer]
        try:
            await lines.send(probe)
            answer = await lines.receive()
        except LOST:
            return Outcome.UNABLE
        return answer.outcome if isinstance(answer, Probed) else Outcome.UNABLE

    def meeting(self, appointment: Appointment, jitter: Jitter) -> TcpMeeting:
        return TcpMeeting(self._network, self._listener, appointment, jitter)

    async def aclose(self) -> None:
        try:
            await self._listener.aclose()
        finally:
            await self._opened.aclose()

    def _new_token(self) -> str:
        self._tokens += 1
        return f"{self.local.port}-{self._tokens}"
