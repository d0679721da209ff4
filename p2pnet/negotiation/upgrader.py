"""Turns a raw stream into a capable connection: security first, then a muxer.

dialer                                        listener
  | -- multistream: security ---------------->  |    with one security to offer,
  | -- handshake, message 1 ----------------->  |    both in one flight
  | <------------- multistream: accepted -----  |
  | <------------- handshake, message 2 ------  |
  | -- handshake, message 3 ----------------->  |
  | -- multistream: muxer ------------------->  |    only if the handshake did not
  | <------------- multistream: accepted -----  |    settle the muxer as well
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.foreword import Forewords
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import answered
from p2pnet.interfaces import (
    CircuitLimit,
    Ends,
    MuxedConnection,
    MuxedStream,
    Muxer,
    Role,
    Secured,
    Security,
    TalkativeSecurity,
    Watchful,
)
from p2pnet.negotiation.driver import LazyStream, handle_one, select_one
from p2pnet.negotiation.first_word import role_left

Protect = Callable[[trio.abc.HalfCloseableStream], trio.abc.HalfCloseableStream]


@dataclass(frozen=True, slots=True)
class UpgradedConnection:
    """A capable connection made of a raw stream, a security and a muxer."""

    peer_id: PeerId
    local_address: Multiaddr
    remote_address: Multiaddr
    security: str
    muxer: str
    limit: CircuitLimit | None
    muxed: MuxedConnection
    forewords: Forewords | None = None

    @property
    def is_over(self) -> bool:
        return self.muxed.is_over

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        await self.muxed.run(accept)

    async def open_stream(self) -> MuxedStream:
        return await self.muxed.open_stream()

    def stay_alert(self, silence: float | None) -> None:
        """See Watchful.stay_alert."""
        if isinstance(self.muxed, Watchful):
            self.muxed.stay_alert(silence)

    def prove_alive(self, patience: float) -> None:
        """See Watchful.prove_alive."""
        if isinstance(self.muxed, Watchful):
            self.muxed.prove_alive(patience)

    async def aclose(self) -> None:
        await self.muxed.aclose()


class LayeredUpgrader:
    """Puts a security and a muxer on a raw stream, the first both ends speak of each.

    What it may choose from can be set later: the parts that build securities and muxers are
    themselves given the upgrader, in their kit.
    """

    def __init__(self, securities: Sequence[Security] = (), muxers: Sequence[Muxer] = ()) -> None:
        self.securities = securities
        self.muxers = muxers
        self.protect: Protect | None = None
        """What puts each stream under the key of a private network, if the host is in one."""

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> UpgradedConnection:
        """See Upgrader.upgrade. The caller sets the deadline.

        Raises:
            NegotiationFailed: if there is no security, or no muxer, that both ends speak.
            PeerIdMismatch, SecurityError, ProtocolError: see Security.secure.
            trio.BrokenResourceError: if the stream breaks; StreamReset, if it just ends.
        """
        answered()  # DI10: there is a raw stream, so there is somebody
        try:
            if self.protect is not None:
                stream = self.protect(stream)  # PN2
            if role is Role.LISTENER and patience is not None:
                stream, role = await role_left(stream, patience)  # D15
            security, secured = await self._secure(stream, role, expected, ends.foreword)
            muxers = {muxer.protocol_id: muxer for muxer in self.muxers}
            muxer = secured.muxer or await agree(secured.stream, role, [*muxers])
            muxed = muxers[muxer].start(secured.stream, role)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return UpgradedConnection(
            peer_id=secured.peer_id,
            local_address=ends.local,
            remote_address=ends.remote,
            security=security,
            muxer=muxer,
            limit=ends.limit,
            muxed=muxed,
            forewords=secured.forewords,
        )

    async def _secure(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        expected: PeerId | None,
        foreword: Callable[[], bytes] | None,
    ) -> tuple[str, Secured]:
        securities = {security.protocol_id: security for security in self.securities}
        if role is Role.DIALER and len(securities) == 1:
            # M6: without another to fall back on there is no need to await the answer.
            (agreed,) = securities
            stream = LazyStream(stream, agreed)
        else:
            agreed = await agree(stream, role, [*securities])
        muxers = [muxer.protocol_id for muxer in self.muxers]
        security = securities[agreed]
        if foreword is not None and isinstance(security, TalkativeSecurity):
            secured = await security.secure_saying(
                stream, role, expected=expected, muxers=muxers, foreword=foreword
            )
        else:
            secured = await security.secure(stream, role, expected=expected, muxers=muxers)
        return agreed, secured


async def agree(stream: trio.abc.Stream, role: Role, offered: Sequence[str]) -> str:
    if role is Role.DIALER:
        return await select_one(stream, offered)
    return await handle_one(stream, offered)
