"""Q15: who gets a goodbye, and who has not answered for so long that it gets none."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint, quic_address
from p2pnet.testing.packet import Packet
from p2pnet.testing.world import World
from tests.transports.quic.quic_scene import Peer


@pytest.mark.parametrize(("seconds", "goodbyes"), [(0.15, 3), (1.9, 0)])
async def test_a_dial_that_is_given_up_late_sends_no_more(
    world: World, seconds: float, goodbyes: int
) -> None:
    """Q15."""
    one, silent = Peer(world.machine("m0").env), world.machine("m1")
    silent.kernel.power_off()
    came: list[float] = []

    def note(packet: Packet) -> None:
        came.append(trio.current_time())

    silent.plug.deliver = note
    began = trio.current_time()
    with trio.move_on_after(seconds):
        await one.dial(quic_address(Endpoint(silent.addresses[0], 9)), one)
    await trio.sleep(30)
    assert came
    assert sum(time >= began + seconds for time in came) == goodbyes
