"""One server in three lies, or is broken: what is believed is what the others say (V8).

With the real services in simulated worlds, and only two servers that are honest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from p2pnet.protocols.autonat.messages import DialStatus, Status
from p2pnet.testing.nat import NatKind
from p2pnet.testing.world import World
from tests.protocols.autonat.scene import Request, put_liar
from tests.reachability.scene import BY_ADDRESS, BY_PORT, FREE, Scene, home, truth

SECONDS = 30
"""After which the verdict must stand, though the liar may have been the first to answer."""
NATS = [NatKind(filtering=filtering) for filtering in (FREE, BY_ADDRESS, BY_PORT)]


def named(nat: NatKind) -> str:
    return nat.filtering.value


async def denies(request: Request) -> None:
    await request.answer(Status.OK, DialStatus.E_DIAL_ERROR)


async def claims(request: Request) -> None:
    await request.answer(Status.OK, DialStatus.OK)


async def hangs(request: Request) -> None:
    await trio.sleep_forever()


async def breaks(request: Request) -> None:
    request.stream.reset()
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("play", [denies, claims, hangs, breaks])
@pytest.mark.parametrize("nat", NATS, ids=named)
async def test_v8_one_in_three_changes_nothing(
    world: World, nat: NatKind, play: Callable[[Request], Awaitable[None]]
) -> None:
    liar, asked = await put_liar(world, "liar", play)
    scene = await Scene.set_up(world, home(world, nat), peers=2)
    await scene.host.host.connect(liar.address)
    await trio.sleep(SECONDS)
    assert scene.reachability is truth(nat)
    with trio.move_on_after(900):
        await scene.host.host.reachability.wait_for(lambda value: value is not truth(nat))
        pytest.fail("the verdict changed")
    assert asked
