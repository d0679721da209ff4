"""How far peers get from difficult places: shared NATs, IPv6 alone, NAT64, firewalls."""

from __future__ import annotations

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Scope, ip_of, scope
from p2pnet.errors import DialError
from p2pnet.events import PunchGivenUp, ReservationFailed
from p2pnet.interfaces import Connection
from p2pnet.testing.kinds import ALL_KINDS, CARRIER, PORT_RESTRICTED, SYMMETRIC, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat import NatKind
from p2pnet.testing.sites import (
    CARRIER_LAN,
    DUAL_STACK,
    IPV6,
    IPV6_WITH_NAT64,
    RouterSetup,
    Site,
)
from p2pnet.testing.world import World
from tests.network.scene import (
    ECHO,
    NEAR,
    call,
    direct,
    echo,
    put_edge,
    put_relay,
    reserved,
    say,
)


async def stays_relayed(alice: Machine, bob: Machine) -> str:
    """See that a pair gives up, stays usable, and return why."""
    with alice.host.subscribe(PunchGivenUp) as given_up:
        await call(alice, bob)
        with trio.fail_after(60):
            reasons = (await anext(given_up)).reasons
    assert (await say(alice, bob)).is_relayed
    return reasons[-1]


async def gets_direct(alice: Machine, bob: Machine) -> Connection:
    await call(alice, bob)
    await say(alice, bob)
    await direct(alice, bob)
    connection = await say(alice, bob)
    assert not connection.is_relayed
    return connection


async def put_two(world: World, at: Site, other: Site | None = None) -> tuple[Machine, Machine]:
    relay = await put_relay(world)
    alice = await put_edge(world, "alice", relay.address, at=at)
    bob = await put_edge(world, "bob", relay.address, at=other or at)
    return alice, bob


# ---- behind one NAT ----------------------------------------------------------------------


async def test_two_peers_in_one_home_whose_router_turns_packets_around(world: World) -> None:
    await gets_direct(*await put_two(world, world.home(ALL_KINDS["hairpinning"])))


async def test_two_peers_in_one_home_whose_router_turns_nothing_around(world: World) -> None:
    connection = await gets_direct(*await put_two(world, world.home("port-restricted")))
    assert scope(connection.remote_address) is Scope.PRIVATE  # D20


async def test_two_peers_in_one_home_who_know_their_addresses_need_no_relay(world: World) -> None:
    home = world.home("symmetric")
    alice = await put_edge(world, "alice", at=home)
    bob = await put_edge(world, "bob", at=home)
    await alice.host.connect(bob.address)
    assert not (await say(alice, bob)).is_relayed


@pytest.mark.parametrize("hairpinning", [False, True])
async def test_two_homes_of_one_carrier(world: World, hairpinning: bool) -> None:
    nat = NatKind(filtering=CARRIER.filtering, ports=CARRIER.ports, hairpinning=hairpinning)
    carrier = world.router("carrier", nat, setup=RouterSetup(lan=CARRIER_LAN, link=NEAR))
    homes = [world.router(name, PORT_RESTRICTED, behind=carrier) for name in ("one", "other")]
    alice, bob = await put_two(world, *homes)
    if hairpinning:
        await gets_direct(alice, bob)
    else:
        # What leads from home to home is their addresses in the carrier's network, which the
        # relay does not see, and which a host behind a second NAT does not know itself.
        assert "no answer" in await stays_relayed(alice, bob)


# ---- behind several ----------------------------------------------------------------------


async def test_double_nat_is_punched_if_no_part_of_it_is_symmetric(world: World) -> None:
    twice = world.home(Kind("twice", (PORT_RESTRICTED, PORT_RESTRICTED)), "twice", link=NEAR)
    await gets_direct(*await put_two(world, twice, world.home("port-restricted", link=NEAR)))


async def test_double_nat_is_as_strict_as_its_strictest_part(world: World) -> None:
    twice = world.home(Kind("twice", (PORT_RESTRICTED, SYMMETRIC)), "twice", link=NEAR)
    await stays_relayed(*await put_two(world, twice, world.home("port-restricted", link=NEAR)))


async def test_a_home_that_blocks_udp_is_as_good_as_any_for_tcp(world: World) -> None:
    homes = [world.home(ALL_KINDS["udp-blocked"], link=NEAR) for _ in range(2)]
    await gets_direct(*await put_two(world, *homes))


async def test_routers_that_refuse_simultaneous_open_leave_it_to_the_relay(world: World) -> None:
    homes = [world.home(ALL_KINDS["no-simultaneous-open"], link=NEAR) for _ in range(2)]
    await stays_relayed(*await put_two(world, *homes))


