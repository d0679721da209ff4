"""The NAT matrix: two homes of every pair of kinds meet over a relay, and see how far they get.

Each cell is a world of its own: a relay, and a peer in each home. ``a`` calls ``b`` by peer ID
over the relay, and DCUtR does what it can. What is expected is derived in ``theory.py``; a
pair for which there is no way must stay relayed and usable, and each of the two has to name the
cause that theory finds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

import trio

from p2pnet import presets
from p2pnet.core.peer_id import PeerId
from p2pnet.events import ConnectionOpened, PunchAttemptFailed, PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.interfaces import Connection, Stream
from p2pnet.testing.kinds import ALL_KINDS, MATRIX, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.running import run
from p2pnet.testing.sites import CARRIER_LAN, HOME_LAN, IPV4_ONLY, RouterSetup, Site
from p2pnet.testing.theory import can_punch, causes
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP

Punched = Literal["tcp", "quic"]
"""What becomes direct; the other serves as a way to the relay where UDP is blocked."""

TRANSPORTS: Final[tuple[Punched, ...]] = get_args(Punched)
MATRIX_KINDS = tuple(MATRIX)
ROUND_TRIP = 0.08
"""Seconds from one peer to the other and back, be it over the relay: that lies on the way."""
RELAYS = 2
"""So that each peer has two observers, and can tell how its NAT maps."""
NONE = Quality(latency=0.0)
RELAY_LINK = NONE
PATIENCE = 120.0
"""Virtual seconds until a pair that is neither direct nor has given up counts as stuck."""
SETTLING = 30.0
"""Virtual seconds before the call: by then both have heard from AutoNAT who can dial them."""
ECHO = "/p2pnet/echo/1.0.0"
SAMPLE = bytes(range(256)) * 16


def plain_link(round_trip: float) -> Quality:
    """Return a home's link that makes the way to another such home, and back, so long.

    Args:
        round_trip: seconds.
    """
    return Quality(latency=round_trip / 4)


LINK = plain_link(ROUND_TRIP)


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one pair."""

    a: str
    b: str
    transport: Punched
    expected: str
    """"direct" or "relayed"."""
    outcome: str
    """The same, or "stuck"."""
    virtual_seconds: float | None
    """From the relayed connection to the direct one; None without one."""
    attempt: int
    """In which it became direct, or how many there were; a plain dial belongs to the first."""
    reason: str
    """Why it stayed relayed, as the peers recorded it."""
    causes: str
    """What ``explain`` names at the caller's end, and at the other; nothing where it is direct."""
    expected_causes: str

    @property
    def is_as_expected(self) -> bool:
        return (self.outcome, self.causes) == (self.expected, self.expected_causes)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell, and the hash over the packets that it took."""

    cell: Cell
    trace_sha256: str


def pairs(kinds: Sequence[str] = MATRIX_KINDS) -> list[tuple[str, str]]:
    """Return all ordered pairs: who calls and who is called is not the same."""
    return [(a, b) for a in kinds for b in kinds]


def measure(
    a: str, b: str, *, seed: int, link: Quality = LINK, transport: Punched = "tcp"
) -> Measured:
    """Run one cell, in virtual time."""

    async def cell() -> Measured:
        return await run_cell(ALL_KINDS[a], ALL_KINDS[b], seed=seed, link=link, transport=transport)

    return run(cell)


def combined_sha256(cells: Sequence[Measured]) -> str:
    """Return one hash for the traces of many cells."""
    return hashlib.sha256("".join(cell.trace_sha256 for cell in cells).encode()).hexdigest()


async def run_cell(
    a: Kind, b: Kind, *, seed: int, link: Quality = LINK, transport: Punched = "tcp"
) -> Measured:
    """Run one cell; needs virtual time. ``link`` is that of each home; the relay has none."""
    async with World(seed) as world:
        alice, bob = await settle(world, a, b, link=link, transport=transport)
        ended = await meet(alice, bob)
    return Measured(judged(a, b, transport, ended), world.trace.sha256)


async def settle(
    world: World, a: Kind, b: Kind, *, link: Quality, transport: Punched
) -> tuple[Machine, Machine]:
    """Build two homes and the relays, and wait until both peers know how they are placed."""
    config = speaking(transport, presets.edge(relays=await relays_for(world, transport)))
    alice = await put(world, "a", a, config, link)
    bob = await put(world, "b", b, config, link)
    for machine in (alice, bob):
        machine.host.handle(ECHO, echo)
        await reserved(machine)
    await trio.sleep(SETTLING)
    return alice, bob


async def relays_for(world: World, transport: Punched) -> list[str]:
    """Start the relays, and return where they are."""
    serving = speaking(transport, presets.relay())
    relays = [
        await world.host(serving, f"relay {number}", link=RELAY_LINK, families=IPV4_ONLY)
        for number in range(RELAYS)
    ]
    return [str(address) for relay in relays for address in relay.host.addresses.value]


async def at_home(
    world: World, name: str, kind: Kind, config: HostConfig, link: Quality
) -> Machine:
    """Start a host at home that answers an echo, and wait until it can be found at a relay."""
    machine = await put(world, name, kind, config, link)
    machine.host.handle(ECHO, echo)
    await reserved(machine)
    return machine


def can_meet(a: Kind, b: Kind, transport: Punched) -> bool:
    """Tell what theory says: whether two homes get a direct connection, with predicted ports."""
    return can_punch(a, b, "tcp" if transport == "tcp" else "udp", predicts_ports=True).direct


def right_causes(a: Kind, b: Kind, transport: Punched) -> str:
    """Return what the two have to name, by theory; nothing if they can meet."""
    return " ".join(cause.name for cause in causes(a, b, "tcp" if transport == "tcp" else "udp"))


def judged(a: Kind, b: Kind, transport: Punched, ended: Ended) -> Cell:
    """Write down what became of a pair beside what theory expects."""
    due = right_causes(a, b, transport)
    return Cell(
        a.name,
        b.name,
        transport,
        expected="relayed" if due else "direct",
        outcome=ended.outcome,
        virtual_seconds=ended.seconds,
        attempt=ended.attempt,
        reason=ended.reason,
        causes=ended.causes,
        expected_causes=due,
    )


def speaking(transport: Punched, config: HostConfig) -> HostConfig:
    """Let a host listen by one transport alone, but for a relay."""
    if transport == "tcp":
        return replace(config, transports=[TCP()])
    listen = [text.replace("/tcp/", "/udp/") + "/quic-v1" for text in config.listen]
    is_relay = config.listen == presets.RELAY_PORTS
    also = config.listen if is_relay else ()
    return replace(config, transports=[QUIC(), TCP()], listen=[*listen, *also])


async def put(world: World, name: str, kind: Kind, config: HostConfig, link: Quality) -> Machine:
    """Start a host at home; what takes its time is the way from there to the internet."""
    site: Site = world.internet
    for depth, nat in reversed(list(enumerate(kind.nats))):
        setup = RouterSetup(
            link=link if site is world.internet else NONE,
            lan=CARRIER_LAN if depth else HOME_LAN,
        )
        site = world.router(f"router {depth} of {name}", nat, behind=site, setup=setup)
    own = NONE if kind.nats else link
    return await world.host(config, name, at=site, link=own, families=IPV4_ONLY)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a relayed connection."""

    outcome: str
    seconds: float | None
    attempt: int
    reason: str
    causes: str = ""
    """As in a ``Cell``."""


