"""Hosts of which nobody has seen the port that they listen on, when it is time to punch (D8)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from p2pnet import presets
from p2pnet.events import PunchStarted
from p2pnet.interfaces import Part, Transport
from p2pnet.protocols.dcutr.policy import ways
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import speaking
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY, Families
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.network.scene import NEAR, call, direct, reserved


async def put_quic_with_relay_at_tcp(world: World) -> tuple[Machine, Machine]:
    relay = await world.host(speaking("quic", presets.relay()), "relay", link=NEAR)
    at_tcp = [str(a) for a in relay.host.addresses.value if "/ip4/11." in str(a)]
    config = speaking("quic", presets.edge(relays=[a for a in at_tcp if "/tcp/" in a]))
    alice, bob = [
        await world.host(
            config,
            name,
            at=world.home(ALL_KINDS["port-restricted"], f"home of {name}", link=NEAR),
            link=Quality(latency=0.0),
            families=IPV4_ONLY,
        )
        for name in ("alice", "bob")
    ]
    return alice, bob


async def test_a_host_that_listens_by_quic_and_knows_relays_by_tcp(world: World) -> None:
    alice, bob = await put_quic_with_relay_at_tcp(world)
    await trio.sleep(5.0)
    assert not alice.host.punch_addresses()
    await call(alice, bob)
    connection = await direct(alice, bob, within=10.0)
    assert "/quic-v1" in str(connection.remote_address)
    assert len(alice.host.punch_addresses()) == 1


ALL: list[Part[Transport]] = [QUIC(), TCP()]


async def put_relays_of_all_kinds(world: World) -> list[str]:
    """Start two relays that are met by QUIC and TCP, over IPv6 and IPv4; return where they are."""
    relays = [
        await world.host(presets.relay(transports=ALL), name, link=NEAR)
        for name in ("first", "second")
    ]
    return [
        str(each)
        for relay in relays
        for each in relay.host.addresses.value
        if "/11." in str(each) or "/2a00:" in str(each)
    ]


async def put_two_that_met_the_relays_differently(
    world: World, rich: str
) -> tuple[Machine, Machine]:
    """Put a host that can do more than another, and so knows relays by what that one lacks."""
    addresses = await put_relays_of_all_kinds(world)

    async def put(name: str, *, by_quic: bool, families: Families) -> Machine:
        spoken = ALL if by_quic else ALL[-1:]
        config = presets.edge(relays=addresses, transports=spoken)
        kind = ALL_KINDS["port-restricted"]
        home = world.home(kind, f"home of {name}", link=NEAR, families=families)
        return await world.host(config, name, at=home, link=Quality(latency=0.0), families=families)

    alice = await put(
        "alice", by_quic="QUIC" in rich, families=DUAL_STACK if "IPv6" in rich else IPV4_ONLY
    )
    return alice, await put("bob", by_quic=False, families=IPV4_ONLY)


@pytest.mark.parametrize("rich", ["QUIC", "IPv6", "QUIC and IPv6"])
@pytest.mark.parametrize("calls", [True, False], ids=["calling", "called"])
async def test_who_is_seen_by_quic_or_ipv6_alone_meets_one_that_has_neither(
    world: World, calls: bool, rich: str
) -> None:
    """D8 D31: in the first attempt."""
    alice, bob = await put_two_that_met_the_relays_differently(world, rich)
    for peer in (alice, bob):
        await reserved(peer)
    await trio.sleep(30.0)
    await call(*((alice, bob) if calls else (bob, alice)))
    connection = await direct(alice, bob, within=1.5)
    assert "/ip4/11." in str(connection.remote_address)
    assert "/tcp/" in str(connection.remote_address)


@pytest.mark.parametrize("calls", [True, False], ids=["calling", "called"])
async def test_where_udp_is_blocked_at_one_end_a_punch_is_by_tcp_though_both_have_quic(
    world: World, calls: bool
) -> None:
    """D8 D31: the one that knows relays by TCP looks in vain for a way over UDP for 2 s."""
    addresses = await put_relays_of_all_kinds(world)
    config = presets.edge(relays=addresses, transports=ALL)
    alice, bob = [
        await world.host(
            config,
            name,
            at=world.home(ALL_KINDS[kind], f"home of {name}", link=NEAR),
            link=Quality(latency=0.0),
            families=IPV4_ONLY,
        )
        for name, kind in (("alice", "udp-blocked"), ("bob", "port-restricted"))
    ]
    for peer in (alice, bob):
        await reserved(peer)
    await trio.sleep(30.0)
    await call(*((alice, bob) if calls else (bob, alice)))
    connection = await direct(alice, bob, within=0.75 if calls else 3.0)
    assert "/tcp/" in str(connection.remote_address)


async def put_homes(
    world: World, *names: str, transports: Sequence[Part[Transport]] = ALL
) -> list[Machine]:
    """Put hosts that know a relay by TCP alone, by which their NATs let nobody punch."""
    addresses = [each for each in await put_relays_of_all_kinds(world) if "/tcp/" in each]
    config = presets.edge(relays=addresses[:1], transports=list(transports))
    kind = ALL_KINDS["no-simultaneous-open"]
    homes = [world.home(kind, f"home of {name}", link=NEAR) for name in names]
    none = Quality(latency=0.0)
    machines = [
        await world.host(config, name, at=home, link=none, families=IPV4_ONLY)
        for name, home in zip(names, homes, strict=True)
    ]
    for machine in machines:
        await reserved(machine)
    await trio.sleep(30.0)
    return machines


async def test_what_leads_nowhere_by_one_transport_is_tried_by_all_in_the_second_attempt(
    world: World,
) -> None:
    """D8."""
    alice, bob = await put_homes(world, "alice", "bob")
    with alice.host.subscribe(PunchStarted) as punches:
        await call(alice, bob)
        connection = await direct(alice, bob, within=6.0)
    assert "/quic-v1" in str(connection.remote_address)
    first, second = [(await anext(punches)).addresses for _ in range(2)]
    assert ways(first) == {("tcp", False)}
    assert ways(second) == {("tcp", False), ("udp", False)}


async def test_with_one_way_in_all_the_first_attempt_takes_its_time(world: World) -> None:
    """D10: nothing will be there in the second that was not in the first."""
    alice, bob = await put_homes(world, "alice", "bob", transports=[TCP()])
    with alice.host.subscribe(PunchStarted) as punches:
        await call(alice, bob)
        await anext(punches)
        began = trio.current_time()
        await anext(punches)
    assert trio.current_time() - began > 10.0


async def test_a_crowd_of_callers_has_a_host_seen_by_each_way_but_once(world: World) -> None:
    """D8: all first attempts fail together, and each procedure wants to have the host seen."""
    bob, *callers = await put_homes(world, "bob", "one", "two", "three", "four", "five", "six")
    async with trio.open_nursery() as nursery:
        for caller in callers:
            nursery.start_soon(call, caller, bob)
    for caller in callers:
        await direct(caller, bob, within=15.0)
    relays = [each for each in bob.host.connections() if not each.is_inbound]
    witnesses = [each for each in relays if str(each.remote_address).startswith("/ip4/11.1.")]
    assert sorted(each.muxer for each in witnesses) == ["/quic-v1", "/yamux/1.0.0"]
