"""Machines of the simulated internet: each runs one p2pnet host, or any program on its Env."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import trio

from p2pnet.core.env import Env, RecordKind
from p2pnet.core.keys import PrivateKey
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.testing.ground import Ground
from p2pnet.testing.internet import Plug
from p2pnet.testing.kernel import Kernel
from p2pnet.testing.links import Link, Quality
from p2pnet.testing.nat64 import synthesize
from p2pnet.testing.packet import Packet
from p2pnet.testing.sites import DUAL_STACK, Families, Site
from p2pnet.testing.sockets import SimulatedNetwork

EPOCH = 1_800_000_000.0
"""What wall clocks show when a world begins."""
LOOKUP_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSetup:
    """What a machine is."""

    link: Quality = field(default_factory=Quality)
    families: Families = DUAL_STACK
    """The kinds of addresses it takes, if its site has them."""


class Machine:
    """A computer: it has a kernel, a link to a site, a clock, and perhaps a running host."""

    def __init__(self, name: str, site: Site, ground: Ground, setup: MachineSetup) -> None:
        self.name = name
        self.site = site
        self.clock_error = 0.0
        """Seconds by which its wall clock is wrong; may be set at any time."""
        self._ground = ground
        self._families = setup.families
        self._chance = ground.chance(name)
        self.link = Link(setup.link, self._chance)
        self.kernel = Kernel(ground, self._chance, self._transmit)
        self.plug = self._plug_in()
        self._running: Running | None = None
        self._key: PrivateKey | None = None
        self.env = Env(
            network=SimulatedNetwork(self.kernel, self._lookup, lambda: self.site.gateways),
            wall_clock=lambda: EPOCH + self.clock_error + trio.current_time(),
            random_bytes=self._chance.randbytes,
            jitter=self._chance.uniform,
        )
        """The world as programs on this machine see it."""

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    # ---- its network ---------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses, without loopback."""
        return tuple(self.kernel.addresses)

    def _plug_in(self) -> Plug:
        plug = Plug(self.name, self.site.realm, self.link, self.kernel.receive)
        self.kernel.mtu = self.link.quality.mtu
        self.kernel.addresses = self.site.allocate(plug, self._families)
        return plug

    def _unplug(self) -> None:
        self.site.release(self.addresses)
        self.plug.is_out = True
        self.kernel.addresses = []

    def _transmit(self, packet: Packet) -> None:
        self.plug.send(packet)

    async def _lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        await trio.sleep(LOOKUP_SECONDS)
        if self.link.is_cut:
            raise OSError(f"no name server answers for {name}")
        names = self._ground.names
        found = names.get((name, kind), ())
        if not found and kind == "AAAA" and self.site.families.nat64:
            return tuple(map(synthesize, names.get((name, "A"), ())))
        return found

    def move(self, site: Site, *, link: Quality | None = None, clock_jump: float = 0.0) -> None:
        """Take the machine to another site: it gets new addresses, and its sockets stay.

        Its kernel tells of it, as it would if it got the addresses again that it had.

        ``clock_jump`` is added to its wall clock, in seconds: it slept on the way.
        """
        self._note(f"moves to {site.realm.name}")
        self._unplug()
        self.site = site
        self.clock_error += clock_jump
        if link is not None:
            self.link.quality = link
        self.plug = self._plug_in()
        self.kernel.tell_change()

    # ---- its host ------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Tell if a host runs here."""
        return self._running is not None

    @property
    def host(self) -> Host:
        """The host that runs here.

        Raises:
            LookupError: if none does.
        """
        if self._running is None:
            raise LookupError(f"no host runs on {self.name}")
        return self._running.host

    @property
    def address(self) -> str:
        """Where its host can be dialled by those who can reach this machine."""
        for address in self.host.addresses.value:
            if any(f"/{own}/" in str(address) for own in self.addresses):
                return str(address)
        raise LookupError(f"the host on {self.name} does not listen")

    async def run_host(self, config: HostConfig, *, task_status: trio.TaskStatus[Host]) -> None:
        """Run a host until ``stop`` or ``power_off``; its key stays the same over restarts."""
        if self._running is not None:
            raise RuntimeError(f"a host runs on {self.name} already")
        self._key = config.key or self._key or PrivateKey.from_seed(self._chance.randbytes(32))
        running = None
        try:
            async with open_host(replace(config, key=self._key, env=self.env)) as host:
                running = self._running = Running(host)
                self._note("host started")
                task_status.started(host)
                await running.stopping.wait()
        finally:
            self._running = None
            if running is not None:
                running.ended.set()
            self._note("host ended")

    async def stop(self) -> None:
        """End the host in good order, and wait for it; do nothing if there is none."""
        running = self._running
        if running is not None:
            running.stopping.set()
            await running.ended.wait()

    async def power_off(self) -> None:
        """End the host and all sockets without a word to anybody, as if the plug was pulled."""
        self._note("power off")
        self.kernel.power_off()
        await self.stop()

    def power_on(self) -> None:
        """Let the machine have sockets again; start a host with ``World.start``."""
        self.kernel.is_off = False

    def _note(self, text: str) -> None:
        self._ground.trace.note(trio.current_time(), f"{self.name}: {text}")


class Running:
    """A host that runs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.stopping = trio.Event()
        self.ended = trio.Event()
