"""A slow receiver costs a relay no memory, by whatever it is connected: specs/relay.md R21.

What the ends of a circuit say to each other is bounded by their own muxer's windows as well; who
means ill has none. So here the circuit is two bare streams: nothing but the relay's own windows
and its one chunk hold the sender up. Those grow for who reads fast, as he may until he stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

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
WINDOW_BYTES = 1_048_576
"""What the relay allows its own to grow to."""
ON_THE_WAY = 1_048_576
"""Most bytes that the sender's host has taken, and not sent yet."""
FAST_SECONDS = 3.0


@dataclass
class Circuit:
    """Bare streams by way of a relay."""

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
        """Take 1,000 bytes a second."""
        channel = stop_channel(stream)
        await channel.receive()
        await channel.send(StopStatus(Status.OK))
        while data := await stream.receive_some(1000):
            self.taken += len(data)
            await trio.sleep(1.0)

    async def gulp(self, stream: Stream) -> None:
        """Take all that comes for a moment, and then nothing any more."""
        channel = stop_channel(stream)
        await channel.receive()
        await channel.send(StopStatus(Status.OK))
        with trio.move_on_after(FAST_SECONDS):
            while data := await stream.receive_some():
                self.taken += len(data)
        await trio.sleep_forever()

    @property
    def kept(self) -> int:
        """Return what the sender got rid of, and the relay did not."""
        return self.sent - self.relay.host.service(RelayServer).statistics().bytes_forward

    @property
    def held(self) -> int:
        """Return what the relay has read and not passed on."""
        return self.relay.host.service(RelayServer).statistics().most_buffered_bytes


async def put_circuit(
    world: World, transport: Punched, taker: Callable[[Circuit, Stream], Awaitable[None]]
) -> Circuit:
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
    bob.host.handle(STOP, partial(taker, circuit))
    await connect(hop_channel(circuit.stream), calling.peer_id, bob.host.peer_id)
    return circuit


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_a_slow_receiver_holds_its_sender_up_and_nothing_is_heaped_up_at_the_relay(
    world: World, transport: Punched
) -> None:
    """R21."""
    circuit = await put_circuit(world, transport, Circuit.sip)
    with trio.move_on_after(10 * MINUTE):
        await circuit.pour(WINDOWS[transport] + CHUNK + PIECE)
    assert circuit.taken > 7 * MINUTE * 1000, "it goes on all the time"
    assert circuit.held <= CHUNK


@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_who_was_fast_and_takes_no_more_leaves_little_at_the_relay(
    world: World, transport: Punched
) -> None:
    """R21: only in its own windows, which have not grown without bounds before."""
    circuit = await put_circuit(world, transport, Circuit.gulp)
    with trio.move_on_after(MINUTE):
        while True:
            await circuit.stream.send_all(bytes(CHUNK))
            circuit.sent += CHUNK
            assert circuit.kept <= WINDOW_BYTES + 2 * CHUNK + ON_THE_WAY
    assert circuit.taken > 5 * WINDOW_BYTES, "it was fast enough for them to grow"
    assert circuit.held <= CHUNK
