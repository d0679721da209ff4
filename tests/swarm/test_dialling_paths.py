"""How long a dial takes over dead and lossy paths, against one address after the other.

The table stands on specs/dialing.md; it is measured here in the simulated internet. Rules DI5,
DI10, DI20 to DI22.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

import pytest
import trio

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.errors import DialError
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Stream
from p2pnet.muxers.yamux import Yamux
from p2pnet.security.noise import Noise
from p2pnet.swarm.black_hole import Class, Outcome
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.packet import Datagram, Packet
from p2pnet.testing.world import World
from p2pnet.transports.tcp import TCP
from tests.swarm.datagrams import PORT, Datagrams, answering

DIALLING = HostConfig(transports=(Datagrams(), TCP()), security=(Noise(),), muxers=(Yamux(),))
SERVING = HostConfig(
    listen=(f"/ip4/0.0.0.0/tcp/{PORT}", f"/ip6/::/tcp/{PORT}"),
    transports=(TCP(),),
    security=(Noise(),),
    muxers=(Yamux(),),
)
PAGE = Path(__file__).resolve().parents[2] / "specs" / "dialing.md"
DIALS = 20
TRUE_WITHIN = 0.05
"""Seconds by which a figure of the page may be off."""
BY_CHANCE = (0.3, 1.1, 3.0, 20.0)
"""The same where packets are lost: a packet more somewhere, and others are."""


def is_ipv6(packet: Packet) -> bool:
    return packet.destination.is_ipv6


def is_udp(packet: Packet) -> bool:
    return isinstance(packet.payload, Datagram)


def is_either(packet: Packet) -> bool:
    return is_ipv6(packet) or is_udp(packet)


@dataclass(frozen=True)
class Way:
    """What is wrong between one host and all others."""

    name: str
    swallows: Callable[[Packet], bool] = lambda packet: False
    loss: float = 0.0
    known: frozenset[Class] = field(default_factory=frozenset)
    """What the host has found out in a hundred dials before."""
    stale: int = 0
    """How many IPs of each family the peer no longer has, and still tells."""


WAYS = (
    Way("nothing"),
    Way("IPv6 is dead", is_ipv6),
    Way("IPv6 is dead, and that is known", is_ipv6, known=frozenset({Class.IPV6})),
    Way("UDP is dead", is_udp),
    Way("UDP is dead, and that is known", is_udp, known=frozenset({Class.UDP})),
    Way("both are dead", is_either),
    Way("both are dead, and that is known", is_either, known=frozenset(Class)),
    Way("twelve addresses are stale", stale=3),
    Way("5 % loss", loss=0.05),
    Way("20 % loss", loss=0.2),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_the_page_tells_how_long_a_dial_takes(world: World, way: Way) -> None:
    """DI5 DI10 DI22."""
    measured = [await measure(world, way, naive=naive) for naive in (False, True)]
    told = rows()[way.name]
    found = [round(figure, 2) for row in measured for figure in (mean(row), max(row))]
    row = f"| {way.name} | " + " | ".join(f"{figure:.2f}" for figure in found) + " |"
    tolerances = BY_CHANCE if way.loss else [TRUE_WITHIN] * 4
    for figure, there, tolerance in zip(found, told, tolerances, strict=True):
        assert figure == pytest.approx(there, abs=tolerance), row


async def test_di21_a_host_finds_out_by_itself_that_udp_is_dead(world: World) -> None:
    """DI20 DI24: and begins anew when it is elsewhere."""
    config = replace(DIALLING, swarm=SwarmConfig(black_hole_window=10, black_hole_minimum=1))
    way = Way("UDP is dead", is_udp)
    alice = await world.host(config, "alice", link=Quality(latency=0.1))
    swallow(alice, way)
    before = [await seconds_to(world, alice, f"before {n}", way) for n in range(10)]
    after = [await seconds_to(world, alice, f"after {n}", way) for n in range(9)]
    probe = await seconds_to(world, alice, "probe", way)
    assert before == pytest.approx([0.9] * 10, abs=TRUE_WITHIN)
    assert after == pytest.approx([0.4] * 9, abs=TRUE_WITHIN)
    assert probe == pytest.approx(0.9, abs=TRUE_WITHIN)
    alice.move(world.internet)
    moved = await seconds_to(world, alice, "elsewhere", Way("nothing"))
    assert moved == pytest.approx(0.2, abs=TRUE_WITHIN)
    await alice.stop()


async def seconds_to(world: World, alice: Machine, name: str, way: Way) -> float:
    """Put a peer into the world, and connect to it; return how many seconds that took."""
    bob = await world.host(SERVING, name, link=Quality(latency=0.0))
    async with answering(bob.env):
        alice.host.peers.add_addresses(bob.host.peer_id, told_by(bob, way), seconds=60)
        began = trio.current_time()
        await alice.host.connect(bob.host.peer_id)
        return trio.current_time() - began


def test_no_path_takes_longer_than_one_address_after_the_other() -> None:
    for way in WAYS:
        average, worst, naive_average, naive_worst = rows()[way.name]
        assert average <= naive_average
        assert worst <= naive_worst


def rows() -> dict[str, list[float]]:
    found = re.findall(r"^\| ([^|]+) \|((?: \d+\.\d+ \|){4})$", PAGE.read_text(), re.MULTILINE)
    return {name: [float(text) for text in row.split("|")[:4]] for name, row in found}


async def measure(world: World, way: Way, *, naive: bool) -> list[float]:
    """Dial some peers, one after the other; return how many seconds each took."""
    kind = "naive" if naive else "ranked"
    link = Quality(latency=0.1, loss=way.loss)
    alice = await world.host(DIALLING, f"alice, {kind}", link=link)
    swallow(alice, way)
    seconds = []
    async with AsyncExitStack() as servers:
        for number in range(DIALS):
            name = f"bob {number}, {kind}"
            bob = await world.host(SERVING, name, link=Quality(latency=0.0))
            await servers.enter_async_context(answering(bob.env))
            began = trio.current_time()
            if naive:
                await dial_one_by_one(alice, bob, told_by(bob, way))
            else:
                find_out(alice, way)
                alice.host.peers.add_addresses(bob.host.peer_id, told_by(bob, way), seconds=60)
                await alice.host.connect(bob.host.peer_id)
            seconds.append(trio.current_time() - began)
        await alice.stop()
    return seconds


def swallow(alice: Machine, way: Way) -> None:
    """Let nothing of a kind through to a machine."""
    deliver = alice.plug.deliver
    alice.plug.deliver = lambda packet: None if way.swallows(packet) else deliver(packet)


def told_by(bob: Machine, way: Way) -> list[Multiaddr]:
    """Return all addresses of a peer, the best first."""
    ip4, ip6 = bob.addresses
    number = int(ip6.split(":")[1], 16)
    gone = [(f"11.200.{number}.{n}", f"2a00:{number:x}:{n:x}::1") for n in range(1, way.stale + 1)]
    texts = []
    for old, new in [*gone, (ip4, ip6)]:
        texts += [f"/ip6/{new}/udp/{PORT}/quic-v1", f"/ip4/{old}/udp/{PORT}/quic-v1"]
    for old, new in [*gone, (ip4, ip6)]:
        texts += [f"/ip6/{new}/tcp/{PORT}", f"/ip4/{old}/tcp/{PORT}"]
    return list(map(parse, texts))


async def dial_one_by_one(alice: Machine, bob: Machine, addresses: Sequence[Multiaddr]) -> None:
    for address in addresses:
        try:
            await alice.host.dial(bob.host.peer_id, [address])
        except DialError:
            continue
        return
    raise AssertionError("no address worked")


def find_out(alice: Machine, way: Way) -> None:
    winner = parse("/ip4/8.8.8.8/tcp/1")
    silent = {Class.UDP: "/ip4/8.8.8.8/udp/1/quic-v1", Class.IPV6: "/ip6/2600::1/tcp/1"}
    holes = alice.host._swarm._dialling.black_holes
    for _ in range(100):
        holes.learn(Outcome(winner, silent=tuple(parse(silent[each]) for each in way.known)))


# ---- both sides dial ---------------------------------------------------------------------


async def test_di13_a_peer_that_arrives_ends_the_dial_of_its_stale_address(world: World) -> None:
    alice = await world.host(SERVING, "alice", link=Quality(latency=0.1))
    bob = await world.host(SERVING, "bob", link=Quality(latency=0.0))
    bob.host.peers.add_addresses(
        alice.host.peer_id, [parse(f"/ip4/11.200.1.1/tcp/{PORT}")], seconds=60
    )
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect_after, 1.0, alice, bob)
        found = await bob.host.connect(alice.host.peer_id)
    # A second, then two round trips of 0.2 seconds, less the way back of the last.
    assert trio.current_time() - began == pytest.approx(1.5, abs=0.11)
    assert found.is_inbound


async def connect_after(seconds: float, alice: Machine, bob: Machine) -> None:
    await trio.sleep(seconds)
    await alice.host.connect(f"{told_by(bob, Way('nothing'))[-1]}/p2p/{bob.host.peer_id}")


@pytest.mark.parametrize("ahead", [0.0, 0.05, 0.15, 0.25, 0.35, 0.45])
async def test_di13_whoever_dials_first_no_stream_is_lost(world: World, ahead: float) -> None:
    """DI15: Both dial at about the same moment, and open a stream at once on what they get."""
    alice = await world.host(SERVING, "alice", link=Quality(latency=0.1))
    bob = await world.host(SERVING, "bob", link=Quality(latency=0.0))
    for each in (alice, bob):
        each.host.handle("/echo", echo)
    said: list[bytes] = []

    async def say(one: Machine, other: Machine, seconds: float) -> None:
        await trio.sleep(seconds)
        address = told_by(other, Way("nothing"))[-1]
        await one.host.connect(f"{address}/p2p/{other.host.peer_id}")
        for _ in range(10):
            async with await one.host.open_stream(other.host.peer_id, "/echo") as stream:
                await stream.send_all(b"there and back")
                await stream.send_eof()
                said.append(b"".join([bytes(chunk) async for chunk in stream]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, alice, bob, 0.0)
        nursery.start_soon(say, bob, alice, ahead)
    assert said == [b"there and back"] * 20
    # Only those that crossed are two.
    number = len(alice.host.connections(bob.host.peer_id))
    assert number == len(bob.host.connections(alice.host.peer_id))
    assert number == (2 if ahead < 0.3 else 1)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()
