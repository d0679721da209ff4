"""Plays: a few homes and hosts, and a list of steps that happen to them, in one World.

A play is a value that can be written as JSON, drawn by Hypothesis and played again. Whatever
its steps are, these hold:

- what a stream delivers is the beginning of what was sent, and all of it if it ends well;
- no bound of a config is passed;
- once all faults are over, each peer reaches each other one within ``RECOVERY_SECONDS``, and
  in the end directly, where theory has it that a hole can be punched;
- nothing is left when the world ends (that is the World's own check).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import trio

from p2pnet import presets
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import P2PError
from p2pnet.interfaces import Connection, Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.running import run
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY, IPV6, Router, Site
from p2pnet.testing.theory import can_punch
from p2pnet.testing.world import World
from tests.network.scene import noise

TRANSFER = "/p2pnet/transfer/1.0.0"
NAME_BYTES = 8
RECOVERY_SECONDS = 300.0
DIRECT_SECONDS = 600.0
"""Three rounds of hole punching and the rests between them, ``DCUtR.cool_down``, fit in."""
ACTION_SECONDS = 60.0
REST_SECONDS = 60.0
PATIENCE_SECONDS = 10_000.0
FAMILIES = {"4": IPV4_ONLY, "6": IPV6, "46": DUAL_STACK}
QUALITIES = {
    "good": Quality(latency=0.01),
    "far": Quality(latency=0.2, jitter=0.05),
    "lossy": Quality(latency=0.02, loss=0.05),
    "messy": Quality(latency=0.02, jitter=0.02, duplicate=0.05, reorder=0.1),
    "narrow": Quality(latency=0.02, bandwidth=256_000, queue_bytes=32_000),
}
LIMITS = RelayServer(
    max_reservations=8, max_reservations_per_prefix=6, max_circuits=16, max_circuits_per_peer=6
)
SWARM = SwarmConfig(
    max_connections=12,
    high_connections=10,
    low_connections=8,
    trim_grace=20.0,
    max_connections_per_peer=4,
    max_inbound_streams=10,
    max_outbound_streams=8,
)
FAILURES = (P2PError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What may come of an action while things go wrong. A ClosedResourceError: the host is off."""

