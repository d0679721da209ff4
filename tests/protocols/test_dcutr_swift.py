"""Two peers that both do without SYNC in their first attempt, on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.events import PunchStarted
from p2pnet.interfaces import Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.dialogue import MAX_AGE
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect, Swift, Sync
from p2pnet.protocols.dcutr.puncher import channel_on
from tests.protocols.dcutr_pair import BOB, BOB_QUIC, LATENCY, Pair
from tests.protocols.memory_world import MemoryWorld

DIALER, LISTENER = Role.DIALER, Role.LISTENER


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    return Pair(world, age=0.0)


async def test_both_dial_without_a_sync(autojump_clock: MockClock, pair: Pair) -> None:
    """D26 D27: Alice's SYN is at Bob's a quarter of a round trip and 10 ms after his has left."""
    await pair.start()
    pair.let_through(after=1.0)
    began = trio.current_time()
    pair.call()
    await trio.sleep(1.5)
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(2 * LATENCY)]
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(1.5 * LATENCY + 0.01)]
    assert (pair.roles(pair.alice), pair.roles(pair.bob)) == ([DIALER], [LISTENER])
    for host in (pair.alice, pair.bob):
        assert host.of_kind(PunchStarted)[0].round_trip == pytest.approx(2 * LATENCY)
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([1], [1])


async def test_over_quic_the_first_packet_is_not_early(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D27."""
    pair.listen_over_quic()
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(1)
    # Both at once would be D27; the second is a millisecond later, by D18.
    assert pair.dialled_at(pair.bob, began) == pytest.approx([2 * LATENCY, 2 * LATENCY + 0.001])
    assert [dial.addresses for dial in pair.alice.dials] == [(BOB,), (BOB_QUIC,)]
    # Here it has a time of its own, and the first is long under way.
    assert pair.dialled_at(pair.alice, began) == pytest.approx([1.5 * LATENCY + 0.01, 2 * LATENCY])


async def test_waiting_for_an_address_changes_nothing(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D26: Each says how long it waited."""
    pair.bob.punchable = pair.alice.punchable = ()
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(0.9)
    pair.bob.punchable = (pair.bob.place,)
    await trio.sleep(0.9)
    assert pair.bob.dials == pair.alice.dials == []
    pair.alice.punchable = (pair.alice.place,)
    await trio.sleep(2)
    (alice,), (bob,) = pair.dialled_at(pair.alice, began), pair.dialled_at(pair.bob, began)
    assert bob - alice == pytest.approx(LATENCY / 2 - 0.01)
    for host in (pair.alice, pair.bob):
        assert host.of_kind(PunchStarted)[0].round_trip == pytest.approx(2 * LATENCY)


async def test_the_second_attempt_has_a_sync(autojump_clock: MockClock, pair: Pair) -> None:
    """D26: So whatever is wrong with the first one is right in it."""
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(20)
    first, second = pair.dialled_at(pair.bob, began)
    assert first == pytest.approx(2 * LATENCY)
    assert pair.dialled_at(pair.alice, began)[1] == pytest.approx(second)


@pytest.mark.parametrize(
    ("by_quic_too", "attempts", "begun"), [("bob", 3, [1, 2]), ("bob", 1, [1]), ("alice", 3, [1])]
)
async def test_the_first_attempt_is_short_if_the_initiator_has_more_for_the_second(
    autojump_clock: MockClock, pair: Pair, by_quic_too: str, attempts: int, begun: list[int]
) -> None:
    """D10: What the responder has in store the initiator does not know."""
    pair.listen_over_quic()
    other = pair.alice if by_quic_too == "bob" else pair.bob
    other.punchable = (other.place,)
    await pair.start(DCUtR(attempts=attempts))
    pair.let_through(after=6.0)
    pair.call()
    await trio.sleep(7)
    assert [event.attempt for event in pair.bob.of_kind(PunchStarted)] == begun
    assert pair.punched(pair.bob) == ([1] if begun == [1] else [])


async def test_the_roles_change_with_each_attempt(autojump_clock: MockClock, pair: Pair) -> None:
    """D9: And so they do in what is begun later on the same relayed connection, with a SYNC."""
    await pair.start()
    relayed = pair.call()
    await trio.sleep(15)
    assert pair.alice.expected == []  # D15: who plays the dialer speaks first on what arrives.
    assert len(pair.bob.expected) == 1
    await trio.sleep(35)
    assert pair.roles(pair.alice) == [DIALER, LISTENER, DIALER]
    assert pair.roles(pair.bob) == [LISTENER, DIALER, LISTENER]
    await trio.sleep(100)
    assert not relayed.is_closed
    assert pair.roles(pair.alice)[3:] == [DIALER, LISTENER, DIALER]
    assert pair.roles(pair.bob)[3:] == [LISTENER, DIALER, LISTENER]


async def test_the_responder_plays_the_part_that_is_left(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D9: Whatever it counts; and who says nothing, as others do, has the parts by number."""
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    relayed = pair.call()
    for dials in (True, False, False):
        await pair.converse(relayed, dials=dials)
        await trio.sleep(11)
    assert pair.roles(pair.alice) == [LISTENER, DIALER, DIALER]


@pytest.mark.parametrize("identified_after", [2 * LATENCY - 0.01, 2 * LATENCY + 0.01])
async def test_a_plain_dial_comes_after_a_second_if_the_punch_is_at_the_same_place(
    autojump_clock: MockClock, pair: Pair, identified_after: float
) -> None:
    """D3: Whichever comes first, CONNECT or what identify asked for."""
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)
    await pair.start()
    began = trio.current_time()
    relayed = pair.arrive()
    await trio.sleep(identified_after)
    pair.identify(relayed.other_end)
    await trio.sleep(3)
    answered = max(identified_after, 2 * LATENCY)
    assert pair.dialled_at(pair.bob, began) == [
        pytest.approx(2 * LATENCY),
        pytest.approx(answered + 1.0),
    ]
    assert [dial.any_port for dial in pair.bob.dials] == [False, True]


