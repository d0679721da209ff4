"""Who initiates a hole punch and when, and with which addresses, on virtual time."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse, with_peer
from p2pnet.events import AddressObserved, PunchStarted
from p2pnet.interfaces import Stream
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from tests.protocols.dcutr_pair import BOB, LATENCY, RELAY, Pair
from tests.protocols.memory_world import MemoryWorld, drop


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    return Pair(world)


# ---- who initiates ---------------------------------------------------------------------------


async def test_only_the_side_that_was_called_over_a_relay_initiates(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2."""
    await pair.start()
    relayed = pair.world.connect(pair.alice, pair.bob, relay=RELAY)
    pair.identify(relayed)
    await trio.sleep(20)
    assert relayed.opened == []
    direct = pair.direct()
    pair.identify(direct.other_end)
    await trio.sleep(20)
    assert direct.other_end.opened == []


async def test_a_peer_that_does_not_speak_it_is_left_alone_until_it_does(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2: As with go-libp2p, which serves it only once it knows a public address of its own."""
    await pair.start()
    pair.let_through()
    relayed = pair.world.connect(pair.alice, pair.bob, relay=RELAY, latency=LATENCY)
    pair.identify(relayed.other_end, "/ipfs/ping/1.0.0")
    await trio.sleep(20)
    assert relayed.other_end.opened == []
    pair.identify(relayed.other_end, PROTOCOL_ID, pushed=True)
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_connect_does_not_wait_until_the_peer_has_identified_itself(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2: Both answers are here after a round trip."""
    await pair.start()
    began = trio.current_time()
    relayed = pair.arrive()
    await trio.sleep(2 * LATENCY)
    pair.identify(relayed.other_end)
    await trio.sleep(1)
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(3 * LATENCY)]
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(3 * LATENCY)]


@pytest.mark.parametrize("fails_after", [0.5, 20.0])
async def test_a_peer_that_does_not_identify_itself_is_waited_for_a_second_and_punched(
    autojump_clock: MockClock, pair: Pair, fails_after: float
) -> None:
    """D2 D3."""
    await pair.start(DCUtR(head_start=1.0))
    pair.let_through()
    began = trio.current_time()
    relayed = pair.arrive()
    await trio.sleep(fails_after)
    pair.fail_to_identify(relayed.other_end)
    await trio.sleep(2)
    assert pair.punched(pair.bob) == [1]
    sync = min(fails_after, 2 * LATENCY + 1.0)
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(sync + LATENCY)]


async def reset(stream: Stream) -> None:
    stream.reset()