Step = tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A home: what kind, with which families (a public one has both), and with which link."""

    kind: str
    families: str = "4"
    quality: str = "good"

    @property
    def has_ipv4(self) -> bool:
        return "4" in self.families or not ALL_KINDS[self.kind].nats

    @property
    def has_ipv6(self) -> bool:
        return "6" in self.families or not ALL_KINDS[self.kind].nats


@dataclass(frozen=True, slots=True)
class Play:
    """``hosts`` says in which of the ``homes`` each host is. For steps see ``Stage``."""

    seed: int
    homes: tuple[Place, ...]
    hosts: tuple[int, ...]
    steps: tuple[Step, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Play:
        read = json.loads(text)
        return cls(
            seed=read["seed"],
            homes=tuple(Place(**home) for home in read["homes"]),
            hosts=tuple(read["hosts"]),
            steps=tuple(tuple(step) for step in read["steps"]),
        )


def perform(play: Play) -> str:
    """Play it, and return the hash over what happened; raises if anything does not hold."""

    async def main() -> str:
        async with World(play.seed, patience=PATIENCE_SECONDS) as world:
            stage = Stage(world, play)
            await stage.build()
            await stage.act(play.steps)
            await stage.recover()
            await stage.rest()
        return world.trace.sha256

    return run(main)


class Stage:
    """A world with a play in it. A step's first word is the method, the rest its arguments.

    Hosts are numbered from 0; for what may befall it, too, one more than all is the relay.
    """

    def __init__(self, world: World, play: Play) -> None:
        self._world = world
        self._homes = play.homes
        self._sites = [self._build_home(number, home) for number, home in enumerate(play.homes)]
        self._hosts = [self._build_host(number, home) for number, home in enumerate(play.hosts)]
        self._home_of = list(play.hosts)
        self._relay = world.machine("relay", link=QUALITIES["good"])
        self._relay_places: tuple[str, ...] = ()
        self._sent: dict[bytes, bytes] = {}
        self._faults: list[str] = []

    def _build_home(self, number: int, home: Place) -> Site:
        families, link = FAMILIES[home.families], QUALITIES[home.quality]
        return self._world.home(
            ALL_KINDS[home.kind], f"home {number}", link=link, families=families
        )

    def _build_host(self, number: int, home: int) -> Machine:
        # On the public internet the link of the home is that of the host.
        is_public = self._sites[home] is self._world.internet
        link = QUALITIES[self._homes[home].quality if is_public else "good"]
        return self._world.machine(f"host {number}", at=self._sites[home], link=link)

    async def build(self) -> None:
        await self._start(self._relay)
        relay_id = self._relay.host.peer_id
        ipv4, ipv6 = self._relay.addresses
        self._relay_places = (
            f"/ip4/{ipv4}/tcp/4001/p2p/{relay_id}",
            f"/ip6/{ipv6}/tcp/4001/p2p/{relay_id}",
        )
        for machine in self._hosts:
            await self._start(machine)
        self._relay_id = relay_id
        self._peer_ids = [machine.host.peer_id for machine in self._hosts]

    async def _start(self, machine: Machine) -> None:
        machine.power_on()
        if machine is self._relay:
            await self._world.start(machine, presets.relay(limits=LIMITS))
        else:
            config = replace(presets.edge(relays=self._relay_places), swarm=SWARM)
            await self._world.start(machine, config)
            machine.host.handle(TRANSFER, self._serve)

    async def act(self, steps: Sequence[Step]) -> None:
        """Let the steps happen; what takes time goes on while the next ones do."""
        with bare_exceptions():
            async with trio.open_nursery() as actions:
                for name, *arguments in steps:
                    if name in DEEDS:
                        actions.start_soon(self._try, DEEDS[str(name)], *arguments)
                    else:
                        await EVENTS[str(name)](self, *arguments)
                    await trio.sleep(0.1)
                    self.check()

    # ---- what hosts do -------------------------------------------------------------------

    async def _try(self, deed: Callable[..., Awaitable[None]], *arguments: object) -> None:
        with trio.move_on_after(ACTION_SECONDS), suppress(*FAILURES):
            await deed(self, *arguments)

    async def connect(self, one: int, other: int) -> None:
        if is_up(self._host(one)) and one != other:
            await self._host(one).host.connect(self._peer_id(other))

    async def close(self, one: int, other: int) -> None:
        if is_up(self._host(one)):
            for connection in self._host(one).host.connections(self._peer_id(other)):
                await connection.aclose()

    async def send(self, one: int, other: int, size: int) -> None:
        """Send bytes there, and have them back; raises AssertionError if they are others."""
        if not is_up(self._host(one)) or one == other:
            return
        name = f"{len(self._sent):0{NAME_BYTES}}".encode()
        data = self._sent[name] = noise(size, name.decode())
        host = self._host(one).host
        stream = await host.open_stream(self._peer_id(other), TRANSFER, limited="allow")
        back = bytearray()

        async def send() -> None:
            await stream.send_all(name + data)
            await stream.send_eof()

        try:
            with bare_exceptions():
                async with trio.open_nursery() as sending:
                    sending.start_soon(send)
                    async for chunk in stream:
                        back += chunk
                        assert data.startswith(back), "what came back is not what was sent"
            assert back == data, f"{len(back)} of {size} bytes came back, and then the end"
            await stream.aclose()
        except BaseException:
            stream.reset()
            raise

    async def _serve(self, stream: Stream) -> None:
        received = bytearray()
        returned = 0
        async for chunk in stream:
            received += chunk
            name, data = bytes(received[:NAME_BYTES]), received[NAME_BYTES:]
            if not self._sent.get(name, b"").startswith(data):
                self._faults.append(f"transfer {name!r}: what arrived is not what was sent")
            await stream.send_all(data[returned:])
            returned = len(data)
        name = bytes(received[:NAME_BYTES])
        if len(received) != NAME_BYTES + len(self._sent.get(name, b"")):
            self._faults.append(f"transfer {name!r} ended after {len(received)} bytes")
        await stream.send_eof()

    # ---- what befalls them ---------------------------------------------------------------

    async def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            await trio.sleep(1)
            self.check()

    async def cut(self, number: int) -> None:
        self._machine(number).link.is_cut = True

    async def uncut(self, number: int) -> None:
        self._machine(number).link.is_cut = False

    async def partition(self, number: int) -> None:
        machine = self._machine(number)
        routers = routers_of(machine)
        self._world.partition([routers[-1] if routers else machine])

    async def heal(self) -> None:
        self._world.heal()

    async def reboot(self, number: int) -> None:
        for router in routers_of(self._host(number)):
            router.reboot()

    async def renumber(self, number: int) -> None:
        for router in routers_of(self._host(number))[-1:]:
            router.renumber()

    async def move(self, number: int, home: int) -> None:
        if self._sites[home] is not self._host(number).site:
            self._host(number).move(self._sites[home], clock_jump=60)
        self._home_of[number] = home

    async def kill(self, number: int) -> None:
        await self._machine(number).power_off()

    async def stop(self, number: int) -> None:
        await self._machine(number).stop()

    async def restart(self, number: int) -> None:
        if not is_up(self._machine(number)):
            await self._start(self._machine(number))

    # ---- what holds ----------------------------------------------------------------------

    async def recover(self) -> None:
        """End all faults, and see that each peer reaches each other one, directly if it can."""
        self._world.heal()
        for number in range(len(self._hosts) + 1):
            await self.uncut(number)
            await self.restart(number)
        async with trio.open_nursery() as meetings:
            for one, other in combinations(range(len(self._hosts)), 2):
                pair = (one, other) if (one + other) % 2 else (other, one)
                meetings.start_soon(self._meet, *pair)
        self.check()

    async def _meet(self, one: int, other: int) -> None:
        with trio.move_on_after(RECOVERY_SECONDS) as patience:
            while True:
                with trio.move_on_after(20), suppress(*FAILURES):
                    await self.send(one, other, 1000)
                    return
                await trio.sleep(1)
        assert not patience.cancelled_caught, f"host {one} does not reach host {other} any more"
        if self._can_be_direct(one, other):
            await self._meet_directly(one, other)

    def _can_be_direct(self, one: int, other: int) -> bool:
        if self._home_of[one] == self._home_of[other]:
            return False  # it takes a router that turns packets around
        a, b = (self._homes[self._home_of[number]] for number in (one, other))
        by_ipv6 = a.has_ipv6 and b.has_ipv6
        by_ipv4 = a.has_ipv4 and b.has_ipv4
        is_punched = can_punch(ALL_KINDS[a.kind], ALL_KINDS[b.kind], "tcp").direct
        return by_ipv6 or (by_ipv4 and is_punched)

    async def _meet_directly(self, one: int, other: int) -> None:
        with trio.move_on_after(DIRECT_SECONDS) as patience:
            while True:
                with trio.move_on_after(60):
                    await self._host(one).host.wait_direct(self._peer_id(other))
                    return
                # The relay has cut the circuit by now, or will soon: there has to be another.
                with suppress(*FAILURES):
                    await self._host(one).host.connect(self._peer_id(other))
        assert not patience.cancelled_caught, f"host {one} is not direct to host {other} again"

    async def rest(self) -> None:
        """See that streams are forgotten once nobody uses them; services do, for a moment."""
        with trio.move_on_after(REST_SECONDS):
            while self._used():  # noqa: ASYNC110 - nothing tells when the last stream ends
                await trio.sleep(1)
        assert not self._used(), f"streams left on {self._used()}"

    def _used(self) -> list[Connection]:
        return [
            connection
            for machine in self._hosts
            for connection in machine.host.connections()
            if not connection.is_relayed
            and connection.peer_id != self._relay_id
            and connection.streams
        ]

    def check(self) -> None:
        """Look at the bounds, and at what handlers found."""
        assert not self._faults, self._faults
        for machine in self._hosts:
            if is_up(machine):
                check_connections(machine.host.connections())
        if is_up(self._relay):
            service = self._relay.host.service(RelayServer)
            assert service.reservations <= LIMITS.max_reservations
            assert service.circuits <= LIMITS.max_circuits

    # ---- who is who ----------------------------------------------------------------------

    def _host(self, number: int) -> Machine:
        return self._hosts[number]

    def _machine(self, number: int) -> Machine:
        return [*self._hosts, self._relay][number]

    def _peer_id(self, number: int) -> PeerId:
        return self._peer_ids[number]


def check_connections(connections: Sequence[Connection]) -> None:
    of_peers = Counter(connection.peer_id for connection in connections)
    assert max(of_peers.values(), default=0) <= SWARM.max_connections_per_peer
    inbound = sum(connection.is_inbound for connection in connections)
    assert inbound <= SWARM.max_connections
    for connection in connections:
        assert connection.streams <= SWARM.max_inbound_streams + SWARM.max_outbound_streams


def is_up(machine: Machine) -> bool:
    return machine._running is not None


def routers_of(machine: Machine) -> list[Router]:
    """Return the routers between a machine and the internet, from inside out."""
    routers: list[Router] = []
    site = machine.site
    while isinstance(site, Router):
        routers.append(site)
        site = site.outer
    return routers


DEEDS: Mapping[str, Callable[..., Awaitable[None]]] = {
    method.__name__: method for method in (Stage.connect, Stage.close, Stage.send)
}
"""What goes on while the next steps happen, and may fail."""
EVENTS: Mapping[str, Callable[..., Awaitable[None]]] = {
    method.__name__: method
    for method in (
        Stage.wait,
        Stage.cut,
        Stage.uncut,
        Stage.partition,
        Stage.heal,
        Stage.reboot,
        Stage.renumber,
        Stage.move,
        Stage.kill,
        Stage.stop,
        Stage.restart,
    )
}
