"""Rule DI28: a dial whose caller is gone comes to its end if it was answered, within a second."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.bus import EventBus
from p2pnet.errors import DialError
from p2pnet.interfaces import Role
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import Race
from p2pnet.swarm.swarm import Swarm
from p2pnet.swarm.unhurried import UnhurriedDial
from tests.swarm.fakes import ME, PEER, Wires, env
from tests.swarm.scene import REFUSED, A, B, running

QUIC = parse("/ip4/192.0.2.1/udp/1/quic-v1")


async def give_up(swarm: Swarm, *, after: float) -> None:
    with trio.move_on_after(after):
        await swarm.dial_at_once(PEER, [A, B], Role.DIALER)


@pytest.mark.parametrize("made", [0.3, 1.1])
async def test_what_was_answered_ends_within_a_second(
    autojump_clock: MockClock, made: float
) -> None:
    wires = Wires({A: (9.0, None), B: (made, None)}, heard={B: 0.1})
    async with running(wires) as swarm:
        await give_up(swarm, after=0.2)
        assert swarm.connections(PEER) == ()
        await trio.sleep(made)
        assert [c.remote_address for c in swarm.connections(PEER)] == [B]


@pytest.mark.parametrize(
    ("heard", "made"),
    [
        (0.3, 0.3),  # not answered
        (0.21, 0.3),  # answered too late
        (0.1, 1.3),  # too slow
    ],
)
async def test_what_was_not_answered_in_time_ends_with_its_caller(
    autojump_clock: MockClock, heard: float, made: float
) -> None:
    wires = Wires({A: (9.0, None), B: (made, None)}, heard={B: heard})
    async with running(wires) as swarm:
        await give_up(swarm, after=0.2)
        await trio.sleep(9.0)
        assert swarm.connections(PEER) == ()


@pytest.mark.parametrize(
    ("role", "has_another", "is_kept"),
    [
        (Role.DIALER, True, False),
        (Role.DIALER, False, True),
        (Role.LISTENER, True, True),
    ],
)
async def test_over_quic_a_dialer_that_has_another_connection_ends_at_once(
    autojump_clock: MockClock, role: Role, has_another: bool, is_kept: bool
) -> None:
    """The peer has nothing before this host is done, unless it is the one that dials."""
    wires = Wires({QUIC: (0.3, None), A: (0.0, None)}, udp=True, heard={QUIC: 0.1})
    async with running(wires) as swarm:
        if has_another:
            await swarm.dial_at_once(PEER, [A], Role.DIALER)
        with trio.move_on_after(0.2):
            await swarm.dial_at_once(PEER, [QUIC], role)
        await trio.sleep(0.2)
        assert (QUIC in [each.remote_address for each in swarm.connections(PEER)]) is is_kept


async def test_a_failure_after_the_caller_has_left_is_nothing_to_anybody(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (0.3, REFUSED), B: (9.0, None)}, heard={A: 0.1})
    async with running(wires) as swarm:
        began = trio.current_time()
        await give_up(swarm, after=0.2)
        assert trio.current_time() - began == pytest.approx(0.2)
        await trio.sleep(20)
        assert swarm.connections(PEER) == ()


async def test_who_stays_learns_what_came_of_it(autojump_clock: MockClock) -> None:
    async with running(Wires({A: (0.3, REFUSED), B: (0.4, None)})) as swarm:
        with pytest.raises(DialError, match="refused"):
            await swarm.dial_at_once(PEER, [A], Role.DIALER)
        connection = await swarm.dial_at_once(PEER, [A, B], Role.DIALER)
        assert connection.remote_address == B


async def test_a_host_that_stops_waits_for_no_handshake(autojump_clock: MockClock) -> None:
    swarm = Swarm(SwarmConfig(), env(None), peer_id=ME, bus=EventBus())
    swarm.add_transport(Wires({A: (0.9, None)}, heard={A: 0.1}))
    began = trio.current_time()
    async with trio.open_nursery() as running_swarm:
        await running_swarm.start(swarm.run)

        async def dial() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await swarm.dial_at_once(PEER, [A], Role.DIALER)

        async with trio.open_nursery() as dialling:
            dialling.start_soon(dial)
            await trio.sleep(0.2)
            running_swarm.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(0.2)


class Faulty(Wires):
    """A transport with a bug, where no attempt is under way yet."""

    def can_dial(self, address: Multiaddr) -> bool:
        if address == B:
            raise RuntimeError("a bug")
        return super().can_dial(address)


async def test_a_bug_in_a_dial_is_for_its_caller_and_the_host_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """DI28: The dial's task is one of the host's, but its errors are not."""
    async with running(Faulty()) as swarm:
        with pytest.raises(RuntimeError, match="a bug"):
            await swarm.dial_at_once(PEER, [B], Role.DIALER)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        caplog.clear()
        connection = await swarm.dial_at_once(PEER, [A], Role.DIALER)
        assert connection.remote_address == A


async def test_a_dial_that_begins_when_the_host_has_left_is_none() -> None:
    begun: list[Race] = []

    async def dial(race: Race) -> LiveConnection:
        begun.append(race)
        return await trio.sleep_forever()

    async with trio.open_nursery() as left:
        pass
    with pytest.raises(trio.ClosedResourceError):
        await UnhurriedDial(dial).run(left)
    assert begun == []
