"""Two hosts with a transport each, that listen and dial on the networks they are given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from p2pnet.core import addresses
from p2pnet.core.addresses import Multiaddr
from p2pnet.core.env import Env
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import P2PError
from p2pnet.interfaces import CapableConnection, Ends, Listener, Part, Role, Transport
from p2pnet.muxers.yamux import Yamux
from p2pnet.negotiation.upgrader import LayeredUpgrader, UpgradedConnection
from p2pnet.security.noise import Noise
from p2pnet.testing.conformance.identities import PEERS, kit_of, other
from p2pnet.testing.conformance.judging import expect
from p2pnet.testing.conformance.ledger import Ledger
from p2pnet.testing.conformance.running import Running

FAILED = (P2PError, OSError, trio.BrokenResourceError)
"""How a dial or an upgrade may fail whose remote goes away."""


class Connected(Running):
    """A running end of a connection that a transport has made."""

    def __init__(self, capable: CapableConnection) -> None:
        super().__init__(capable)
        self.capable = capable


class Turncoat:
    """An upgrader that can take the other part in every negotiation, or none."""

    def __init__(self, upgrader: LayeredUpgrader) -> None:
        self._upgrader = upgrader
        self.is_swapped = False
        self.is_silent = False
        self.asked = 0

    async def upgrade(
        self,
        stream: trio.abc.HalfCloseableStream,
        role: Role,
        *,
        ends: Ends,
        expected: PeerId | None = None,
        patience: float | None = None,
    ) -> UpgradedConnection:
        self.asked += 1
        if self.is_silent:
            await say_nothing(stream)
        role = other(role) if self.is_swapped else role
        return await self._upgrader.upgrade(
            stream, role, ends=ends, expected=expected, patience=patience
        )


async def say_nothing(stream: trio.abc.AsyncResource) -> None:
    """Wait until cancelled, and then close."""
    try:
        await trio.sleep_forever()
    finally:
        await trio.aclose_forcefully(stream)


class TransportHost:
    """A transport, and what is open on the network it was given."""

    def __init__(self, part: Part[Transport], env: Env, role: Role) -> None:
        self.ledger = Ledger(env.network)
        env = replace(env, network=self.ledger)
        bare = kit_of(role, env)
        layers = LayeredUpgrader([Noise().build(bare)], [Yamux().build(bare)])
        self.upgrader = Turncoat(layers)
        self.peer_id = PEERS[role]
        self.transport = part.build(kit_of(role, env, self.upgrader))

    def expect_no_streams(self, after: str) -> None:
        left = self.ledger.open_streams
        expect(not left, f"{after} there is left open: {', '.join(left)}")

    def expect_nothing_open(self, after: str) -> None:
        left = self.ledger.open
        expect(not left, f"{after} there is left open: {', '.join(left)}")


@dataclass(frozen=True)
class TransportBench:
    """Makes hosts with the transport that is judged."""

    part: Part[Transport]
    env: Env
    dialer_env: Env
    listen: str | Callable[[], str]

    def listen_address(self) -> Multiaddr:
        return addresses.parse(self.listen if isinstance(self.listen, str) else self.listen())

    def dialer(self) -> TransportHost:
        return TransportHost(self.part, self.dialer_env, Role.DIALER)

    @asynccontextmanager
    async def listening(self, *, is_together: bool = False) -> AsyncGenerator[Meeting, None]:
        """Listen until the block is left; what was connected in it runs as long.

        The dialer is where it belongs, or together with the listener in one place.
        """
        dialer_env = self.env if is_together else self.dialer_env
        dialer = TransportHost(self.part, dialer_env, Role.DIALER)
        listener = TransportHost(self.part, self.env, Role.LISTENER)
        door = await listener.transport.listen(self.listen_address())
        try:
            async with trio.open_nursery() as nursery:
                yield Meeting(dialer, listener, door, nursery)
                nursery.cancel_scope.cancel()
        finally:
            await door.aclose()


@dataclass(frozen=True)
class Meeting:
    """A host that dials, and one that listens."""

    dialer: TransportHost
    listener: TransportHost
    door: Listener
    nursery: trio.Nursery

    async def dial(
        self, *, peer_id: PeerId | None = None, role: Role = Role.DIALER, any_port: bool = False
    ) -> Connected:
        connection = await self.dialer.transport.dial(
            self.door.address,
            peer_id=peer_id or self.listener.peer_id,
            role=role,
            any_port=any_port,
        )
        return self.run(connection)

    async def accept(self) -> Connected:
        pending = await self.door.accept()
        return self.run(await pending.upgrade())

    def run(self, connection: CapableConnection) -> Connected:
        connected = Connected(connection)
        self.nursery.start_soon(connected.run)
        return connected

    async def connect(
        self, *, role: Role = Role.DIALER, any_port: bool = False
    ) -> tuple[Connected, Connected]:
        """Dial, accept and upgrade; return both ends of the connection."""
        dialled: list[Connected] = []

        async def dial() -> None:
            dialled.append(await self.dial(role=role, any_port=any_port))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            accepted = await self.accept()
        return dialled[0], accepted
