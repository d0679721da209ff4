"""In which order an attempt dials what a peer offered, on a machine that is late. Rule D18."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError
from p2pnet.interfaces import Connection, Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.dialogue import Punch
from p2pnet.protocols.dcutr.puncher import Bounds, Puncher
from tests.protocols.memory_world import MemoryHost, MemoryWorld

PLACES = tuple(parse(f"/ip4/11.0.0.2/tcp/{1033 + number}") for number in range(8))
RUNS = 16
BOUNDS = Bounds(**{field.name: getattr(DCUtR(), field.name) for field in fields(Bounds)})
LATE = 0.05
"""Seconds; all dials of an attempt are due by then."""


class Noting(MemoryHost):
    """A host that notes whom it dials, and nobody answers."""

    def __init__(self, world: MemoryWorld) -> None:
        super().__init__(world, 1, "/ip4/11.0.0.1/tcp/1")
        self.noted: list[Multiaddr] = []

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        *,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> Connection:
        self.noted += addresses
        await trio.sleep_forever()
        raise DialError(peer_id, [])


async def test_dials_that_are_late_are_begun_in_the_order_of_the_offer(
    mock_clock: MockClock, world: MemoryWorld
) -> None:
    """D18: ports are foreseen in an order, and what is due at once is woken in any."""
    for number in range(RUNS):
        host, peer = Noting(world), MemoryHost(world, 2, "/ip4/11.0.0.2/tcp/1")
        puncher = Puncher(host, BOUNDS, host.kit.env.jitter)
        punch = Punch(PLACES, trio.current_time() + 0.001, 0.04)
        async with trio.open_nursery() as nursery:
            punching = partial(
                puncher.punch, peer.peer_id, punch, 1, puncher.lookout(), initiator=True
            )
            nursery.start_soon(punching)
            while len(host.noted) < len(PLACES):
                await wait_all_tasks_blocked()
                mock_clock.jump(LATE)
            nursery.cancel_scope.cancel()
        assert host.noted == list(PLACES), number
