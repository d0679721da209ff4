"""What a neighbour of the asker, behind the same NAT, gets from a server (AO7, AO11)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.framing import encode_frame
from p2pnet.host.config import HostConfig
from p2pnet.protocols.autonat_v1 import AutoNATv1Server
from p2pnet.protocols.autonat_v1.messages import PROTOCOL_ID, Dial, encode_message
from p2pnet.testing.machines import Machine
from p2pnet.testing.packet import Packet
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.protocols.autonat_v1.autonat_v1_scene import NEAR

OWN_PORT = 4001
PORTS = range(1, 16)


def with_quic(config: HostConfig) -> HostConfig:
    listen = (f"/ip4/0.0.0.0/tcp/{OWN_PORT}", f"/ip4/0.0.0.0/udp/{OWN_PORT}/quic-v1")
    return replace(config, transports=[TCP(), QUIC()], listen=listen)


@dataclass
class Scales:
    """Weighs what a server sends, by the port that it goes to, and all that comes to it."""

    server: Machine
    sent: Counter[int] = field(default_factory=Counter)
    paid: int = 0

    def put_on(self) -> None:
        plug = self.server.plug
        deliver, send = plug.deliver, plug.send

        def note_arrival(packet: Packet) -> None:
            self.paid += packet.size
            deliver(packet)

        def note_departure(packet: Packet) -> None:
            self.sent[packet.destination.port] += packet.size
            send(packet)

        plug.deliver, plug.send = note_arrival, note_departure  # type: ignore[method-assign]

    def at_ports(self, ports: range) -> int:
        return sum(self.sent[port] for port in ports)


async def let_in(victim: Machine, port: int) -> None:
    """Take whoever comes to a port, and say nothing."""
    listener = await victim.env.network.listen_tcp(Endpoint("0.0.0.0", port))
    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(keep, await listener.accept())
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def keep(stream: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    await stream.aclose()


async def ask_again_and_again(world: World, suffix: str, *, is_silent: bool = True) -> Scales:
    """Name 15 ports of a neighbour who says nothing, as often as one peer may in a minute."""
    plain = with_quic(presets.minimal())
    serving = replace(plain, services=[*plain.services, AutoNATv1Server()])
    server = await world.host(serving, "server", link=NEAR, families=IPV4_ONLY)
    home = world.home("full-cone", "home", link=NEAR)
    asker = await world.host(plain, "asker", at=home, families=IPV4_ONLY)
    victim = world.machine("victim", at=home, families=IPV4_ONLY)
    if is_silent:
        victim.kernel.power_off()
    else:
        for port in PORTS:
            world._nursery.start_soon(let_in, victim, port)
    router = world.routers["home"]
    for port in PORTS:
        where = Endpoint(victim.addresses[0], port)
        router.nat.map_port("tcp", where, port, seconds=1000.0, now=0.0)
        router.nat.map_port("udp", where, port, seconds=1000.0, now=0.0)
    # Not from the port that is listened on: if the server reached that, it would stop there.
    place = parse(f"/ip4/{server.addresses[0]}/tcp/{OWN_PORT}")
    connection = await asker.host.dial(server.host.peer_id, [place], any_port=True)
    await trio.sleep(1)
    scales = Scales(server)
    scales.put_on()
    named = [f"/ip4/{router.outside_addresses[0]}/{suffix.format(port)}" for port in PORTS]
    dial = Dial(asker.host.peer_id, tuple(map(parse, named)))
    for _ in range(AutoNATv1Server().dials_per_minute_per_peer):
        stream = await connection.open_stream(PROTOCOL_ID)
        await stream.send_all(encode_frame(encode_message(dial)))
        await trio.sleep(18)
    return scales


async def test_no_datagram_is_sent_to_a_port_where_the_asker_is_not_seen(world: World) -> None:
    """AO7: it would have been 183 bytes for each that was asked with."""
    scales = await ask_again_and_again(world, "udp/{}/quic-v1")
    assert scales.paid > 1000
    assert scales.at_ports(PORTS) == 0


@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "mute"])
async def test_over_tcp_a_neighbour_gets_no_more_than_was_asked_with(
    world: World, is_silent: bool
) -> None:
    """AO8 AO11: four SYNs for each of two ports, in 15 s, or the first words of a handshake."""
    scales = await ask_again_and_again(world, "tcp/{}", is_silent=is_silent)
    assert 0 < scales.at_ports(PORTS) <= scales.paid
