"""What the tests of resumable streams share: peers that have them, and a bulk transfer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from itertools import pairwise

import trio

from p2pnet import presets
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Stream
from p2pnet.protocols.resume import Resume
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import Site
from p2pnet.testing.world import World
from tests.network.scene import ECHO, NEAR, echo

BULK = "/test/bulk/1.0.0"
CHUNK = 16_384
PAUSE = 0.02
"""Seconds between two chunks."""
DIRECT_CHUNKS = 64
LISTEN = ("/ip4/0.0.0.0/tcp/4001",)


def with_resume(config: HostConfig, resume: Resume | None = None) -> HostConfig:
    config = without_resume(config)
    return replace(config, services=[*config.services, resume or Resume()])


def without_resume(config: HostConfig) -> HostConfig:
    others = [part for part in config.services if not isinstance(part, Resume)]
    return replace(config, services=others)


async def put(world: World, name: str, resume: Resume | None) -> Machine:
    config = presets.minimal(listen=LISTEN)
    if resume is not None:
        config = with_resume(config, resume)
    machine = await world.host(config, name, link=NEAR)
    machine.host.handle(ECHO, echo)
    return machine


async def put_both(world: World, resume: Resume | None = None) -> tuple[Machine, Machine]:
    alice = await put(world, "alice", resume or Resume())
    return alice, await put(world, "bob", resume or Resume())


def count(machine: Machine) -> int:
    return machine.host.service(Resume).streams


async def open_echo(alice: Machine, bob: Machine) -> Stream:
    return await alice.host.open_stream(bob.address, ECHO)


async def put_resuming(
    world: World, name: str, *relays: str, at: Site | str, link: Quality = NEAR
) -> Machine:
    config = presets.edge(relays=relays, port_mapping=False)
    if isinstance(at, str):
        at = world.home(ALL_KINDS[at], f"home of {name}", link=link)
        link = link if at is world.internet else Quality(latency=0.0)
    return await world.host(config, name, at=at, link=link)


def bulk(size: int) -> bytes:
    return hashlib.shake_256(b"bulk").digest(size)


@dataclass
class Arrival:
    """What has come, and when."""

    times: list[float] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    ended: trio.Event = field(default_factory=trio.Event)
    error: BaseException | None = None

    async def receive(self, stream: Stream) -> None:
        try:
            async for chunk in stream:
                self.times.append(trio.current_time())
                self.data += chunk
        except trio.BrokenResourceError as error:
            self.error = error
        self.ended.set()

    def longest_stall(self) -> float:
        """Return the longest time between two arrivals."""
        return max(b - a for a, b in pairwise(self.times))

    async def complete(self, data: bytes, *, within: float) -> None:
        with trio.fail_after(within):
            await self.ended.wait()
        assert self.error is None, self.error
        assert hashlib.sha256(self.data).digest() == hashlib.sha256(data).digest()


async def send_paced(stream: Stream, data: bytes, *, seconds: float) -> None:
    """Send all in equal pieces, spread over some seconds, and the end."""
    pieces = range(0, len(data), CHUNK)
    pause = seconds / len(pieces)
    for start in pieces:
        await stream.send_all(data[start : start + CHUNK])
        await trio.sleep(pause)
    await stream.send_eof()


async def send_until_direct(stream: Stream, *, pause: float = PAUSE) -> bytes:
    """Send until much has gone over a direct connection, and the end; return all that was sent.

    The first hole punch may fail, and whatever else comes before there is one.
    """
    sent, left = bytearray(), DIRECT_CHUNKS
    with trio.fail_after(60):
        while left:
            chunk = hashlib.shake_256(len(sent).to_bytes(8)).digest(CHUNK)
            await stream.send_all(chunk)
            sent += chunk
            await trio.sleep(pause)
            left -= not stream.connection.is_relayed
        await stream.send_eof()
    return bytes(sent)
