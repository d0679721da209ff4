"""The NAT matrix: two homes of every pair of kinds meet over a relay, and see how far they get.

Each cell is a world of its own: a relay, and a peer in each home. ``a`` calls ``b`` by peer ID
over the relay, and DCUtR does what it can. What is expected is derived in ``theory.py``; a
pair for which there is no way must stay relayed and usable, and say why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import trio

from p2pnet import presets
from p2pnet.core.bus import Subscription
from p2pnet.events import PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Connection, Stream
from p2pnet.testing.kinds import ALL_KINDS, KINDS, Kind
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.running import run
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.theory import can_punch
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP

Punched = Literal["tcp", "quic"]
"""What becomes direct; the other serves as a way to the relay where UDP is blocked."""

TRANSPORTS: Final[tuple[Punched, ...]] = get_args(Punched)
MATRIX_KINDS = tuple(KINDS)[:12]
LINK = Quality(latency=0.02)
"""Of each home, and of the relay: 80 ms from one peer to the other and back."""
PATIENCE = 120.0
"""Virtual seconds until a pair that is neither direct nor has given up counts as stuck."""
ECHO = "/p2pnet/echo/1.0.0"
SAMPLE = bytes(range(256)) * 16


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
    reason: str
    """Why it stayed relayed, as the peers recorded it."""

    @property
    def is_as_expected(self) -> bool:
        return self.outcome == self.expected


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
    """Run one cell; needs virtual time."""
    async with World(seed) as world:
        serving = speaking(transport, presets.relay())
        relay = await world.host(serving, "relay", link=link, families=IPV4_ONLY)
        config = speaking(transport, presets.edge(relays=[*map(str, relay.host.addresses.value)]))
        alice = await put(world, "a", a, config, link)
        bob = await put(world, "b", b, config, link)
        bob.host.handle(ECHO, echo)
        outcome = await meet(alice, bob)
    verdict = can_punch(a, b, "tcp" if transport == "tcp" else "udp")
    expected = "direct" if verdict.direct else "relayed"
    cell = Cell(a.name, b.name, transport, expected, *outcome)
    return Measured(cell, world.trace.sha256)


def speaking(transport: Punched, config: HostConfig) -> HostConfig:
    """Let a host listen by one transport alone, but for a relay."""
    if transport == "tcp":
        return replace(config, transports=[TCP()])
    listen = [text.replace("/tcp/", "/udp/") + "/quic-v1" for text in config.listen]
    is_relay = config.listen == presets.RELAY_PORTS
    also = config.listen if is_relay else ()
    return replace(config, transports=[QUIC(), TCP()], listen=[*listen, *also])


async def put(world: World, name: str, kind: Kind, config: HostConfig, link: Quality) -> Machine:
    """Start a host at home; it is the home's link that takes its time."""
    home = world.home(kind, f"home of {name}", link=link)
    own = link if home is world.internet else Quality(latency=0.0)
    return await world.host(config, name, at=home, link=own, families=IPV4_ONLY)


async def meet(alice: Machine, bob: Machine) -> tuple[str, float | None, str]:
    """Connect, wait for what becomes of it, and use it; return outcome, seconds and reason."""
    with alice.host.subscribe(PunchGivenUp) as one, bob.host.subscribe(PunchGivenUp) as other:
        await reserved(bob)
        await alice.host.connect(bob.host.peer_id)
        began = trio.current_time()
        reason = ""
        with trio.move_on_after(PATIENCE) as patience:
            reason = await first_of(alice, bob, one, other)
        seconds = trio.current_time() - began
        best = alice.host.connections(bob.host.peer_id)[0]
        await use(best)
    if patience.cancelled_caught:
        return "stuck", None, reason
    if best.is_relayed:
        return "relayed", None, reason
    return "direct", round(seconds, 6), ""


async def reserved(machine: Machine) -> None:
    """Wait until a peer can be found at its relay."""
    await machine.host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )


async def first_of(alice: Machine, bob: Machine, *given_up: Subscription[PunchGivenUp]) -> str:
    """Wait for a direct connection at both ends, or for one of them to give up, and say why."""
    reason = ""
    async with trio.open_nursery() as nursery:

        async def direct() -> None:
            await alice.host.wait_direct(bob.host.peer_id)
            await bob.host.wait_direct(alice.host.peer_id)
            nursery.cancel_scope.cancel()

        async def relayed(events: Subscription[PunchGivenUp]) -> None:
            nonlocal reason
            event = await anext(events)
            reason = "; ".join(dict.fromkeys(event.reasons))
            nursery.cancel_scope.cancel()

        nursery.start_soon(direct)
        for events in given_up:
            nursery.start_soon(relayed, events)
    return reason


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
