"""The side that responds, against initiators that do as they like."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.errors import LimitExceeded, P2PError, ProtocolError, StreamReset
from p2pnet.events import PunchStarted
from p2pnet.interfaces import Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect, Sync
from p2pnet.protocols.dcutr.policy import CONVERSATION_GAP
from p2pnet.protocols.dcutr.puncher import channel_on
from tests.protocols.dcutr_pair import BOB, RELAY, Pair
from tests.protocols.memory_world import MemoryConnection, MemoryWorld


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    """Alice has the service; what Bob says is up to the test."""
    pair = Pair(world)
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    return pair


def call(pair: Pair) -> MemoryConnection:
    return pair.world.connect(pair.alice, pair.bob, relay=RELAY)


@pytest.mark.parametrize("how", ["direct", "the peer called"])
async def test_only_over_a_circuit_of_ours_is_anything_answered(
    autojump_clock: MockClock, pair: Pair, how: str
) -> None:
    """D2."""
    if how == "direct":
        connection = pair.direct().other_end
    else:
        connection = pair.world.connect(pair.bob, pair.alice, relay=RELAY)
    stream = await connection.open_stream(PROTOCOL_ID)
    with pytest.raises(StreamReset):
        await stream.receive_some()
    assert isinstance(pair.alice.handler_errors[0], ProtocolError)
    assert pair.alice.dials == []


async def test_addresses_in_sync_mean_nothing(autojump_clock: MockClock, pair: Pair) -> None:
    """D5."""
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    channel = channel_on(stream)
    await channel.send(Connect((parse(BOB),)))
    await channel.receive()
    # Type 300, and an address.
    await stream.send_all(bytes.fromhex("0d 08ac02 1208 040b000003060003"))
    await trio.sleep(1)
    assert [dial.addresses for dial in pair.alice.dials] == [(BOB,)]


@pytest.mark.parametrize(
    "said", ["ff", "0308ac02", "0100", "020807", "8120" + 4097 * "00"], ids=lambda text: text[:8]
)
async def test_nonsense_is_answered_with_a_reset(
    autojump_clock: MockClock, pair: Pair, said: str
) -> None:
    """D1."""
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    await stream.send_all(bytes.fromhex(said))
    await stream.send_eof()
    with pytest.raises(StreamReset):
        await stream.receive_some()
    assert isinstance(pair.alice.handler_errors[0], ProtocolError)
    assert pair.alice.dials == []


async def test_a_peer_that_goes_silent_is_too_slow(autojump_clock: MockClock, pair: Pair) -> None:
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    await channel_on(stream).send(Connect((parse(BOB),)))
    await trio.sleep(11)
    assert stream.inward.is_reset
    assert pair.failures(pair.alice) == [(1, "timed out")]


async def test_the_punch_goes_on_when_the_relayed_connection_ends(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D11: As with js-libp2p, which closes it as soon as its own end is direct."""
    pair.let_through(after=1.0)
    relayed = call(pair)
    await pair.converse(relayed)
    await trio.sleep(0.5)
    relayed.cut()
    await trio.sleep(1)
    assert pair.punched(pair.alice) == [1]


