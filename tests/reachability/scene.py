"""A host behind a NAT of any kind, and five public peers that it is connected to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import trio

from p2pnet import presets
from p2pnet.core.addresses import Multiaddr
from p2pnet.errors import DialError
from p2pnet.events import Reachability
from p2pnet.host.config import HostConfig
from p2pnet.testing.kinds import Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat import Dependence, NatKind
from p2pnet.testing.sites import IPV4_ONLY, Router, Site
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP

PEERS = 5
PORT = 4001
LISTEN = f"/ip4/0.0.0.0/tcp/{PORT}"
LINK = Quality(latency=0.02)
LISTEN_QUIC = f"/ip4/0.0.0.0/udp/{PORT}/quic-v1"
SERVER = presets.relay(listen=[LISTEN])
EDGE = presets.edge(listen=[LISTEN])
SERVER_QUIC = presets.relay(listen=[LISTEN_QUIC], transports=[QUIC()])
EDGE_QUIC = presets.edge(listen=[LISTEN_QUIC], transports=[QUIC()])
FREE, BY_ADDRESS, BY_PORT = Dependence


@dataclass
class Scene:
    world: World
    host: Machine
    peers: list[Machine]

    @classmethod
    async def set_up(
        cls,
        world: World,
        home: Site | None = None,
        *,
        config: HostConfig = EDGE,
        server: HostConfig = SERVER,
        peers: int = PEERS,
    ) -> Scene:
        """Start everybody, and connect the host with all the peers."""
        servers = [
            await world.host(server, f"peer {n}", link=LINK, families=IPV4_ONLY)
            for n in range(peers)
        ]
        host = await world.host(config, "host", at=home, link=LINK, families=IPV4_ONLY)
        scene = cls(world, host, servers)
        await scene.connect()
        return scene

    @classmethod
    async def over(
        cls, transport: str, world: World, home: Site | None = None, *, peers: int = PEERS
    ) -> Scene:
        """Set up a scene of hosts that speak TCP alone, or QUIC alone (``udp``)."""
        config, server = (EDGE, SERVER) if transport == "tcp" else (EDGE_QUIC, SERVER_QUIC)
        return await cls.set_up(world, home, config=config, server=server, peers=peers)

    async def connect(self) -> None:
        """Connect the host with all peers that run."""
        async with trio.open_nursery() as nursery:
            for peer in self.peers:
                nursery.start_soon(self.host.host.connect, peer.address)

    @property
    def reachability(self) -> Reachability:
        return self.host.host.reachability.value

    async def becomes(self, reachability: Reachability) -> float:
        """Wait until the host is that, as it believes; return how many seconds it took."""
        began = trio.current_time()
        await self.host.host.reachability.wait_for(lambda value: value is reachability)
        return trio.current_time() - began

    async def strangers_get_through(self) -> bool:
        """Tell if somebody gets through to whom the host never spoke: what is true."""
        peer_id = self.host.host.peer_id
        for address in self.host.host.punch_addresses():
            config = presets.minimal(transports=[TCP(), QUIC()])
            name = f"stranger {next(NUMBERS)}"
            stranger = await self.world.host(config, name, link=LINK, families=IPV4_ONLY)
            reached = await reaches(stranger, address, f"{address}/p2p/{peer_id}")
            await stranger.stop()
            if reached:
                return True
        return False


NUMBERS = count()


async def reaches(stranger: Machine, address: Multiaddr, target: str) -> bool:
    with trio.move_on_after(5):
        try:
            await stranger.host.connect(target)
        except DialError:
            return False
        return True
    return False


def home(world: World, nat: NatKind) -> Router:
    """Put a home of that kind into the world."""
    site = world.home(Kind("home", (nat,)), "home", link=LINK)
    assert isinstance(site, Router)
    return site


def truth(nat: NatKind) -> Reachability:
    """Tell what a host behind such a NAT is, if nothing is forwarded."""
    return Reachability.PUBLIC if nat.filtering is FREE else Reachability.PRIVATE
