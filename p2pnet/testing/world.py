"""World: a simulated internet in one process, under virtual time.

::

    async with World(seed=7) as world:
        relay = await world.host(presets.relay())
        alice = await world.host(presets.edge(relays=[relay.address]), at=world.home("strict"))

It needs trio's ``MockClock`` that jumps by itself: ``p2pnet.testing.run`` has one, and so has
the fixture ``world`` of ``p2pnet.testing.pytest_plugin``. The same seed gives the same packets
at the same times, in whatever process.

A world ends only when nothing is left of it: no task, no socket, no timer, no mapping in a
NAT. Whatever fails in it is raised with the seed, the last packets and a sequence diagram.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

import trio
from trio.testing import MockClock

from p2pnet.core.tasks import bare_exceptions
from p2pnet.host.config import HostConfig
from p2pnet.testing.gateway import Gateway
from p2pnet.testing.ground import Ground, Names
from p2pnet.testing.internet import Realm
from p2pnet.testing.kinds import KINDS, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine, MachineSetup
from p2pnet.testing.nat import NatKind
from p2pnet.testing.scheduler import reseed, seeded_scheduler
from p2pnet.testing.sites import (
    CARRIER_LAN,
    DUAL_STACK,
    HOME_LAN,
    Families,
    Router,
    RouterSetup,
    Site,
)
from p2pnet.testing.tcp import TcpConfig
from p2pnet.testing.trace import Trace

SETTLING_SECONDS = 86_400.0
"""Virtual seconds in which all that was begun must have come to its end."""
SHOWN = 40
"""Packets shown when something fails."""


class Leaked(AssertionError):
    """Something was left when a world ended; ``left`` names it all."""

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__("left behind in the world: " + ", ".join(left))
        self.left = tuple(left)


class World:
    """Machines, routers and links; what runs on them; and what goes wrong with them.

    ``patience`` is for how many virtual seconds the block may last: then it fails with
    trio.TooSlowError. A deadlock is there at once, as nothing else takes virtual time.
    """

    def __init__(
        self, seed: int = 0, *, patience: float = 3600.0, tcp: TcpConfig | None = None
    ) -> None:
        self.seed = seed
        self._ground = Ground(seed=seed, tcp=tcp or TcpConfig())
        self._patience = patience
        self.internet = Site(Realm("internet", self._ground), DUAL_STACK)
        """The public side."""
        self.machines: dict[str, Machine] = {}
        self.routers: dict[str, Router] = {}
        self._tasks: trio.Nursery | None = None
        self._living: AbstractAsyncContextManager[None] | None = None

    @property
    def trace(self) -> Trace:
        """Every packet so far."""
        return self._ground.trace

    @property
    def names(self) -> Names:
        """The DNS; may be changed at any time."""
        return self._ground.names

    # ---- what there is -------------------------------------------------------------------

    def router(
        self,
        name: str,
        nat: NatKind,
        *,
        behind: Site | None = None,
        setup: RouterSetup | None = None,
    ) -> Router:
        """Put a router on the internet or ``behind`` another; machines can be ``at`` it."""
        self._refuse_known(name)
        setup = setup or RouterSetup()
        router = Router(name, behind or self.internet, self._ground, nat=nat, setup=setup)
        if setup.port_mapping:
            self._nursery.start_soon(Gateway(router).run)
        self.routers[name] = router
        return router

    def home(
        self,
        kind: str | Kind,
        name: str = "",
        *,
        link: Quality | None = None,
        families: Families | None = None,
    ) -> Site:
        """Build the routers of a kind of home, and return the site inside of them all.

        ``link`` is what joins the home to the outside. Without any NAT that is the internet.

        Raises:
            LookupError: if there is no such kind.
        """
        if isinstance(kind, str):
            if kind not in KINDS:
                raise LookupError(f"{kind!r} is no kind of home; there are {', '.join(KINDS)}")
            kind = KINDS[kind]
        name = name or f"home {len(self.routers) + 1}"
        site = self.internet
        families = families or Families()
        for depth, nat in reversed(list(enumerate(kind.nats))):
            own_name = name if depth == 0 else f"carrier of {name}"
            lan = HOME_LAN if depth == 0 else CARRIER_LAN
            setup = RouterSetup(link=link or Quality(), families=families, lan=lan)
            site = self.router(own_name, nat, behind=site, setup=setup)
        return site

    def machine(
        self,
        name: str = "",
        *,
        at: Site | None = None,
        link: Quality | None = None,
        families: Families = DUAL_STACK,
    ) -> Machine:
        """Put a machine on the internet, or ``at`` another site.

        It gets addresses of those ``families`` that the site has, too.
        """
        name = name or f"machine {len(self.machines) + 1}"
        self._refuse_known(name)
        setup = MachineSetup(link=link or Quality(), families=families)
        machine = Machine(name, at or self.internet, self._ground, setup)
        self.machines[name] = machine
        return machine

    def _refuse_known(self, name: str) -> None:
        if name in self.machines or name in self.routers:
            raise ValueError(f"there is a {name} already")

    async def host(
        self,
        config: HostConfig,
        name: str = "",
        *,
        at: Site | None = None,
        link: Quality | None = None,
        families: Families = DUAL_STACK,
    ) -> Machine:
        """Put a machine into the world, with a host running on it."""
        machine = self.machine(name, at=at, link=link, families=families)
        await self.start(machine, config)
        return machine

    async def start(self, machine: Machine, config: HostConfig) -> None:
        """Run a host on a machine, with the Env of that machine."""
        await self._nursery.start(machine.run_host, config)

    @property
    def _nursery(self) -> trio.Nursery:
        if self._tasks is None:
            raise RuntimeError("use the world in its async with block")
        return self._tasks

    def reseed(self, seed: int) -> None:
        """Let chance go on as another seed has it: what was, stays; what comes, differs."""
        self._note(f"goes on with seed {seed}")
        self._ground.reseed(seed)
        reseed(seed)

    # ---- what goes wrong -----------------------------------------------------------------

    def partition(self, *groups: Sequence[Machine | Router]) -> None:
        """Let packets on the internet pass only within a group, until ``heal``.

        Who is in no group is in one with all others of that sort. A home is where its
        (outermost) router is.
        """
        self._note(f"partition: {[[member.name for member in group] for group in groups]}")
        plugs = [
            tuple(m.plug if isinstance(m, Machine) else m.outside for m in group)
            for group in groups
        ]
        self.internet.realm.partition(*plugs)

    def heal(self) -> None:
        """End the partition."""
        self._note("the partition is healed")
        self.internet.realm.heal()

    def _note(self, text: str) -> None:
        self.trace.note(trio.current_time(), text)

    # ---- its life ------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._living = self._live()
        await self._living.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._living is None:
            raise RuntimeError("the world was not entered")
        try:
            return await self._living.__aexit__(kind, error, traceback)
        except Exception as failed:
            self._explain(failed)
            raise

    @asynccontextmanager
    async def _live(self) -> AsyncGenerator[None]:
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, MockClock):
            raise RuntimeError("a world needs virtual time: trio.testing.MockClock, with autojump")
        with (
            bare_exceptions(),
            seeded_scheduler(self.seed),
            trio.fail_after(self._patience) as time,
        ):
            async with trio.open_nursery() as pump:
                pump.start_soon(self._ground.timeline.run)
                async with trio.open_nursery() as self._tasks:
                    yield
                    await self._stop()
                time.deadline = math.inf
                await self._settle()
                pump.cancel_scope.cancel()

    async def _stop(self) -> None:
        """End all hosts in good order; and then the services of routers."""
        async with trio.open_nursery() as nursery:
            for machine in self.machines.values():
                nursery.start_soon(machine.stop)
        self._nursery.cancel_scope.cancel()

    async def _settle(self) -> None:
        """Wait until all has come to its end, and look at what has not."""
        kernels = {name: machine.kernel for name, machine in self.machines.items()}
        kernels |= {name: router.kernel for name, router in self.routers.items()}
        left = [
            f"{name}: {what}" for name, kernel in kernels.items() for what in kernel.left_open()
        ]
        give_up = trio.current_time() + SETTLING_SECONDS
        timeline = self._ground.timeline
        while timeline.next_time <= give_up:
            await trio.sleep_until(timeline.next_time)
            await trio.lowlevel.checkpoint()
        if timeline.next_time < math.inf:
            left.append("a timer that is set again and again")
        left += [f"{name}: a dying connection" for name, kernel in kernels.items() if kernel.flows]
        nats = [(name, nat) for name, router in self.routers.items() for nat in router.nats]
        ends = [
            trio.current_time(),
            *(end for _, nat in nats if (end := nat.expires()) is not None),
        ]
        if max(ends) <= give_up:
            await trio.sleep_until(max(ends))
        left += [f"{name}: {m}" for name, nat in nats for m in nat.mappings(trio.current_time())]
        if left:
            raise Leaked(left)

    def _explain(self, error: Exception) -> None:
        error.add_note(f"in World(seed={self.seed}): {self.story()}")

    def story(self, last: int = SHOWN) -> str:
        """Tell the last packets, as lines and as a sequence diagram."""
        lines = "\n".join(self.trace.lines(last))
        return (
            f"{self.trace.packets} packets; the last of them:\n{lines}\n\n"
            f"```mermaid\n{self.trace.mermaid(last)}\n```"
        )
