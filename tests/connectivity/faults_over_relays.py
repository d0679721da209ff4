"""Faults on the way to a peer over a relay, and what keeps that way from ending direct: rows."""

from __future__ import annotations

from ipaddress import IPv4Network

import trio

from p2pnet import presets
from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.explain import Explanation
from p2pnet.core.addresses import Endpoint, circuit_address, parse
from p2pnet.protocols.relay import RelayServer
from p2pnet.testing.kinds import ALL_KINDS, PORT_RESTRICTED
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import Punched, relays_for, speaking
from p2pnet.testing.sites import IPV4_ONLY, IPV6, Families, RouterSetup
from p2pnet.testing.world import World
from tests.connectivity.fault_scene import (
    bare,
    fault,
    full,
    put_edge,
    put_public,
    put_relay,
    reserved,
    tell,
)
from tests.connectivity.faults_of_hosts import DenyingRelay
from tests.connectivity.faults_of_peers import SETTLED, SOMEBODY, explained

# ---- over a relay ------------------------------------------------------------------------


@fault(Cause.NOT_RESERVED)
async def not_reserved(world: World) -> Explanation:
    alice = await put_edge(world, "alice", await put_relay(world))
    await reserved(alice)
    return await explained(alice, str(SOMEBODY))


@fault(Cause.NOT_RESERVED)
async def not_reserved_and_another_has_its_private_address(world: World) -> Explanation:
    home = world.home("port-restricted", "home")
    config = presets.minimal(listen=presets.RELAY_PORTS)
    other = await put_edge(world, "other", at=home, config=config)
    alice = await put_edge(world, "alice", await put_relay(world), at=home)
    await reserved(alice)
    tell(alice, SOMEBODY, Endpoint(other.addresses[0], 4001))
    return await explained(alice, str(SOMEBODY))


@fault(Cause.RELAY_LOST_PEER)
async def switched_off_while_reserved(world: World) -> Explanation:
    relay = await put_relay(world)
    alice, bob = await put_edge(world, "alice", relay), await put_edge(world, "bob", relay)
    await reserved(alice)
    await reserved(bob)
    target = str(bob.host.peer_id)
    await bob.power_off()
    return await explained(alice, target)


@fault(Cause.RELAY_UNREACHABLE)
async def relay_of_the_peer_switched_off(world: World) -> Explanation:
    relay, alice = await put_relay(world), await put_edge(world, "alice")
    target = full(circuit_address(parse(relay.address)), SOMEBODY)
    await relay.power_off()
    return await explained(alice, target)


@fault(Cause.RELAY_UNREACHABLE)
async def relay_of_the_peer_does_not_run(world: World) -> Explanation:
    relay, alice = await put_relay(world), await put_edge(world, "alice")
    target = full(circuit_address(parse(relay.address)), SOMEBODY)
    await relay.stop()
    return await explained(alice, target)


@fault(Cause.NO_RELAY_SERVICE)
async def relay_of_the_peer_is_none(world: World) -> Explanation:
    peer, alice = await put_public(world), await put_edge(world, "alice")
    return await explained(alice, full(circuit_address(parse(peer.address)), SOMEBODY))


@fault(Cause.RELAY_DENIES)
async def relay_denies_circuits(world: World) -> Explanation:
    config = bare(presets.minimal(listen=presets.RELAY_PORTS), DenyingRelay())
    relay, alice = await put_public(world, "relay", config), await put_edge(world, "alice")
    return await explained(alice, full(circuit_address(parse(relay.address)), SOMEBODY))


@fault(Cause.RELAY_FULL)
async def relay_has_no_circuit_left(world: World) -> Explanation:
    relay = await put_relay(world, limits=RelayServer(max_circuits=1))
    # What is symmetric cannot leave the relay.
    bob = await put_edge(world, "bob", relay, at="symmetric")
    carol = await put_edge(world, "carol", relay, at="symmetric")
    alice = await put_edge(world, "alice", relay, at="symmetric")
    await reserved(bob)
    await reserved(alice)
    await carol.host.connect(full(circuit_address(parse(relay.address)), bob.host.peer_id))
    return await explained(alice, str(bob.host.peer_id))


# ---- relayed, and it stays so ------------------------------------------------------------

UNSEEN = 5.5
"""Seconds until a host that waits for an address (D8) has told its peer that there is none."""


async def call(
    world: World, a: str, b: str, *, lacks_a: str = "", lacks_b: str = ""
) -> tuple[Machine, Machine]:
    """Let two peers meet over a relay, and wait for what becomes of it."""
    relays = [await put_relay(world, f"relay {number}") for number in range(2)]
    recipe = presets.edge(relays=[relay.address for relay in relays])
    bob = await put_edge(world, "bob", at=b, config=bare(recipe, without=[lacks_b]))
    alice = await put_edge(world, "alice", at=a, config=bare(recipe, without=[lacks_a]))
    await reserved(alice)
    await reserved(bob)
    await trio.sleep(5)
    await alice.host.connect(bob.host.peer_id)
    await trio.sleep(SETTLED)
    return alice, bob


@fault(Cause.NO_DCUTR)
async def peer_without_dcutr(world: World) -> Explanation:
    alice, bob = await call(world, "port-restricted", "port-restricted", lacks_b="DCUtR")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.NO_DCUTR)
async def caller_without_dcutr(world: World) -> Explanation:
    alice, bob = await call(world, "port-restricted", "port-restricted", lacks_a="DCUtR")
    return bob.host.explain(alice.host.peer_id)


