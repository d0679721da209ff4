"""How a circuit ends, and as what its relay counts that: R45 in relay.md, S22 in connections.md."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import trio

from p2pnet import presets
from p2pnet.errors import PeerLeft
from p2pnet.events import ConnectionClosed
from p2pnet.interfaces import Connection
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.security.noise import Noise
from p2pnet.security.tls import TLS
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import Punched, speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import NEAR, reserved

both_transports = pytest.mark.parametrize("transport", ["tcp", "quic"])
either_end = pytest.mark.parametrize("who", ["source", "target"])


@dataclass
class Scene:
    """A circuit that has carried a ping; its ends do not punch."""

    relay: Machine
    source: Machine
    target: Machine

    def end(self, who: str) -> Machine:
        return self.source if who == "source" else self.target

    async def count(self, *, within: float = 1.0) -> dict[str, int]:
        """Wait so long for the end of the circuit; return the causes that the relay has counted."""
        await trio.sleep(within)
        statistics = self.relay.host.service(RelayServer).statistics()
        assert not statistics.circuits
        return dict(statistics.circuits_closed)


async def put_circuit(world: World, transport: Punched, *, tls: bool = False) -> Scene:
    security = [TLS()] if tls else [Noise()]
    config = replace(speaking(transport, presets.relay()), security=security)
    relay = await world.host(config, "relay", link=NEAR, families=IPV4_ONLY)
    place = f"/ip4/{relay.addresses[0]}/{'tcp' if transport == 'tcp' else 'udp'}/"
    [at] = [text for text in map(str, relay.host.addresses.value) if text.startswith(place)]
    ends = []
    for name in ("source", "target"):
        config = speaking(transport, presets.minimal())
        client = RelayClient(relays=[at], reserve=name == "target")
        config = replace(config, services=[*config.services, client], security=security)
        ends.append(await world.host(config, name, link=NEAR, families=IPV4_ONLY))
    source, target = ends
    await reserved(target)
    circuit = await source.host.connect(f"{at}/p2p-circuit/p2p/{target.host.peer_id}")
    await source.host.service(Ping).ping(circuit)
    return Scene(relay, source, target)


def connection(end: Machine, *, is_relayed: bool) -> Connection:
    [found] = [each for each in end.host.connections() if each.is_relayed is is_relayed]
    return found


@both_transports
@either_end
@pytest.mark.parametrize("tls", [False, True], ids=["noise", "tls"])
async def test_who_leaves_ends_its_circuits_before_what_carries_them(
    world: World, transport: Punched, who: str, tls: bool
) -> None:
    """S22, R45: the relay and the other end take it for what it is."""
    scene = await put_circuit(world, transport, tls=tls)
    other = scene.target if who == "source" else scene.source
    with other.host.subscribe(ConnectionClosed) as closings:
        began = trio.current_time()
        await scene.end(who).stop()
        assert trio.current_time() - began < 0.3  # A round trip by way of the relay, and one to it.
        closed = await anext(closings)
    assert closed.connection.is_relayed
    assert isinstance(closed.error, PeerLeft)
    assert await scene.count() == {"finished": 1}


@both_transports
@either_end
async def test_a_circuit_that_is_closed_has_finished(
    world: World, transport: Punched, who: str
) -> None:
    """R45: over QUIC, whoever closes first reads no more than what came."""
    scene = await put_circuit(world, transport)
    await connection(scene.end(who), is_relayed=True).aclose()
    assert await scene.count() == {"finished": 1}


@both_transports
@either_end
async def test_who_says_goodbye_to_the_relay_has_finished_its_circuits(
    world: World, transport: Punched, who: str
) -> None:
    """R45: without a word on the circuit itself."""
    scene = await put_circuit(world, transport)
    await connection(scene.end(who), is_relayed=False).aclose()
    assert await scene.count() == {"finished": 1}


@both_transports
@either_end
async def test_an_end_that_is_switched_off_breaks_its_circuits(
    world: World, transport: Punched, who: str
) -> None:
    """R45."""
    scene = await put_circuit(world, transport)
    await scene.end(who).power_off()
    assert await scene.count(within=60.0) == {"broken": 1}


@both_transports
async def test_a_silent_end_holds_up_no_other_that_leaves(world: World, transport: Punched) -> None:
    """S22: the connection to the relay gets a goodbye all the same, within the second."""
    scene = await put_circuit(world, transport)
    source = scene.source.host.peer_id
    await scene.target.power_off()
    with scene.relay.host.subscribe(ConnectionClosed) as closings:
        began = trio.current_time()
        await scene.source.stop()
        assert trio.current_time() - began < 1.1
        closed = await anext(closings)
    assert closed.connection.peer_id == source
    assert isinstance(closed.error, PeerLeft)
    assert await scene.count() == {"finished": 1}
