"""What the tests of port mapping share: homes with routers that map ports, and strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from p2pnet import presets
from p2pnet.connectivity.portmap import PortMapping, PortMappingService
from p2pnet.connectivity.portmap.asking import ProtocolName
from p2pnet.core.addresses import Endpoint, tcp_endpoint
from p2pnet.events import PortMapped, PortMappingLost
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import ServiceHost
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.sites import Router, RouterSetup, Site
from p2pnet.testing.world import World

KINDS: tuple[type[PortMapped | PortMappingLost], ...] = (PortMapped, PortMappingLost)
EVERY: tuple[ProtocolName, ...] = ("upnp", "nat-pmp", "pcp")
FIXED = ("/ip4/0.0.0.0/tcp/4001",)


def put_router(
    world: World,
    *protocols: ProtocolName,
    name: str = "home",
    kind: str = "symmetric",
    behind: Site | None = None,
    config: PortMapConfig | None = None,
) -> Router:
    setup = RouterSetup(port_mapping=protocols or EVERY, port_map_config=config)
    return world.router(name, ALL_KINDS[kind].nats[0], behind=behind, setup=setup)


def recipe(*, listen: Sequence[str] = FIXED, mapping: PortMapping | None = None) -> HostConfig:
    return replace(
        presets.minimal(listen=listen),
        services=[*presets.minimal().services, mapping or PortMapping()],
    )


class Diary:
    """Events of a host, in order."""

    def __init__(self) -> None:
        self.entries: list[PortMapped | PortMappingLost] = []
        self._more = trio.Event()

    async def write(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(*KINDS) as events:
            task_status.started()
            async for event in events:
                self.entries.append(event)
                self._more.set()
                self._more = trio.Event()

    @property
    def mapped(self) -> list[PortMapped]:
        return [entry for entry in self.entries if isinstance(entry, PortMapped)]

    @property
    def lost(self) -> list[PortMappingLost]:
        return [entry for entry in self.entries if isinstance(entry, PortMappingLost)]

    async def next(self, *, within: float = 60.0) -> PortMapped | PortMappingLost:
        """Wait for the next entry from now on."""
        with trio.fail_after(within):
            await self._more.wait()
        return self.entries[-1]


class Keeping:
    """The part of a test's diary: a service that only listens."""

    def __init__(self) -> None:
        self.diary = Diary()

    def build(self, kit: object) -> Keeping:
        del kit
        return self

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        await self.diary.write(host, task_status=task_status)


async def put_host(
    world: World,
    site: Site,
    name: str = "alice",
    *,
    mapping: PortMapping | None = None,
    listen: Sequence[str] = FIXED,
) -> tuple[Machine, Diary]:
    """Put a host somewhere that has its port mapped."""
    machine = world.machine(name, at=site)
    return machine, await start_host(world, machine, mapping=mapping, listen=listen)


async def start_host(
    world: World,
    machine: Machine,
    *,
    mapping: PortMapping | None = None,
    listen: Sequence[str] = FIXED,
) -> Diary:
    """Start a host, and return what it tells of its port."""
    config, keeping = recipe(listen=listen, mapping=mapping), Keeping()
    await world.start(machine, replace(config, services=[keeping, *config.services]))
    return keeping.diary


def service_of(machine: Machine) -> PortMappingService:
    return machine.host.service(PortMapping)


def outside_of(event: PortMapped | PortMappingLost) -> Endpoint:
    assert isinstance(event, PortMapped), event
    endpoint = tcp_endpoint(event.outside_address)
    assert endpoint is not None
    return endpoint


async def can_dial(world: World, outside: Endpoint, *, patience: float = 10.0) -> bool:
    """Tell whether a fresh machine on the internet gets through to an endpoint."""
    stranger = world.machine()
    try:
        with trio.fail_after(patience):
            stream = await stream_to(stranger, outside)
    except (OSError, trio.TooSlowError):
        return False
    await stream.aclose()
    return True


async def stream_to(machine: Machine, remote: Endpoint) -> trio.abc.Stream:
    return await machine.env.network.dial_tcp(remote)


def forwards(router: Router) -> list[tuple[str, Endpoint, Endpoint]]:
    """Return the mappings of a router that last longer than traffic makes them last."""
    now = trio.current_time()
    return [
        (each.transport, each.inside, each.outside)
        for each in router.nat.mappings(now)
        if each.outside.port == each.inside.port or each.expires > now + 240
    ]