@pytest.mark.parametrize(("known", "begins"), [(False, 0.1 + 0.05), (True, 0.0)])
async def test_a_plain_dial_does_not_wait_for_a_late_connect(
    autojump_clock: MockClock, pair: Pair, known: bool, begins: float
) -> None:
    """D3."""
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)
    pair.alice.punchable = ()
    if known:
        pair.bob.peers.set_protocols(pair.alice.peer_id, [PROTOCOL_ID])
        relayed = pair.arrive()
        await pair.start()
    else:
        await pair.start()
        relayed = pair.arrive()
    began = trio.current_time()
    await trio.sleep(0.1)
    pair.identify(relayed.other_end)
    await trio.sleep(2)
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(begins)]


async def test_a_relayed_connection_of_long_ago_has_a_sync(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D26."""
    relayed = pair.call()
    await trio.sleep(MAX_AGE + 1)
    began = trio.current_time()
    await pair.start()
    await trio.sleep(1)
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(3 * LATENCY)]


@pytest.mark.parametrize(
    ("hidden", "after"),
    [("alice", LATENCY), ("both", LATENCY / 2 + 0.01), ("bob", LATENCY / 2 + 0.01)],
)
async def test_who_has_to_find_a_hole_waits_until_the_other_has_dialled(
    autojump_clock: MockClock, pair: Pair, hidden: str, after: float
) -> None:
    """D27: Alice has the last word; only if she alone is hidden, all depends on her own SYN."""
    alice, _ = await pair.dialled_with(hidden)
    assert alice == [pytest.approx(LATENCY + after)]


@pytest.mark.parametrize("hidden", ["bob", "both", "alice"])
async def test_whose_ports_nobody_can_tell_is_the_dialer(
    autojump_clock: MockClock, pair: Pair, hidden: str
) -> None:
    """D28: Only the dial of that side can come through."""
    for host in (pair.alice, pair.bob):
        host.moving["tcp"] = hidden in (
            ("alice", "both") if host is pair.alice else ("bob", "both")
        )
    await pair.start()
    pair.call()
    await trio.sleep(1)
    is_turned = hidden == "bob"
    assert pair.roles(pair.bob) == [DIALER if is_turned else LISTENER]
    assert pair.roles(pair.alice) == [LISTENER if is_turned else DIALER]
    expecting, other = (pair.bob, pair.alice) if is_turned else (pair.alice, pair.bob)
    assert len(expecting.expected) == 1
    assert other.expected == []


async def test_the_roles_are_turned_for_a_transport_alone(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D28."""
    pair.listen_over_quic()
    pair.bob.moving["udp"] = True
    await pair.start(DCUtR(attempts=1))
    pair.call()
    await trio.sleep(1)
    assert pair.roles(pair.bob) == [LISTENER, DIALER]
    assert pair.roles(pair.alice) == [DIALER, LISTENER]


@pytest.mark.parametrize(
    ("said", "dials_after"),
    [
        (0.0, 0.9 / 4 + 0.01),
        (0.5, 0.4 / 4 + 0.01),
        (0.87, 0.03 / 2),
        (0.94, 0.0),
        (0.96, None),
        (4000.0, None),
    ],
)
async def test_what_an_initiator_says_is_believed_within_bounds(
    autojump_clock: MockClock, pair: Pair, said: float, dials_after: float | None
) -> None:
    """D26: Alice has had the relayed connection for 0.9 s when she hears CONNECT."""
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    relayed = pair.arrive()
    await trio.sleep(0.8 - LATENCY)
    channel = channel_on(await relayed.other_end.open_stream(PROTOCOL_ID))
    await channel.send(Connect((parse(BOB),), swift=Swift(said)))
    answer = await channel.receive()
    heard = trio.current_time() - LATENCY
    assert isinstance(answer, Connect)
    await trio.sleep(1)
    if dials_after is None:
        assert answer.swift is None
        assert pair.alice.dials == []
        await channel.send(Sync())
        await trio.sleep(1)
        assert len(pair.alice.dials) == 1
    else:
        assert answer.swift == Swift(0.0)
        assert pair.dialled_at(pair.alice, heard) == [pytest.approx(dials_after, abs=0.001)]
