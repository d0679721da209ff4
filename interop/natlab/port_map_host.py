"""A p2pnet host of the port mapping trial: one at home, or a stranger who dials it.

::

    port_map_host home PROTOCOL...     prints what is mapped, until the end of its input
    port_map_host dial ADDRESS SECONDS prints whether that is reached in time

Everything is printed as JSON, one object a line.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Final

import trio

from p2pnet import presets
from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.portmap.service import PROTOCOLS
from p2pnet.core.addresses import with_peer
from p2pnet.errors import DialError
from p2pnet.events import PortMapped, PortMappingLost
from p2pnet.host.opening import open_host
from p2pnet.interfaces import ServiceHost
from p2pnet.protocols.ping import Ping

LISTEN: Final = ("/ip4/0.0.0.0/tcp/4001",)
CHECK_SECONDS: Final = 5.0
KINDS: Final[tuple[type[PortMapped | PortMappingLost], ...]] = (PortMapped, PortMappingLost)


def say(**fields: str | bool) -> None:
    print(json.dumps(fields), flush=True)


class Telling:
    """A service that prints what becomes of the port; it begins before there is anything."""

    def build(self, kit: object) -> Telling:
        del kit
        return self

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(*KINDS) as events:
            task_status.started()
            async for event in events:
                match event:
                    case PortMapped(protocol, _, outside):
                        full = with_peer(outside, host.peer_id)
                        say(event="mapped", protocol=protocol, address=str(full))
                    case PortMappingLost(protocol, _, reason):
                        say(event="lost", protocol=protocol, reason=reason)


async def be_at_home(*protocols: str) -> None:
    wanted = tuple(each for each in PROTOCOLS if each in protocols)
    mapping = PortMapping(protocols=wanted, check_interval=CHECK_SECONDS)
    config = presets.minimal(listen=LISTEN)
    config = replace(config, services=[Telling(), *config.services, mapping])
    async with open_host(config):
        await trio.to_thread.run_sync(sys.stdin.read)


async def dial(address: str, seconds: str) -> None:
    async with open_host(presets.minimal()) as host:
        try:
            with trio.fail_after(float(seconds)):
                connection = await host.connect(address)
                await host.service(Ping).ping(connection)
        except (DialError, trio.TooSlowError) as error:
            say(reached=False, why=str(error))
        else:
            say(reached=True, why="")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["home", *protocols]:
            trio.run(be_at_home, *protocols)
        case ["dial", address, seconds]:
            trio.run(dial, address, seconds)
        case _:
            raise SystemExit(__doc__)
