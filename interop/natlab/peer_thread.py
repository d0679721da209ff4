"""Hosts of p2pnet in threads, each of which is in a network namespace of the laboratory."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio

from p2pnet import open_host
from p2pnet.core.peer_id import PeerId
from p2pnet.demo.namespaces import Laboratory
from p2pnet.events import ConnectionOpened, PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.testing.matrix import ECHO, echo

T = TypeVar("T")

READY_SECONDS: Final = 40.0


class Peer:
    """A host in a thread of its own that lives until it is told to end.

    All of this is for other threads. What needs the host raises what it failed of.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        name: str,
        config: HostConfig,
        ready: Callable[[Host], Awaitable[None]] | None = None,
    ) -> None:
        self._laboratory = laboratory
        self._name = name
        self._config = config
        self._ready = ready
        self._living: Future[tuple[Host, trio.lowlevel.TrioToken]] = Future()
        """Known as soon as it is ready."""
        self._given_up: dict[PeerId, Future[Sequence[str]]] = {}
        self._met: dict[tuple[PeerId, bool], Future[float]] = {}
        self._cancel: Future[Callable[[], None]] = Future()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            with self._laboratory.entered(self._name):
                trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 (whoever waits for it hears of it)
            for awaited in (self._living, self._cancel):
                if not awaited.done():
                    awaited.set_exception(error)

    async def _serve(self) -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            self._cancel.set_result(partial(token.run_sync_soon, scope.cancel))
            async with open_host(self._config) as host:
                host.handle(ECHO, echo)
                if self._ready is not None:
                    await self._ready(host)
                with host.subscribe(ConnectionOpened, PunchGivenUp) as events:
                    self._living.set_result((host, token))
                    async for event in events:
                        self._hear(event)

    def _hear(self, event: ConnectionOpened | PunchGivenUp) -> None:
        match event:
            case ConnectionOpened(ref):
                with suppress(InvalidStateError):  # It is not the first.
                    met = self.met_at(ref.peer_id, is_relayed=ref.is_relayed)
                    met.set_result(time.perf_counter())
            case PunchGivenUp(peer_id, reasons):
                with suppress(InvalidStateError):  # Nobody waits for it any more.
                    self.given_up(peer_id).set_result(reasons)

    @property
    def peer_id(self) -> PeerId:
        """Wait until it is ready, and tell who it is."""
        return self._living.result(READY_SECONDS)[0].peer_id

    def given_up(self, peer_id: PeerId) -> Future[Sequence[str]]:
        """Give what is done when it has given up to reach a peer directly, with the causes."""
        return self._given_up.setdefault(peer_id, Future())

    def met_at(self, peer_id: PeerId, *, is_relayed: bool) -> Future[float]:
        """Give what is done when it first has such a connection, with the time of all peers."""
        return self._met.setdefault((peer_id, is_relayed), Future())

    def perform(self, act: Callable[[Host], Awaitable[T]]) -> T:
        """Do something with the host, where it lives."""
        host, token = self._living.result(READY_SECONDS)
        return trio.from_thread.run(act, host, trio_token=token)

    def leave(self, peer_id: PeerId) -> None:
        """Close all connections with a peer, and wait for nothing about it any more."""

        async def close(host: Host) -> None:
            for connection in host.connections(peer_id):
                await connection.aclose()

        self.given_up(peer_id).cancel()
        self.perform(close)
        for is_relayed in (True, False):
            self._met.pop((peer_id, is_relayed), None)

    def became_direct_after(self, other: Peer) -> float:
        """Tell the seconds from the relayed to the direct connection, each with both ends."""
        ends = ((self, other.peer_id), (other, self.peer_id))
        relayed, direct = (
            max(one.met_at(far, is_relayed=kind).result(READY_SECONDS) for one, far in ends)
            for kind in (True, False)
        )
        return round(max(direct - relayed, 0), 3)

    def end(self) -> None:
        """Tell it to end, and wait for that."""
        if self._cancel.exception(READY_SECONDS) is None:
            with suppress(trio.RunFinishedError):
                self._cancel.result()()
        self._thread.join(READY_SECONDS)
        for awaited in (*self._given_up.values(), *self._met.values()):
            awaited.cancel()