@pytest.mark.parametrize("resets", [False, True])
async def test_who_refused_and_then_says_that_it_speaks_something_else_has_not_failed(
    autojump_clock: MockClock, pair: Pair, resets: bool
) -> None:
    """D2: What comes of a refusal may be a reset, as CONNECT is right behind the proposal."""
    await pair.bob.start(DCUtR().build(pair.bob.kit))
    if resets:
        pair.alice.handle(PROTOCOL_ID, reset)
    relayed = pair.arrive()
    await trio.sleep(0.5)
    pair.identify(relayed.other_end, "/ipfs/ping/1.0.0")
    await trio.sleep(100)
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert pair.failures(pair.bob) == []
    assert pair.given_up(pair.bob) == []
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    pair.let_through()
    pair.identify(relayed.other_end, pushed=True)
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_who_refused_and_then_says_that_it_speaks_it_is_asked_again(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2: go-libp2p begins to serve it when it has a public address of its own."""
    await pair.bob.start(DCUtR().build(pair.bob.kit))
    pair.let_through()
    relayed = pair.arrive()
    await trio.sleep(0.5)
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    pair.identify(relayed.other_end)
    await trio.sleep(1)
    assert relayed.other_end.opened == [PROTOCOL_ID] * 2
    assert pair.punched(pair.bob) == [1]
    assert pair.failures(pair.bob) == []


@pytest.mark.parametrize("tells", [True, False])
async def test_who_refused_and_does_not_say_what_it_speaks_has_failed(
    autojump_clock: MockClock, pair: Pair, tells: bool
) -> None:
    """D2."""
    await pair.bob.start(DCUtR(head_start=1.0).build(pair.bob.kit))
    relayed = pair.arrive()
    await trio.sleep(2 * LATENCY + 0.5)
    if tells:
        pair.fail_to_identify(relayed.other_end)
        await trio.sleep(0.1)
        assert len(pair.given_up(pair.bob)) == 1
    await trio.sleep(10)
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert len(pair.given_up(pair.bob)) == 1


async def test_a_peer_that_turns_out_not_to_speak_it_is_asked_once(
    autojump_clock: MockClock, pair: Pair
) -> None:
    await pair.bob.start(DCUtR().build(pair.bob.kit))
    relayed = pair.call()
    await trio.sleep(10)
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert len(pair.given_up(pair.bob)) == 1


async def test_relayed_connections_from_before_the_service_are_upgraded(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2."""
    pair.let_through()
    pair.call()
    await pair.start()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_missed_events_are_made_up_for(autojump_clock: MockClock, pair: Pair) -> None:
    pair.world.event_limit = 1
    await pair.start()
    pair.let_through()
    for _ in range(3):
        pair.fail_to_identify(pair.direct().other_end)
    for connection in pair.bob.connections():
        connection.cut()
    pair.call()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


@pytest.mark.parametrize("event_limit", [1, 256])
async def test_closed_connections_are_not_kept_in_mind(
    autojump_clock: MockClock, pair: Pair, event_limit: int
) -> None:
    """D31: Of those that live it is known whether there was a conversation."""
    pair.world.event_limit = event_limit
    await pair.start()
    initiator = pair.bob.handlers[PROTOCOL_ID].func.__self__._initiator  # type: ignore[attr-defined]
    calls = [pair.call()]
    await trio.sleep(1)
    calls += [pair.arrive() for _ in range(3)]
    assert initiator._conversed == {calls[0].other_end.ref.number}
    for relayed in calls:
        relayed.cut()
    await trio.sleep(1)
    assert initiator._conversed == set()


async def test_one_procedure_at_a_time_runs_with_a_peer(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D13."""
    await pair.start()
    first = pair.call()
    second = pair.call()
    pair.identify(first.other_end, pushed=True)
    await trio.sleep(9)
    assert len(first.other_end.opened) + len(second.other_end.opened) == 1


async def test_so_many_peers_are_upgraded_at_the_same_time(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D32."""
    await pair.bob.start(DCUtR(max_parallel=2, attempts=1).build(pair.bob.kit))
    for seed in range(11, 15):
        peer = pair.world.host(seed, f"/ip4/11.0.1.{seed}/tcp/1")
        peer.punchable, peer.on_dial = (peer.place,), drop
        await peer.start(DCUtR().build(peer.kit))
        relayed = pair.world.connect(peer, pair.bob, relay=RELAY)
        pair.identify(relayed.other_end)
    began = trio.current_time()
    await trio.sleep(25)
    assert pair.dialled_at(pair.bob, began) == [0.0, 0.0, 10.0, 10.0]


# ---- addresses -------------------------------------------------------------------------------


async def test_without_an_address_we_wait_until_somebody_sees_us(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D8."""
    pair.world.event_limit = 2
    await pair.start()
    pair.let_through()
    pair.bob.punchable = ()
    relayed = pair.call()
    await trio.sleep(3)
    assert relayed.other_end.opened == []
    for _ in range(4):
        pair.bob.publish(AddressObserved(relayed.other_end.ref, pair.bob.place))
    await trio.sleep(0.1)
    pair.bob.punchable = (pair.bob.place,)
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_without_an_address_the_attempts_fail_with_a_clear_reason(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D8: At both ends, as soon as it is known at one."""
    await pair.start(DCUtR(address_timeout=5.0))
    pair.bob.punchable = ()
    pair.call()
    await trio.sleep(5 + 2 * LATENCY)
    assert pair.failures(pair.alice) == [(1, "the peer offered no public address")]
    await trio.sleep(15)
    (reasons,) = pair.given_up(pair.bob)
    assert reasons == ("no peer has told this host a public address of its own",) * 3
    assert pair.given_up(pair.alice) == [("the peer offered no public address",) * 3]
    assert pair.alice.dials == pair.bob.dials == []


async def test_a_peer_that_offers_nothing_usable_is_not_dialled(
    autojump_clock: MockClock, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """D6."""
    caplog.set_level(logging.DEBUG, "p2pnet.dcutr")
    await pair.start()
    pair.alice.punchable = (parse("/ip4/192.168.0.1/tcp/1"), parse(BOB))
    pair.call()
    await trio.sleep(40)
    assert pair.bob.dials == []
    assert pair.failures(pair.bob)[0] == (1, "the peer offered no public address")
    assert pair.bob.of_kind(PunchStarted) == []


async def test_private_addresses_count_where_that_is_wanted(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D6."""
    await pair.start(DCUtR(allow_private=True))
    for host, text in ((pair.alice, "/ip4/127.0.0.1/tcp/1"), (pair.bob, "/ip4/127.0.0.1/tcp/2")):
        host.punchable = ()
        host.addresses.set((with_peer(parse(text), host.peer_id),))
    pair.let_through()
    pair.call()
    await trio.sleep(1)
    assert pair.alice.dials[0].addresses == ("/ip4/127.0.0.1/tcp/2",)
    assert pair.punched(pair.bob) == [1]
