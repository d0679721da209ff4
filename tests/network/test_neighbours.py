"""Peers that are behind one NAT, or seem to be: they find each other, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, place_of
from p2pnet.events import ConnectionOpened, PunchGivenUp, PunchStarted
from p2pnet.interfaces import Connection
from p2pnet.testing.kinds import CARRIER, PORT_RESTRICTED
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import Punched, speaking
from p2pnet.testing.nat import NatKind
from p2pnet.testing.sites import CARRIER_LAN, IPV4_ONLY, RouterSetup, Site
from p2pnet.testing.world import World
from tests.network.scene import ECHO, NEAR, call, direct, echo, put_relay, reserved, say

LAN = Quality(latency=0.0005)
FIXED = 4001
SETTLED = 15.0


def host_of(connection: Connection) -> str:
    place = place_of(connection.remote_address)
    assert place is not None
    return place.endpoint.host


async def put(
    world: World, name: str, at: Site, *relays: str, transport: Punched = "tcp", port: int = 0
) -> Machine:
    """Start a peer at a site, which listens by one transport, at a fixed port perhaps."""
    config = presets.edge(relays=relays, port_mapping=False)
    config = speaking(transport, replace(config, listen=[f"/ip4/0.0.0.0/tcp/{port}"]))
    machine = await world.host(config, name, at=at, link=LAN, families=IPV4_ONLY)
    machine.host.handle(ECHO, echo)
    return machine


async def put_stranger(world: World, at: Site) -> Machine:
    return await world.host(
        presets.minimal(listen=[f"/ip4/0.0.0.0/tcp/{FIXED}"]),
        "stranger",
        at=at,
        link=LAN,
        families=IPV4_ONLY,
    )


def put_carrier(world: World, *, hairpinning: bool) -> tuple[Site, Site]:
    """Put two homes behind one carrier; their private networks are the same."""
    kind = replace(CARRIER, hairpinning=hairpinning)
    setup = RouterSetup(link=NEAR, lan=CARRIER_LAN)
    carrier = world.router("carrier", kind, setup=setup)
    homes = [
        world.router(name, PORT_RESTRICTED, behind=carrier, setup=RouterSetup(link=NEAR))
        for name in ("home of alice", "home of bob")
    ]
    return homes[0], homes[1]


async def put_relays(world: World, transport: Punched, *, at: Site | None = None) -> list[str]:
    config = speaking(transport, presets.relay())
    relay = await world.host(config, "relay", at=at, link=NEAR, families=IPV4_ONLY)
    wanted = "/tcp/" if transport == "tcp" else "/udp/"
    return [str(each) for each in relay.host.addresses.value if wanted in str(each)]


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_two_peers_in_one_home_meet_at_home(world: World, transport: Punched) -> None:
    """D19 D20: their router does not hairpin."""
    relays = await put_relays(world, transport)
    home = world.home("port-restricted", "home", link=NEAR)
    alice = await put(world, "alice", home, *relays, transport=transport)
    bob = await put(world, "bob", home, *relays, transport=transport)
    await call(alice, bob)
    assert host_of(await direct(alice, bob, within=2.0)) == bob.addresses[0]
    await say(alice, bob)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize("kind", ["port-restricted", "symmetric", "port-restricted-reset"])
async def test_two_peers_with_one_fixed_port_in_one_home(
    world: World, kind: str, transport: Punched
) -> None:
    """D19 D20: they meet, and each of them meets a third peer elsewhere, if its NAT allows it."""
    relays = await put_relays(world, transport)
    home = world.home(kind, "home", link=NEAR)
    other = world.home("full-cone", "home of carol", link=NEAR)
    alice, bob, carol = [
        await put(world, name, at, *relays, transport=transport, port=FIXED)
        for name, at in (("alice", home), ("bob", home), ("carol", other))
    ]
    await call(alice, bob)
    assert host_of(await direct(alice, bob, within=2.0)) == bob.addresses[0]
    for peer in (alice, bob):
        await call(peer, carol)
        await direct(peer, carol, within=5.0)
        await say(peer, carol)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_two_peers_in_a_network_with_a_relay_of_its_own_meet_there(
    world: World, transport: Punched
) -> None:
    """D20: nobody knows a public address."""
    home = world.home("port-restricted", "home", link=NEAR)
    relays = await put_relays(world, transport, at=home)
    alice = await put(world, "alice", home, *relays, transport=transport)
    bob = await put(world, "bob", home, *relays, transport=transport)
    await call(alice, bob)
    assert host_of(await direct(alice, bob, within=2.0)) == bob.addresses[0]
    await say(alice, bob)


async def test_who_is_elsewhere_is_told_no_private_address_though_it_has_the_same_network(
    world: World,
) -> None:
    """D19 D20: a stranger is where the peer would be, and is left alone."""
    relay = await put_relay(world)
    home = world.home("port-restricted", "home of alice", link=NEAR)
    other = world.home("port-restricted", "home of bob", link=NEAR)
    stranger = await put_stranger(world, home)
    alice = await put(world, "alice", home, relay.address, port=FIXED)
    bob = await put(world, "bob", other, relay.address, port=FIXED)
    assert stranger.addresses == bob.addresses
    with (
        stranger.host.subscribe(ConnectionOpened) as visits,
        alice.host.subscribe(PunchStarted) as started,
    ):
        await call(alice, bob)
        await direct(alice, bob, within=2.0)
        event = await anext(started)
        assert list(map(str, event.addresses)) == [
            f"/ip4/{world.routers['home of bob'].outside_addresses[0]}/tcp/{FIXED}"
        ]
        assert not visits.take_waiting()


async def test_homes_behind_a_carrier_that_does_not_hairpin_stay_relayed_and_meet_no_stranger(
    world: World,
) -> None:
    """D20: the public address is one, and the private ones lead to others."""
    relay = await put_relay(world)
    home, other = put_carrier(world, hairpinning=False)
    stranger = await put_stranger(world, other)
    bob = await put(world, "bob", other, relay.address, port=FIXED)
    first = world.machine("first", at=home, link=LAN, families=IPV4_ONLY)
    alice = await put(world, "alice", home, relay.address, port=FIXED)
    assert first.addresses == stranger.addresses
    assert alice.addresses == bob.addresses
    with (
        bob.host.subscribe(PunchGivenUp) as given_up,
        bob.host.subscribe(PunchStarted) as started,
    ):
        await call(alice, bob)
        reasons = " ".join((await anext(given_up)).reasons)
        offered = " ".join(map(str, (await anext(started)).addresses))
    assert "the NAT sends nothing back in" in reasons
    assert bob.addresses[0] not in offered  # That is Bob himself, as far as Bob can see.
    await say(alice, bob)
    assert alice.host.connections(bob.host.peer_id)[0].is_relayed
    assert stranger.host.connections() == ()


async def test_a_stranger_at_the_private_address_of_a_peer_is_found_out(world: World) -> None:
    """D20: Bob's address in his home is a stranger's in Alice's, who is the first to be told."""
    relay = await put_relay(world)
    home, other = put_carrier(world, hairpinning=True)
    stranger = await put_stranger(world, home)
    alice = await put(world, "alice", home, relay.address, port=FIXED)
    bob = await put(world, "bob", other, relay.address, port=FIXED)
    assert stranger.addresses == bob.addresses
    with alice.host.subscribe(PunchStarted) as started:
        await call(alice, bob)
        connection = await direct(alice, bob, within=5.0)
        dialled = [place_of(address) for address in (await anext(started)).addresses]
    place = place_of(stranger.host.addresses.value[0])
    assert place is not None
    assert place.endpoint == Endpoint(stranger.addresses[0], FIXED)
    assert place in dialled
    assert host_of(connection) == world.routers["carrier"].outside_addresses[0]
    await say(alice, bob)
    assert stranger.host.connections() == ()


