"""Rules S6 and S7: one stranger fills neither the handshakes nor the connections of a host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.bus import EventBus
from p2pnet.core.peer_id import PeerId
from p2pnet.events import ConnectionClosed, PathChanged
from p2pnet.swarm.arrivals import Arrivals
from p2pnet.swarm.config import SwarmConfig
from tests.swarm.fakes import Arrival, Line
from tests.swarm.scene import A, dial, running

CONFIG = SwarmConfig(max_inbound_per_prefix=3)


def somebody(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + bytes([number]) * 32)


def crowd(*addresses: str) -> list[Line]:
    return [Line(somebody(n), parse(text)) for n, text in enumerate(addresses, start=10)]


@pytest.mark.parametrize(
    ("addresses", "closed"),
    [
        ([f"/ip4/8.8.8.8/tcp/{n}" for n in range(1, 6)], [False, False, False, True, True]),
        (
            [f"/ip6/2a00:1:2:34{n}::1/udp/1/quic-v1" for n in range(10, 15)],
            [False] * 3 + [True] * 2,
        ),
        ([f"/ip4/8.8.8.{n}/tcp/1" for n in range(1, 6)], [False] * 5),
        ([f"/ip6/2a00:1:2:{n}00::1/tcp/1" for n in range(1, 6)], [False] * 5),
        ([f"/ip4/127.0.0.1/tcp/{n}" for n in range(1, 6)], [False] * 5),
        ([f"/ip4/172.17.0.1/tcp/{n}/ws" for n in range(1, 6)], [False] * 5),
        ([f"/ip4/9.9.9.9/tcp/1/p2p/{somebody(3)}/p2p-circuit"] * 5, [False] * 5),
    ],
    ids=["one IPv4", "one /56", "many IPv4", "many /56", "loopback", "a proxy", "a relay"],
)
async def test_s7_only_so_many_arrive_from_one_prefix(
    addresses: list[str], closed: list[bool]
) -> None:
    async with running(config=CONFIG) as swarm:
        lines = crowd(*addresses)
        for line in lines:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in lines] == closed
        assert swarm.turned_away.refused["max_inbound_per_prefix"] == sum(closed)  # S25


async def test_s7_dials_to_a_prefix_are_not_counted_and_who_leaves_makes_room() -> None:
    async with running(config=CONFIG) as swarm:
        assert (await dial(swarm, A)).remote_address == A
        lines = crowd(*[str(A)] * 5)
        for line in lines[:4]:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in lines[:4]] == [False, False, False, True]
        assert len(swarm.connections()) == 4
        await lines[0].aclose()
        await wait_all_tasks_blocked()
        swarm.accept(Arrival(lines[4]))
        await wait_all_tasks_blocked()
        assert not lines[4].is_closed


async def test_s6_a_stranger_who_says_nothing_pushes_out_none_but_himself(
    autojump_clock: MockClock,
) -> None:
    async with running(config=SwarmConfig(max_pending_per_prefix=3)) as swarm:
        honest = Arrival(None)
        honest.remote_address = parse("/ip4/9.9.9.9/tcp/1")
        strangers = [Arrival() for _ in range(10)]
        for arrival in (honest, *strangers):
            swarm.accept(arrival)
            await wait_all_tasks_blocked()
        assert not honest.is_closed
        assert [one.is_closed for one in strangers] == [True] * 7 + [False] * 3
        assert swarm.turned_away.refused["max_pending_per_prefix"] == 7  # S25


class Wanderer(Line):
    """A line whose remote may move."""

    def __init__(self, peer_id: PeerId, remote_address: Multiaddr) -> None:
        super().__init__(peer_id, remote_address)
        self.on_path_changed: Callable[[bool], None] = lambda is_ours: None

    def move(self, address: str) -> None:
        self.remote_address = parse(address)
        self.on_path_changed(False)


async def test_s7_who_has_moved_counts_for_both_prefixes_and_stays() -> None:
    """Q29: else whoever has two addresses could hold any number of connections."""
    async with running(config=CONFIG) as swarm:
        before = [Wanderer(somebody(n), parse("/ip4/8.8.8.8/udp/1/quic-v1")) for n in (50, 51, 52)]
        for line in (*before, *crowd("/ip4/9.9.9.9/tcp/1")):
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        for line in before:
            line.move("/ip4/9.9.9.9/udp/2/quic-v1")
            line.move("/ip4/9.9.9.9/udp/3/quic-v1")
        assert len(swarm.connections()) == 4
        refused = crowd("/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/1")
        for line in refused:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in refused] == [True, True]
        for line in before:
            await line.aclose()
            await wait_all_tasks_blocked()
        admitted = crowd(*["/ip4/8.8.8.8/tcp/1"] * 3, *["/ip4/9.9.9.9/tcp/1"] * 2)
        for line in admitted:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
        assert [line.is_closed for line in admitted] == [False] * 5


async def test_q29_events_name_the_address_to_which_a_remote_has_moved() -> None:
    bus = EventBus()
    kinds: tuple[type[PathChanged | ConnectionClosed], ...] = (PathChanged, ConnectionClosed)
    line = Wanderer(somebody(1), parse("/ip4/8.8.8.8/udp/1/quic-v1"))
    async with running(bus=bus) as swarm:
        with bus.subscribe(*kinds) as events:
            swarm.accept(Arrival(line))
            await wait_all_tasks_blocked()
            (connection,) = swarm.connections()
            line.move("/ip4/9.9.9.9/udp/2/quic-v1")
            assert connection.remote_address == parse("/ip4/9.9.9.9/udp/2/quic-v1")
            assert await anext(events) == PathChanged(connection.ref, is_ours=False)
            assert connection.ref.remote_address == connection.remote_address
            line.on_path_changed(True)
            assert await anext(events) == PathChanged(connection.ref, is_ours=True)
            await line.aclose()
            assert await anext(events) == ConnectionClosed(connection.ref, "closed by the peer")


def waiting(arrivals: Arrivals, *addresses: Multiaddr) -> list[int]:
    ended: list[int] = []
    for number, address in enumerate(addresses):
        arrivals.add(number, address, lambda number=number: ended.append(number))  # type: ignore[misc]
    return ended


def test_s6_whose_handshakes_are_over_makes_room() -> None:
    refused: list[str] = []
    arrivals = Arrivals(most=9, most_of_prefix=2, refuse=refused.append)
    assert waiting(arrivals, A, A) == []
    arrivals.remove(0)
    arrivals.remove(0)
    assert len(arrivals) == 1
    ended: list[str] = []
    arrivals.add(7, A, lambda: ended.append("seven"))
    assert ended == []
    assert refused == []
    arrivals.add(8, A, lambda: ended.append("eight"))
    assert len(arrivals) == 2
    assert refused == ["max_pending_per_prefix"]  # S25


def test_s6_all_together_are_bounded_too() -> None:
    many = [parse(f"/ip4/8.8.8.{n}/tcp/1") for n in range(1, 7)]
    refused: list[str] = []
    arrivals = Arrivals(most=4, most_of_prefix=2, refuse=refused.append)
    assert waiting(arrivals, *many) == [0, 1]
    assert len(arrivals) == 4
    assert refused == ["max_pending_inbound"] * 2  # S25
