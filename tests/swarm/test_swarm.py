"""Rules S6 S7 S14 S16 S18 S19 S20 S22 on a whole swarm, with a transport of this test's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, components, parse
from p2pnet.core.bus import EventBus
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported, DialError, LimitExceeded, describe
from p2pnet.events import ConnectionClosed, ConnectionOpened, ListeningOn
from p2pnet.interfaces import CircuitLimit, Role
from p2pnet.swarm.backoff import BackingOff
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import ME, OTHER, PEER, THIRD, Arrival, Doorway, Line, NoNetwork, Wires, env

A, B, C = (parse(f"/ip4/8.8.8.8/tcp/{n}") for n in (1, 2, 3))
ELSEWHERE = parse("/ip4/8.8.4.4/tcp/1")
CIRCUIT = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{THIRD}/p2p-circuit")
REFUSED = OSError("refused")
NONE: frozenset[Multiaddr] = frozenset()


@asynccontextmanager
async def running(
    wires: Wires | None = None,
    config: SwarmConfig | None = None,
    network: NoNetwork | None = None,
) -> AsyncGenerator[Swarm, None]:
    swarm = Swarm(config or SwarmConfig(), env(network), peer_id=ME, bus=EventBus())
    swarm.add_transport(wires or Wires())
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        yield swarm
        nursery.cancel_scope.cancel()


async def dial(
    swarm: Swarm, *addresses: Multiaddr, insist: Sequence[Multiaddr] = ()
) -> LiveConnection:
    return await swarm.dial_ranked(PEER, addresses, insist=frozenset(insist))


async def failure(
    swarm: Swarm, *addresses: Multiaddr, insist: Sequence[Multiaddr] = ()
) -> DialError:
    with pytest.raises(DialError) as caught:
        await dial(swarm, *addresses, insist=insist)
    return caught.value


def causes(error: DialError) -> dict[str, str]:
    return {str(attempt.address): describe(attempt.cause) for attempt in error.attempts}


async def arrive(swarm: Swarm, *lines: Line) -> list[LiveConnection]:
    for line in lines:
        swarm.accept(Arrival(line))
        await wait_all_tasks_blocked()
    return list(swarm.connections())


# ---- dialling ----------------------------------------------------------------------------


async def test_s19_every_address_has_its_cause(autojump_clock: MockClock) -> None:
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


async def test_s18_one_address_has_so_long(autojump_clock: MockClock) -> None:
    config = SwarmConfig(dial_timeout=3.0)
    async with running(Wires({A: (99.0, None)}), config) as swarm:
        started = trio.current_time()
        error = await failure(swarm, A)
        assert trio.current_time() - started == pytest.approx(3.0)
    assert causes(error) == {str(A): "timed out"}


async def test_s18_all_together_have_so_long_and_none_is_forgotten(
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
        str(C): "timed out",
    }
    assert error.hint == "no answer within 10 s"


async def test_s18_so_many_addresses_are_dialled_at_once(autojump_clock: MockClock) -> None:
    wires = Wires({A: (1.0, None)})
    async with running(wires, SwarmConfig(max_dials=2)) as swarm:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer_id in (PEER, OTHER, THIRD):
                nursery.start_soon(dial_peer, swarm, peer_id)
        assert trio.current_time() - started == pytest.approx(2.0)


async def dial_peer(swarm: Swarm, peer_id: PeerId) -> None:
    await swarm.dial_ranked(peer_id, [A], insist=NONE)


async def test_s14_an_address_that_failed_is_left_alone_for_a_while(
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
async def test_s14_an_address_that_the_caller_gives_is_dialled_all_the_same(
    autojump_clock: MockClock, asked: str
) -> None:
    wires = Wires({A: (0.0, REFUSED)})
    address = parse(asked)
    async with running(wires, network=NoNetwork({"a.example": ("8.8.8.8",)})) as swarm:
        await failure(swarm, address)
        await failure(swarm, address, insist=[address])
    assert wires.dialled == [A, A]


async def test_s14_what_works_is_dialled_again_at_once_and_remembered(
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


# ---- connections -------------------------------------------------------------------------


async def test_s16_the_best_connection_comes_first() -> None:
    limited = Line(PEER, CIRCUIT, limit=CircuitLimit(120.0, 131072))
    relayed, direct, newer = Line(PEER, CIRCUIT), Line(PEER, A), Line(PEER, B)
    elsewhere = Line(OTHER, C)
    async with running() as swarm:
        await arrive(swarm, newer, limited, direct, relayed, elsewhere)
        best = swarm.connections(PEER)
        # `direct` is newer than `newer`, and as idle.
        assert [c.remote_address for c in best] == [A, B, CIRCUIT, CIRCUIT]
        assert [c.is_limited for c in best] == [False, False, False, True]
        swarm.peers.set_protocols(PEER, ["/x"])
        await best[1].open_stream("/x")
        assert [c.remote_address for c in swarm.connections(PEER)][:2] == [B, A]
        await best[1].aclose()
        assert [c.remote_address for c in swarm.connections(PEER)][:1] == [A]
        assert len(swarm.connections()) == 4


async def test_s7_there_is_no_connection_to_oneself() -> None:
    line = Line(ME, A)
    async with running() as swarm:
        assert await arrive(swarm, line) == []
    assert line.is_closed


async def test_s7_one_peer_has_only_so_many_connections() -> None:
    async with running(config=SwarmConfig(max_connections_per_peer=2)) as swarm:
        lines = [Line(PEER, A) for _ in range(3)]
        await arrive(swarm, *lines, Line(OTHER, A))
        assert len(swarm.connections(PEER)) == 2
        assert lines[2].is_closed
        with pytest.raises(LimitExceeded, match="max_connections_per_peer = 2"):
            await dial(swarm, A)
        assert len(swarm.connections(OTHER)) == 1


async def test_s7_at_the_limit_only_dials_are_let_in() -> None:
    config = SwarmConfig(max_connections=2, high_connections=2, low_connections=1)
    async with running(config=config) as swarm:
        late = Line(OTHER, B)
        await arrive(swarm, Line(OTHER, A), Line(OTHER, A), late)
        assert late.is_closed
        assert (await dial(swarm, A)).peer_id == PEER


async def test_s6_the_oldest_unfinished_arrival_gives_way(autojump_clock: MockClock) -> None:
    async with running(config=SwarmConfig(max_pending_inbound=2)) as swarm:
        arrivals = [Arrival() for _ in range(3)]
        for arrival in arrivals:
            swarm.accept(arrival)
            await wait_all_tasks_blocked()
        assert [arrival.is_closed for arrival in arrivals] == [True, False, False]
        await arrive(swarm, Line(PEER, A))
        assert len(swarm.connections(PEER)) == 1


async def test_s6_an_arrival_has_so_long_to_prove_itself(autojump_clock: MockClock) -> None:
    async with running(config=SwarmConfig(upgrade_timeout=3.0)) as swarm:
        arrival = Arrival()
        swarm.accept(arrival)
        await trio.sleep(2.9)
        assert not arrival.is_closed
        await trio.sleep(0.2)
        assert arrival.is_closed


async def test_s20_more_than_the_high_mark_are_closed_down_to_the_low_one(
    autojump_clock: MockClock,
) -> None:
    config = SwarmConfig(low_connections=1, high_connections=3, trim_grace=60.0, max_connections=9)
    kept, trimmed, young = Line(PEER, A), [Line(OTHER, B), Line(OTHER, B)], Line(THIRD, C)
    async with running(config=config) as swarm:
        swarm.protect(PEER, "friend")
        await arrive(swarm, kept, *trimmed)
        await trio.sleep(61)
        await arrive(swarm, young)
        assert [line.is_closed for line in trimmed] == [True, True]
        assert not kept.is_closed
        assert not young.is_closed


async def test_s20_a_full_swarm_makes_room_once_those_in_it_are_old_enough(
    autojump_clock: MockClock,
) -> None:
    config = SwarmConfig(
        max_connections=3, high_connections=2, low_connections=1, trim_grace=60, upgrade_timeout=99
    )
    async with running(config=config) as swarm:
        crowd = [Line(PeerId(b"\x12\x20" + bytes([n]) * 32), A) for n in range(10, 14)]
        for line in crowd:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in crowd] == [False, False, False, True]
        await trio.sleep(60)
        late = [Line(PeerId(b"\x12\x20" + bytes([n]) * 32), A) for n in (20, 21)]
        for line in late:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in late] == [True, False]


async def test_s20_what_is_being_closed_is_not_counted(autojump_clock: MockClock) -> None:
    class Slow(Line):
        async def aclose(self) -> None:
            await trio.sleep(1000)
            await super().aclose()

    config = SwarmConfig(low_connections=2, high_connections=2, trim_grace=60.0, max_connections=9)
    stays = Line(PEER, B)
    async with running(config=config) as swarm:
        (closing,) = await arrive(swarm, Slow(OTHER, A))
        await arrive(swarm, stays)
        await trio.sleep(61)
        swarm._nursery.start_soon(closing.aclose)
        await wait_all_tasks_blocked()
        await arrive(swarm, Line(PEER, C))
        assert not stays.is_closed


async def test_s20_a_peer_is_protected_as_long_as_one_tag_is_on_it() -> None:
    async with running() as swarm:
        swarm.protect(PEER, "a")
        swarm.protect(PEER, "b")
        swarm.unprotect(PEER, "a")
        swarm.unprotect(PEER, "c")
        swarm.unprotect(OTHER, "a")
        assert set(swarm._protected) == {PEER}
        swarm.unprotect(PEER, "b")
        assert not swarm._protected


async def test_openings_and_closings_are_told() -> None:
    async with running() as swarm:
        with swarm._bus.subscribe(ConnectionOpened, ConnectionClosed) as events:
            (connection,) = await arrive(swarm, Line(PEER, A))
            assert await anext(events) == ConnectionOpened(connection.ref)
            assert swarm.connection(connection.ref.number) is connection
            await connection.aclose("enough")
            assert await anext(events) == ConnectionClosed(connection.ref, "enough")
            assert swarm.connection(connection.ref.number) is None


async def test_s22_a_goodbye_takes_only_so_long(autojump_clock: MockClock) -> None:
    class Stubborn(Line):
        async def aclose(self) -> None:
            await trio.sleep(60)
            await super().aclose()

    polite = Line(PEER, A)
    async with running(config=SwarmConfig(goodbye_timeout=2.0)) as swarm:
        await arrive(swarm, polite, Stubborn(OTHER, B))
        started = trio.current_time()
        await swarm.say_goodbye()
        assert trio.current_time() - started == pytest.approx(2.0)
        assert polite.is_closed
        assert swarm.connections() == ()


# ---- listening ---------------------------------------------------------------------------


async def test_what_arrives_at_a_listener_is_taken_in() -> None:
    async with running() as swarm:
        with swarm._bus.subscribe(ListeningOn) as events:
            listener = await swarm.listen(A)
            assert await anext(events) == ListeningOn(A)
        assert isinstance(listener, Doorway)
        swarm.serve(listener)
        await listener.send.send(Arrival(Line(PEER, B)))
        await wait_all_tasks_blocked()
        assert len(swarm.connections(PEER)) == 1
        assert swarm.listen_addresses == (A,)
    assert listener.is_closed


async def test_only_who_arrives_from_an_expected_ip_is_listened_to_first() -> None:
    """D15: Otherwise an arrival like any other (S7)."""
    config = SwarmConfig(max_connections=2, high_connections=2, low_connections=1)
    async with running(config=config) as swarm:
        arrivals = [
            Arrival(Line(PEER, A)),
            Arrival(Line(OTHER, ELSEWHERE)),
            Arrival(Line(THIRD, C)),
        ]
        with swarm.expected.during([B], 0.2):
            for arrival in arrivals:
                swarm.accept(arrival)
                await wait_all_tasks_blocked()
        assert [arrival.patience for arrival in arrivals] == [[0.2], [None], [0.2]]
        assert [c.is_inbound for c in swarm.connections()] == [True, True]
        assert swarm.connections(THIRD) == ()
        after = Arrival(Line(PEER, A))
        swarm.accept(after)
        await wait_all_tasks_blocked()
        assert after.patience == [None]


async def test_an_address_of_no_transport_cannot_be_listened_at() -> None:
    async with running() as swarm:
        with pytest.raises(AddressUnsupported, match="no transport can listen there"):
            await swarm.listen(parse("/ip4/0.0.0.0/udp/1"))


async def test_nothing_can_be_done_before_the_swarm_runs() -> None:
    swarm = Swarm(SwarmConfig(), env(), peer_id=ME, bus=EventBus())
    swarm.add_transport(Wires())
    with pytest.raises(trio.ClosedResourceError):
        await dial(swarm, A)


def test_the_bounds_must_make_sense() -> None:
    with pytest.raises(ValueError, match="max_dials must be positive"):
        SwarmConfig(max_dials=0)
    with pytest.raises(ValueError, match="low_connections"):
        SwarmConfig(low_connections=200, high_connections=100)
