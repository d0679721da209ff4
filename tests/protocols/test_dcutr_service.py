"""The side that initiates a hole punch, against the side that responds, on virtual time."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.errors import AddressUnsupported, DialError, FailedAttempt, LimitExceeded
from p2pnet.events import HolePunched, NetworkChanged, PunchStarted
from p2pnet.interfaces import Connection, Role
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from tests.protocols.dcutr_pair import ALICE, BOB, LATENCY, RELAY, Pair
from tests.protocols.memory_world import MemoryConnection, MemoryWorld, drop, refuse


@pytest.fixture
async def pair(world: MemoryWorld) -> Pair:
    return Pair(world)


# ---- success ---------------------------------------------------------------------------------


async def test_a_relayed_connection_becomes_direct(autojump_clock: MockClock, pair: Pair) -> None:
    """D3 D4 D9."""
    await pair.start()
    pair.let_through(after=0.05)
    began = trio.current_time()
    relayed = pair.call()
    await pair.bob.wait_direct(pair.alice.peer_id)
    await trio.sleep(1)
    # CONNECT, CONNECT, SYNC take one and a half round trips; both dial then.
    assert pair.dialled_at(pair.alice, began) == [pytest.approx(3 * LATENCY)]
    assert pair.dialled_at(pair.bob, began) == [pytest.approx(3 * LATENCY)]
    assert pair.alice.dials[0].addresses == (BOB,)
    assert pair.bob.dials[0].addresses == (ALICE,)
    assert (pair.roles(pair.alice), pair.roles(pair.bob)) == ([Role.DIALER], [Role.LISTENER])
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([1], [1])
    assert relayed.other_end.opened == [PROTOCOL_ID]
    for host, initiator in ((pair.alice, False), (pair.bob, True)):
        started = host.of_kind(PunchStarted)[0]
        assert (started.attempt, started.initiator) == (1, initiator)
        assert started.round_trip == pytest.approx(2 * LATENCY)
    event = pair.bob.of_kind(HolePunched)[0]
    assert str(event.address) == ALICE
    assert event.seconds == pytest.approx(3 * LATENCY + 0.05, abs=2 * LATENCY)


@pytest.mark.parametrize("identified_after", [0.0, 2 * LATENCY, 1.1])
async def test_a_peer_that_can_be_dialled_is_dialled_and_nobody_punches(
    autojump_clock: MockClock, pair: Pair, identified_after: float
) -> None:
    """D3 D11: SYNC waits for identify, and for the dial."""
    await pair.start()
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)

    async def works(address: Multiaddr, role: Role) -> Connection:
        await trio.sleep(2 * LATENCY)
        return pair.world.connect(pair.bob, pair.alice)

    pair.bob.on_dial = works
    relayed = pair.arrive()
    await trio.sleep(identified_after)
    pair.identify(relayed.other_end)
    await trio.sleep(1)
    (dial,) = pair.bob.dials
    assert (dial.addresses, dial.role, dial.any_port) == ((ALICE,), Role.DIALER, True)
    assert dial.at == pytest.approx(identified_after)
    assert pair.alice.dials == []
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([0], [0])
    assert relayed.other_end.opened == [PROTOCOL_ID]
    assert pair.failures(pair.alice) == pair.failures(pair.bob) == []
    assert pair.alice.of_kind(PunchStarted) == pair.bob.of_kind(PunchStarted) == []


@pytest.mark.parametrize("nat", [drop, refuse])
async def test_a_plain_dial_that_fails_is_followed_by_a_punch(
    autojump_clock: MockClock, pair: Pair, nat: object
) -> None:
    """D3."""
    await pair.start(DCUtR(direct_timeout=5.0, head_start=1.0))
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)
    pair.bob.on_dial = drop if nat is drop else refuse
    began = trio.current_time()
    pair.let_through()
    pair.call()
    await pair.bob.wait_direct(pair.alice.peer_id)
    expected = 1.0 + LATENCY if nat is drop else 3 * LATENCY
    assert trio.current_time() - began == pytest.approx(expected)
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_a_plain_dial_goes_on_beside_the_punches_and_may_win(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D3."""
    await pair.start(DCUtR(direct_timeout=5.0, head_start=1.0))
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)

    async def slow(address: Multiaddr, role: Role) -> Connection:
        if not pair.bob.dials[-1].any_port:
            await trio.sleep_forever()
        await trio.sleep(3)
        return pair.world.connect(pair.bob, pair.alice)

    pair.bob.on_dial = slow
    began = trio.current_time()
    pair.call()
    await pair.bob.wait_direct(pair.alice.peer_id)
    assert trio.current_time() - began == pytest.approx(3.0, abs=LATENCY)
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1]