@dataclass(slots=True)
class Story:
    """What two peers tell of their connections."""

    relayed_at: dict[str, float] = field(default_factory=dict)
    """When each of them had the relayed connection."""
    failed: Counter[str] = field(default_factory=Counter)
    """How many attempts each of them has seen fail."""
    reasons: dict[str, None] = field(default_factory=dict)
    """Why attempts failed, as either of them says it."""
    given_up: trio.Event = field(default_factory=trio.Event)

    async def hear(
        self, machine: Machine, peer: Machine, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Listen to what a host tells of a peer, until cancelled; start it before the call."""
        kinds = (ConnectionOpened, PunchAttemptFailed, PunchGivenUp)
        peer_id = peer.host.peer_id
        with machine.host.subscribe(*kinds) as events:
            task_status.started()
            async for event in events:
                match event:
                    case ConnectionOpened(ref) if ref.is_relayed and ref.peer_id == peer_id:
                        self.relayed_at.setdefault(machine.name, trio.current_time())
                    case PunchAttemptFailed(reason=reason):
                        self.failed[machine.name] += 1
                        self.reasons[reason] = None
                    case PunchGivenUp():
                        self.given_up.set()


async def meet(alice: Machine, bob: Machine) -> Ended:
    """Let one call the other, wait for what becomes of it, and use it.

    The clock runs from the moment at which both have the relayed connection until both have a
    direct one.
    """
    story, both = Story(), ((alice, bob), (bob, alice))
    async with trio.open_nursery() as nursery:
        for one, other in both:
            await nursery.start(story.hear, one, other)
        await alice.host.connect(bob.host.peer_id)
        with trio.move_on_after(PATIENCE) as patience:
            await first_of(alice, bob, story)
        ended_at = trio.current_time()
        named = " ".join(cause_named(one.host, other.host.peer_id) for one, other in both)
        best = alice.host.connections(bob.host.peer_id)[0]
        await use(best)
        nursery.cancel_scope.cancel()
    failed = max(story.failed.values(), default=0)
    reason = "; ".join(story.reasons)
    if patience.cancelled_caught:
        return Ended("stuck", None, failed, reason, named)
    if best.is_relayed:
        return Ended("relayed", None, failed, reason, named)
    return Ended("direct", round(ended_at - max(story.relayed_at.values()), 6), failed + 1, "")


def cause_named(host: Host, peer_id: PeerId) -> str:
    """Return why a host is not connected directly to a peer, as it says itself."""
    cause = host.explain(peer_id).cause
    return "NONE" if cause is None else cause.name


async def reserved(machine: Machine) -> None:
    """Wait until a peer can be found at its relay."""
    await machine.host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )


async def first_of(alice: Machine, bob: Machine, story: Story) -> None:
    """Wait for a direct connection at both ends, or for one of them to give up."""
    async with trio.open_nursery() as nursery:

        async def direct() -> None:
            await alice.host.wait_direct(bob.host.peer_id)
            await bob.host.wait_direct(alice.host.peer_id)
            nursery.cancel_scope.cancel()

        nursery.start_soon(direct)
        await story.given_up.wait()
        nursery.cancel_scope.cancel()


async def use(connection: Connection) -> None:
    """Send a sample there and back; raises if anything of it is missing."""
    stream = await connection.open_stream(ECHO)
    async with stream:
        await stream.send_all(SAMPLE)
        await stream.send_eof()
        back = bytearray()
        async for chunk in stream:
            back += chunk
    if back != SAMPLE:
        raise RuntimeError(f"{len(back)} bytes of {len(SAMPLE)} came back")


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()
