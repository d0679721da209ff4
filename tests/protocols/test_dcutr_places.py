"""Who waits longest for the peer gives way to who waits for a place. Rule D32."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import StreamReset
from p2pnet.events import PunchAttemptFailed, PunchGivenUp
from p2pnet.interfaces import Stream
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect
from p2pnet.protocols.dcutr.policy import gives_way
from p2pnet.protocols.dcutr.puncher import channel_on
from tests.protocols.dcutr_pair import ALICE, LATENCY, RELAY, Pair
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld, drop

ALL = DCUtR().max_parallel


@pytest.fixture
def pair(world: MemoryWorld) -> Pair:
    return Pair(world)


async def silence(stream: Stream) -> None:
    """Read what comes, and never answer."""
    async for _ in stream:
        pass


async def dead_end(stream: Stream) -> None:
    """Offer an address at which nobody answers."""
    channel = channel_on(stream)
    await channel.receive()
    await channel.send(Connect((parse("/ip4/11.200.0.1/tcp/1"),)))
    await silence(stream)


Answer = Callable[[Stream], Awaitable[None]]


def strangers(
    pair: Pair, answer: Answer, count: int = ALL, *, first_seed: int = 10
) -> list[MemoryHost]:
    """Let so many hosts call Bob over the relay, and answer like this."""
    found = []
    for seed in range(first_seed, first_seed + count):
        host = pair.world.host(seed, f"/ip4/11.0.1.{seed}/tcp/1")
        host.on_dial = drop
        host.handle(PROTOCOL_ID, answer)
        ring(pair, host)
        found.append(host)
    return found


def ring(pair: Pair, host: MemoryHost, *, latency: float = LATENCY) -> MemoryConnection:
    relayed = pair.world.connect(host, pair.bob, relay=RELAY, latency=latency)
    pair.identify(relayed.other_end)
    return relayed


def failed(host: MemoryHost) -> list[PeerId]:
    return [event.peer_id for event in host.of_kind(PunchAttemptFailed)]


def ids(hosts: Iterable[MemoryHost]) -> list[PeerId]:
    return [host.peer_id for host in hosts]


async def until_direct(pair: Pair) -> float:
    """Let Alice call; return how many seconds it takes until she is direct."""
    began = trio.current_time()
    pair.let_through()
    pair.call()
    await pair.bob.wait_direct(pair.alice.peer_id)
    return trio.current_time() - began


async def test_who_is_silent_holds_up_nobody_for_long(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """Five seconds from the first CONNECT, of which one is over when Alice calls."""
    await pair.start()
    strangers(pair, silence)
    await trio.sleep(1)
    assert await until_direct(pair) == pytest.approx(4 + 3 * LATENCY)


async def test_who_is_punched_at_in_vain_holds_up_nobody_for_more_than_an_attempt(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """Ten seconds from SYNC, half a round trip later."""
    await pair.start()
    strangers(pair, dead_end)
    await trio.sleep(1)
    assert await until_direct(pair) == pytest.approx(9 + 6 * LATENCY)


async def test_as_many_give_way_as_wait_the_longest_first(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """A tenth of a second after each other; and a second later they wait once more."""
    await pair.start()
    called: list[MemoryHost] = []
    for seed in range(10, 10 + ALL):
        called += strangers(pair, silence, 1, first_seed=seed)
        await trio.sleep(0.1)
    waiting = strangers(pair, silence, 2, first_seed=60)
    await trio.sleep(5.55 - 0.1 * ALL)
    assert failed(pair.bob) == ids(called[:2])
    assert all(pair.bob.connections(peer.peer_id)[0].opened for peer in waiting)
    await trio.sleep(1.0)
    assert failed(pair.bob) == ids(called[:4])


@pytest.mark.parametrize("attempts", [1, 3])
async def test_one_waits_and_one_gives_way_though_all_have_taken_long(
    autojump_clock: MockClock, pair: Pair, attempts: int
) -> None:
    await pair.start(DCUtR(attempts=attempts))
    strangers(pair, silence)
    await trio.sleep(7)
    assert await until_direct(pair) == pytest.approx(3 * LATENCY)
    assert len(failed(pair.bob)) == 1


async def test_who_was_answered_after_all_goes_on_and_the_next_gives_way(
    autojump_clock: MockClock, pair: Pair
) -> None:
    await pair.start(DCUtR(max_parallel=2))
    strangers(pair, dead_end, 1, first_seed=10)
    await trio.sleep(0.1)
    (silent,) = strangers(pair, silence, 1, first_seed=20)
    assert await until_direct(pair) == pytest.approx(5 + 3 * LATENCY)
    assert failed(pair.bob) == [silent.peer_id]


async def test_who_is_silent_has_its_time_if_nobody_waits(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D4."""
    await pair.start()
    strangers(pair, silence)
    await trio.sleep(9.9)
    assert failed(pair.bob) == []
    await trio.sleep(0.2)
    assert len(failed(pair.bob)) == ALL


