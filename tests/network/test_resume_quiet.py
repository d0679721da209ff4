"""Where streams are not resumable, nothing is as if they could be: RS1 and RS19."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet import presets
from p2pnet.core.peer_id import PeerId
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Kit, Part, Role, Secured, Security
from p2pnet.protocols.relay import RelayClient
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import PROTOCOL_ID
from p2pnet.security.noise import Noise
from p2pnet.testing.insecure import PLAINTEXT, Insecure, InsecureSecurity
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import LISTEN, count, open_echo, put, with_resume, without_resume
from tests.network.scene import ECHO, NEAR, echo, put_relay, reserved, say_on


@dataclass(frozen=True)
class Recorded:
    """Security that keeps what is said in plain text, both ways."""

    said: tuple[bytearray, bytearray]

    def build(self, kit: Kit) -> RecordedSecurity:
        return RecordedSecurity(Insecure().build(kit), self.said)


class RecordedSecurity:
    protocol_id = PLAINTEXT

    def __init__(self, inner: InsecureSecurity, said: tuple[bytearray, bytearray]) -> None:
        self._inner = inner
        self._said = said

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        secured = await self._inner.secure(stream, role, expected=expected, muxers=muxers)
        return replace(secured, stream=RecordedStream(secured.stream, self._said))


class RecordedStream(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream, said: tuple[bytearray, bytearray]) -> None:
        self._stream = stream
        self._sent, self._received = said

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._received += data
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def play(seed: int, *, has_resume: bool, does_bob: bool = False) -> tuple[bytes, bytes]:
    """Return all bytes that a host and its peer said after identify, under the encryption."""
    said = (bytearray(), bytearray())
    async with World(seed) as world:
        config = presets.minimal(listen=LISTEN)
        ours = replace(config, security=[Recorded(said)])
        theirs = replace(config, security=[Insecure()])
        alice = await world.host(with_resume(ours) if has_resume else ours, "alice", link=NEAR)
        bob = await world.host(with_resume(theirs) if does_bob else theirs, "bob", link=NEAR)
        bob.host.handle(ECHO, echo)
        await alice.host.connect(bob.address)
        await trio.sleep(1)
        for lane in said:
            lane.clear()
        for _ in range(3):
            await say_on(await open_echo(alice, bob))
        stream = await open_echo(alice, bob)
        await stream.send_all(bytes(100_000))
        stream.reset()
        await trio.sleep(1)
        return bytes(said[0]), bytes(said[1])


async def test_with_a_peer_without_resume_the_bytes_are_the_same(
    autojump_clock: MockClock,
) -> None:
    """RS1: every byte of every stream, both ways, once both have said what they speak."""
    plain = await play(5, has_resume=False)
    assert len(plain[0]) > 100_000
    assert await play(5, has_resume=True) == plain
    assert await play(5, has_resume=True, does_bob=True) != plain


async def play_relayed(seed: int, alices: Resume | None, bobs: Resume | None) -> list[bytes]:
    """Return all bytes that a host said and heard on streams over a relay, after identify."""
    said = (bytearray(), bytearray())
    async with World(seed) as world:
        relay = await put_relay(world)

        def config(resume: Resume | None, part: Part[Security]) -> HostConfig:
            calls = RelayClient(relays=[relay.address])
            plain = presets.minimal(listen=LISTEN)
            plain = replace(plain, services=[*plain.services, calls], security=[part, Noise()])
            return with_resume(plain, resume) if resume else plain

        alice = await world.host(config(alices, Recorded(said)), "alice", link=NEAR)
        bob = await world.host(config(bobs, Insecure()), "bob", link=NEAR)
        bob.host.handle(ECHO, echo)
        await reserved(bob)
        circuit = f"{relay.address}/p2p-circuit/p2p/{bob.host.peer_id}"
        connection = await alice.host.connect(circuit)
        assert connection.is_relayed
        await trio.sleep(1)
        for lane in said:
            lane.clear()
        for _ in range(3):
            stream = await alice.host.open_stream(bob.host.peer_id, ECHO, limited="allow")
            await say_on(stream)
        await trio.sleep(1)
        return [bytes(lane) for lane in said]


async def test_over_a_relay_the_bytes_are_the_same_too_with_a_peer_without_it(
    autojump_clock: MockClock,
) -> None:
    """RS1 RS19: where an ``edge`` would have a stream move."""
    ours = Resume(direct=False)
    plain = await play_relayed(5, None, None)
    assert len(plain[0]) > 3 * 4096
    assert await play_relayed(5, ours, None) == plain
    assert await play_relayed(5, ours, ours) != plain


async def put_edges(world: World, *, resume: bool = True) -> tuple[Machine, Machine]:
    """Start two peers with what a user gets who asks for nothing, on the open internet."""
    config, machines = presets.edge(listen=LISTEN), []
    if not resume:
        config = without_resume(config)
    for name in ("alice", "bob") if resume else ("carol", "dave"):
        machine = await world.host(config, name, link=NEAR)
        machine.host.handle(ECHO, echo)
        machines.append(machine)
    return machines[0], machines[1]


async def first_echo(alice: Machine, bob: Machine) -> float:
    """Connect, and at once open a stream and talk; return how long that took."""
    await alice.host.connect(bob.address)
    assert alice.host.peers.protocols(bob.host.peer_id) is None
    began = trio.current_time()
    await say_on(await open_echo(alice, bob))
    return trio.current_time() - began


async def test_an_edge_does_nothing_about_streams_on_a_direct_connection(world: World) -> None:
    """RS19: neither the first, which waits for nothing, nor one when all is known."""
    seconds_without = await first_echo(*await put_edges(world, resume=False))
    alice, bob = await put_edges(world)
    assert await first_echo(alice, bob) == pytest.approx(seconds_without, abs=1e-6)
    await trio.sleep(1)
    assert PROTOCOL_ID in (alice.host.peers.protocols(bob.host.peer_id) or ())
    stream = await open_echo(alice, bob)
    assert count(alice) == count(bob) == 0
    await say_on(stream)


async def test_an_edge_serves_those_who_make_all_streams_resumable(world: World) -> None:
    """RS19."""
    _, bob = await put_edges(world)
    carol = await put(world, "carol", Resume())
    stream = await open_echo(carol, bob)
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    assert count(carol) == count(bob) == 1
    await stream.aclose()


async def test_a_resume_of_ones_own_takes_the_place_of_that_of_the_preset(world: World) -> None:
    config = presets.edge(services=[Resume(max_streams=3)])
    assert [part for part in config.services if isinstance(part, Resume)] == [Resume(max_streams=3)]
