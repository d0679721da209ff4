"""Where kinds of NAT are measured: hosts by name, each of which classifies and punches.

`RealStage` is a laboratory of network namespaces, and `SimulatedStage` a world in virtual time;
the program that runs on the hosts of both is the same, `p2pnet.testing.probing`.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from interop.natlab.building import Engine, Town
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Env
from p2pnet.core.tasks import bare_exceptions
from p2pnet.demo.namespaces import Laboratory, LaboratoryError
from p2pnet.testing.kinds import Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing import (
    Classification,
    ObserverEndpoints,
    Plan,
    PunchResult,
    classify,
    punch,
    serve_observer,
    serve_rendezvous,
)
from p2pnet.testing.world import World

T = TypeVar("T")

FIRST_OBSERVER: Final = "11.0.0.2"
SECOND_OBSERVER: Final = "11.0.0.3"
OBSERVER_PORTS: Final = (7001, 7002)
OBSERVED_AT: Final = (
    Endpoint(FIRST_OBSERVER, OBSERVER_PORTS[0]),
    Endpoint(FIRST_OBSERVER, OBSERVER_PORTS[1]),
    Endpoint(SECOND_OBSERVER, OBSERVER_PORTS[0]),
)
RENDEZVOUS: Final = Endpoint(FIRST_OBSERVER, 7000)

PATIENCE: Final = 2.0
"""Seconds to punch; on a way of 40 ms, without loss, it is over in a tenth of that."""
WAIT: Final = 6.0
"""Seconds for the other side to come to the rendezvous; both are sent there at once."""
MEASURE_SECONDS: Final = 60.0
"""Whatever one measurement does, it is over then."""
READY_SECONDS: Final = 10.0
SIDES: Final = ("a", "b")


def host_of(kind: str, side: str) -> str:
    """Name a host: there are two homes of each kind."""
    return f"{side} of {kind}"


class Stage(Protocol):
    """Measures on the hosts that `host_of` names; trio.TooSlowError if it does not end."""

    async def classify(self, host: str, transport: TransportName) -> Classification: ...

    async def punch(
        self, host: str, transport: TransportName, *, name: str, peer: str
    ) -> PunchResult: ...


async def classify_from(env: Env, transport: TransportName, observers: Observers) -> Classification:
    return await classify(env.network, transport, observers, jitter=env.jitter)


async def punch_from(
    env: Env, transport: TransportName, rendezvous: Endpoint, names: tuple[str, str]
) -> PunchResult:
    name, peer = names
    plan = Plan(name=name, peer=peer, patience=PATIENCE, wait=WAIT)
    return await punch(env.network, transport, rendezvous, plan=plan, jitter=env.jitter)


Observers = tuple[Endpoint, ...]


# ---- network namespaces -----------------------------------------------------------------


def settle(town: Town, kinds: Sequence[Kind], engine: Engine) -> None:
    """Build two homes of each kind, with a host each."""
    for kind in kinds:
        for side in SIDES:
            host = host_of(kind.name, side)
            town.add_home(f"home {host}", kind, hosts=(host,), engine=engine)


@contextmanager
def observed(laboratory: Laboratory) -> Iterator[None]:
    """Have two observers in a laboratory, and a rendezvous, on hosts of their own.

    Raises:
        LaboratoryError: A name or address is taken.
    """
    network = Env.system().network
    partners = {FIRST_OBSERVER: SECOND_OBSERVER, SECOND_OBSERVER: FIRST_OBSERVER}
    with ExitStack() as ending:
        for number, (own, other) in enumerate(partners.items(), 1):
            name = f"observer-{number}"
            laboratory.add_public(name, own)
            partner = Endpoint(other, OBSERVER_PORTS[0])
            observe = partial(serve_observer, network, [own], OBSERVER_PORTS, partner=partner)
            ending.enter_context(_serving(laboratory, name, observe))
        meet = partial(serve_rendezvous, network, RENDEZVOUS)
        ending.enter_context(_serving(laboratory, "observer-1", meet))
        yield


class Server(Protocol):
    """Serves until cancelled; says when it has begun."""

    def __call__(self, *, task_status: trio.TaskStatus[ObserverEndpoints]) -> Awaitable[None]: ...


@contextmanager
def _serving(laboratory: Laboratory, host: str, serve: Server) -> Iterator[None]:
    """Run a server for a while, in a thread that is on a host."""
    ready: Future[Callable[[], None]] = Future()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                await nursery.start(serve)
                scope = nursery.cancel_scope
                ready.set_result(lambda: token.run_sync_soon(scope.cancel))

    def be_there() -> None:
        try:
            with laboratory.entered(host):
                trio.run(main)
        except OSError as error:
            ready.set_exception(LaboratoryError(f"{host} cannot serve: {error}"))

    thread = threading.Thread(target=be_there, daemon=True)
    thread.start()
    end = ready.result(READY_SECONDS)
    try:
        yield
    finally:
        end()
        thread.join(READY_SECONDS)


class RealStage:
    """Hosts that are network namespaces; each measurement has a thread that is in one."""

    def __init__(self, town: Town) -> None:
        self._laboratory = town.laboratory
        self._env = Env.system()

    async def classify(self, host: str, transport: TransportName) -> Classification:
        return await self._measure(host, partial(classify_from, self._env, transport, OBSERVED_AT))

    async def punch(
        self, host: str, transport: TransportName, *, name: str, peer: str
    ) -> PunchResult:
        act = partial(punch_from, self._env, transport, RENDEZVOUS, (name, peer))
        return await self._measure(host, act)

    async def _measure(self, host: str, act: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            with trio.fail_after(MEASURE_SECONDS):
                return await act()

        def measure() -> T:
            # A socket stays where it was made, and it is made by the thread that is there.
            with self._laboratory.entered(host):
                return trio.run(bounded)

        return await trio.to_thread.run_sync(measure)


# ---- virtual time -----------------------------------------------------------------------


class SimulatedStage:
    """Hosts of a simulated internet; use it in `p2pnet.testing.running.run`."""

    def __init__(self, world: World, kinds: Sequence[Kind], *, delay: float) -> None:
        half = Quality(latency=delay / 2)  # A packet passes two links between two homes.
        none = Quality(latency=0.0)
        self._hosts = {
            host_of(kind.name, side): world.machine(
                host_of(kind.name, side),
                at=world.home(kind, f"home {host_of(kind.name, side)}", link=half),
                link=none if kind.nats else half,
            )
            for kind in kinds
            for side in SIDES
        }
        self._servers = [world.machine(f"observer-{n}", link=half) for n in (1, 2)]
        self._observers: Observers = ()
        self._rendezvous = RENDEZVOUS

    async def serve(self, nursery: trio.Nursery) -> None:
        """Start the observers and the rendezvous."""
        addresses = [server.addresses[0] for server in self._servers]
        for server, own, partner in zip(self._servers, addresses, reversed(addresses), strict=True):
            observe = partial(serve_observer, partner=Endpoint(partner, OBSERVER_PORTS[0]))
            await nursery.start(observe, server.env.network, [own], OBSERVER_PORTS)
        self._observers = (
            Endpoint(addresses[0], OBSERVER_PORTS[0]),
            Endpoint(addresses[0], OBSERVER_PORTS[1]),
            Endpoint(addresses[1], OBSERVER_PORTS[0]),
        )
        self._rendezvous = Endpoint(addresses[0], RENDEZVOUS.port)
        network = self._servers[0].env.network
        await nursery.start(serve_rendezvous, network, self._rendezvous)

    async def classify(self, host: str, transport: TransportName) -> Classification:
        with trio.fail_after(MEASURE_SECONDS):
            return await classify_from(self._hosts[host].env, transport, self._observers)

    async def punch(
        self, host: str, transport: TransportName, *, name: str, peer: str
    ) -> PunchResult:
        env = self._hosts[host].env
        with trio.fail_after(MEASURE_SECONDS):
            return await punch_from(env, transport, self._rendezvous, (name, peer))