@fault(Cause.NO_OWN_DCUTR)
async def host_without_dcutr(world: World) -> Explanation:
    alice, bob = await call(world, "port-restricted", "port-restricted", lacks_a="DCUtR")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.OWN_SYMMETRIC)
async def own_nat_symmetric(world: World) -> Explanation:
    alice, bob = await call(world, "symmetric", "port-restricted")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.PEER_SYMMETRIC)
async def nat_of_the_peer_symmetric(world: World) -> Explanation:
    alice, bob = await call(world, "port-restricted", "symmetric")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.PEER_SYMMETRIC)
async def nat_of_the_caller_symmetric(world: World) -> Explanation:
    alice, bob = await call(world, "symmetric", "firewall")
    return bob.host.explain(alice.host.peer_id)


async def call_over_one(
    world: World, transport: Punched, a: str, b: str, *, seconds: float = UNSEEN
) -> tuple[Machine, Machine]:
    """Let two peers meet that listen by one transport alone, and wait for what becomes of it."""
    relays = await relays_for(world, transport)
    config = bare(speaking(transport, presets.edge(relays=relays)))
    alice, bob = [
        await put_edge(
            world, name, at=world.home(ALL_KINDS[kind], f"home of {name}"), config=config
        )
        for name, kind in (("alice", a), ("bob", b))
    ]
    await reserved(alice)
    await reserved(bob)
    await alice.host.connect(bob.host.peer_id)
    await trio.sleep(seconds)
    return alice, bob


@fault(Cause.SIMULTANEOUS_OPEN)
async def nats_that_refuse_simultaneous_open(world: World) -> Explanation:
    kind = "no-simultaneous-open"
    alice, bob = await call_over_one(world, "tcp", kind, kind, seconds=SETTLED)
    told = alice.host.explain(bob.host.peer_id)
    assert bob.host.explain(alice.host.peer_id).cause is told.cause
    return told


async def call_from_another_network(
    world: World, ours: Families, theirs: Families
) -> tuple[Machine, Machine]:
    """Let two meet over relays that have both families."""
    relays = [await put_relay(world, name) for name in ("first", "second")]
    addresses = [str(each) for relay in relays for each in relay.host.addresses.value]
    config = bare(presets.edge(relays=[each for each in addresses if "/127." not in each]))
    alice, bob = [
        await put_edge(
            world,
            name,
            at=world.home("port-restricted", f"home of {name}", families=families),
            families=families,
            config=config,
        )
        for name, families in (("alice", ours), ("bob", theirs))
    ]
    await reserved(bob)
    await alice.host.connect(bob.host.peer_id)
    await trio.sleep(SETTLED)
    return alice, bob


@fault(Cause.NO_COMMON_WAY)
async def caller_with_ipv6_alone_and_called_with_ipv4_alone(world: World) -> Explanation:
    alice, bob = await call_from_another_network(world, IPV6, IPV4_ONLY)
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.NO_COMMON_WAY)
async def called_with_ipv6_alone_and_caller_with_ipv4_alone(world: World) -> Explanation:
    alice, bob = await call_from_another_network(world, IPV4_ONLY, IPV6)
    return bob.host.explain(alice.host.peer_id)


@fault(Cause.NO_PUNCH_ADDRESS)
async def caller_that_is_seen_nowhere_over_what_is_punched(world: World) -> Explanation:
    alice, bob = await call_over_one(world, "quic", "udp-blocked", "port-restricted")
    return bob.host.explain(alice.host.peer_id)


@fault(Cause.NO_PUNCH_ADDRESS)
async def called_that_is_seen_nowhere_over_what_is_punched(world: World) -> Explanation:
    alice, bob = await call_over_one(world, "quic", "port-restricted", "udp-blocked")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.UDP_BLOCKED)
async def udp_blocked_at_the_caller(world: World) -> Explanation:
    alice, bob = await call_over_one(world, "quic", "udp-blocked", "port-restricted")
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.UDP_BLOCKED)
async def udp_blocked_at_the_called(world: World) -> Explanation:
    alice, bob = await call_over_one(world, "quic", "port-restricted", "udp-blocked")
    assert bob.host.explain().cause is Cause.UDP_BLOCKED
    return bob.host.explain(alice.host.peer_id)


async def call_over_a_private_relay(world: World) -> tuple[Machine, Machine]:
    """Let two peers meet over a relay at a private address, which is not of their network."""
    home = world.home("port-restricted", "home")
    setup = RouterSetup(lan=IPv4Network("10.0.0.0/24"))
    inner = world.router("inner", PORT_RESTRICTED, behind=home, setup=setup)
    relay = await put_edge(world, "relay", at=home, config=presets.relay())
    alice = await put_edge(world, "alice", relay, at=inner)
    bob = await put_edge(world, "bob", relay, at=inner)
    await reserved(bob)
    await alice.host.connect(bob.host.peer_id)
    await trio.sleep(SETTLED)
    return alice, bob


@fault(Cause.NO_PUNCH_ADDRESS)
async def no_public_address_of_the_caller(world: World) -> Explanation:
    alice, bob = await call_over_a_private_relay(world)
    return alice.host.explain(bob.host.peer_id)


@fault(Cause.NO_PUNCH_ADDRESS)
async def no_public_address_of_the_called(world: World) -> Explanation:
    alice, bob = await call_over_a_private_relay(world)
    return bob.host.explain(alice.host.peer_id)
