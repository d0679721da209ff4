"""Faults of the way to a peer, and of the peer: rows of the table."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from p2pnet import presets
from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.explain import Explanation
from p2pnet.core.addresses import Endpoint, from_endpoint
from p2pnet.core.env import ByteStream
from p2pnet.core.framing import encode_frame
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Kit
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.driver import YamuxMuxer
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.insecure import Insecure
from p2pnet.testing.machines import Machine
from p2pnet.testing.packet import Packet, Segment
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.connectivity.fault_scene import (
    fail_to_connect,
    fault,
    full,
    place,
    put_edge,
    put_public,
    put_relay,
    reserved,
    tell,
)
from tests.connectivity.faults_of_hosts import ipv6_address

SOMEBODY = PeerId.from_public_key(PrivateKey.from_seed(b"\x07" * 32).public_key)
AGREEMENT_BYTES = 64
"""More than it takes to agree on Noise."""
SETTLED = 60.0
"""Seconds after which all hole punches have ended."""


async def explained(alice: Machine, target: str) -> Explanation:
    """Dial in vain, and explain."""
    await fail_to_connect(alice, target)
    return alice.host.explain(target)


# ---- addresses ---------------------------------------------------------------------------


@fault(Cause.NO_ADDRESS)
async def no_address(world: World) -> Explanation:
    return await explained(await put_edge(world, "alice"), str(SOMEBODY))


@fault(Cause.REFUSED)
async def wrong_port(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    return await explained(alice, bob.address.replace("4001", "4002"))


@fault(Cause.NO_ANSWER)
async def switched_off(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    address = bob.address
    await bob.power_off()
    return await explained(alice, address)


@fault(Cause.NO_ANSWER)
async def switched_off_while_connected(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    target = bob.address
    await alice.host.connect(target)
    await bob.power_off()
    await trio.sleep(SETTLED)
    return alice.host.explain(target)


@fault(Cause.NO_ANSWER)
async def nat_of_the_peer_and_no_relay(world: World) -> Explanation:
    relay = await put_relay(world)
    alice, bob = await put_edge(world, "alice"), await put_edge(world, "bob", relay, at="carrier")
    await reserved(bob)
    address = bob.host.punch_addresses()[0]
    return await explained(alice, full(address, bob.host.peer_id))


@fault(Cause.NO_ANSWER)
async def an_address_that_rests_is_told_of_by_what_it_failed_with(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    peer, there = bob.host.peer_id, Endpoint(bob.addresses[0], 4001)
    await bob.power_off()
    tell(alice, peer, there)
    await fail_to_connect(alice, peer)
    return await explained(alice, str(peer))


@fault(Cause.NAME_NOT_FOUND)
async def unknown_name(world: World) -> Explanation:
    alice = await put_edge(world, "alice")
    return await explained(alice, full("/dns4/nobody.example/tcp/4001", SOMEBODY))


@fault(Cause.NAME_SERVERS)
async def silent_name_servers(world: World) -> Explanation:
    alice = await put_edge(world, "alice")
    alice.link.is_cut = True
    return await explained(alice, full("/dns4/bob.example/tcp/4001", SOMEBODY))


@fault(Cause.NO_ROUTE)
async def ipv6_address_without_ipv6(world: World) -> Explanation:
    alice = await put_edge(world, "alice", families=IPV4_ONLY)
    return await explained(alice, ipv6_address(await put_public(world, "bob")))


@fault(Cause.UNSUPPORTED)
async def address_of_another_transport(world: World) -> Explanation:
    alice = await put_edge(world, "alice")
    return await explained(alice, full("/ip4/11.9.0.1/udp/4001/quic-v1", SOMEBODY))


@fault(Cause.MISLEADING)
async def own_address(world: World) -> Explanation:
    config = presets.edge(listen=["/ip4/127.0.0.1/tcp/4001"])
    alice = await put_edge(world, "alice", config=config)
    return await explained(alice, full("/ip4/127.0.0.1/tcp/4001", SOMEBODY))


@fault(Cause.OWN_LIMIT)
async def own_limit_of_addresses(world: World) -> Explanation:
    config = replace(presets.edge(), swarm=SwarmConfig(max_addresses_per_dial=1))
    alice, bob = await put_edge(world, "alice", config=config), await put_public(world, "bob")
    there = bob.addresses[0]
    tell(alice, bob.host.peer_id, Endpoint(there, 4002), Endpoint(there, 4001))
    return await explained(alice, str(bob.host.peer_id))


# ---- who answers -------------------------------------------------------------------------


@fault(Cause.WRONG_PEER)
async def wrong_peer_id(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    return await explained(alice, full(place(bob.address), SOMEBODY))


@fault(Cause.NOTHING_IN_COMMON)
async def no_security_in_common(world: World) -> Explanation:
    config = presets.minimal(listen=presets.RELAY_PORTS)
    bob = await put_public(world, "bob", replace(config, security=[Insecure()]))
    return await explained(await put_edge(world, "alice"), bob.address)


@fault(Cause.NOTHING_IN_COMMON)
async def no_muxer_in_common(world: World) -> Explanation:
    config = presets.minimal(listen=presets.RELAY_PORTS)
    bob = await put_public(world, "bob", replace(config, muxers=[OtherMuxer()]))
    return await explained(await put_edge(world, "alice"), bob.address)


@dataclass(frozen=True)
class OtherMuxer:
    def build(self, kit: Kit) -> YamuxMuxer:
        muxer = YamuxMuxer(Yamux())
        muxer.protocol_id = "/other/1.0.0"
        return muxer


@fault(Cause.HUNG_UP)
async def peer_full(world: World) -> Explanation:
    swarm = SwarmConfig(max_connections=1, high_connections=1, low_connections=1)
    config = replace(presets.minimal(listen=presets.RELAY_PORTS), swarm=swarm)
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob", config)
    await (await put_edge(world, "carol")).host.connect(bob.address)
    await alice.host.connect(bob.address)
    await trio.sleep(1)
    return alice.host.explain(bob.address)


@fault(Cause.HUNG_UP)
async def peer_left(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    target = bob.address
    await alice.host.connect(target)
    await bob.stop()
    await trio.sleep(1)
    return alice.host.explain(target)


Speak = Callable[[ByteStream], Awaitable[None]]


@asynccontextmanager
async def serving(world: World, speak: Speak) -> AsyncGenerator[str]:
    """Run a program that is no peer, and give the address at which it pretends to be one."""
    machine = world.machine("program")
    at = Endpoint(machine.addresses[0], 4001)
    listener = await machine.env.network.listen_tcp(at)

    async def serve(nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(answer, await listener.accept())

    async def answer(stream: ByteStream) -> None:
        try:
            async with stream:
                await speak(stream)
        except* trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery)
        yield full(from_endpoint(at), SOMEBODY)
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def explained_program(world: World, speak: Speak) -> Explanation:
    alice = await put_edge(world, "alice")
    async with serving(world, speak) as address:
        return await explained(alice, address)


@fault(Cause.NOT_A_PEER)
async def web_server(world: World) -> Explanation:
    async def speak(stream: ByteStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    return await explained_program(world, speak)


@fault(Cause.MISBEHAVES)
async def garbage_in_the_handshake(world: World) -> Explanation:
    async def speak(stream: ByteStream) -> None:
        await stream.receive_some()
        agreed = encode_frame(b"/multistream/1.0.0\n") + encode_frame(b"/noise\n")
        await stream.send_all(agreed + b"\x00\x03abc")
        await stream.receive_some()

    return await explained_program(world, speak)


@fault(Cause.HUNG_UP)
async def hangs_up_at_the_first_word(world: World) -> Explanation:
    async def speak(stream: ByteStream) -> None:
        await stream.receive_some()

    return await explained_program(world, speak)


@fault(Cause.HUNG_UP)
async def hangs_up_in_the_handshake(world: World) -> Explanation:
    async def speak(stream: ByteStream) -> None:
        await stream.receive_some()
        await stream.send_all(encode_frame(b"/multistream/1.0.0\n") + encode_frame(b"/noise\n"))

    return await explained_program(world, speak)


@fault(Cause.NO_ANSWER)
async def accepts_and_says_nothing(world: World) -> Explanation:
    async def speak(stream: ByteStream) -> None:
        await trio.sleep_forever()

    return await explained_program(world, speak)


@fault(Cause.NOT_SECURE)
async def tampered_handshake(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    tamper(alice, spare=AGREEMENT_BYTES)
    return await explained(alice, bob.address)


@fault(Cause.NOT_SECURE)
async def tampered_connection(world: World) -> Explanation:
    alice, bob = await put_edge(world, "alice"), await put_public(world, "bob")
    target = bob.address
    await alice.host.connect(target)
    await trio.sleep(5)
    tamper(alice)
    await trio.sleep(SETTLED)
    return alice.host.explain(target)


def tamper(machine: Machine, *, spare: int = 0) -> None:
    """Change the last byte of each segment that arrives at a machine, but for short ones."""
    deliver = machine.plug.deliver

    def change(packet: Packet) -> None:
        segment = packet.payload
        if isinstance(segment, Segment) and len(segment.data) > spare:
            data = segment.data[:-1] + bytes([segment.data[-1] ^ 1])
            packet = replace(packet, payload=replace(segment, data=data))
        deliver(packet)

    machine.plug.deliver = change
