"""Perf service: runs measurements, and serves those of others. Rules: specs/perf.md."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import LimitedConnection, LimitExceeded
from p2pnet.interfaces import Connection, Kit, LimitedUse, ServiceHost, Stream, Target
from p2pnet.protocols.perf.dialogue import (
    Allowance,
    Figures,
    Progress,
    Task,
    measure,
    serve,
)
from p2pnet.protocols.perf.messages import MAX_WANTED, PROTOCOL_ID

logger = logging.getLogger("p2pnet.perf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Perf:
    """Measures throughput to peers; serves those who measure it to this host.

    Whoever is served has this host send and receive at full speed: in no preset, and better
    with ``allow`` where strangers can dial.
    """

    allow: Collection[PeerId] | None = None
    """Who is served: None is anybody, and an empty one nobody, so that this host only asks."""
    max_runs: int = 4
    """Runs served at once; one more is reset."""
    max_runs_per_peer: int = 2
    max_upload: int = MAX_WANTED
    """Bytes taken in one run."""
    max_download: int = MAX_WANTED
    """Bytes sent in one run. Who measures by time asks for the most there is, and hangs up."""
    max_seconds: float = 300.0
    """A run that is served for longer is reset."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > 0:
                raise ValueError(f"{field.name} must be positive, not {value}")

    def build(self, kit: Kit) -> PerfService:
        return PerfService(self)


class PerfService:
    """Made by the part ``Perf``: ``await host.service(Perf).measure(peer_id, upload=…)``."""

    def __init__(self, config: Perf) -> None:
        self._config = config
        self._host: ServiceHost | None = None
        self._running: Counter[PeerId] = Counter()

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        self._host = host
        if self._config.allow is None or self._config.allow:
            host.handle(PROTOCOL_ID, self._serve)
        task_status.started()
        await trio.sleep_forever()

    # ---- the side that asks --------------------------------------------------------------

    async def measure(
        self,
        target: Target | Connection,
        *,
        upload: int = 0,
        download: int = 0,
        report: Callable[[Progress], None] | None = None,
        limited: LimitedUse = "refuse",
    ) -> Figures:
        """Send ``upload`` bytes to a peer, then receive ``download`` bytes; take the times.

        ``report`` is called after each block. To measure by time ask for much, cancel it, and
        go by the last report.

        Raises:
            ValueError: if a number of bytes does not fit into 64 bits.
            DialError, NegotiationFailed, LimitedConnection: if there is no such stream.
            ProtocolError: if the peer sent more or less than it was asked for.
            ConnectionLost, StreamReset: if the peer gave up, as at a limit of its own.
        """
        for name, count in (("upload", upload), ("download", download)):
            if not 0 <= count <= MAX_WANTED:
                raise ValueError(f"{name} must be from 0 to 2**64 - 1, not {count}")
        stream = await self._open(target, limited)
        try:
            figures = await measure(
                PerfChannel(stream), Task(upload, download), trio.current_time, report or ignore
            )
            await stream.aclose()
        except BaseException:
            stream.reset()
            raise
        return figures

    async def _open(self, target: Target | Connection, limited: LimitedUse) -> Stream:
        if self._host is None:
            raise trio.ClosedResourceError("the perf service is not running")
        if isinstance(target, Target):
            return await self._host.open_stream(target, PROTOCOL_ID, limited=limited)
        if target.is_limited and limited != "allow":
            raise LimitedConnection(target.peer_id)
        return await target.open_stream(PROTOCOL_ID)

    # ---- the side that serves ------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        peer_id = stream.peer_id
        self._admit(stream)
        self._running[peer_id] += 1
        try:
            done = await self._serve_in_time(stream)
        finally:
            self._running[peer_id] -= 1
            if not self._running[peer_id]:
                del self._running[peer_id]
        logger.info("took %d bytes from %s, and sent %d", done.uploaded, peer_id, done.downloaded)

    def _admit(self, stream: Stream) -> None:
        config, peer_id = self._config, stream.peer_id
        if config.allow is not None and peer_id not in config.allow:  # PF7
            raise LimitExceeded("allow", len(config.allow), "this peer is not among them")
        if stream.connection.is_limited:  # PF8
            raise LimitedConnection(peer_id)
        if self._running.total() >= config.max_runs:  # PF6
            raise LimitExceeded("max_runs", config.max_runs)
        if self._running[peer_id] >= config.max_runs_per_peer:  # PF6
            raise LimitExceeded("max_runs_per_peer", config.max_runs_per_peer)

    async def _serve_in_time(self, stream: Stream) -> Progress:
        config = self._config
        with trio.move_on_after(config.max_seconds):
            allowance = Allowance(config.max_upload, config.max_download)
            return await serve(PerfChannel(stream), allowance)
        raise LimitExceeded("max_seconds", config.max_seconds)  # PF6


class PerfChannel:
    """The stream, as the dialogue sees it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.send = stream.send_all
        self.finish = stream.send_eof
        self.receive = stream.receive_some


def ignore(progress: Progress) -> None:
    """Be told of progress, and do nothing about it."""