# ---- IPv6 --------------------------------------------------------------------------------


async def test_with_ipv6_symmetric_nats_do_not_matter(world: World) -> None:
    homes = [world.home("symmetric", link=NEAR, families=DUAL_STACK) for _ in range(2)]
    connection = await gets_direct(*await put_two(world, *homes))
    ip = ip_of(connection.remote_address)
    assert ip is not None
    assert ip.version == 6


async def test_ipv6_of_one_side_alone_is_of_no_use(world: World) -> None:
    both = world.home("symmetric", link=NEAR, families=DUAL_STACK)
    alice, bob = await put_two(world, both, world.home("symmetric", link=NEAR))
    await stays_relayed(alice, bob)


async def test_hosts_with_ipv6_alone_meet_at_a_relay_with_ipv6(world: World) -> None:
    relay = await put_relay(world, families=IPV6)
    homes = [world.home("symmetric", link=NEAR, families=IPV6) for _ in range(2)]
    alice = await put_edge(world, "alice", relay.address, at=homes[0])
    bob = await put_edge(world, "bob", relay.address, at=homes[1])
    assert all(":" in address for address in (*alice.addresses, *bob.addresses))
    await gets_direct(alice, bob)


def named(world: World, relay: Machine, name_kind: str) -> str:
    """Give the relay a name, with an IPv4 address alone."""
    world.names["relay.example", "A"] = (relay.addresses[0],)
    return f"/{name_kind}/relay.example/tcp/4001/p2p/{relay.host.peer_id}"


@pytest.mark.parametrize("name_kind", ["dns", "dns6"])
async def test_through_nat64_a_relay_with_ipv4_alone_is_reached_by_its_name(
    world: World, name_kind: str
) -> None:
    relay = await put_relay(world)
    address = named(world, relay, name_kind)
    home = world.home("port-restricted", link=NEAR, families=IPV6_WITH_NAT64)
    alice = await put_edge(world, "alice", address, at=home)
    bob = await put_edge(world, "bob", relay.address)
    await reserved(alice)
    # One side speaks IPv6 only, and the other IPv4 only: NAT64 is a way out, not in.
    await stays_relayed(alice, bob)
    assert (await call(bob, alice)).is_relayed


async def test_through_nat64_no_literal_ipv4_address_is_reached(world: World) -> None:
    # /dns4 asks for IPv4 addresses, and gets them; nothing here makes IPv6 ones of them, as a
    # system with 464XLAT would. So a relay is best named with /dns.
    relay = await put_relay(world)
    for name, address in (("one", relay.address), ("other", named(world, relay, "dns4"))):
        home = world.home("port-restricted", f"home {name}", families=IPV6_WITH_NAT64)
        alice = await put_edge(world, name, at=home)
        with pytest.raises(DialError, match="unreachable"):
            await alice.host.connect(address)


async def test_two_hosts_behind_nat64_meet_by_ipv6(world: World) -> None:
    relay = await put_relay(world)
    address = named(world, relay, "dns")
    homes = [world.home("symmetric", link=NEAR, families=IPV6_WITH_NAT64) for _ in range(2)]
    alice = await put_edge(world, "alice", address, at=homes[0])
    bob = await put_edge(world, "bob", address, at=homes[1])
    connection = await gets_direct(alice, bob)
    assert "/ip6/2a00:" in str(connection.remote_address)


async def test_a_name_server_that_does_not_answer_is_named_as_the_reason(world: World) -> None:
    relay = await put_relay(world)
    home = world.home("port-restricted")
    alice = world.machine("alice", at=home)
    alice.link.is_cut = True
    await world.start(alice, presets.edge(relays=[named(world, relay, "dns4")]))
    with alice.host.subscribe(ReservationFailed) as failures:
        assert "no name server answers" in (await anext(failures)).reason
    alice.link.is_cut = False
    with trio.fail_after(60):
        await reserved(alice)


async def test_behind_a_small_mtu_bulk_comes_through(world: World) -> None:
    small = Quality(latency=0.02, mtu=1280)
    relay = await put_relay(world)
    config = presets.edge(relays=[relay.address])
    homes = [world.home("port-restricted", link=NEAR) for _ in range(2)]
    alice = await world.host(config, "alice", at=homes[0], link=small)
    bob = await world.host(config, "bob", at=homes[1], link=small)
    bob.host.handle(ECHO, echo)
    connection = await gets_direct(alice, bob)
    assert connection is await say(alice, bob, bytes(200_000))