async def test_an_honest_peer_keeps_its_place_however_slow_the_relay_is(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """A round trip of a second, and two seconds until it knows what to offer."""
    await pair.bob.start(DCUtR(max_parallel=1).build(pair.bob.kit))

    async def answer(stream: Stream) -> None:
        channel = channel_on(stream)
        await channel.receive()
        await trio.sleep(2)
        await channel.send(Connect((pair.alice.place,)))
        await channel.receive()
        pair.direct()

    pair.alice.handle(PROTOCOL_ID, answer)
    ring(pair, pair.alice, latency=0.5)
    await trio.sleep(0.1)
    strangers(pair, silence, 3)
    await pair.bob.wait_direct(pair.alice.peer_id)
    assert failed(pair.bob) == []


async def test_who_gave_way_comes_again_behind_those_who_wait(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12: Three attempts in all, and a rest."""
    await pair.bob.start(DCUtR(max_parallel=1).build(pair.bob.kit))
    called: list[MemoryHost] = []
    for seed in (10, 20, 30):
        called += strangers(pair, silence, 1, first_seed=seed)
        await trio.sleep(0.1)
    await trio.sleep(50)
    failures = [(e.peer_id, e.attempt) for e in pair.bob.of_kind(PunchAttemptFailed)]
    assert failures == [(peer, number) for number in (1, 2, 3) for peer in ids(called)]
    assert [e.peer_id for e in pair.bob.of_kind(PunchGivenUp)] == ids(called)


async def test_who_waits_for_another_attempt_is_not_dialled_plainly(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D3: Else any number of dials would be under way for those who wait."""
    await pair.bob.start(DCUtR(max_parallel=1).build(pair.bob.kit))
    pair.alice.handle(PROTOCOL_ID, silence)
    relayed = pair.arrive()
    await trio.sleep(0.1)
    strangers(pair, silence, 1)
    await trio.sleep(7)
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)
    pair.identify(relayed.other_end)
    await trio.sleep(2)
    assert failed(pair.bob) == [pair.alice.peer_id]
    assert pair.bob.dials == []


async def test_who_waits_for_another_attempt_answers_a_peer_that_begins(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D13: Though it would be for the peer to give way."""
    await pair.bob.start(DCUtR(max_parallel=1).build(pair.bob.kit))
    assert gives_way(pair.alice.peer_id, pair.bob.peer_id)
    pair.alice.handle(PROTOCOL_ID, silence)
    ring(pair, pair.alice)
    await trio.sleep(0.1)
    strangers(pair, silence, 1)
    back = pair.world.connect(pair.bob, pair.alice, relay=RELAY, latency=LATENCY).other_end
    await trio.sleep(4)
    with pytest.raises(StreamReset):
        await pair.converse_on(back, ALICE)
    await trio.sleep(3)
    await pair.converse_on(back, ALICE)


async def test_who_has_left_is_passed_over(autojump_clock: MockClock, pair: Pair) -> None:
    await pair.bob.start(DCUtR(max_parallel=1).build(pair.bob.kit))
    (silent,) = strangers(pair, silence, 1)
    await trio.sleep(0.1)
    relayed = ring(pair, pair.alice)
    await trio.sleep(1)
    relayed.cut()
    await trio.sleep(60)
    ends = [event.peer_id for event in pair.bob.of_kind(PunchGivenUp)]
    assert ends == [silent.peer_id]
