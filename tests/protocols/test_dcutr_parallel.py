"""All that can be punched is punched at once: both families of IP, TCP and QUIC. D6, D10, D18."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.protocols.dcutr import DCUtR
from tests.protocols.dcutr_pair import Pair
from tests.protocols.memory_world import MemoryWorld

PLACES = (
    "/ip4/11.0.0.1/tcp/1",
    "/ip4/11.0.0.1/udp/1/quic-v1",
    "/ip6/2a00::1/tcp/1",
    "/ip6/2a00::1/udp/1/quic-v1",
)


async def test_both_families_and_all_transports_are_dialled_within_milliseconds(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D10 D18: a millisecond apart, in the order of the offer; nobody waits for another."""
    pair = Pair(world)
    await pair.start(DCUtR(attempts=1))
    pair.alice.punchable = tuple(parse(place) for place in PLACES)
    pair.call()
    await trio.sleep(3)
    dialled = [(dial.addresses[0], dial.at) for dial in pair.bob.dials]
    assert tuple(place for place, _ in dialled) == PLACES
    times = [at for _, at in dialled]
    assert times[-1] - times[0] < 0.01
    assert {len(dial.addresses) for dial in pair.bob.dials} == {1}, "each for itself"
