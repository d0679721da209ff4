"""A CONNECT that comes ahead, in the handshake of the relayed connection, on virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.core.foreword import MAX_FOREWORD_BYTES, Forewords
from p2pnet.events import PunchStarted
from p2pnet.interfaces import Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.ahead import heard_ahead, said_ahead
from p2pnet.protocols.dcutr.dialogue import MAX_AGE, MAX_SWIFT_ROUND_TRIP
from p2pnet.protocols.dcutr.messages import (
    PROTOCOL_ID,
    Connect,
    Swift,
    Sync,
    decode_untrusted,
    encode_message,
)
from p2pnet.protocols.dcutr.prediction import Forecast
from p2pnet.protocols.dcutr.puncher import channel_on
from p2pnet.protocols.dcutr.sampling import Look, Sampler
from p2pnet.protocols.dcutr.witness import Transport
from tests.protocols.dcutr_pair import ALICE, BOB, LATENCY, Pair
from tests.protocols.memory_world import MemoryConnection, MemoryWorld

DIALER, LISTENER = Role.DIALER, Role.LISTENER


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    world.takes_forewords = True
    return Pair(world, age=0.0)


def said(pair: Pair) -> Connect | None:
    """Return what Alice says ahead when she calls Bob."""
    word = pair.alice.foreword.to(pair.bob.peer_id)
    if not word:
        return None
    message = decode_untrusted(word)
    assert isinstance(message, Connect)
    return message


async def test_both_dial_a_round_trip_sooner(autojump_clock: MockClock, pair: Pair) -> None:
    """D30 D31: Bob's SYN is at Alice's a quarter of a round trip, and more, after hers has left."""
    await pair.start()
    pair.let_through(after=1.0)
    began = trio.current_time()
    pair.call()
    await trio.sleep(1.5)
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(0.5 * LATENCY + 0.01)]
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(LATENCY)]
    assert (pair.roles(pair.alice), pair.roles(pair.bob)) == ([DIALER], [LISTENER])
    for host in (pair.alice, pair.bob):
        assert host.of_kind(PunchStarted)[0].round_trip == pytest.approx(2 * LATENCY)
        assert host.of_kind(PunchStarted)[0].attempt == 1
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([1], [1])


async def test_over_quic_the_initiator_dials_when_the_responder_does(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31."""
    pair.listen_over_quic()
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(1)
    assert pair.dialled_at(pair.bob, began) == pytest.approx([0.5 * LATENCY + 0.01, LATENCY])
    # The second is a millisecond later, by D18.
    assert pair.dialled_at(pair.alice, began) == pytest.approx([LATENCY, LATENCY + 0.001])


