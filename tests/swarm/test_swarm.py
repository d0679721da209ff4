"""Rules S6 S7 S16 S20 S22 on a whole swarm, with a transport of this test's own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import parse
from p2pnet.core.bus import EventBus
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported, LimitExceeded
from p2pnet.events import ConnectionClosed, ConnectionOpened, ListeningOn
from p2pnet.interfaces import CircuitLimit
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.swarm import Swarm
from tests.swarm.fakes import ME, OTHER, PEER, THIRD, Arrival, Doorway, Line, Wires, env
from tests.swarm.scene import CIRCUIT, ELSEWHERE, A, B, C, arrive, dial, running

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


def refusals(swarm: Swarm) -> dict[str, int]:
    """Return how many connections were refused, by limit (S25)."""
    return {limit: count for limit, count in swarm.turned_away.refused.items() if count}


async def test_s7_one_peer_has_only_so_many_connections() -> None:
    async with running(config=SwarmConfig(max_connections_per_peer=2)) as swarm:
        lines = [Line(PEER, A) for _ in range(3)]
        await arrive(swarm, *lines, Line(OTHER, A))
        assert len(swarm.connections(PEER)) == 2
        assert lines[2].is_closed
        with pytest.raises(LimitExceeded, match="max_connections_per_peer = 2"):
            await dial(swarm, A)
        assert len(swarm.connections(OTHER)) == 1
        assert refusals(swarm) == {"max_connections_per_peer": 2}


async def test_s7_at_the_limit_only_dials_are_let_in() -> None:
    config = SwarmConfig(max_connections=2, high_connections=2, low_connections=1)
    async with running(config=config) as swarm:
        late = Line(OTHER, B)
        await arrive(swarm, Line(OTHER, A), Line(OTHER, A), late)
        assert late.is_closed
        assert (await dial(swarm, A)).peer_id == PEER
        assert refusals(swarm) == {"max_connections": 1}


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
        assert refusals(swarm) == {"upgrade_timeout": 1}


async def test_s20_more_than_the_high_mark_are_closed_down_to_the_low_one(
    autojump_clock: MockClock,
) -> None:
    config = SwarmConfig(low_connections=1, high_connections=2, trim_grace=60.0, max_connections=9)
    kept, trimmed, young = Line(PEER, A), [Line(OTHER, B), Line(OTHER, B)], Line(THIRD, C)
    async with running(config=config) as swarm:
        swarm.protect(PEER, "friend")
        await arrive(swarm, kept, *trimmed)
        await trio.sleep(61)
        await arrive(swarm, young)
        assert [line.is_closed for line in trimmed] == [True, True]
        assert not kept.is_closed
        assert not young.is_closed
        assert swarm.turned_away.trimmed == 2
        assert refusals(swarm) == {}


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
