"""A peer that drops its circuit in the midst of a hole punch, and calls anew. Rules D12, D13."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.events import PunchStarted
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from tests.protocols.dcutr_pair import LATENCY, RELAY, Pair
from tests.protocols.memory_world import MemoryConnection, MemoryWorld

DIALLING = 3 * LATENCY + 0.5
"""Seconds from a call until both dial, and a little more."""


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    return Pair(world)


def begun(pair: Pair) -> list[int]:
    """Return the numbers of the attempts that Bob has begun to dial in."""
    return [event.attempt for event in pair.bob.of_kind(PunchStarted)]


async def hang_up(pair: Pair, relayed: MemoryConnection) -> None:
    relayed.cut()
    await trio.sleep(0.1)
    assert not pair.alice.connections(pair.bob.peer_id)


async def test_its_next_call_is_punched_at_once(autojump_clock: MockClock, pair: Pair) -> None:
    """D13: Not when the dials of the call before are over, after ten seconds."""
    await pair.start()
    first = pair.call()
    await trio.sleep(DIALLING)
    await hang_up(pair, first)
    pair.let_through()
    second = pair.call()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]
    assert second.other_end.opened == [PROTOCOL_ID]
    assert begun(pair) == [1, 1]  # The first one there, for Alice as well.
    await trio.sleep(20)
    assert second.is_closed  # D14
    assert begun(pair) == [1, 1]


@pytest.mark.parametrize("hung_up_after", [LATENCY, DIALLING])
async def test_so_is_one_that_comes_later(
    autojump_clock: MockClock, pair: Pair, hung_up_after: float
) -> None:
    """D12: What ended in the midst of a conversation, or of dials, is no failure yet."""
    await pair.start()
    first = pair.call()
    await trio.sleep(hung_up_after)
    await hang_up(pair, first)
    await trio.sleep(11)
    pair.let_through()
    pair.call()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_so_is_a_call_from_before_the_other_one_was_dropped(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2 D13: But for the second in which it may turn out to be left, too."""
    await pair.start()
    first, second = pair.call(), pair.call()
    await trio.sleep(DIALLING)
    dropped, kept = (first, second) if first.other_end.opened else (second, first)
    pair.let_through()
    dropped.cut()
    await trio.sleep(2)
    assert kept.other_end.opened == [PROTOCOL_ID]
    assert pair.punched(pair.bob) == [1]


async def test_another_call_ends_nothing_while_the_one_before_lives(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D13."""
    await pair.start()
    first = pair.call()
    await trio.sleep(DIALLING)
    second = pair.call()
    await trio.sleep(8)
    assert first.other_end.opened == [PROTOCOL_ID]
    assert second.other_end.opened == []


async def test_a_punch_whose_circuit_ended_may_work_all_the_same(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D11 D13: Unless there is another circuit, nothing better is in sight."""
    await pair.start()
    pair.let_through(after=5.0)
    relayed = pair.call()
    await trio.sleep(DIALLING)
    await hang_up(pair, relayed)
    await trio.sleep(6)
    assert pair.punched(pair.bob) == [1]


async def test_a_call_that_comes_when_it_has_worked_changes_nothing(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D11 D13."""
    await pair.start()
    relayed = pair.call()
    await trio.sleep(DIALLING)
    await hang_up(pair, relayed)
    pair.direct()
    pair.call()
    await trio.sleep(2)
    assert pair.punched(pair.bob) == [1]
    assert begun(pair) == [1]


@pytest.mark.parametrize("pause", [0.0, 11.0])
async def test_who_does_so_again_and_again_is_left_alone_for_a_while(
    autojump_clock: MockClock, pair: Pair, pause: float
) -> None:
    """D12 D13: As often as there are attempts."""
    await pair.start(DCUtR(attempts=3, cool_down=60.0))
    for _ in range(5):
        relayed = pair.call()
        await trio.sleep(DIALLING)
        await hang_up(pair, relayed)
        await trio.sleep(pause)
    assert begun(pair) == [1, 1, 1]
    pair.call()
    await trio.sleep(30)
    assert begun(pair) == [1, 1, 1]
    await trio.sleep(35)
    assert begun(pair)[:4] == [1, 1, 1, 1]


async def test_then_it_rests_no_longer_than_a_first_time(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12: However often it failed before; for it has called anew."""
    await pair.start(DCUtR(attempts=3, cool_down=60.0))
    relayed = pair.call()
    await trio.sleep(35 + 72 + 35)
    assert len(pair.given_up(pair.bob)) == 2
    await hang_up(pair, relayed)
    relayed = pair.call()
    await trio.sleep(60 + DIALLING)
    for _ in range(2):
        await hang_up(pair, relayed)
        relayed = pair.call()
        await trio.sleep(DIALLING)
    await hang_up(pair, relayed)
    pair.let_through()
    pair.call()
    await trio.sleep(59)
    assert pair.punched(pair.bob) == []
    await trio.sleep(3)
    assert pair.punched(pair.bob) == [1]


@pytest.mark.parametrize("is_turned", [False, True])
async def test_so_is_the_other_one_if_it_calls_then(
    autojump_clock: MockClock, pair: Pair, is_turned: bool
) -> None:
    """D13: Whichever has the greater peer ID; nobody goes on where it is not heard."""
    await pair.start()
    one, other = (pair.bob, pair.alice) if is_turned else (pair.alice, pair.bob)
    relayed = pair.world.connect(one, other, relay=RELAY, latency=LATENCY)
    pair.identify(relayed.other_end)
    await trio.sleep(DIALLING)
    await hang_up(pair, relayed)
    pair.let_through()
    back = pair.world.connect(other, one, relay=RELAY, latency=LATENCY)
    pair.identify(back.other_end)
    await trio.sleep(2)
    assert 1 in pair.punched(one)


async def test_another_call_does_not_prolong_the_wait_for_addresses(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D8 D13: Nobody has heard of that procedure yet, and it takes what circuit there is."""
    await pair.start(DCUtR(address_timeout=5.0))
    pair.bob.punchable = ()
    first = pair.call()
    await trio.sleep(3)
    first.cut()
    second = pair.call()
    await trio.sleep(2.5)
    assert second.other_end.opened == [PROTOCOL_ID]
