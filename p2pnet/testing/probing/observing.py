"""An observer: tells who asks what source it sees, and probes it from elsewhere.

One observer owns one or two addresses, and two ports on each::

    one machine                 address A: port 1, port 2     address B: port 1, port 2
    two machines, partners      address A: port 1, port 2 <-- TCP --> address B: port 1, port 2

A probe goes to the source of the request and to no other address, so that an observer cannot
be aimed at anybody. Only the partner may name a target.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, DatagramSocket, Network, StreamListener
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing.lines import LOST, Lines, receive_datagram, send_datagram
from p2pnet.testing.probing.messages import (
    Delegate,
    Hit,
    Message,
    Origin,
    Outcome,
    Probe,
    Probed,
    Seen,
    Where,
)

DIAL_SECONDS = 2.5
"""How long a SYN may stay unanswered; time enough for one to be lost and sent again."""
SESSION_SECONDS = 120.0
MAX_SESSIONS = 1024
MAX_PROBES = 256
ANSWERS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EACCES)
"""Errors that tell of an answer: a reset, or one of ICMP's."""


@dataclass(frozen=True, slots=True)
class ObserverEndpoints:
    """Where an observer listens: address by address, and port by port of each."""

    tcp: tuple[Endpoint, ...]
    udp: tuple[Endpoint, ...]

    def of(self, transport: TransportName) -> tuple[Endpoint, ...]:
        return self.tcp if transport == "tcp" else self.udp


