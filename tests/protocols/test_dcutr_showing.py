"""Having a host seen by another way: what was in vain, and where. Rule: specs/dcutr.md (D8)."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr
from p2pnet.protocols.dcutr.witness import Showing
from tests.protocols.memory_world import MemoryWorld

UDP = ("udp", False)


async def test_what_nobody_saw_is_in_vain_for_a_minute(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D8."""
    showing = Showing(world.host(1, "/ip4/192.168.1.2/tcp/4001"), lambda: ())
    await showing.show(frozenset({UDP}), every=True, seconds=2.0)
    assert showing.in_vain() == {UDP}
    await trio.sleep(61.0)
    assert showing.in_vain() == frozenset()


async def test_what_was_begun_in_another_network_is_no_word_on_this_one(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D8: this host moves while it waits to be seen."""

    def move() -> tuple[Multiaddr, ...]:
        showing.forget()
        return ()

    showing = Showing(world.host(1, "/ip4/192.168.1.2/tcp/4001"), move)
    await showing.show(frozenset({UDP}), every=True, seconds=2.0)
    assert showing.in_vain() == frozenset()
