"""Q15 Q16: who gets a goodbye, who has been silent for too long, and what its code becomes."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from p2pnet.core.addresses import Endpoint, quic_address
from p2pnet.errors import ConnectionLost
from p2pnet.testing.links import Quality
from p2pnet.testing.packet import Packet
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.connection import QuicConnection
from tests.transports.quic.quic_scene import Peer
from tests.transports.quic.test_quic_streams import CoreName, both, connected, host_of


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


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0x0, None),
        (0x1004, None),
        (0x1005, None),
        (0x1006, None),
        (0x1003, "code 0x1003, we broke a rule"),
        (0x1007, "code 0x1007, the remote does not want us"),
        (0xABCDEF, "code 0xabcdef"),
    ],
)
@both
async def test_the_code_of_a_close_arrives(
    core: CoreName, code: int, says: str | None, world: World
) -> None:
    """Q15 Q16."""
    async with connected(world, QUIC(core=core)) as (dialled, accepted):
        connection = accepted.capable
        assert isinstance(connection, QuicConnection)
        await connection._leave(code)
        with trio.fail_after(1):
            await dialled.ended.wait()
        if says is None:
            dialled.expect_good_order("the remote closed")
        else:
            dialled.expect_error(ConnectionLost, after="the remote closed")
            assert str(dialled.error) == f"the remote closed the connection: {says}"


@both
async def test_who_falls_silent_in_the_handshake_is_lost_and_costs_nothing_meanwhile(
    core: CoreName, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q10: with less patience than a handshake may take."""
    send, turns = QuicConnection._send, count()

    async def counted(self: QuicConnection) -> None:
        assert next(turns) < 100, "it never rests"
        await send(self)

    monkeypatch.setattr(QuicConnection, "_send", counted)
    part = QUIC(core=core, idle_timeout=2.0)
    machine = world.machine("m0", link=Quality(latency=0.05))
    one, two = Peer(machine.env, part), Peer(world.machine("m1").env, part)
    door = await two.listen(host_of(two))

    async def dial() -> None:
        with pytest.raises(TimeoutError):
            await one.dial(door.address, two)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        arrived = await door.accept()
        machine.plug.link.is_cut = True
        began = trio.current_time()
        with pytest.raises(TimeoutError):
            await arrived.upgrade()
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    await door.aclose()