@dataclass(slots=True)
class Posts:
    """The open sockets of an observer."""

    listeners: list[StreamListener] = field(default_factory=list)
    sockets: list[DatagramSocket] = field(default_factory=list)

    async def open(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        for endpoint in endpoints:
            self.listeners.append(await network.listen_tcp(endpoint))
            self.sockets.append(await network.bind_udp(endpoint))

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            for listener in self.listeners:
                await listener.aclose()
            for socket in self.sockets:
                await socket.aclose()

    def endpoints(self) -> ObserverEndpoints:
        return ObserverEndpoints(
            tcp=tuple(listener.local for listener in self.listeners),
            udp=tuple(socket.local for socket in self.sockets),
        )


async def serve_observer(
    network: Network,
    addresses: Sequence[str],
    ports: tuple[int, int] = (7001, 7002),
    *,
    partner: Endpoint | None = None,
    task_status: trio.TaskStatus[ObserverEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Observe on two ports of each address, UDP and TCP, until cancelled.

    Where this machine has only one address, ``partner`` is a TCP endpoint of the observer
    that sends probes from another one.

    Raises:
        OSError: if an endpoint cannot be had.
    """
    posts = Posts()
    try:
        await posts.open(network, [Endpoint(host, port) for host in addresses for port in ports])
        observer = Observer(network, posts.sockets, partner)
        async with trio.open_nursery() as nursery:
            for socket in posts.sockets:
                nursery.start_soon(observer.answer_datagrams, socket, nursery)
            for listener in posts.listeners:
                nursery.start_soon(accept_sessions, listener, observer.answer_lines)
            task_status.started(posts.endpoints())
    finally:
        await posts.aclose()


async def accept_sessions(
    listener: StreamListener,
    answer: Callable[[Lines, ByteStream], Coroutine[object, object, None]],
) -> None:
    """Hold one conversation with each that connects, until cancelled."""
    slots = trio.CapacityLimiter(MAX_SESSIONS)

    async def session(stream: ByteStream) -> None:
        async with slots, stream:
            with trio.move_on_after(SESSION_SECONDS):
                try:
                    await answer(Lines(stream), stream)
                except LOST:
                    return

    async with trio.open_nursery() as nursery:
        while True:
            stream = await listener.accept()
            if slots.statistics().tasks_waiting:
                await trio.aclose_forcefully(stream)
            else:
                nursery.start_soon(session, stream)


class Observer:
    """Answers on all the sockets of one observer."""

    def __init__(
        self, network: Network, sockets: Sequence[DatagramSocket], partner: Endpoint | None
    ) -> None:
        self._network = network
        self._sockets = sockets
        self._partner = partner
        self._probes = 0

    async def answer_datagrams(self, socket: DatagramSocket, nursery: trio.Nursery) -> None:
        while True:
            message, source = await receive_datagram(socket)
            match message:
                case Where(token):
                    await send_datagram(socket, Seen(token, source), source)
                case Probe() if self._probes < MAX_PROBES:
                    nursery.start_soon(self._probe_by_datagram, socket, message, source)

    async def answer_lines(self, lines: Lines, stream: ByteStream) -> None:
        """Answer until the asker says goodbye, or anything that makes no sense."""
        while True:
            answer = await self._answer(await lines.receive(), stream)
            if answer is None:
                return
            await lines.send(answer)

    async def _answer(self, message: Message, stream: ByteStream) -> Message | None:
        await trio.lowlevel.checkpoint()
        match message:
            case Where(token):
                return Seen(token, stream.remote)
            case Probe(token):
                target = target_of(message, stream.remote)
                return Probed(token, await self._probe("tcp", message, stream.local, target))
            case Delegate(token, transport, target) if self._trusts(stream.remote):
                source = Endpoint(stream.local.host, 0)
                return Probed(token, await self._send(transport, token, source, target))
            case _:
                return None

    def _trusts(self, remote: Endpoint) -> bool:
        return self._partner is not None and self._partner.host == remote.host

    async def _probe_by_datagram(
        self, socket: DatagramSocket, probe: Probe, asker: Endpoint
    ) -> None:
        self._probes += 1
        try:
            target = target_of(probe, asker)
            outcome = await self._probe("udp", probe, socket.local, target)
            await send_datagram(socket, Probed(probe.token, outcome), asker)
        finally:
            self._probes -= 1

    async def _probe(
        self, transport: TransportName, probe: Probe, here: Endpoint, target: Endpoint
    ) -> Outcome:
        if probe.origin is Origin.PORT:
            return await self._send(transport, probe.token, Endpoint(here.host, 0), target, here)
        others = [
            socket.local.host
            for socket in self._sockets
            if socket.local.host != here.host and socket.local.is_ipv6 == here.is_ipv6
        ]
        if others:
            return await self._send(transport, probe.token, Endpoint(others[0], 0), target)
        if self._partner is not None:
            return await self._delegate(Delegate(probe.token, transport, target), self._partner)
        return Outcome.UNABLE

    async def _send(
        self,
        transport: TransportName,
        token: str,
        source: Endpoint,
        target: Endpoint,
        but: Endpoint | None = None,
    ) -> Outcome:
        """Send a probe from some port of an address."""
        if transport == "tcp":
            return await knock(self._network, source, target, token)
        for socket in self._sockets:
            if socket.local.host == source.host and socket.local != but:
                taken = await send_datagram(socket, Hit(token), target)
                return Outcome.SENT if taken else Outcome.UNABLE
        return Outcome.UNABLE

    async def _delegate(self, order: Delegate, partner: Endpoint) -> Outcome:
        with trio.move_on_after(2 * DIAL_SECONDS):
            try:
                # From an address of this observer, as the partner knows it by that.
                local = Endpoint(self._sockets[0].local.host, 0)
                stream = await self._network.dial_tcp(partner, local=local)
                async with stream:
                    lines = Lines(stream)
                    await lines.send(order)
                    answer = await lines.receive()
            except (OSError, *LOST):
                return Outcome.UNABLE
            if isinstance(answer, Probed):
                return answer.outcome
        return Outcome.UNABLE


def target_of(probe: Probe, asker: Endpoint) -> Endpoint:
    return Endpoint(asker.host, probe.port or asker.port)


async def knock(network: Network, source: Endpoint, target: Endpoint, token: str) -> Outcome:
    """Dial ``target`` and leave a probe there, if anybody answers."""
    with trio.move_on_after(DIAL_SECONDS):
        try:
            stream = await network.dial_tcp(target, local=source)
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                return Outcome.SILENT
            return Outcome.REFUSED if error.errno in ANSWERS else Outcome.UNABLE
        async with stream:
            try:
                await Lines(stream).send(Hit(token))
            except trio.BrokenResourceError:
                return Outcome.REFUSED  # a NAT that takes a connection in and then thinks better
        return Outcome.CONNECTED
    return Outcome.SILENT
