"""Punches whose first attempt is in vain: in the next one the roles are the other way round."""

from __future__ import annotations

import pytest
import trio

from p2pnet.events import HolePunched, PunchAttemptFailed, PunchStarted
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.testing.world import World
from tests.network.scene import ECHO, call, direct, echo, say
from tests.network.test_prediction import SETTLED, put_two

HOMES = [
    ("port-restricted", "port-restricted"),
    ("port-restricted-reset", "port-restricted-reset"),
    ("carrier", "firewall"),
    ("symmetric", "address-restricted"),
    ("address-restricted", "symmetric"),
    ("symmetric-sequential", "port-restricted"),
    ("symmetric-sequential", "symmetric-sequential"),
]


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(("a", "b"), HOMES)
async def test_the_second_attempt_works_with_the_roles_changed(
    world: World, a: str, b: str, transport: str
) -> None:
    """D9 D17."""
    alice, bob = await put_two(world, a, b, transport, DCUtR(punch_timeout=2.0))
    bob.host.handle(ECHO, echo)
    await trio.sleep(SETTLED)
    homes = [world.routers[f"home of {name}"] for name in ("alice", "bob")]
    with (
        alice.host.subscribe(PunchStarted) as begun,
        bob.host.subscribe(PunchAttemptFailed, HolePunched) as ended,
    ):
        await call(alice, bob)
        await anext(begun)
        world.partition(*[[home] for home in homes])
        assert isinstance(await anext(ended), PunchAttemptFailed)
        world.heal()
        connection = await direct(alice, bob)
        punched = await anext(ended)
    assert isinstance(punched, HolePunched)
    assert punched.attempt == 2
    assert connection.is_inbound  # To Alice, who called, and would have been the dialer again.
    await say(alice, bob)
