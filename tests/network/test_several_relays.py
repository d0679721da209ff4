"""A peer with several relays is called over one of them at a time.

Rules: specs/dialing.md DI7, DI9; specs/relay.md R25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import circuit_of, is_relayed
from p2pnet.interfaces import Part, Transport
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.swarm.ranking import PUBLIC_STEP
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.network.scene import put_edge, put_relay

ON_THE_WAY = Quality(latency=0.0)
RELAYS = 3


async def put_relays(world: World, limits: RelayServer | None = None) -> list[Machine]:
    return [
        await put_relay(world, f"relay {number}", link=ON_THE_WAY, limits=limits)
        for number in range(RELAYS)
    ]


async def put_called(world: World, relays: list[Machine], link: Quality) -> Machine:
    """Put a peer that can be called at all relays, and cannot be dialled."""
    places = [str(each) for relay in relays for each in relay.host.addresses.value]
    by_tcp = [place for place in places if "/tcp/" in place]
    bob = await put_edge(world, "bob", *by_tcp, at="symmetric", link=link, families=IPV4_ONLY)
    await bob.host.addresses.wait_for(
        lambda found: (
            len({circuit_of(each).relay for each in found if is_relayed(each)}) == len(relays)
        )
    )
    return bob


async def put_caller(
    world: World,
    *relays: Machine,
    link: Quality,
    at: str = "symmetric",
    transports: Sequence[Part[Transport]] = presets.TRANSPORTS,
) -> Machine:
    """Put a caller: who knows the relays is connected with them."""
    minimal = presets.minimal(transports=transports)
    places = [relay.address for relay in relays]
    own = RelayClient(relays=places, reserve=False)
    config = replace(minimal, services=[*minimal.services, own])
    home = world.home(ALL_KINDS[at], link=link)
    return await world.host(config, at=home, link=ON_THE_WAY, families=IPV4_ONLY)


async def call(caller: Machine, bob: Machine) -> float:
    """Call a peer at all its relays; return how many seconds that took."""
    relayed = [each for each in bob.host.addresses.value if is_relayed(each)]
    caller.host.peers.add_addresses(bob.host.peer_id, relayed, seconds=100)
    began = trio.current_time()
    await caller.host.connect(bob.host.peer_id)
    return trio.current_time() - began


def opened(relays: list[Machine]) -> int:
    return sum(relay.host.service(RelayServer).statistics().circuits_opened for relay in relays)


@pytest.mark.parametrize("round_trip", [0.08, 0.2, 0.4])
@pytest.mark.parametrize("is_known", [True, False], ids=["relays known", "relays not known"])
async def test_di7_a_call_takes_one_circuit(
    world: World, round_trip: float, is_known: bool
) -> None:
    link = Quality(latency=round_trip / 4)
    relays = await put_relays(world)
    bob = await put_called(world, relays, link)
    caller = await put_caller(world, *(relays if is_known else ()), link=link)
    await trio.sleep(30)
    took = await call(caller, bob)
    # A circuit is asked for, and shakes hands; a relay that is not known is met before.
    assert took == pytest.approx((2 if is_known else 3.5) * round_trip)
    assert opened(relays) == 1


async def test_di7_as_many_are_connected_as_the_relays_have_room_for(world: World) -> None:
    """Of callers that are not equally far away, the near ones leave room for the others."""
    limits = RelayServer(max_circuits_per_peer=2)
    relays = await put_relays(world, limits)
    bob = await put_called(world, relays, Quality(latency=0.05))
    callers = [
        await put_caller(world, *relays, link=Quality(latency=0.05 + 0.005 * number))
        for number in range(RELAYS * limits.max_circuits_per_peer)
    ]
    await trio.sleep(30)
    async with trio.open_nursery() as nursery:
        for caller in callers:
            nursery.start_soon(call, caller, bob)
    assert opened(relays) == len(callers)


async def test_di9_a_relay_that_refuses_costs_a_round_trip_to_it_and_a_dead_one_a_second(
    world: World,
) -> None:
    link, round_trip = Quality(latency=0.05), 0.2
    relays = await put_relays(world, RelayServer(max_circuits_per_peer=1))
    bob = await put_called(world, relays, link)
    first, second, third = [await put_caller(world, *relays, link=link) for _ in range(3)]
    await trio.sleep(30)
    assert await call(first, bob) == pytest.approx(2 * round_trip)
    assert await call(second, bob) == pytest.approx(2.5 * round_trip)
    assert opened(relays) == 2
    taken = [each for each in relays if each.host.service(RelayServer).statistics().circuits]
    assert len(taken) == 2
    world.partition(taken)
    assert await call(third, bob) == pytest.approx(2 * round_trip + 2.0)
    assert opened(relays) == 3
    world.heal()


async def test_r25_where_udp_is_blocked_the_relay_is_met_by_tcp(world: World) -> None:
    """A caller does not wait for a handshake over QUIC to time out, as it knows the other place."""
    link = Quality(latency=0.05)
    spoken: list[Part[Transport]] = [QUIC(), TCP()]
    relay = await world.host(
        presets.relay(transports=spoken), "relay", link=ON_THE_WAY, families=IPV4_ONLY
    )
    bob = await put_called(world, [relay], link)
    caller = await put_caller(world, link=link, at="udp-blocked", transports=spoken)
    await trio.sleep(30)
    assert await call(caller, bob) == pytest.approx(PUBLIC_STEP + 3.5 * 0.2)
    assert opened([relay]) == 1