async def test_a_host_that_leaves_meanwhile_does_not_begin_to_punch(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """Streams live until goodbye is said, and the services end before."""
    async with trio.open_nursery() as ended:
        pass
    serving = pair.alice.handlers[PROTOCOL_ID]
    assert isinstance(serving, partial)
    pair.alice.handle(PROTOCOL_ID, partial(serving.func, ended))
    await pair.converse(call(pair))
    await trio.sleep(1)
    assert pair.failures(pair.alice) == [(1, "ClosedResourceError: the service has ended")]
    assert isinstance(pair.alice.handler_errors[0], trio.ClosedResourceError)
    assert pair.alice.dials == []


async def test_the_next_attempt_ends_the_one_before(autojump_clock: MockClock, pair: Pair) -> None:
    """D13."""
    relayed = call(pair)
    await pair.converse(relayed)
    await trio.sleep(3)
    await pair.converse(relayed)
    await trio.sleep(3)
    assert pair.failures(pair.alice) == [(1, "the peer began another attempt")]
    pair.direct()
    await trio.sleep(1)
    assert pair.punched(pair.alice) == [2]


async def test_of_two_conversations_at_once_the_last_to_be_ready_counts(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D13."""
    relayed = call(pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.converse, relayed)
        nursery.start_soon(pair.converse, relayed)
    await trio.sleep(1)
    assert [reason for _, reason in pair.failures(pair.alice)] == ["the peer began another attempt"]
    assert len(pair.alice.of_kind(PunchStarted)) == 2


async def test_no_more_conversations_are_answered_than_attempts_make_sense(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    relayed = call(pair)
    for _ in range(3):
        await pair.converse(relayed)
        await trio.sleep(11)
    assert pair.roles(pair.alice) == [Role.DIALER, Role.DIALER, Role.LISTENER]
    (reasons,) = pair.given_up(pair.alice)
    assert len(reasons) == 3
    with pytest.raises(StreamReset):
        await pair.converse(relayed)
    assert isinstance(pair.alice.handler_errors[0], LimitExceeded)
    assert len(pair.alice.dials) == 3
    await trio.sleep(CONVERSATION_GAP + 1)
    await pair.converse(relayed)
    await trio.sleep(1)
    assert pair.roles(pair.alice)[3:] == [Role.DIALER]


async def test_the_count_is_forgotten_with_a_success(autojump_clock: MockClock, pair: Pair) -> None:
    """D9 D12: The direct connection may be lost at once, and then the initiator begins anew."""
    relayed = call(pair)
    for _ in range(2):
        await pair.converse(relayed)
        await trio.sleep(1)
        direct = pair.direct()
        await trio.sleep(1)
        direct.cut()
    for _ in range(3):
        await pair.converse(relayed)
        await trio.sleep(3)
    assert pair.punched(pair.alice) == [1, 1]
    assert pair.roles(pair.alice)[2:] == [Role.DIALER, Role.DIALER, Role.LISTENER]


async def test_the_count_is_forgotten_with_the_connection(
    autojump_clock: MockClock, pair: Pair
) -> None:
    for _ in range(5):
        relayed = call(pair)
        await pair.converse(relayed)
        await trio.sleep(1)
        relayed.cut()
    assert pair.roles(pair.alice) == [Role.DIALER] * 5


async def test_missed_events_do_not_keep_old_connections_in_mind(
    autojump_clock: MockClock, pair: Pair
) -> None:
    pair.world.event_limit = 1
    alice = pair.world.host(7, "/ip4/11.0.0.7/tcp/7")
    alice.punchable = (alice.place,)
    await alice.start(DCUtR().build(alice.kit))
    responder = alice.handlers[PROTOCOL_ID].func.__self__  # type: ignore[attr-defined]
    relayed = [pair.world.connect(alice, pair.bob, relay=RELAY) for _ in range(4)]
    for connection in relayed:
        await pair.converse(connection)
    assert len(responder._heard) == 4
    for connection in relayed:
        connection.cut()
    await trio.sleep(1)
    assert responder._heard == {}


async def test_the_responder_waits_for_an_address_too(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D4 D8."""
    pair.alice.punchable = ()
    relayed = call(pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.converse, relayed)
        await trio.sleep(2)
        assert pair.alice.dials == []
        pair.alice.punchable = (pair.alice.place,)
    await trio.sleep(0.8)
    assert pair.alice.dials == []  # Half of what it took to answer has to pass.
    await trio.sleep(0.6)
    assert len(pair.alice.dials) == 1


async def test_a_responder_without_an_address_says_so_in_its_answer(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D8."""
    pair.alice.punchable = ()
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    channel = channel_on(stream)
    await channel.send(Connect((parse(BOB),)))
    assert await channel.receive() == Connect(())
    await trio.sleep(1)
    assert pair.alice.dials == []
    assert pair.failures(pair.alice) == [
        (1, "no peer has told this host a public address of its own")
    ]


async def test_a_peer_whose_dial_arrives_here_and_is_silent_is_expected_from_connect_on(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D15: Its SYN may overtake SYNC, on which the round trip depends."""
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    channel = channel_on(stream)
    await trio.sleep(1)
    assert pair.alice.expected == []
    await channel.send(Connect((parse(BOB),)))
    await channel.receive()
    assert pair.alice.expected == [(frozenset([BOB]), 0.5)]
    await trio.sleep(0.3)
    await channel.send(Sync())
    await trio.sleep(1)
    ((places, patience),) = pair.alice.expected
    assert places == {BOB}
    assert patience == pytest.approx(0.075)
    pair.direct()
    await trio.sleep(1)
    assert pair.alice.expected == []


async def test_nobody_is_expected_any_more_after_an_attempt_failed_or_another_began(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D15."""
    relayed = call(pair)
    await pair.converse(relayed)
    await trio.sleep(1)
    await pair.converse(relayed)
    await trio.sleep(1)
    assert len(pair.alice.expected) == 1
    await trio.sleep(10)
    assert pair.alice.expected == []


async def test_a_conversation_that_breaks_off_leaves_nobody_expected(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D15."""
    stream = await call(pair).other_end.open_stream(PROTOCOL_ID)
    await channel_on(stream).send(Connect((parse(BOB),)))
    await trio.sleep(1)
    assert len(pair.alice.expected) == 1
    stream.reset()
    await trio.sleep(1)
    assert pair.alice.expected == []


# ---- both initiate ---------------------------------------------------------------------------


async def both_call(
    world: MemoryWorld, *, open_seconds: float
) -> tuple[Pair, MemoryConnection, MemoryConnection]:
    """Let each call the other over a relay; return the ends of the circuits' targets.

    The first is of the host with the smaller name, the other of the one with the greater.
    """
    pair = Pair(world)
    await pair.start()
    one = world.connect(pair.alice, pair.bob, relay=RELAY, latency=0.1).other_end
    other = world.connect(pair.bob, pair.alice, relay=RELAY, latency=0.1).other_end
    one.open_seconds = other.open_seconds = open_seconds
    for end in (one, other):
        pair.identify(end)
    small, great = sorted((one, other), key=lambda end: end.owner.peer_id)
    return pair, small, great


async def test_when_both_initiate_the_one_with_the_greater_name_gives_way(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D13."""
    pair, small, great = await both_call(world, open_seconds=0.1)
    await trio.sleep(1)
    assert small.opened == great.opened == [PROTOCOL_ID]
    assert pair.roles(small.owner) == [Role.LISTENER]
    assert pair.roles(great.owner) == [Role.DIALER]
    pair.direct()
    await trio.sleep(1)
    assert (pair.punched(small.owner), pair.punched(great.owner)) == ([1], [1])


@pytest.mark.parametrize("small_is_first", [True, False])
async def test_who_answers_already_does_not_begin(
    autojump_clock: MockClock, world: MemoryWorld, small_is_first: bool
) -> None:
    """D13."""
    pair, small, great = await both_call(world, open_seconds=0.0)
    first, second = (small, great) if small_is_first else (great, small)
    second.owner.punchable = ()
    await trio.sleep(0.05)
    second.owner.punchable = (second.owner.place,)
    await trio.sleep(1)
    assert (first.opened, second.opened) == ([PROTOCOL_ID], [])
    assert pair.roles(first.owner) == [Role.LISTENER]
    assert pair.roles(second.owner) == [Role.DIALER]


async def test_who_began_first_answers_if_nothing_was_said_yet(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D13: The one with the smaller name still waits for somebody to see it."""
    pair, small, great = await both_call(world, open_seconds=0.0)
    small.owner.punchable = great.owner.punchable = ()
    await trio.sleep(1)
    great.owner.punchable = (great.owner.place,)
    await trio.sleep(1)
    small.owner.punchable = (small.owner.place,)
    await trio.sleep(1)
    assert (small.opened, great.opened) == ([], [PROTOCOL_ID])
    assert pair.roles(small.owner) == [Role.DIALER]


async def test_the_other_is_refused_while_our_own_attempts_go_on(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D13."""
    pair, small, great = await both_call(world, open_seconds=0.0)
    great.owner.punchable = ()
    await trio.sleep(1)
    with pytest.raises(StreamReset):
        await pair.converse_on(great)
    assert type(small.owner.handler_errors[0]) is P2PError


async def test_who_gave_way_begins_later_if_it_was_in_vain(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D13."""
    pair, small, great = await both_call(world, open_seconds=0.0)
    great.owner.punchable = ()
    await trio.sleep(0.05)
    great.owner.punchable = (great.owner.place,)
    await trio.sleep(59)
    assert small.opened == [PROTOCOL_ID] * 3
    assert great.opened == []
    assert pair.failures(great.owner)
    small.owner.handlers.clear()
    await trio.sleep(30)
    assert great.opened == [PROTOCOL_ID]
