"""Which circuit a stream leaves before its relay cuts it, and what carries it then: RS21."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import parse, without_peer
from p2pnet.events import CircuitNearLimit, StreamMoved
from p2pnet.interfaces import Connection, Stream
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.protocols.resume import Resume
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import LISTEN
from tests.network.scene import ECHO, NEAR, echo, put_relay, reserved


@dataclass
class Scene:
    """Two that could dial each other, and do so only when told to; each may call the other."""

    relay: Machine
    alice: Machine
    bob: Machine

    @property
    def statistics(self) -> tuple[int, int]:
        """How many circuits there are, and have been."""
        statistics = self.relay.host.service(RelayServer).statistics()
        return statistics.circuits, statistics.circuits_opened

    async def call(self) -> Connection:
        """Dial Bob from Alice, by way of the relay."""
        circuit = parse(f"{self.relay.address}/p2p-circuit")
        called = await self.alice.host.dial(self.bob.host.peer_id, [circuit])
        await trio.sleep(1)
        return called

    async def meet(self) -> Connection:
        """Dial Bob from Alice, directly."""
        there = without_peer(parse(self.bob.address))
        return await self.alice.host.dial(self.bob.host.peer_id, [there])

    def called(self) -> Connection:
        """Return Bob's end of the newest circuit."""
        return max(self.bob.host.connections(), key=lambda each: each.ref.number)

    def warn(self, machine: Machine, circuit: Connection) -> None:
        """Tell one end of a circuit, and only that one, that it is about to be cut."""
        relay = self.relay.host.peer_id
        machine.host.publish(
            CircuitNearLimit(circuit.peer_id, relay, "seconds", 96, 120, circuit.limit)
        )


@pytest.fixture
async def scene(world: World) -> Scene:
    relay = await put_relay(world, limits=RelayServer(circuit_seconds=1000))
    machines = []
    for name in ("alice", "bob"):
        config = presets.minimal(listen=LISTEN)
        services = [*config.services, RelayClient(relays=[relay.address]), Resume()]
        machine = await world.host(replace(config, services=services), name, link=NEAR)
        machine.host.handle(ECHO, echo)
        machines.append(machine)
        await reserved(machine)
    return Scene(relay, *machines)


async def heard(stream: Stream, data: bytes = b"hello") -> None:
    await stream.send_all(data)
    assert await stream.receive_some() == data


async def test_a_stream_leaves_the_circuit_that_is_meant_and_no_other(scene: Scene) -> None:
    """RS21: the next one through the same relay carries a stream of its own."""
    old, fresh = await scene.call(), await scene.call()
    one = await scene.alice.host.open_stream(scene.bob.host.peer_id, ECHO, limited="allow")
    await heard(one)
    assert one.connection is fresh
    with scene.alice.host.subscribe(StreamMoved) as moves:
        scene.warn(scene.alice, old)
        await trio.sleep(60)
        assert not moves.take_waiting()
    assert scene.statistics[1] == 2
    await heard(one)


async def test_who_was_called_goes_on_over_a_circuit_that_was_there_before_the_warning(
    scene: Scene,
) -> None:
    """RS21: the caller was warned first, and has dialled the next one."""
    await scene.call()
    old = scene.called()
    stream = await scene.bob.host.open_stream(scene.alice.host.peer_id, ECHO, limited="allow")
    await heard(stream)
    await scene.call()
    fresh = scene.called()
    assert stream.connection is old is not fresh
    scene.warn(scene.bob, old)
    await trio.sleep(1)
    assert stream.connection is fresh
    await heard(stream)


async def test_a_newer_circuit_saves_the_dial_of_another(scene: Scene) -> None:
    """RS21."""
    old = await scene.call()
    stream = await scene.alice.host.open_stream(scene.bob.host.peer_id, ECHO, limited="allow")
    await heard(stream)
    fresh = await scene.call()
    assert stream.connection is old
    scene.warn(scene.alice, old)
    await trio.sleep(1)
    assert stream.connection is fresh
    await heard(stream)
    await trio.sleep(30)
    assert scene.statistics == (1, 2)


async def test_a_circuit_that_was_dialled_in_vain_is_closed(scene: Scene) -> None:
    """RS21: a direct connection came meanwhile."""
    old = await scene.call()
    stream = await scene.alice.host.open_stream(scene.bob.host.peer_id, ECHO, limited="allow")
    await heard(stream)
    scene.warn(scene.alice, old)
    direct = await scene.meet()
    await trio.sleep(1)
    assert stream.connection is direct
    assert scene.statistics == (2, 2)
    await trio.sleep(60)
    assert scene.statistics == (0, 2)
    await heard(stream)


async def test_who_has_lost_its_circuit_does_not_wait_for_the_next_if_it_can_go_on(
    scene: Scene,
) -> None:
    """RS21: the relay is silent, and somebody else dials the peer directly."""
    old = await scene.call()
    stream = await scene.alice.host.open_stream(scene.bob.host.peer_id, ECHO, limited="allow")
    await heard(stream)
    scene.relay.link.is_cut = True
    scene.warn(scene.alice, old)
    await trio.sleep(1)
    await old.aclose()
    await trio.sleep(1)
    direct = await scene.meet()
    began = trio.current_time()
    await heard(stream)
    assert stream.connection is direct
    assert trio.current_time() - began < 1
