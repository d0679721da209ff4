"""Rule S3: a hole punch whose handshake failed leaves its two ports free for the next attempt."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import close_at_once
from p2pnet.errors import ConnectionLost
from p2pnet.interfaces import Kit, Role
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.tcp import TCP, TcpTransport
from tests.transports.failing import FailingUpgrader

KEY = PrivateKey.generate()
PEER = PeerId.from_public_key(KEY.public_key)


class End:
    """A machine that dials from the port it listens on."""

    def __init__(self, machine: Machine, patience: float) -> None:
        self.upgrader = FailingUpgrader(patience)
        kit = Kit(machine.env, KEY, PEER, self.upgrader)
        self.transport: TcpTransport = TCP().build(kit)
        self.address = parse(f"/ip4/{machine.addresses[0]}/tcp/4001")

    async def listen(self, nursery: trio.Nursery) -> None:
        door = await self.transport.listen(parse("/ip4/0.0.0.0/tcp/4001"))

        async def accept() -> None:
            try:
                while True:
                    pending = await door.accept()
                    with pytest.raises(ConnectionLost):
                        await pending.upgrade()
            finally:
                await close_at_once(door)

        nursery.start_soon(accept)

    async def punch(self, address: Multiaddr) -> None:
        with pytest.raises(ConnectionLost):
            await self.transport.dial(address, peer_id=PEER, role=Role.LISTENER)


@pytest.mark.parametrize("first", ["we give up", "the remote gives up"])
async def test_s3_a_punch_can_be_repeated_at_once(first: str, world: World) -> None:
    ours, theirs = (1.0, 9.0) if first == "we give up" else (9.0, 1.0)
    one, two = End(world.machine(), ours), End(world.machine(), theirs)
    async with trio.open_nursery() as nursery:
        await one.listen(nursery)
        await two.listen(nursery)
        for attempt in range(1, 4):
            await one.punch(two.address)
            assert one.upgrader.roles == [Role.LISTENER] * attempt
            await trio.sleep(0.1)  # The reset is on its way.
        assert two.upgrader.roles == [Role.LISTENER] * 3
        nursery.cancel_scope.cancel()


async def test_s3_a_plain_dial_that_failed_says_goodbye(world: World) -> None:
    """What was said last, as the reason of a refusal, has to arrive."""
    one, two = End(world.machine(), 1.0), End(world.machine(), 9.0)
    async with trio.open_nursery() as nursery:
        await two.listen(nursery)
        with pytest.raises(ConnectionLost):
            await one.transport.dial(two.address, peer_id=PEER)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert not [line for line in world.trace.lines(200) if "RST" in line]
