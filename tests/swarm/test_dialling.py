"""Rules DI2 DI3 DI11 DI13 DI14 DI20 to DI25, on a swarm with a transport of this test's own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, components, parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import LeftOut, NotDialled
from p2pnet.events import NetworkChanged
from p2pnet.interfaces import Role
from p2pnet.swarm.backoff import BackingOff
from p2pnet.swarm.black_hole import Class, Outcome, State
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.dialer import Race, Run
from p2pnet.swarm.dialling import shown_by
from p2pnet.swarm.ranking import PUBLIC_STEP
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import OTHER, PEER, THIRD, Arrival, Line, NoNetwork, Wires
from tests.swarm.scene import CIRCUIT, ELSEWHERE, REFUSED, A, B, C, causes, dial, failure, running

NONE: frozenset[Multiaddr] = frozenset()


# ---- dialling ----------------------------------------------------------------------------


async def test_di14_every_address_has_its_cause(autojump_clock: MockClock) -> None:
    wires = Wires({A: (0.1, REFUSED), B: (99.0, None)})
    other = parse(f"/ip4/7.7.7.7/tcp/1/p2p/{OTHER}")
    udp, named, mine = (
        parse(text)
        for text in ("/ip4/8.8.8.8/udp/1", "/dns4/no.example/tcp/1", "/ip4/10.0.0.1/tcp/4001")
    )
    async with running(wires) as swarm:
        await swarm.listen(mine)
        error = await failure(swarm, A, B, other, udp, named, mine)
    assert causes(error) == {
        str(A): "OSError: refused",
        str(B): "timed out",
        str(other): f"{other}: it leads to another peer",
        str(udp): f"{udp}: no transport for it",
        str(named): f"DNS: no such name or address: {components(named)[0][1]}",
        str(mine): f"{mine}: our own address",
    }
    assert set(wires.dialled) == {A, B}


async def test_di11_one_address_has_so_long(autojump_clock: MockClock) -> None:
    config = SwarmConfig(dial_timeout=3.0)
    async with running(Wires({A: (99.0, None)}), config) as swarm:
        started = trio.current_time()
        error = await failure(swarm, A)
        assert trio.current_time() - started == pytest.approx(3.0)
    assert causes(error) == {str(A): "timed out"}


async def test_di11_all_together_have_so_long_and_none_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    config = SwarmConfig(dial_timeout=9.0, connect_timeout=10.0, max_parallel_dials=1)
    wires = Wires({A: (1.0, REFUSED), B: (99.0, None), C: (99.0, None)})
    async with running(wires, config) as swarm:
        started = trio.current_time()
        error = await failure(swarm, A, B, C)
        assert trio.current_time() - started == pytest.approx(10.0)
    assert causes(error) == {
        str(A): "OSError: refused",
        str(B): "timed out",
        str(C): "not dialled: the time was over before its turn came",
    }
    assert error.hint == "no answer within 10 s"


async def test_di11_so_many_addresses_are_dialled_at_once(autojump_clock: MockClock) -> None:
    wires = Wires({A: (1.0, None)})
    async with running(wires, SwarmConfig(max_dials=2)) as swarm:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer_id in (PEER, OTHER, THIRD):
                nursery.start_soon(dial_peer, swarm, peer_id)
        assert trio.current_time() - started == pytest.approx(2.0)


async def dial_peer(swarm: Swarm, peer_id: PeerId) -> None:
    await swarm.dial_ranked(peer_id, [A], insist=NONE)


async def test_di3_an_address_that_failed_is_left_alone_for_a_while(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (0.0, REFUSED)})
    async with running(wires) as swarm:
        await failure(swarm, A)
        error = await failure(swarm, A)
        assert isinstance(error.attempts[0].cause, BackingOff)
        assert wires.dialled == [A]
        await trio.sleep(5)
        await failure(swarm, A)
        assert wires.dialled == [A, A]


@pytest.mark.parametrize(
    "asked",
    [
        "/ip4/8.8.8.8/tcp/1",
        f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}",
        f"/dns4/a.example/tcp/1/p2p/{PEER}",
    ],
)
async def test_di3_an_address_that_the_caller_gives_is_dialled_all_the_same(
    autojump_clock: MockClock, asked: str
) -> None:
    wires = Wires({A: (0.0, REFUSED)})
    address = parse(asked)
    async with running(wires, network=NoNetwork({"a.example": ("8.8.8.8",)})) as swarm:
        await failure(swarm, address)
        await failure(swarm, address, insist=[address])
    assert wires.dialled == [A, A]


async def test_di3_what_works_is_dialled_again_at_once_and_remembered(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (0.0, REFUSED)})
    async with running(wires) as swarm:
        await failure(swarm, A)
        wires.answers[A] = (0.0, None)
        connection = await dial(swarm, A, insist=[A])
        assert swarm.peers.addresses(PEER) == (A,)
        await connection.aclose()
        await dial(swarm, A)


async def test_di24_in_another_network_nothing_is_left_alone(autojump_clock: MockClock) -> None:
    wires, network = Wires({A: (0.0, REFUSED)}), NoNetwork()
    async with running(wires, network=network) as swarm:
        await failure(swarm, A)
        swarm._bus.publish(NetworkChanged("it slept"))
        await wait_all_tasks_blocked()
        await failure(swarm, A)
        assert wires.dialled == [A, A]
        network.move()
        await failure(swarm, A)
        await failure(swarm, A)
    assert wires.dialled == [A, A, A]


# ---- black holes -------------------------------------------------------------------------

QUIC4, QUIC6 = parse("/ip4/8.8.8.8/udp/1/quic-v1"), parse("/ip6/2600::1/udp/1/quic-v1")
TCP6 = parse("/ip6/2600::1/tcp/1")
NO_UDP = {QUIC4: (99.0, None), QUIC6: (99.0, None)}
NO_IPV6 = {TCP6: (99.0, None), QUIC6: (99.0, None)}
Answers = dict[Multiaddr, tuple[float, Exception | None]]


MANY = [PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in range(20)]


async def dial_often(swarm: Swarm, times: int, *addresses: Multiaddr) -> None:
    """Dial twenty peers in turn: one alone has little to say (DI27)."""
    for each in range(times):
        connection = await swarm.dial_ranked(MANY[each % len(MANY)], addresses, insist=NONE)
        await connection.aclose()
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("answers", "suspect", "tried"),
    [
        (NO_UDP, Class.UDP, {TCP6, A}),
        (NO_IPV6, Class.IPV6, {QUIC4, A}),
    ],
)
async def test_di20_what_loses_a_hundred_times_in_silence_is_left_out(
    autojump_clock: MockClock, answers: Answers, suspect: Class, tried: set[Multiaddr]
) -> None:
    wires = Wires({**answers, **dict.fromkeys(tried, (0.1, None))}, udp=True)
    all_of_them = (QUIC4, QUIC6, TCP6, A)
    async with running(wires) as swarm:
        await dial_often(swarm, 99, *all_of_them)
        assert swarm._dialling.black_holes.state(suspect) is State.PROBING
        await dial_often(swarm, 1, *all_of_them)
        assert swarm._dialling.black_holes.state(suspect) is State.BLOCKED
        assert [each for each in Class if each is not suspect] == [
            each for each in Class if swarm._dialling.black_holes.state(each) is State.ALLOWED
        ]
        before = len(wires.dialled)
        started = trio.current_time()
        await dial_often(swarm, 99, *all_of_them)
        assert (trio.current_time() - started) / 99 == pytest.approx(0.1)
        assert len(wires.dialled) - before == 99
        assert set(wires.dialled[before:]) <= tried
        # DI22: one in a hundred dials tries it.
        await dial_often(swarm, 1, *all_of_them)
        assert set(wires.dialled[-3:]) & set(answers)


@pytest.mark.parametrize(("late", "silent"), [(0.0, (QUIC4,)), (0.1, (QUIC4,)), (0.2, ())])
def test_di20_a_dial_that_begins_late_on_a_busy_machine_is_silent_all_the_same(
    late: float, silent: tuple[Multiaddr, ...]
) -> None:
    runs = {QUIC4: Run(began=late), A: Run(began=PUBLIC_STEP, answered=0.4)}
    race = Race(winning_address=A, unfinished=[QUIC4], runs=runs)
    assert shown_by(race, now=1.0).silent == silent


async def test_over_udp_it_is_silent_if_who_answers_otherwise_does_not_there(
    autojump_clock: MockClock,
) -> None:
    """V25: One is enough, and one answer disproves it."""
    answers: Answers = {QUIC4: (99.0, None), A: (99.0, None)}
    wires = Wires(answers, udp=True)
    async with running(wires) as swarm:
        await failure(swarm, QUIC4, A)
        assert not swarm.is_silent_over_udp
        answers[A] = (0.1, None)
        await trio.sleep(60)
        await dial_often(swarm, 1, QUIC4, A)
        assert swarm.is_silent_over_udp
        answers[QUIC4] = (0.1, None)
        await dial_often(swarm, 2, QUIC4, A)
        assert not swarm.is_silent_over_udp


async def test_di27_one_peer_alone_blocks_nothing_however_often_it_is_dialled(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({**NO_UDP, A: (0.1, None)}, udp=True)
    async with running(wires) as swarm:
        holes = swarm._dialling.black_holes
        for _ in range(300):
            connection = await swarm.dial_ranked(PEER, [QUIC4, A], insist=NONE)
            await connection.aclose()
            await wait_all_tasks_blocked()
        assert holes.state(Class.UDP) is State.PROBING
        await dial_often(swarm, 89, QUIC4, A)
        assert holes.state(Class.UDP) is State.PROBING
        await dial_often(swarm, 1, QUIC4, A)
        assert holes.state(Class.UDP) is State.BLOCKED


async def test_di14_what_a_black_hole_left_out_is_told(autojump_clock: MockClock) -> None:
    wires = Wires(dict.fromkeys((QUIC4, A), (99.0, None)), udp=True)
    async with running(wires) as swarm:
        for _ in range(100):
            swarm._dialling.black_holes.learn(Outcome(A, silent=(QUIC4,)))
        error = await failure(swarm, QUIC4, A)
        refused, late = error.attempts
        assert refused.address == QUIC4
        assert isinstance(refused.cause, NotDialled)
        assert refused.cause.reason is LeftOut.BLACK_HOLE
        assert str(refused) == (f"{QUIC4}: not dialled: this network seems to let no UDP through")
        assert isinstance(late.cause, trio.TooSlowError)
        # DI22, DI23: whoever names it, or has nothing else, gets it dialled.
        await failure(swarm, A, QUIC4, insist=[QUIC4])
        assert wires.dialled == [A, QUIC4]
        await trio.sleep(60)
        await failure(swarm, QUIC4)
        assert wires.dialled == [A, QUIC4, QUIC4]


async def test_di24_in_another_network_black_holes_are_forgotten(
    autojump_clock: MockClock,
) -> None:
    network = NoNetwork()
    async with running(network=network) as swarm:
        holes = swarm._dialling.black_holes
        for move in (network.move, lambda: swarm._bus.publish(NetworkChanged("it slept"))):
            await dial_often(swarm, 1, A)
            for _ in range(100):
                holes.learn(Outcome(A, silent=(QUIC4, TCP6)))
            assert {holes.state(each) for each in Class} == {State.BLOCKED}
            move()
            await wait_all_tasks_blocked()
            await dial_often(swarm, 1, A)
            assert {holes.state(each) for each in Class} == {State.PROBING}


async def test_di25_a_hole_punch_neither_asks_about_black_holes_nor_tells(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({**NO_UDP, A: (0.5, None)}, udp=True)
    async with running(wires) as swarm:
        holes = swarm._dialling.black_holes
        for _ in range(150):
            connection = await swarm.dial_at_once(PEER, [QUIC4, A], Role.DIALER)
            await connection.aclose()
            await wait_all_tasks_blocked()
        assert holes.state(Class.UDP) is State.PROBING
        for _ in range(100):
            holes.learn(Outcome(A, silent=(QUIC4,)))
        wires.dialled.clear()
        wires.answers[QUIC4] = (0.1, None)
        connection = await swarm.dial_at_once(PEER, [QUIC4, A], Role.DIALER)
        assert connection.remote_address == QUIC4
        assert wires.dialled == [QUIC4, A]
        assert holes.state(Class.UDP) is State.BLOCKED


async def test_di20_a_host_without_any_network_blames_no_class(autojump_clock: MockClock) -> None:
    wires = Wires(dict.fromkeys((QUIC4, QUIC6, TCP6, A), (99.0, None)), udp=True)
    async with running(wires) as swarm:
        for _ in range(200):
            await failure(swarm, QUIC4, QUIC6, TCP6, A, insist=[QUIC4, QUIC6, TCP6, A])
        holes = swarm._dialling.black_holes
        assert {holes.state(each) for each in Class} == {State.PROBING}


# ---- the peer comes by itself ------------------------------------------------------------


async def test_di13_a_peer_that_comes_by_itself_ends_the_dial(autojump_clock: MockClock) -> None:
    wires = Wires({A: (99.0, None), B: (99.0, None)})
    async with running(wires) as swarm:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_later, swarm, 2.0, Line(PEER, ELSEWHERE))
            connection = await dial(swarm, A, B)
        assert trio.current_time() - started == pytest.approx(2.0)
        assert connection.remote_address == ELSEWHERE
        assert connection.is_inbound
        assert swarm.connections(PEER) == (connection,)


async def arrive_later(swarm: Swarm, seconds: float, line: Line) -> None:
    await trio.sleep(seconds)
    swarm.accept(Arrival(line))


@pytest.mark.parametrize("line", [Line(OTHER, ELSEWHERE), Line(PEER, CIRCUIT)])
async def test_di13_neither_another_nor_a_relayed_one_ends_it(
    autojump_clock: MockClock, line: Line
) -> None:
    async with running(Wires({A: (5.0, None)})) as swarm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_later, swarm, 2.0, line)
            connection = await dial(swarm, A)
        assert connection.remote_address == A


async def test_di13_a_handshake_under_way_comes_to_its_end(autojump_clock: MockClock) -> None:
    wires = Wires({A: (5.0, None)}, heard={A: 1.0})
    async with running(wires) as swarm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_later, swarm, 2.0, Line(PEER, ELSEWHERE))
            connection = await dial(swarm, A)
        assert connection.remote_address == A
        assert len(swarm.connections(PEER)) == 2


async def test_di13_a_handshake_under_way_that_fails_leaves_the_peer_that_came(
    autojump_clock: MockClock,
) -> None:
    wires = Wires({A: (5.0, REFUSED)}, heard={A: 1.0})
    async with running(wires) as swarm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_later, swarm, 2.0, Line(PEER, ELSEWHERE))
            connection = await dial(swarm, A)
        assert connection.remote_address == ELSEWHERE


async def test_di13_a_peer_that_came_and_left_is_no_connection(autojump_clock: MockClock) -> None:
    line = Line(PEER, ELSEWHERE)
    wires = Wires({A: (5.0, REFUSED)}, heard={A: 1.0})
    async with running(wires) as swarm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive_later, swarm, 2.0, line)
            nursery.start_soon(leave_later, 3.0, line)
            error = await failure(swarm, A)
        assert causes(error) == {str(A): "OSError: refused"}


async def leave_later(seconds: float, line: Line) -> None:
    await trio.sleep(seconds)
    await line.aclose()