async def test_a_router_that_hairpins_brings_peers_together_that_the_lan_keeps_apart(
    world: World,
) -> None:
    """D10: as in a network for guests."""
    kind: NatKind = replace(PORT_RESTRICTED, hairpinning=True)
    relay = await put_relay(world)
    gate = world.router("gate", kind, setup=RouterSetup(link=NEAR, lan=CARRIER_LAN))
    alice = await put(world, "alice", gate, relay.address)
    setup = RouterSetup(link=NEAR)
    inner = world.router("inner", PORT_RESTRICTED, behind=gate, setup=setup)
    bob = await put(world, "bob", inner, relay.address)
    await reserved(bob)
    with trio.fail_after(10.0):
        await call(alice, bob)
        await direct(alice, bob, within=5.0)
    await say(alice, bob)


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize("is_inner_called", [False, True])
async def test_whoever_is_behind_a_router_in_the_home_of_the_other_is_direct_at_once(
    world: World, transport: Punched, is_inner_called: bool
) -> None:
    """D31, D20: Only the inner one can dial; so it is told where, even if it was called."""
    relay = await world.host(
        speaking(transport, presets.relay()), "relay", link=NEAR, families=IPV4_ONLY
    )
    relays = [str(address) for address in relay.host.addresses.value]
    home = world.router("home", PORT_RESTRICTED, setup=RouterSetup(link=NEAR))
    lan = IPv4Network("192.168.2.0/24")
    room = world.router("room", PORT_RESTRICTED, behind=home, setup=RouterSetup(link=LAN, lan=lan))
    inner = await put(world, "inner", room, *relays, transport=transport)
    outer = await put(world, "outer", home, *relays, transport=transport)
    await reserved(inner)
    await reserved(outer)
    await trio.sleep(SETTLED)
    alice, bob = (outer, inner) if is_inner_called else (inner, outer)
    await call(alice, bob)
    await direct(alice, bob, within=0.5)
    await say(alice, bob)
