"""Hole punches, which are no dials in their order: rules DI25 DI29."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError, LimitExceeded
from p2pnet.interfaces import Role
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import OTHER, PEER, THIRD, Wires
from tests.swarm.scene import REFUSED, A, B, C, dial, failure, running


async def test_a_hole_punch_dials_all_at_once_whatever_failed_before(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (0.0, REFUSED), B: (2.0, None)})
    async with running(wires) as swarm:
        await failure(swarm, A)
        connection = await swarm.dial_at_once(PEER, [A, B], Role.LISTENER, any_port=True)
        assert connection.is_inbound
        assert connection.remote_address == B
    assert wires.dialled == [A, A, B]
    assert wires.roles[1:] == [(Role.LISTENER, True)] * 2


async def punch(swarm: Swarm, peer_id: PeerId, *addresses: Multiaddr) -> DialError:
    with pytest.raises(DialError) as caught:
        await swarm.dial_at_once(peer_id, addresses, Role.DIALER)
    return caught.value


async def test_di29_hole_punches_and_other_dials_do_not_wait_for_each_other(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (9.0, REFUSED), B: (9.0, REFUSED), C: (1.0, None)})
    async with running(wires, SwarmConfig(max_dials=1)) as swarm:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer_id in (OTHER, THIRD):
                nursery.start_soon(punch, swarm, peer_id, A, B)
            await wait_all_tasks_blocked()
            await dial(swarm, C)
            assert trio.current_time() - began == pytest.approx(1.0)
            nursery.start_soon(failure, swarm, B)
            await wait_all_tasks_blocked()
            await swarm.dial_at_once(THIRD, [C], Role.DIALER)
            assert trio.current_time() - began == pytest.approx(2.0)


async def test_di29_a_hole_punch_beyond_the_limit_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (9.0, REFUSED), B: (9.0, REFUSED)})
    async with running(wires, SwarmConfig(max_dials_at_once=3)) as swarm:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(punch, swarm, OTHER, A, B)
            await wait_all_tasks_blocked()
            nursery.start_soon(punch, swarm, PEER, A, C)
            await wait_all_tasks_blocked()
            assert wires.dialled == [A, B, A]
            error = await punch(swarm, THIRD, C)
            assert trio.current_time() == began
            (cause,) = [attempt.cause for attempt in error.attempts]
            assert isinstance(cause, LimitExceeded)
            assert (cause.limit, cause.maximum) == ("max_dials_at_once", 3)
            # DI3: nothing was dialled there, and so nothing failed.
            await swarm.dial_ranked(THIRD, [C], insist=frozenset())
        connection = await swarm.dial_at_once(PEER, [C], Role.DIALER)
        assert connection.remote_address == C, "what has ended makes room"


async def test_di29_what_ends_early_makes_room(autojump_clock: MockClock) -> None:
    wires = Wires({A: (9.0, None)})
    async with running(wires, SwarmConfig(max_dials_at_once=1)) as swarm:
        for _ in range(3):
            with trio.move_on_after(1.0) as waiting:
                await swarm.dial_at_once(PEER, [A], Role.DIALER)
            assert waiting.cancelled_caught
        await swarm.dial_at_once(PEER, [B], Role.DIALER)
