"""Peers behind NATs that find and keep their relays by themselves: specs/relay.md R34 to R39."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError
from p2pnet.events import CircuitNearLimit, ConnectionClosed, ReservationAccepted
from p2pnet.interfaces import Connection, Target
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.network.scene import (
    ECHO,
    NEAR,
    call,
    echo,
    put_edge,
    put_pair,
    put_relay,
    reserved,
    say_on,
)

RETURN_SECONDS = 10.0


def circuits(machine: Machine) -> set[str]:
    """Return the addresses at which a peer can be called."""
    return {str(each) for each in machine.host.addresses.value if is_relayed(each)}


async def settled(machine: Machine, relays: int) -> None:
    await machine.host.addresses.wait_for(
        lambda found: (
            len({str(each).split("/p2p/")[1] for each in found if is_relayed(each)}) == relays
        )
    )


async def stranger_reaches(world: World, bob: Machine) -> float:
    """Let somebody new call a peer at all that it advertises; return how long that took."""
    stranger = await world.host(presets.edge(), at=world.internet, link=NEAR)
    addresses = [each for each in bob.host.addresses.value if is_relayed(each)]
    assert addresses, "nothing is advertised"
    began = trio.current_time()
    stranger.host.peers.add_addresses(bob.host.peer_id, addresses, seconds=60)
    with trio.fail_after(10):
        stream = await stranger.host.open_stream(bob.host.peer_id, ECHO, limited="allow")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    took = trio.current_time() - began
    await stream.aclose()
    await stranger.stop()
    return took


async def test_r34_a_peer_advertises_within_a_second_of_meeting_its_relays(world: World) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second")]
    bob = await put_edge(world, "bob", at="symmetric")
    await trio.sleep(60)
    assert not circuits(bob)
    for relay in relays:
        await bob.host.connect(relay.address)
    with trio.fail_after(1.0):
        await settled(bob, 2)
    assert await stranger_reaches(world, bob) < 3


async def test_r34_a_peer_advertises_its_named_relays_within_a_second_of_its_start(
    world: World,
) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second")]
    with trio.fail_after(1.0):
        bob = await put_edge(world, "bob", *(relay.address for relay in relays), at="symmetric")
        await settled(bob, 2)
    assert await stranger_reaches(world, bob) < 3


async def test_r36_of_many_relays_the_near_ones_take_the_place_of_those_that_leave(
    world: World,
) -> None:
    first = [await put_relay(world, name) for name in ("first", "second")]
    bob = await put_edge(world, "bob", at="symmetric")
    for relay in first:
        await bob.host.connect(relay.address)
    await settled(bob, 2)
    distant = [await put_relay(world, f"far {n}", link=Quality(latency=0.15)) for n in range(3)]
    near = [await put_relay(world, f"near {n}") for n in range(2)]
    for relay in (*distant, *near):
        await bob.host.connect(relay.address)
    await trio.sleep(60)
    client = bob.host.service(RelayClient)
    assert set(client.relays) == {relay.host.peer_id for relay in first}, "two are enough"
    for relay in first:
        await relay.stop()
    await trio.sleep(10)
    assert set(client.relays) == {relay.host.peer_id for relay in near}


async def test_r35_a_peer_source_is_all_it_takes(world: World) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second")]

    async def source() -> AsyncIterator[Target]:
        for relay in relays:
            yield relay.address

    config = presets.edge()
    services = [
        RelayClient(peer_source=source) if isinstance(part, RelayClient) else part
        for part in config.services
    ]
    home = world.home("symmetric", "home of bob", link=NEAR)
    bob = await world.host(replace(config, services=services), "bob", at=home)
    bob.host.handle(ECHO, echo)
    with trio.fail_after(3):
        await settled(bob, 2)
    assert await stranger_reaches(world, bob) < 3


@pytest.mark.parametrize("named", [True, False])
async def test_r12_with_two_relays_there_is_no_gap_when_one_dies(world: World, named: bool) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second")]
    addresses = [relay.address for relay in relays]
    bob = await put_edge(world, "bob", *(addresses if named else ()), at="symmetric")
    for address in addresses:
        await bob.host.connect(address)
    await settled(bob, 2)
    await trio.sleep(30)
    await relays[0].power_off()
    ended = trio.current_time() + 90
    while trio.current_time() < ended:
        assert await stranger_reaches(world, bob) < 3
        await trio.sleep(5)
    assert len(circuits(bob)) == 1, "what leads nowhere is withdrawn"


async def test_r37_a_third_relay_takes_the_place_of_one_that_died(world: World) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second", "third")]
    bob = await put_edge(world, "bob", at="symmetric")
    for relay in relays:
        await bob.host.connect(relay.address)
    await settled(bob, 2)
    await trio.sleep(1)
    held = bob.host.service(RelayClient).relays
    (spare,) = [relay for relay in relays if relay.host.peer_id not in held]
    (dying, *_) = [relay for relay in relays if relay.host.peer_id in held]
    await dying.stop()
    with trio.fail_after(3):
        await bob.host.addresses.wait_for(
            lambda found: any(str(spare.host.peer_id) in str(each) for each in found)
        )


@pytest.mark.parametrize("away", [5.0, 60.0, 127.0, 3000.0])
@pytest.mark.parametrize("dies", [True, False])
async def test_r38_the_only_relay_is_used_again_within_ten_seconds_of_its_return(
    world: World, away: float, dies: bool
) -> None:
    relay = await put_relay(world)
    bob = await put_edge(world, "bob", relay.address, at="symmetric")
    await reserved(bob)
    with bob.host.subscribe(ReservationAccepted) as accepted:
        if dies:
            await relay.power_off()
        else:
            await relay.stop()
        await trio.sleep(away)
        relay.power_on()
        await world.start(relay, presets.relay())
        with trio.fail_after(RETURN_SECONDS):
            await anext(accepted)
            await reserved(bob)
            await stranger_reaches(world, bob)


@pytest.mark.parametrize("away", [0.5, 3.0, 9.0])
@pytest.mark.parametrize("silent", [1.0, 3.0, 5.0, 7.0])
@pytest.mark.parametrize("transport", [TCP, QUIC])
async def test_r38_a_relay_that_is_back_before_anybody_missed_it_is_asked_soon(
    world: World, transport: type[TCP | QUIC], silent: float, away: float
) -> None:
    """KA11: the crash may come at any time between two pings."""
    config = presets.relay(transports=[transport()])
    relay = await world.host(config, "relay", link=NEAR, families=IPV4_ONLY)
    home = world.home("symmetric", "home of bob", link=NEAR)
    edge = presets.edge(relays=[relay.address], transports=[transport()])
    bob = await world.host(edge, "bob", at=home)
    with bob.host.subscribe(ReservationAccepted) as accepted:
        await anext(accepted)
        await trio.sleep(100 + silent)
        await relay.power_off()
        await trio.sleep(away)
        relay.power_on()
        await world.start(relay, config)
        with trio.fail_after(RETURN_SECONDS):
            await anext(accepted)


async def test_r38_a_relay_that_was_found_is_used_again_as_well(world: World) -> None:
    relay = await put_relay(world)
    bob = await put_edge(world, "bob", at="symmetric")
    await bob.host.connect(relay.address)
    await reserved(bob)
    await relay.stop()
    await trio.sleep(1000)
    assert not circuits(bob)
    await world.start(relay, presets.relay())
    with trio.fail_after(RETURN_SECONDS):
        await reserved(bob)


async def test_r38_whoever_moves_is_reachable_again_within_seconds_of_noticing(
    world: World,
) -> None:
    relay = await put_relay(world)
    bob = await put_edge(world, "bob", relay.address, at="symmetric")
    await reserved(bob)
    await trio.sleep(100)
    # Its address at home is the same in both homes: that it slept on the way gives it away.
    bob.move(world.home("symmetric", "another home", link=NEAR), clock_jump=300.0)
    # It looks around every 30 s; then the old connection has 5 s to answer.
    with bob.host.subscribe(ReservationAccepted) as accepted, trio.fail_after(30 + 5 + 5):
        while (await anext(accepted)).renewal:
            pass
    await reserved(bob)
    assert await stranger_reaches(world, bob) < 3


async def test_r34_whom_strangers_can_dial_asks_no_relay(world: World) -> None:
    relays = [await put_relay(world, name) for name in ("first", "second", "third")]
    bob = await put_edge(world, "bob", at="open")
    for relay in relays:
        await bob.host.connect(relay.address)
    await trio.sleep(120)
    assert bob.host.service(RelayClient).relays == ()
    assert not circuits(bob)


async def test_r39_both_ends_are_warned_before_a_circuit_is_cut(world: World) -> None:
    limits = RelayServer(circuit_seconds=100, circuit_bytes=100_000)
    pair = await put_pair(world, "symmetric", "symmetric", limits=limits)
    ends = (pair.alice, pair.bob)
    with pair.alice.host.subscribe(CircuitNearLimit) as one:
        with pair.bob.host.subscribe(CircuitNearLimit) as other:
            connection = await call(pair.alice, pair.bob)
            began = trio.current_time()
            # A stream that cannot move (RS21): else it leaves the circuit, which is closed then.
            await say_on(await connection.open_stream(ECHO), bytes(85_000))
            with trio.fail_after(200):
                await until_closed(pair.alice, connection)
            lasted = trio.current_time() - began
            told = [events.take_waiting() for events in (one, other)]
    assert lasted == pytest.approx(100, abs=2)
    for machine, warnings in zip(ends, told, strict=True):
        peer = next(end.host.peer_id for end in ends if end is not machine)
        assert {warning.limit for warning in warnings} == {"bytes", "seconds"}
        for warning in warnings:
            assert (warning.peer_id, warning.relay) == (peer, pair.relay.host.peer_id)
            assert warning.used >= 0.8 * warning.maximum


async def until_closed(machine: Machine, connection: Connection) -> None:
    with machine.host.subscribe(ConnectionClosed) as closings:
        async for closing in closings:
            if closing.connection == connection.ref:
                return


async def test_r21_a_slow_receiver_never_grows_the_relay(world: World) -> None:
    limits = RelayServer(circuit_seconds=None, circuit_bytes=None)
    pair = await put_pair(world, "symmetric", "symmetric", limits=limits)
    service = pair.relay.host.service(RelayServer)
    taken = sent = 0

    async def sip(stream: trio.abc.ReceiveStream) -> None:
        nonlocal taken
        while data := await stream.receive_some(1000):
            taken += len(data)
            await trio.sleep(1.0)

    pair.bob.host.handle("/sip/1", sip)
    connection = await call(pair.alice, pair.bob)
    stream = await connection.open_stream("/sip/1")

    async def pour() -> None:
        nonlocal sent
        while True:
            await stream.send_all(bytes(10_000))
            sent += 10_000

    under_way = []
    with trio.move_on_after(1200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            while True:
                await trio.sleep(10)
                under_way.append(sent - taken)
                assert service.statistics().buffered_bytes <= 2 * 65_536
    assert taken > 1_000_000
    # What is on its way stands in windows, and in a chunk at the relay: no more as time goes by.
    assert max(under_way) < 4_000_000
    assert max(under_way[60:]) <= max(under_way[:60]) + 300_000
    assert service.statistics().most_buffered_bytes <= 2 * 65_536


async def test_r31_a_relay_for_friends_is_passed_over_by_others(world: World) -> None:
    friends: set[PeerId] = set()
    limits = RelayServer(may_reserve=lambda peer_id, address: peer_id in friends)
    closed, public = await put_relay(world, "closed", limits=limits), await put_relay(world, "open")
    bob = await put_edge(world, "bob", at="symmetric")
    for relay in (closed, public):
        await bob.host.connect(relay.address)
    await trio.sleep(60)
    assert bob.host.service(RelayClient).relays == (public.host.peer_id,)
    stranger = await world.host(presets.edge(), "stranger")
    with pytest.raises(DialError, match="NO_RESERVATION"):
        await stranger.host.connect(f"{closed.address}/p2p-circuit/p2p/{bob.host.peer_id}")
