"""An upgrader whose handshakes fail."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost
from p2pnet.interfaces import CapableConnection, Ends, Role

Asked = tuple[trio.abc.HalfCloseableStream, Role, Ends, PeerId | None, float | None]


@dataclass
class FailingUpgrader:
    """Notes what it was given, and fails after so many seconds of silence, or with the remote."""

    seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    @property
    def roles(self) -> list[Role]:
        return [role for _, role, *_ in self.asked]

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> CapableConnection:
        self.asked.append((stream, role, ends, expected, patience))
        with suppress(trio.BrokenResourceError), trio.move_on_after(self.seconds):
            await stream.receive_some()
        await trio.aclose_forcefully(stream)
        raise ConnectionLost("the handshake failed")
