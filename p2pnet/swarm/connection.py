"""One live connection: one nursery, a task for each stream that the remote opens.

Here is one of the three boundaries that no error of a remote, or of a stream handler, passes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.foreword import Forewords
from p2pnet.core.keepalive import Hush
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary, close_at_once, log_stopped
from p2pnet.errors import (
    ConnectionLost,
    LimitExceeded,
    P2PError,
    PeerLeft,
    StreamReset,
    describe,
)
from p2pnet.events import ConnectionRef
from p2pnet.interfaces import (
    CapableConnection,
    CircuitLimit,
    MuxedStream,
    PeerBook,
    Prefaced,
    Pulsing,
    Stream,
    StreamHandler,
    Watchful,
)
from p2pnet.negotiation.driver import listen_now, negotiate, select_one
from p2pnet.negotiation.machine import Responder
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.stream import LiveStream

logger = logging.getLogger("p2pnet.swarm")

RESOURCE_LIMIT_EXCEEDED = 0x1002
NEGOTIATION_FAILED = 0x1001


class LiveConnection:
    """A capable connection with the host's protocols on it."""

    def __init__(
        self,
        capable: CapableConnection,
        ref: ConnectionRef,
        *,
        config: SwarmConfig,
        handlers: Mapping[str, StreamHandler],
        peers: PeerBook,
    ) -> None:
        self._capable = capable
        self._config = config
        self._handlers = handlers
        self._peers = peers
        self._inbound: set[MuxedStream] = set()
        self._outbound: set[MuxedStream] = set()
        self._opening = 0
        self.ref = ref
        self._is_closed = False
        self.opened_at = trio.current_time()
        self.closing_reason = ""
        self.failure: P2PError | None = None
        """What ended it; None while it lives, and if this host closed it."""

    def __repr__(self) -> str:
        kind = "relayed" if self.is_relayed else "direct"
        return f"<Connection {self.ref.number} {kind} to {self._where}>"

    @property
    def _where(self) -> str:
        return f"{self._capable.peer_id} at {self._capable.remote_address}"

    @property
    def peer_id(self) -> PeerId:
        return self._capable.peer_id

    @property
    def local_address(self) -> Multiaddr:
        return self._capable.local_address

    @property
    def remote_address(self) -> Multiaddr:
        return self._capable.remote_address

    @property
    def is_inbound(self) -> bool:
        return self.ref.is_inbound

    @property
    def is_relayed(self) -> bool:
        return self.ref.is_relayed

    @property
    def is_limited(self) -> bool:
        return self._capable.limit is not None

    @property
    def limit(self) -> CircuitLimit | None:
        return self._capable.limit

    @property
    def is_closed(self) -> bool:
        """Tell if it takes no more streams: at once, not only when its tasks have ended."""
        return self._is_closed or self._capable.is_over

    @property
    def forewords(self) -> Forewords | None:
        return self._capable.forewords if isinstance(self._capable, Prefaced) else None

    @property
    def security(self) -> str:
        return self._capable.security

    @property
    def muxer(self) -> str:
        return self._capable.muxer

    @property
    def streams(self) -> int:
        """How many streams are open, both ways."""
        return len(self._inbound) + len(self._outbound)

    async def run(self) -> str:
        """Serve until the connection ends; return why it did, in a few words."""
        reason, in_order = "closed by the peer", False
        try:
            async with trio.open_nursery() as handlers:
                try:
                    await self._capable.run(partial(self._accept, handlers))
                    in_order = True
                    self.failure = PeerLeft(reason)
                except P2PError as error:
                    reason, self.failure = describe(error), error
                    log_stopped(logger, f"{self!r}", error, expected=logging.DEBUG)
                finally:
                    self._is_closed = True
                    handlers.cancel_scope.cancel()
        finally:
            if not in_order:
                await close_at_once(self._capable)
        if self.closing_reason:
            self.failure = None
        return self.closing_reason or reason

    def _accept(self, handlers: trio.Nursery, muxed: MuxedStream) -> None:
        if len(self._inbound) >= self._config.max_inbound_streams:  # S23
            logger.debug("%s: refused a stream: max_inbound_streams", self)
            muxed.reset(RESOURCE_LIMIT_EXCEEDED)
            return
        self._inbound.add(muxed)
        handlers.start_soon(self._serve, muxed)

    async def _serve(self, muxed: MuxedStream) -> None:
        with boundary(logger, lambda: f"stream of {self._where}"):
            try:
                protocol_id = await self._answer(muxed)
                handler = self._handlers.get(protocol_id)
                if handler is None:
                    raise StreamReset(f"{protocol_id} is no longer served")
                # It counts until its handler is done, even if that closed it early.
                stream = LiveStream(muxed, protocol_id, self, on_close=lambda _: None)
                await handler(stream)
                await stream.aclose()
            except BaseException:
                muxed.reset()
                raise
            finally:
                self._inbound.discard(muxed)

    async def _answer(self, muxed: MuxedStream) -> str:
        """Agree on the protocol of a stream that the remote has opened."""
        machine = Responder(self._handlers)
        agreed = listen_now(muxed.receive_nowait, machine)
        if agreed is None or not muxed.send_along(machine.answer):
            with trio.fail_after(self._config.negotiation_timeout):
                agreed = await negotiate(muxed, machine, agreed)
        return agreed

    async def open_stream(self, protocol_id: str, *alternatives: str, lazy: bool = False) -> Stream:
        if self.is_closed:
            raise ConnectionLost(f"the connection to {self.peer_id} has ended")
        if len(self._outbound) + self._opening >= self._config.max_outbound_streams:
            raise LimitExceeded("max_outbound_streams", self._config.max_outbound_streams)
        self._opening += 1
        try:
            return await self._open(protocol_id, *alternatives, lazy=lazy)
        finally:
            self._opening -= 1

    async def _open(self, protocol_id: str, *alternatives: str, lazy: bool) -> Stream:
        proposals = (protocol_id, *alternatives)
        known = self._peers.protocols(self.peer_id) or frozenset()
        muxed = await self._capable.open_stream()
        spoken = next((proposal for proposal in proposals if proposal in known), None)
        if lazy and not alternatives:
            spoken = protocol_id
        if spoken is not None:
            # M6: the peer said that it serves the protocol, or the caller bears a refusal.
            return self._opened(muxed, spoken, lazy=True)
        try:
            with trio.fail_after(self._config.negotiation_timeout):
                agreed = await select_one(muxed, proposals)
        except BaseException:
            muxed.reset(NEGOTIATION_FAILED)
            raise
        return self._opened(muxed, agreed, lazy=False)

    def _opened(self, muxed: MuxedStream, protocol_id: str, *, lazy: bool) -> Stream:
        self._outbound.add(muxed)
        return LiveStream(muxed, protocol_id, self, lazy=lazy, on_close=self._outbound.discard)

    def hush(self, seconds: float) -> Hush | None:
        """See Pulsing.hush."""
        return self._capable.hush(seconds) if isinstance(self._capable, Pulsing) else None

    def stay_alert(self, silence: float | None) -> None:
        """See Watchful.stay_alert."""
        if isinstance(self._capable, Watchful):
            self._capable.stay_alert(silence)

    def prove_alive(self, patience: float) -> None:
        """See Watchful.prove_alive."""
        if isinstance(self._capable, Watchful):
            self._capable.prove_alive(patience)

    async def aclose(self, reason: str = "closed by this host") -> None:
        self.closing_reason = self.closing_reason or reason
        self._is_closed = True
        await self._capable.aclose()
