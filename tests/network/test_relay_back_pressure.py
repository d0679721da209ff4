"""A slow receiver costs a relay no memory, by whatever it is connected: specs/relay.md R21.

What the ends of a circuit say to each other is bounded by their own muxer's windows as well; who
means ill has none. So here the circuit is two bare streams: nothing but the relay's own windows
and its one chunk hold the sender up.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio

from p2pnet import presets
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.channels import hop_channel, stop_channel
from p2pnet.protocols.relay.dialogue import connect, reserve
from p2pnet.protocols.relay.messages import HOP, STOP, Status, StopStatus
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import Punched, speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.network.scene import NEAR

CHUNK = 65_536
PIECE = 10_000
MINUTE = 60.0
WINDOWS = {"tcp": 2 * 262_144, "quic": 2 * 786_432}
"""A stream's, into the relay and out of it; nobody reads fast enough for them to grow."""


@dataclass
class Circuit:
    """Bare streams by way of a relay; who was called takes 1,000 bytes a second."""

    relay: Machine
    stream: Stream
    taken: int = 0
    sent: int = 0

    async def pour(self, at_most: int) -> None:
        """Send all that is taken, and see that it is never more than that on its way."""
        while True:
            await self.stream.send_all(bytes(PIECE))
            self.sent += PIECE
            assert self.sent - self.taken <= at_most

    async def sip(self, stream: Stream) -> None:
        channel = stop_channel(stream)
        await channel.receive()
        await channel.send(StopStatus(Status.OK))
        while data := await stream.receive_some(1000):
            self.taken += len(data)
            await trio.sleep(1.0)

    @property
    def held(self) -> int:
        """Return what the relay has read and not passed on."""
        return self.relay.host.service(RelayServer).statistics().most_buffered_bytes


async def put_circuit(world: World, transport: Punched) -> Circuit:
    limits = RelayServer(circuit_seconds=None, circuit_bytes=None)
    config = speaking(transport, presets.relay(limits=limits))
    relay = await world.host(config, "relay", link=NEAR, families=IPV4_ONLY)
    kind = "/tcp/" if transport == "tcp" else "/udp/"
    at = [str(each) for each in relay.host.addresses.value if kind in str(each)]
    address = next(each for each in at if "/ip4/" in each and "127.0.0.1" not in each)
    minimal = speaking(transport, presets.minimal())
    alice, bob = [
        await world.host(minimal, name, link=NEAR, families=IPV4_ONLY) for name in ("alice", "bob")
    ]
    reserving = await bob.host.connect(address)
    async with await reserving.open_stream(HOP) as stream:
        await reserve(hop_channel(stream), reserving.peer_id)
    calling = await alice.host.connect(address)
    circuit = Circuit(relay, await calling.open_stream(HOP))
    bob.host.handle(STOP, circuit.sip)
    await connect(hop_channel(circuit.stream), calling.peer_id, bob.host.peer_id)
    return circuit


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_a_slow_receiver_holds_its_sender_up_and_nothing_is_heaped_up_at_the_relay(
    world: World, transport: Punched
) -> None:
    """R21."""
    circuit = await put_circuit(world, transport)
    with trio.move_on_after(10 * MINUTE):
        await circuit.pour(WINDOWS[transport] + CHUNK + PIECE)
    assert circuit.taken > 7 * MINUTE * 1000, "it goes on all the time"
    assert circuit.held <= CHUNK
