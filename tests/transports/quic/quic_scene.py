"""Two hosts with QUIC each, and connections between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import trio

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import CapableConnection, Kit, Listener, MuxedStream, Role
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.testing.conformance.running import Running
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.transport import QuicTransport

seeds = count(1)


class Peer:
    """A host that speaks nothing but QUIC."""

    def __init__(self, env: Env, part: QUIC | None = None) -> None:
        self.env = env
        self.key = PrivateKey.from_seed(next(seeds).to_bytes(32))
        self.peer_id = PeerId.from_public_key(self.key.public_key)
        kit = Kit(env, self.key, self.peer_id, LayeredUpgrader())
        self.transport: QuicTransport = (part or QUIC()).build(kit)

    async def listen(self, host: str, port: int = 0) -> Listener:
        kind = "ip6" if ":" in host else "ip4"
        return await self.transport.listen(parse(f"/{kind}/{host}/udp/{port}/quic-v1"))

    async def dial(
        self, address: Multiaddr, other: Peer, *, role: Role = Role.DIALER, any_port: bool = False
    ) -> CapableConnection:
        return await self.transport.dial(
            address, peer_id=other.peer_id, role=role, any_port=any_port
        )


class End(Running):
    """A running end of a connection."""

    def __init__(self, capable: CapableConnection) -> None:
        super().__init__(capable)
        self.capable = capable


@dataclass
class Meeting:
    """A dialer, a listener, and what runs between them."""

    dialer: Peer
    listener: Peer
    door: Listener
    nursery: trio.Nursery
    ends: list[End] = field(default_factory=list)

    def run(self, capable: CapableConnection) -> End:
        end = End(capable)
        self.ends.append(end)
        self.nursery.start_soon(end.run)
        return end

    async def connect(self) -> tuple[End, End]:
        made: list[End] = []

        async def dial() -> None:
            made.append(self.run(await self.dialer.dial(self.door.address, self.listener)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            accepted = self.run(await (await self.door.accept()).upgrade())
        return made[0], accepted

    async def close(self) -> None:
        for end in self.ends:
            await end.capable.aclose()
        await self.door.aclose()


@asynccontextmanager
async def meeting(dialer: Peer, listener: Peer, host: str) -> AsyncGenerator[Meeting]:
    """Listen at ``host``; all that was connected is closed in the end."""
    door = await listener.listen(host)
    async with trio.open_nursery() as nursery:
        made = Meeting(dialer, listener, door, nursery)
        try:
            yield made
        finally:
            with trio.CancelScope(shield=True):
                await made.close()
            nursery.cancel_scope.cancel()


async def send_and_end(stream: MuxedStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()