async def test_a_plain_dial_is_waited_for_when_no_punch_can_be(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D3."""
    await pair.start(DCUtR(direct_timeout=5.0, head_start=1.0, attempts=1, punch_timeout=1.0))
    pair.bob.peers.add_addresses(pair.alice.peer_id, [pair.alice.place], seconds=60)

    async def slow(address: Multiaddr, role: Role) -> Connection:
        if not pair.bob.dials[-1].any_port:
            await trio.sleep_forever()
        await trio.sleep(4)
        return pair.world.connect(pair.bob, pair.alice)

    pair.bob.on_dial = slow
    pair.call()
    await trio.sleep(6)
    assert pair.punched(pair.bob) == [0]
    assert pair.failures(pair.bob) != []


async def test_it_does_not_matter_whose_dial_works(autojump_clock: MockClock, pair: Pair) -> None:
    """D11: Here it is neither: the connection comes in while both still wait for an answer."""
    await pair.start()
    pair.call()
    await trio.sleep(1)
    pair.direct()
    await trio.sleep(1)
    assert (pair.punched(pair.alice), pair.punched(pair.bob)) == ([1], [1])


async def test_a_direct_connection_that_is_there_before_an_attempt_is_enough(
    autojump_clock: MockClock, pair: Pair
) -> None:
    await pair.start()
    pair.bob.punchable = ()
    pair.call()
    await trio.sleep(5.5)
    assert [attempt for attempt, _ in pair.failures(pair.bob)] == [1]
    pair.direct()
    await trio.sleep(2)
    assert pair.punched(pair.bob) == [1]


async def test_the_relayed_connection_is_closed_when_nothing_uses_it(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D14."""
    await pair.start(DCUtR(close_relayed_after=5.0))
    pair.let_through()
    relayed = pair.call()
    stream, far = relayed.stream_pair("/slow")
    await trio.sleep(4)
    assert pair.punched(pair.bob) == [1]
    await trio.sleep(20)
    assert not relayed.is_closed
    stream.reset()
    far.reset()
    await trio.sleep(6)
    assert relayed.is_closed


async def test_the_relayed_connection_stays_if_so_configured(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D14."""
    await pair.start(DCUtR(close_relayed_after=None))
    pair.let_through()
    relayed = pair.call()
    await trio.sleep(1000)
    assert pair.punched(pair.bob) == [1]
    assert not relayed.is_closed


async def test_the_relayed_connection_stays_if_the_direct_one_is_gone(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D14."""
    await pair.start()
    pair.let_through()
    relayed = pair.call()
    direct = await pair.bob.wait_direct(pair.alice.peer_id)
    await trio.sleep(1)
    pair.alice.on_dial = drop
    await direct.aclose()
    await trio.sleep(1000)
    assert not relayed.is_closed


async def test_a_relayed_connection_is_upgraded_when_the_direct_one_turns_out_to_be_dead(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2: Alice has moved, and knows; Bob learns it later."""
    await pair.start()
    pair.let_through()
    dead = pair.direct()
    pair.call()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == []
    dead.cut()
    await trio.sleep(2)
    assert pair.punched(pair.bob) == [1]


async def test_who_leaves_is_not_punched_at_between_the_ends_of_two_connections(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D2."""
    await pair.start()
    pair.let_through()
    direct = pair.direct()
    relayed = pair.call()
    await trio.sleep(1)
    direct.cut()
    await trio.sleep(0.5)
    relayed.cut()
    await trio.sleep(100)
    assert pair.punched(pair.bob) == []
    assert pair.failures(pair.bob) == []


# ---- dials -----------------------------------------------------------------------------------


async def test_a_dial_that_nobody_answers_is_not_repeated(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D10."""
    await pair.start(DCUtR(attempts=1))
    pair.call()
    await trio.sleep(15)
    assert (len(pair.alice.dials), len(pair.bob.dials)) == (1, 1)
    assert pair.given_up(pair.bob) == [
        (f"no direct connection to {pair.alice.peer_id}: {ALICE}: no answer",)
    ]


async def test_a_dial_that_is_refused_is_repeated_after_a_random_pause(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D10."""
    await pair.start(DCUtR(attempts=1))
    direct = 0.04

    async def refused(address: Multiaddr, role: Role) -> Connection:
        await trio.sleep(direct)
        return await refuse(address, role)

    pair.alice.on_dial = refused
    began = trio.current_time()
    pair.call()
    await trio.sleep(1.15)
    # The jitter of this world takes the middle; so the pauses begin with the direct round trip,
    # grow by a tenth each, and end at half of the one over the relay.
    times, pause = [0.3], direct
    for _ in range(8):
        times.append(times[-1] + direct + min(pause, LATENCY))
        pause *= 1.1
    assert pair.dialled_at(pair.alice, began) == pytest.approx(times, abs=0.001)
    pair.let_through()
    await trio.sleep(1)
    assert pair.punched(pair.alice) == [1]


async def test_repeated_dials_are_bounded(autojump_clock: MockClock, pair: Pair) -> None:
    """D10."""
    await pair.start(DCUtR(attempts=1, max_redials=7))
    pair.bob.on_dial = refuse
    pair.call()
    await trio.sleep(30)
    assert len(pair.bob.dials) == 8
    assert "connection refused" in pair.given_up(pair.bob)[0][0]


@pytest.mark.parametrize("limit", ["dials_per_ip", "dials_per_prefix"])
async def test_no_place_is_dialled_more_often_than_its_budget_allows(
    autojump_clock: MockClock, pair: Pair, limit: str
) -> None:
    """D25."""
    config = (
        DCUtR(attempts=1, dials_per_ip=5)
        if limit == "dials_per_ip"
        else DCUtR(attempts=1, dials_per_prefix=5)
    )
    await pair.start(config)
    pair.bob.on_dial = refuse
    pair.call()
    # The attempt takes ten seconds; one dial comes back in twelve.
    await trio.sleep(10.9)
    assert len(pair.bob.dials) == 5
    assert "too many dials" in pair.given_up(pair.bob)[0][0]


@pytest.mark.parametrize(
    "cause", [AddressUnsupported(ALICE), LimitExceeded("max_dials_at_once", 8)], ids=repr
)
async def test_an_address_that_cannot_be_dialled_at_all_is_dialled_once(
    autojump_clock: MockClock, pair: Pair, cause: Exception
) -> None:
    """D32."""
    await pair.start(DCUtR(attempts=1))

    async def unable(address: Multiaddr, role: Role) -> Connection:
        raise DialError("peer", [FailedAttempt(address, cause)])

    pair.bob.on_dial = unable
    pair.call()
    await trio.sleep(15)
    assert len(pair.bob.dials) == 1
    assert str(cause) in pair.given_up(pair.bob)[0][0]


async def test_each_address_is_dialled_for_itself(autojump_clock: MockClock, pair: Pair) -> None:
    """D10: One that drops our SYN does not keep us from repeating at one that refuses it."""
    await pair.start(DCUtR(attempts=1))
    other = parse("/ip4/11.0.0.3/tcp/3")
    pair.alice.punchable = (pair.alice.place, other)

    async def dial(address: Multiaddr, role: Role) -> Connection:
        return await (refuse if address == other else drop)(address, role)

    pair.bob.on_dial = dial
    pair.call()
    await trio.sleep(1)
    dialled = [dial.addresses[0] for dial in pair.bob.dials]
    assert dialled.count(ALICE) == 1
    assert dialled.count(str(other)) > 3


async def test_handshakes_under_way_may_end_when_there_is_a_connection(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D11."""
    await pair.start()
    pair.alice.punchable = (pair.alice.place, parse("/ip4/11.0.0.3/tcp/3"))
    ended: list[str] = []

    async def dial(address: Multiaddr, role: Role) -> Connection:
        await trio.sleep(0.1 if str(address) == ALICE else 0.2)
        ended.append(str(address))
        return pair.world.connect(pair.bob, pair.alice)

    pair.bob.on_dial = dial
    pair.call()
    await trio.sleep(2)
    assert ended == [ALICE, "/ip4/11.0.0.3/tcp/3"]
    assert pair.punched(pair.bob) == [1]


async def test_a_dial_in_vain_does_not_hold_the_success_up_for_long(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D11."""
    await pair.start()
    pair.let_through()
    pair.call()
    await pair.bob.wait_direct(pair.alice.peer_id)
    await trio.sleep(2 * LATENCY + 0.01)
    assert pair.punched(pair.bob) == [1]


# ---- failure ---------------------------------------------------------------------------------


async def test_three_attempts_fail_and_the_roles_change_on_the_third(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D9 D12."""
    await pair.start()
    relayed = pair.call()
    await trio.sleep(40)
    assert relayed.other_end.opened == [PROTOCOL_ID] * 3
    dialer, listener = Role.DIALER, Role.LISTENER
    assert pair.roles(pair.bob) == [listener, listener, dialer]
    assert pair.roles(pair.alice) == [dialer, dialer, listener]
    for host in (pair.alice, pair.bob):
        assert [attempt for attempt, _ in pair.failures(host)] == [1, 2, 3]
        (reasons,) = pair.given_up(host)
        assert len(reasons) == 3
        assert all("no answer" in reason for reason in reasons)
    assert not relayed.is_closed


async def test_who_is_to_be_the_dialer_expects_that_the_peer_arrives_and_is_silent(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D9 D15: The responder in the first two attempts, the initiator in the third."""
    await pair.start()
    pair.call()
    for dialer, listener, place in (
        (pair.alice, pair.bob, BOB),
        (pair.alice, pair.bob, BOB),
        (pair.bob, pair.alice, ALICE),
    ):
        await trio.sleep(8)
        ((places, patience),) = dialer.expected
        assert places == {place}
        assert patience == pytest.approx(LATENCY / 2)
        assert listener.expected == []
        await trio.sleep(3.3)
    assert pair.alice.expected == pair.bob.expected == []


async def test_after_a_rest_it_is_tried_again_while_the_peer_is_relayed(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    await pair.start(DCUtR(attempts=1, cool_down=60.0))
    began = trio.current_time()
    pair.call()
    await trio.sleep(300)
    once = 3 * LATENCY + 10.0
    expected = [3 * LATENCY, once + 60 + 3 * LATENCY, 2 * once + 180 + 3 * LATENCY]
    assert pair.dialled_at(pair.bob, began) == pytest.approx(expected, abs=0.01)
    # Each round is one of its own to Alice, too.
    assert [attempt for attempt, _ in pair.failures(pair.alice)] == [1, 1, 1]


async def test_peers_that_failed_at_the_same_moment_are_not_tried_again_at_the_same_moment(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """D12: Of ports in sequence a few are foreseen, and all of a crowd took each other's."""
    draws = itertools.cycle((0.0, 1.0))
    world.env = replace(world.env, jitter=lambda low, high: low + (high - low) * next(draws))
    pair = Pair(world)
    await pair.start(DCUtR(attempts=1, cool_down=60.0))
    carol = world.host(3, "/ip4/11.0.0.3/tcp/3")
    carol.punchable, carol.on_dial = (carol.place,), drop
    await carol.start(DCUtR().build(carol.kit))
    began = trio.current_time()
    pair.identify(world.connect(carol, pair.bob, relay=RELAY).other_end)
    pair.call()
    await trio.sleep(100)
    dialled = pair.dialled_at(pair.bob, began)
    assert dialled == pytest.approx([0, 0, 10 + 48, 10 + 72], abs=1)


async def test_the_rest_ends_with_the_relayed_connection_but_is_remembered(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    await pair.start(DCUtR(attempts=1, cool_down=60.0))
    relayed = pair.call()
    await trio.sleep(20)
    assert len(pair.given_up(pair.bob)) == 1
    relayed.cut()
    await trio.sleep(1)
    again = pair.call()
    await trio.sleep(20)
    assert again.other_end.opened == []
    await trio.sleep(40)
    assert again.other_end.opened == [PROTOCOL_ID]


async def fail_often(pair: Pair) -> MemoryConnection:
    """Let Bob give up until he rests for minutes; return Alice's relayed connection."""
    await pair.start(DCUtR(attempts=1, cool_down=60.0))
    relayed = pair.call()
    await trio.sleep(1000)
    assert len(pair.given_up(pair.bob)) == 5
    return relayed


async def test_a_peer_that_calls_anew_rests_for_no_longer_than_after_a_first_failure(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12: it may call from elsewhere, and only itself knows."""
    relayed = await fail_often(pair)
    relayed.cut()
    await trio.sleep(1)
    again = pair.call()
    await trio.sleep(50)
    assert again.other_end.opened == []
    await trio.sleep(15)
    assert again.other_end.opened == [PROTOCOL_ID]


async def test_whoever_is_in_another_network_begins_anew_at_once(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    await fail_often(pair)
    pair.bob.publish(NetworkChanged("moved"))
    await trio.sleep(20)
    assert len(pair.given_up(pair.bob)) == 6


async def test_no_remote_ends_a_rest_by_events_that_are_too_many(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    pair.world.event_limit = 1
    relayed = await fail_often(pair)
    for _ in range(5):
        pair.identify(relayed.other_end, pushed=True)
    await trio.sleep(20)
    assert len(pair.given_up(pair.bob)) == 5


async def test_a_success_ends_the_patience_of_failures(
    autojump_clock: MockClock, pair: Pair
) -> None:
    """D12."""
    await pair.start(DCUtR(attempts=1, cool_down=60.0))
    relayed = pair.call()
    await trio.sleep(20)
    pair.let_through()
    await trio.sleep(60)
    assert pair.punched(pair.bob) == [1]
    relayed.cut()
    for connection in pair.bob.connections():
        connection.cut()
    pair.call()
    await trio.sleep(1)
    assert pair.punched(pair.bob) == [1, 1]


async def test_the_procedure_ends_with_the_relayed_connection(
    autojump_clock: MockClock, pair: Pair
) -> None:
    await pair.start()
    relayed = pair.call()
    await trio.sleep(5)
    relayed.cut()
    await trio.sleep(100)
    assert [attempt for attempt, _ in pair.failures(pair.bob)] == [1]
    assert len(pair.given_up(pair.bob)) == 1


async def test_a_relayed_connection_that_ends_while_we_wait_for_addresses(
    autojump_clock: MockClock, pair: Pair
) -> None:
    await pair.start()
    pair.bob.punchable = ()
    relayed = pair.call()
    await trio.sleep(1)
    relayed.cut()
    pair.bob.punchable = (pair.bob.place,)
    await trio.sleep(100)
    assert pair.failures(pair.bob) == [(1, "the relayed connection ended")]


async def test_a_bug_of_ours_is_logged_and_rests_like_a_failure(
    autojump_clock: MockClock, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    await pair.start()

    async def fail(address: Multiaddr, role: Role) -> Connection:
        raise RuntimeError("a bug")

    pair.bob.on_dial = fail
    pair.call()
    await trio.sleep(30)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(pair.alice.peer_id) in errors[0].getMessage()
    assert len(pair.bob.dials) == 1
    caplog.clear()


@pytest.mark.parametrize(
    "nonsense", [{"attempts": 0}, {"punch_timeout": 0.0}, {"close_relayed_after": -1.0}]
)
def test_nonsense_is_no_config(nonsense: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        DCUtR(**nonsense)  # type: ignore[arg-type]
