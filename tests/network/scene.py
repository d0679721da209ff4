"""What the tests of the whole stack share: a relay, peers at home, and an echo to talk to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import P2PError
from p2pnet.interfaces import Connection, Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY, Families, Site
from p2pnet.testing.world import World

ECHO = "/p2pnet/echo/1.0.0"
SAMPLE = bytes(range(256)) * 16
NEAR = Quality(latency=0.02)
"""Of homes and relays: 80 ms from one home to another and back."""


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


def noise(length: int, name: str = "") -> bytes:
    """Return bytes that look like no others, the same each time."""
    return hashlib.shake_256(name.encode()).digest(length)


async def put_relay(
    world: World,
    name: str = "relay",
    *,
    link: Quality = NEAR,
    limits: RelayServer | None = None,
    families: Families = IPV4_ONLY,
) -> Machine:
    return await world.host(presets.relay(limits=limits), name, link=link, families=families)


async def put_edge(
    world: World,
    name: str,
    *relays: str,
    at: Site | str = "port-restricted",
    link: Quality = NEAR,
    swarm: SwarmConfig | None = None,
    families: Families = DUAL_STACK,
) -> Machine:
    """Start a peer that echoes: at a site, or in a home of its own whose link is ``link``."""
    config = presets.edge(relays=relays)
    if swarm is not None:
        config = replace(config, swarm=swarm)
    if isinstance(at, str):
        at = world.home(ALL_KINDS[at], f"home of {name}", link=link)
        link = link if at is world.internet else Quality(latency=0.0)
    machine = await world.host(config, name, at=at, link=link, families=families)
    machine.host.handle(ECHO, echo)
    return machine


async def start_edge(world: World, machine: Machine, *relays: str) -> None:
    """Start a peer on a machine; once more, if it was switched off, and with the same key."""
    machine.power_on()
    await world.start(machine, presets.edge(relays=relays))
    machine.host.handle(ECHO, echo)


async def reserved(machine: Machine) -> None:
    """Wait until a peer can be found at a relay."""
    await machine.host.addresses.wait_for(lambda addresses: any(map(is_relayed, addresses)))


async def unreserved(machine: Machine) -> None:
    """Wait until a peer knows that it can be found at no relay."""
    await machine.host.addresses.wait_for(lambda addresses: not any(map(is_relayed, addresses)))


async def call(alice: Machine, bob: Machine) -> Connection:
    """Connect to a peer by its ID alone, once it is ready for that."""
    await reserved(bob)
    return await alice.host.connect(bob.host.peer_id)


async def direct(alice: Machine, bob: Machine, *, within: float = 60.0) -> Connection:
    """Wait until both ends have a connection that no relay carries."""
    with trio.fail_after(within):
        await bob.host.wait_direct(alice.host.peer_id)
        return await alice.host.wait_direct(bob.host.peer_id)


async def say(alice: Machine, bob: Machine, data: bytes = SAMPLE) -> Connection:
    """Send bytes there and back over whatever connection there is; return that one."""
    stream = await alice.host.open_stream(bob.host.peer_id, ECHO, limited="allow")
    await say_on(stream, data)
    return stream.connection


async def say_on(stream: Stream, data: bytes = SAMPLE) -> None:
    """Send bytes there and back, and see that they are the same."""
    back = bytearray()

    async def send() -> None:
        await stream.send_all(data)
        await stream.send_eof()

    with bare_exceptions():
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async for chunk in stream:
                back += chunk
    assert back == data


async def reach(alice: Machine, bob: Machine, *, within: float) -> float:
    """Try again and again until bytes go there and back; return how many seconds that took."""
    began = trio.current_time()
    with trio.fail_after(within):
        while True:
            try:
                with trio.fail_after(20.0):
                    await say(alice, bob)
            except (P2PError, trio.BrokenResourceError, trio.TooSlowError):
                await trio.sleep(1.0)
            else:
                return trio.current_time() - began


@dataclass(frozen=True, slots=True)
class Pair:
    """Two peers that know one relay."""

    relay: Machine
    alice: Machine
    bob: Machine


async def put_pair(
    world: World,
    a: str = "port-restricted",
    b: str = "port-restricted",
    *,
    link: Quality = NEAR,
    limits: RelayServer | None = None,
) -> Pair:
    """Put a relay and two homes; ``link`` is that of the homes."""
    relay = await put_relay(world, limits=limits)
    alice = await put_edge(world, "alice", relay.address, at=a, link=link)
    bob = await put_edge(world, "bob", relay.address, at=b, link=link)
    return Pair(relay, alice, bob)


async def put_joined(world: World, a: str = "port-restricted", b: str = "port-restricted") -> Pair:
    """Put a pair, and let it punch."""
    pair = await put_pair(world, a, b)
    await call(pair.alice, pair.bob)
    await direct(pair.alice, pair.bob)
    return pair
