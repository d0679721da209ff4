"""How close an eye is kept on the connections that reservations hang on."""

from __future__ import annotations

from p2pnet.protocols.relay.vigil import ONLY_SILENCE, SILENCE, Vigil
from tests.protocols.memory_world import MemoryWorld


async def test_ka11_the_only_reservation_is_watched_most_closely(world: MemoryWorld) -> None:
    host, vigil = world.host(1, "/ip4/192.168.1.2/tcp/4001"), Vigil()
    relays = [world.host(seed, f"/ip4/11.0.0.{seed}/tcp/4001") for seed in (2, 3)]
    one, other = [world.connect(host, relay) for relay in relays]
    vigil.hold(one.peer_id, one)
    assert (one.alert, other.alert) == (ONLY_SILENCE, None)
    vigil.hold(other.peer_id, other)
    assert (one.alert, other.alert) == (SILENCE, SILENCE)
    vigil.hold(one.peer_id, None)
    assert (one.alert, other.alert) == (None, ONLY_SILENCE)
    again = world.connect(host, relays[1])
    vigil.hold(other.peer_id, again)
    assert (other.alert, again.alert) == (None, ONLY_SILENCE)