async def test_a_procedure_begun_anew_on_the_same_circuit_has_a_sync(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31: The direct connection came and went, and there was a conversation before."""
    await pair.start()
    pair.let_through()
    pair.call()
    await trio.sleep(1)
    (direct,) = [each for each in pair.alice.connections() if not each.is_relayed]
    await direct.aclose()
    await trio.sleep(3)
    assert (pair.failures(pair.alice), pair.failures(pair.bob)) == ([], [])
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([1, 1], [1, 1])


async def test_an_initiator_that_has_to_wait_for_an_address_has_the_other_wait_as_well(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31."""
    pair.bob.punchable = ()
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(0.9)
    assert pair.bob.dials == pair.alice.dials == []
    pair.bob.punchable = (pair.bob.place,)
    await trio.sleep(2)
    (alice,), (bob,) = pair.dialled_at(pair.alice, began), pair.dialled_at(pair.bob, began)
    assert alice - bob == pytest.approx(LATENCY / 2 - 0.01)


async def test_the_second_attempt_has_a_sync_again(autojump_clock: MockClock, pair: Pair) -> None:
    """D31: What came ahead is of the first."""
    await pair.start()
    began = trio.current_time()
    pair.call()
    await trio.sleep(20)
    first, second = pair.dialled_at(pair.bob, began)
    assert first == pytest.approx(0.5 * LATENCY + 0.01)
    assert pair.dialled_at(pair.alice, began)[1] == pytest.approx(second)
    assert [e.attempt for e in pair.alice.of_kind(PunchStarted)] == [1, 2]


async def test_the_plain_dial_comes_a_second_after_the_peer_has_identified_itself(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D3: The punch is at the same place."""
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)
    await pair.start()
    began = trio.current_time()
    relayed = pair.arrive()
    await trio.sleep(2 * LATENCY)
    pair.identify(relayed.other_end)
    await trio.sleep(3)
    assert pair.dialled_at(pair.bob, began) == pytest.approx(
        [0.5 * LATENCY + 0.01, 2 * LATENCY + 1.0]
    )
    assert [dial.any_port for dial in pair.bob.dials] == [False, True]


async def test_a_relayed_connection_of_long_ago_is_answered_as_ever(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31."""
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    pair.call()
    await trio.sleep(MAX_AGE + 1)
    began = trio.current_time()
    await pair.bob.start(DCUtR().build(pair.bob.kit))
    await trio.sleep(1)
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(3 * LATENCY)]


@pytest.mark.parametrize(
    ("hidden", "after"),
    [("bob", LATENCY), ("both", LATENCY / 2 + 0.01), ("alice", LATENCY / 2 + 0.01)],
)
async def test_who_has_to_find_a_hole_waits_until_the_other_has_dialled(
    autojump_clock: MockClock, pair: Pair, hidden: str, after: float
) -> None:
    """D27 D31: Bob has the last word; only if he alone is hidden, all depends on his own SYN."""
    _, bob = await pair.dialled_with(hidden)
    assert bob == [pytest.approx(after)]


@pytest.mark.parametrize("hidden", ["bob", "both", "alice"])
async def test_whose_ports_nobody_can_tell_is_the_dialer(
    autojump_clock: MockClock, pair: Pair, hidden: str
) -> None:
    """D28 D31: By what was said ahead, whatever Alice believes when she is answered."""
    pair.hide(hidden)
    await pair.start(DCUtR(predicted_ports=0))
    pair.call()
    pair.alice.moving["tcp"] = not pair.alice.moving["tcp"]
    await trio.sleep(1)
    is_turned = hidden == "bob"
    assert pair.roles(pair.bob) == [DIALER if is_turned else LISTENER]
    assert pair.roles(pair.alice) == [LISTENER if is_turned else DIALER]


async def test_a_host_says_where_it_may_be_dialled_and_no_private_address(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D30: Nor what it can do in birthday punching, which is for the second attempt."""
    home = parse(f"/ip4/192.168.1.2/tcp/1/p2p/{pair.alice.peer_id}")
    pair.alice.addresses.set((home,))
    pair.alice.moving["udp"] = True
    await pair.start(DCUtR(predicted_ports=0))
    assert said(pair) == Connect((parse(ALICE),), swift=Swift(0.0, ("udp",)))


async def test_a_host_says_over_what_all_see_its_ports_at_one_place(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D28: Ahead, and in the answer to it; of what is not known, nothing."""
    pair.alice.moving["tcp"] = pair.bob.moving["udp"] = False
    await pair.start()
    assert said(pair) == Connect((parse(ALICE),), swift=Swift(0.0, steady=("tcp",)))
    pair.call()
    await trio.sleep(1)
    heard = [
        event.steady for host in (pair.bob, pair.alice) for event in host.of_kind(PunchStarted)
    ]
    assert heard == [("tcp",), ("udp",)]


async def test_peers_in_one_home_are_direct_in_the_first_attempt(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D19 D31: Bob hears that Alice is seen where he is; he asks, and each tells where it is."""
    for number, host in enumerate((pair.alice, pair.bob), 2):
        home = parse(f"/ip4/192.168.1.{number}/tcp/4001/p2p/{host.peer_id}")
        host.addresses.set((home,))
        host.punchable = (parse(f"/ip4/11.0.0.1/tcp/{number}"),)
    await pair.start()
    pair.call()
    await trio.sleep(1)
    assert ("/ip4/192.168.1.3/tcp/4001",) in [dial.addresses for dial in pair.alice.dials]
    bobs = {dial.addresses for dial in pair.bob.dials}
    assert bobs == {("/ip4/11.0.0.1/tcp/2",), ("/ip4/192.168.1.2/tcp/4001",)}


async def test_without_an_address_nothing_is_said(autojump_clock: MockClock, pair: Pair) -> None:
    """D30: Bob asks then, and it is waited for."""
    pair.alice.punchable = ()
    await pair.start()
    assert said(pair) is None
    pair.call()
    await trio.sleep(0.9)
    pair.alice.punchable = (pair.alice.place,)
    await trio.sleep(1)
    assert len(pair.alice.dials) == len(pair.bob.dials) == 1


async def test_who_has_a_direct_connection_says_nothing(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D30."""
    await pair.start()
    assert said(pair) is not None
    pair.direct()
    assert said(pair) is None


async def test_without_the_service_nothing_is_said(pair: Pair) -> None:
    """D30."""
    assert pair.alice.foreword.to(pair.bob.peer_id) == b""


async def test_who_is_in_the_middle_of_a_look_at_its_nat_says_nothing(
    autojump_clock: MockClock, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D30: What it sees is to be in what it says, and holds for a second."""

    async def look_at(sampler: Sampler, transport: Transport, look: Look) -> None:
        await trio.sleep(0.5)
        look.found.append(Forecast("tcp", "11.0.0.1", 5003, 1))
        sampler.keep(look)

    monkeypatch.setattr(Sampler, "_look_at", look_at)
    pair.alice.moving["tcp"] = True
    service = DCUtR().build(pair.alice.kit)
    await pair.alice.start(service)
    assert said(pair) is None
    pair.bob.moving.clear()
    pair.call()  # Her end of it looks.
    await trio.sleep(0.4)
    assert said(pair) is None
    await trio.sleep(0.2)
    told = said(pair)
    assert told is not None
    assert [str(each) for each in told.addresses] == [
        *(f"/ip4/11.0.0.1/tcp/{port}" for port in range(5004, 5010)),
        ALICE,
    ]
    assert told.swift == Swift(0.0)
    await trio.sleep(1)
    assert said(pair) is None


def with_words(relayed: MemoryConnection, **changes: object) -> MemoryConnection:
    relayed.forewords = replace(relayed.forewords or Forewords(), **changes)  # type: ignore[arg-type]
    return relayed


SWIFT = encode_message(Connect((parse(ALICE),), swift=Swift(0.0)))


@pytest.mark.parametrize(
    ("heard", "round_trip", "is_some"),
    [
        (SWIFT, 0.2, True),
        (SWIFT, MAX_SWIFT_ROUND_TRIP, True),
        (SWIFT, MAX_SWIFT_ROUND_TRIP + 0.01, False),
        (b"", 0.2, False),
        (b"\xff" * 40, 0.2, False),
        (encode_message(Connect((parse(ALICE),))), 0.2, False),
        (encode_message(Sync()), 0.2, False),
    ],
)
async def test_what_makes_no_sense_is_not_heard(
    pair: Pair, heard: bytes, round_trip: float, is_some: bool
) -> None:
    """D31."""
    relayed = with_words(pair.arrive(), heard=heard, round_trip=round_trip)
    assert (heard_ahead(relayed) is not None) is is_some
    relayed.forewords = None
    assert heard_ahead(relayed) is None
    assert said_ahead(relayed) is None


async def test_a_host_keeps_to_what_it_said_after_however_long_a_round_trip(pair: Pair) -> None:
    """D31: The peer may have measured less."""
    ahead = said_ahead(with_words(pair.arrive(), said=SWIFT, round_trip=3.0))
    assert ahead is not None
    assert ahead.round_trip == MAX_SWIFT_ROUND_TRIP


async def test_the_most_that_is_offered_fits(pair: Pair) -> None:
    """D30 N14: Of sixteen addresses none is so long that nothing could be said."""
    longest = parse("/ip6/2400:cb00:2048:1:ffff:ffff:ffff:ffff/udp/65535/quic-v1")
    connect = Connect((longest,) * 16, swift=Swift(0.0, ("tcp", "udp")))
    assert len(encode_message(connect)) <= MAX_FOREWORD_BYTES


async def test_the_responder_answers_who_has_not_heard_it(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31: An initiator that knows nothing of what was said ahead."""
    await pair.alice.start(DCUtR().build(pair.alice.kit))
    relayed = pair.arrive()
    channel = channel_on(await relayed.other_end.open_stream(PROTOCOL_ID))
    await channel.send(Connect((parse(BOB),), swift=Swift(0.0)))
    assert isinstance(await channel.receive(), Connect)


async def test_the_stream_of_an_answer_is_closed_in_good_order(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D31: Whatever becomes of the punch."""
    await pair.start()
    relayed = pair.call()
    await trio.sleep(1)
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert relayed.streams == relayed.other_end.streams == 0
    assert pair.alice.handler_errors == []


async def test_a_refusal_of_the_answer_does_no_harm(autojump_clock: MockClock, pair: Pair) -> None:
    """D31: The punch goes on, and the next conversation shows what the peer speaks."""
    relayed = pair.arrive()
    with_words(relayed.other_end, heard=SWIFT, round_trip=2 * LATENCY)
    began = trio.current_time()
    await pair.bob.start(DCUtR().build(pair.bob.kit))
    await trio.sleep(5)
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(0.5 * LATENCY + 0.01)]
