"""The hosts of a relay's world: they find each other, and take circuits in.

Nothing is secured: ``FakeUpgrader`` only lets both ends say their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr, with_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import DialError, PeerIdMismatch
from p2pnet.interfaces import (
    AddressFinder,
    CapableConnection,
    CircuitLimit,
    Ends,
    Kit,
    MuxedStream,
    PendingConnection,
    Role,
    Transport,
)
from tests.protocols.memory_streams import receive_exactly
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld

CIRCUIT = "/ip4/10.9.9.9/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"
"""Where connections over somebody else's relay run."""


class FakeNet(MemoryWorld):
    """A world in which each host is dialled at its place."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self.hosts: list[FakeHost] = []

    def host(self, seed: int, address: str = "") -> FakeHost:
        host = FakeHost(self, seed, address or f"/ip4/10.0.{seed}.1/tcp/4001")
        self.hosts.append(host)
        return host


class FakeHost(MemoryHost):
    """A host that can be a relay, have one, or go through one."""

    world: FakeNet

    def __init__(self, world: FakeNet, seed: int, address: str) -> None:
        super().__init__(world, seed, address)
        self.transports: list[Transport] = []
        self.finders: list[AddressFinder] = []
        self.protected: set[tuple[PeerId, str]] = set()
        self.accepted: list[CapableConnection] = []
        self.refused: list[BaseException] = []
        self.pending: list[Multiaddr] = []
        """From where connections came that were to be upgraded."""
        self.offline = False

    @property
    def address(self) -> str:
        """The full address of this host, as text."""
        return str(with_peer(self.place, self.peer_id))

    @property
    def kit(self) -> Kit:
        return Kit(self.world.env, self.key, self.peer_id, FakeUpgrader(self.peer_id))

    async def reach(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], role: Role
    ) -> MemoryConnection:
        await trio.sleep(0.01)
        for other in self.world.hosts:
            if other.peer_id == peer_id and other.place in addresses and not other.offline:
                return self.world.connect(self, other)
        raise DialError(peer_id, (), "nobody there")

    def add_transport(self, transport: Transport) -> None:
        self.transports.append(transport)

    def add_finder(self, finder: AddressFinder) -> None:
        self.finders.append(finder)

    def accept(self, pending: PendingConnection) -> None:
        self.pending.append(pending.remote_address)
        self.world.nursery.start_soon(self._upgrade, pending)

    async def _upgrade(self, pending: PendingConnection) -> None:
        try:
            self.accepted.append(await pending.upgrade())
        except EXPECTED as error:
            self.refused.append(error)
            await pending.aclose()

    def protect(self, peer_id: PeerId, tag: str) -> None:
        self.protected.add((peer_id, tag))

    def unprotect(self, peer_id: PeerId, tag: str) -> None:
        self.protected.discard((peer_id, tag))


class FakeUpgrader:
    """Both ends say who they are, unproven and in the clear."""

    def __init__(self, peer_id: PeerId) -> None:
        self.peer_id = peer_id

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> FakeCapable:
        try:
            mine = self.peer_id.to_bytes()
            await stream.send_all(bytes([len(mine)]) + mine)
            length = (await receive_exactly(stream, 1))[0]
            answered = PeerId.decode_untrusted(await receive_exactly(stream, length))
            if expected not in (None, answered):
                raise PeerIdMismatch(expected, answered)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return FakeCapable(stream, answered, role, ends)


@dataclass
class FakeCapable:
    """An upgraded connection: its raw stream is what a test looks at."""

    stream: trio.abc.HalfCloseableStream
    peer_id: PeerId
    role: Role
    ends: Ends
    security: str = "/fake"
    muxer: str = "/fake"
    is_over: bool = False

    @property
    def local_address(self) -> Multiaddr:
        return self.ends.local

    @property
    def remote_address(self) -> Multiaddr:
        return self.ends.remote

    @property
    def limit(self) -> CircuitLimit | None:
        return self.ends.limit

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        raise NotImplementedError

    async def open_stream(self) -> MuxedStream:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.stream.aclose()
