"""Ask a router a question in a datagram, again and again until it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import trio

from p2pnet.connectivity.portmap.asking import NotSpoken, Unanswered
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket, Network
from p2pnet.core.tasks import close_at_once
from p2pnet.errors import ProtocolError

T = TypeVar("T")

MAX_STRAYS = 64
"""Datagrams that are no answer to the question, and are put up with until it is given up."""


async def ask(
    network: Network,
    question: bytes,
    *,
    own: str,
    remote: Endpoint,
    waits: Iterable[float],
    read: Callable[[bytes], T | None],
) -> T:
    """Send a question, and return the first answer that ``read`` takes for one (PM7).

    Raises:
        Unanswered: if none came.
        NotSpoken, ProtocolError: if what came was no answer, and none followed.
        OSError: if it cannot be sent.
    """
    sock = await network.bind_udp(Endpoint(own, 0))
    hearing = Hearing(sock, remote, read)
    try:
        for wait in waits:
            await sock.send(question, remote)
            with trio.move_on_after(wait):
                return await hearing.answer()
            if isinstance(hearing.error, NotSpoken):
                break
        raise hearing.error
    finally:
        await close_at_once(sock)


class Hearing(Generic[T]):
    """Waits for an answer, and passes over what is none: anybody can send a datagram."""

    def __init__(
        self, sock: DatagramSocket, remote: Endpoint, read: Callable[[bytes], T | None]
    ) -> None:
        self._sock = sock
        self._remote = remote
        self._read = read
        self._strays = 0
        self.error: NotSpoken | ProtocolError | Unanswered = Unanswered()

    async def answer(self) -> T:
        while True:
            data, source = await self._sock.receive()
            if source != self._remote:  # PM3
                self._count()
                continue
            try:
                answer = self._read(data)
            except (NotSpoken, ProtocolError) as error:
                self.error = error
                answer = None
            if answer is not None:
                return answer
            self._count()

    def _count(self) -> None:
        self._strays += 1
        if self._strays > MAX_STRAYS:
            raise ProtocolError("port mapping", "too many datagrams that are no answer")
