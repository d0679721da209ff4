"""A rendezvous server: brings two hosts together that ask for each other.

Each says its name and that of its peer, from the port that is to be punched. When both are
there, each is told the source that was seen of the other, and to go. TCP hosts say how far
away they are, and the nearer one is told later, so that both hear it at the same moment.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream, DatagramSocket, Network
from p2pnet.testing.probing.lines import LOST, Lines, receive_datagram, send_datagram
from p2pnet.testing.probing.messages import Go, Meet, Seen, Where
from p2pnet.testing.probing.observing import ObserverEndpoints, Posts, accept_sessions

MAX_WAITING = 1024
FRESH_SECONDS = 1.0
"""A UDP host that did not ask again for so long is gone."""

Key = tuple[str, str]


@dataclass(slots=True, eq=False)
class Guest:
    """A host that waits at the rendezvous."""

    endpoint: Endpoint
    round_trip: float = 0.0
    seen_at: float = 0.0
    called: trio.Event = field(default_factory=trio.Event)
    peer: Guest | None = None

    def go(self, peer: Guest) -> Go:
        first, second = sorted([self.endpoint, peer.endpoint])
        return Go(
            meeting=f"{first}~{second}",
            own=self.endpoint,
            remote=peer.endpoint,
            round_trip=self.round_trip + peer.round_trip,
        )

    def lead(self, peer: Guest) -> float:
        """Tell how many seconds sooner a word is here than at the peer."""
        return max(0.0, (peer.round_trip - self.round_trip) / 2)


async def serve_rendezvous(
    network: Network,
    endpoint: Endpoint,
    *,
    task_status: trio.TaskStatus[ObserverEndpoints] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at one endpoint, UDP and TCP, until cancelled.

    Raises:
        OSError: if the endpoint cannot be had.
    """
    posts = Posts()
    try:
        await posts.open(network, [endpoint])
        rendezvous = Rendezvous()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rendezvous.answer_datagrams, posts.sockets[0])
            nursery.start_soon(accept_sessions, posts.listeners[0], rendezvous.answer_lines)
            task_status.started(posts.endpoints())
    finally:
        await posts.aclose()


class Rendezvous:
    """Who waits for whom."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Guest] = {}
        self._asking: dict[Key, Guest] = {}

    async def answer_lines(self, lines: Lines, stream: ByteStream) -> None:
        meet = await lines.receive()
        if isinstance(meet, Where):
            await lines.send(Seen(meet.token, stream.remote))
            meet = await lines.receive()
        if not isinstance(meet, Meet) or len(self._waiting) >= MAX_WAITING:
            return
        guest = Guest(stream.remote, meet.round_trip)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._invite, meet, guest, lines)
            # Whatever comes next is the end: a goodbye, or the connection is lost.
            with suppress(*LOST):
                await lines.receive()
            nursery.cancel_scope.cancel()

    async def _invite(self, meet: Meet, guest: Guest, lines: Lines) -> None:
        key = (meet.name, meet.peer)
        peer = self._waiting.pop((meet.peer, meet.name), None)
        if peer is None:
            self._waiting[key] = guest
            try:
                await guest.called.wait()
            finally:
                if self._waiting.get(key) is guest:
                    del self._waiting[key]
        else:
            guest.peer, peer.peer = peer, guest
            peer.called.set()
        if guest.peer is not None:
            await trio.sleep(guest.lead(guest.peer))
            with suppress(*LOST):
                await lines.send(guest.go(guest.peer))

    async def answer_datagrams(self, socket: DatagramSocket) -> None:
        """Answer hosts that ask again and again; a word that is lost is said again."""
        while True:
            message, source = await receive_datagram(socket)
            if not isinstance(message, Meet):
                continue
            now = trio.current_time()
            guest = self._remember((message.name, message.peer), source, now)
            peer = self._asking.get((message.peer, message.name))
            if guest is None or peer is None or not is_fresh(peer, now):
                continue
            if guest.peer is not peer:
                if peer.peer is not None:
                    continue  # a word from the last attempt: the peer of this one is to come
                await send_datagram(socket, peer.go(guest), peer.endpoint)
                guest.peer, peer.peer = peer, guest
            await send_datagram(socket, guest.go(peer), guest.endpoint)

    def _remember(self, key: Key, source: Endpoint, now: float) -> Guest | None:
        guest = self._asking.get(key)
        if guest is None or guest.endpoint != source or not is_fresh(guest, now):
            self._asking = {k: g for k, g in self._asking.items() if is_fresh(g, now)}
            if len(self._asking) >= MAX_WAITING:
                return None
            guest = self._asking[key] = Guest(source)
        guest.seen_at = now
        return guest


def is_fresh(guest: Guest, now: float) -> bool:
    return now - guest.seen_at < FRESH_SECONDS
