"""What the faults share: who is in their worlds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import trio

from p2pnet import presets
from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.explain import Explanation
from p2pnet.core.addresses import (
    Endpoint,
    Multiaddr,
    from_endpoint,
    is_relayed,
    with_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Part, Service
from p2pnet.protocols.autonat import AutoNATServer
from p2pnet.protocols.relay import RelayServer
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import DUAL_STACK, Families, Site
from p2pnet.testing.world import World

NEAR = Quality(latency=0.02)
INSTANT = Quality(latency=0.0)
HELPERS = ("AutoNAT", "AutoNATServer", "AutoNATv1", "AutoNATv1Server", "PortMapping")
"""Parts that presets may have; a fault decides itself which of them there are."""

Inject = Callable[[World], Awaitable[Explanation]]


@dataclass(frozen=True)
class Fault:
    """One row: what goes wrong, done in a world, and what must be named."""

    name: str
    cause: Cause
    inject: Inject


TABLE: list[Fault] = []


def fault(cause: Cause) -> Callable[[Inject], Inject]:
    """Enter a fault into the table."""

    def enter(inject: Inject) -> Inject:
        TABLE.append(Fault(inject.__name__, cause, inject))
        return inject

    return enter


# ---- who is there ------------------------------------------------------------------------


def bare(config: HostConfig, *services: Part[Service], without: Sequence[str] = ()) -> HostConfig:
    """Take from a recipe what would test and map on its own, and add services."""
    left_out = {*HELPERS, *without}
    kept = [part for part in config.services if type(part).__name__ not in left_out]
    return replace(config, services=[*kept, *services])


async def put_relay(
    world: World, name: str = "relay", limits: RelayServer | None = None
) -> Machine:
    """Put a relay that tests nobody."""
    return await world.host(bare(presets.relay(limits=limits)), name, link=NEAR)


async def put_testing_relays(world: World) -> list[Machine]:
    """Put as many relays that dial back as it takes to learn all about a NAT."""
    config = presets.relay()
    return [await world.host(config, f"relay {number}", link=NEAR) for number in range(3)]


async def put_tester(world: World, name: str) -> Machine:
    """Put a public peer that dials back, and is no relay."""
    config = presets.minimal(listen=presets.RELAY_PORTS)
    return await world.host(bare(config, AutoNATServer()), name, link=NEAR)


async def put_public(
    world: World, name: str = "public", config: HostConfig | None = None
) -> Machine:
    """Put a public peer that is no relay."""
    config = config or presets.minimal(listen=presets.RELAY_PORTS)
    return await world.host(bare(config), name, link=NEAR)


async def put_edge(
    world: World,
    name: str,
    *relays: Machine,
    at: Site | str = "open",
    families: Families = DUAL_STACK,
    config: HostConfig | None = None,
) -> Machine:
    """Put a peer at home; without a recipe, one that neither tests nor maps anything."""
    site = world.home(at, f"home of {name}", link=NEAR) if isinstance(at, str) else at
    link = NEAR if site is world.internet else INSTANT
    config = config or bare(presets.edge(relays=[relay.address for relay in relays]))
    return await world.host(config, name, at=site, link=link, families=families)


async def reserved(machine: Machine) -> None:
    with trio.fail_after(60):
        await machine.host.addresses.wait_for(lambda found: any(map(is_relayed, found)))


async def fail_to_connect(machine: Machine, target: PeerId | Multiaddr | str) -> None:
    """Dial somebody who cannot be reached."""
    try:
        await machine.host.connect(target)
    except DialError:
        return
    raise AssertionError(f"{target} was reached after all")


def tell(machine: Machine, peer: PeerId, *endpoints: Endpoint) -> None:
    """Let a host know addresses of a peer."""
    addresses = [from_endpoint(endpoint) for endpoint in endpoints]
    machine.host.peers.add_addresses(peer, addresses, seconds=3600)


def place(address: str) -> str:
    """Return an address without its peer."""
    return address.rpartition("/p2p/")[0]


def full(address: Multiaddr | str, peer: PeerId) -> str:
    return f"{address}/p2p/{peer}" if isinstance(address, str) else str(with_peer(address, peer))
