"""Nobody uses a server to send others more than he sends himself (AN17), measured on the links."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio

from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.env import DatagramSocket, StreamListener
from p2pnet.errors import P2PError
from p2pnet.host.config import HostConfig
from p2pnet.protocols.autonat import AutoNATServer
from p2pnet.protocols.autonat.channels import request_channel
from p2pnet.protocols.autonat.dialogue import payment
from p2pnet.protocols.autonat.messages import PADDING, DialDataRequest, DialRequest
from p2pnet.testing.machines import Machine
from p2pnet.testing.packet import Flags, Packet, Segment
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY, Families, Site
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.protocols.autonat.scene import NEAR, Player, peer, put_server

WORST = AutoNATServer(longest_pause=0.0)
PORTS = (1, 2, 3, 4)
VICTIMS = ("silent", "closed", "mute", "talkative", "libp2p")


@dataclass
class Scales:
    """Weighs what comes to a victim from the server, and to the server from everybody."""

    server: Machine
    at_victim: int = 0
    at_server: Counter[Endpoint] = field(default_factory=Counter)
    knocks: list[float] = field(default_factory=list)

    def put_on(self, victim: Machine) -> None:
        weigh(self.server, self._paid)
        weigh(victim, self._suffered)

    def _paid(self, packet: Packet) -> None:
        self.at_server[packet.source] += packet.size

    def _suffered(self, packet: Packet) -> None:
        if packet.source.host in self.server.addresses:
            self.at_victim += packet.size
            payload = packet.payload
            if isinstance(payload, Segment) and payload.flags == Flags.SYN:
                self.knocks.append(trio.current_time())

    def ratio(self, *own_hosts: str, own_port: int = 0) -> float:
        """Return what the victim got, for each byte that anybody else has sent to the server."""
        sent = sum(
            size
            for source, size in self.at_server.items()
            if source.host not in own_hosts and source.port != own_port
        )
        return self.at_victim / sent


def weigh(machine: Machine, note: Callable[[Packet], None]) -> None:
    deliver = machine.plug.deliver

    def deliver_weighed(packet: Packet) -> None:
        note(packet)
        deliver(packet)

    machine.plug.deliver = deliver_weighed


async def put_victim(
    world: World, kind: str, *, families: Families = IPV4_ONLY, at: Site | None = None
) -> Machine:
    """Put somebody who wants nothing of all this; ports 1 to 4 are open on some."""
    if kind == "libp2p":
        listen = [f"/{ip}/tcp/{port}" for ip in ("ip4/0.0.0.0", "ip6/::") for port in PORTS]
        return await world.host(peer(listen=listen), "victim", at=at, link=NEAR, families=families)
    victim = world.machine("victim", at=at, link=NEAR, families=families)
    if kind == "silent":
        victim.kernel.power_off()
    elif kind in ("mute", "talkative"):
        for ip in ("0.0.0.0", "::"):
            for port in PORTS:
                listener = await victim.env.network.listen_tcp(Endpoint(ip, port))
                world._nursery.start_soon(attend, listener, kind == "talkative")
    return victim


async def attend(listener: StreamListener, is_talkative: bool) -> None:
    """Let everybody in; keep silent, or talk like a mail server and take anything."""
    try:
        async with trio.open_nursery() as nursery:
            while True:
                stream = await listener.accept()
                if is_talkative:
                    await stream.send_all(b"220 victim.example ESMTP\r\n")
                nursery.start_soon(keep, stream)
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def keep(stream: trio.abc.Stream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        await trio.lowlevel.checkpoint()
    finally:
        await trio.aclose_forcefully(stream)


async def attack(client: Player, server: Machine, *addresses: str) -> None:
    """Ask for a dial, whatever the answer."""
    try:
        await client.ask(server, *addresses)
    except (P2PError, trio.BrokenResourceError):
        await trio.sleep(1)


def port_of(victim: Machine, port: int) -> str:
    return f"/ip4/{victim.addresses[0]}/tcp/{port}"


@pytest.mark.parametrize("kind", VICTIMS)
async def test_one_attacker_who_goes_on_for_three_minutes(world: World, kind: str) -> None:
    """AN17: every port of the victim, as often as the server lets him."""
    server = await put_server(world, "server", WORST)
    victim, attacker = await put_victim(world, kind), await Player.put(world, name="attacker")
    scales = Scales(server)
    scales.put_on(victim)
    end = trio.current_time() + 180
    while trio.current_time() < end:
        for port in PORTS:
            await attack(attacker, server, port_of(victim, port))
        await trio.sleep(6)
    assert scales.knocks
    assert scales.ratio(*victim.addresses) <= 1


@pytest.mark.parametrize("kind", VICTIMS)
async def test_a_dozen_attackers_at_once(world: World, kind: str) -> None:
    """AN11 AN17."""
    server = await put_server(world, "server", WORST)
    victim = await put_victim(world, kind)
    attackers = [await Player.put(world, name=f"attacker {n}") for n in range(12)]
    scales = Scales(server)
    scales.put_on(victim)
    for _ in range(4):
        async with trio.open_nursery() as nursery:
            for number, attacker in enumerate(attackers):
                nursery.start_soon(attack, attacker, server, port_of(victim, 1 + number % 4))
        await trio.sleep(20)
    assert scales.knocks
    assert scales.ratio(*victim.addresses) <= 1
    for moment in scales.knocks:
        first = [time for time in scales.knocks if moment <= time < moment + 1]
        assert len(first) <= 2


async def test_slow_payers_cannot_make_many_dials_begin_at_one_moment(world: World) -> None:
    """AN11 AN13 AN14: specs#640. They pay all but the last message, and that at the same time."""
    server = await put_server(world, "server")
    victim = await put_victim(world, "silent")
    attackers = [await Player.put(world, name=f"attacker {n}") for n in range(12)]
    scales = Scales(server)
    scales.put_on(victim)
    now_pay = trio.Event()
    ready = 0

    async def pay_late(attacker: Player) -> None:
        nonlocal ready
        stream = await attacker.open(server)
        channel = request_channel(stream)
        await channel.send(DialRequest((parse(port_of(victim, 1)),), 7))
        demand = await channel.receive()
        ready += 1
        if isinstance(demand, DialDataRequest):
            *most, last = payment(demand.num_bytes)
            for message in most:
                await channel.send(message)
            await now_pay.wait()
            await channel.send(last)
            await channel.receive()
        stream.reset()

    async with trio.open_nursery() as nursery:
        for attacker in attackers:
            nursery.start_soon(pay_late, attacker)
        await trio.sleep(10)
        assert ready == 12
        now_pay.set()
    dials = [time for time in scales.knocks if time == min(scales.knocks)]
    assert len(dials) == 1
    assert scales.ratio(*victim.addresses) <= 1


async def test_who_does_not_pay_has_nothing_sent(world: World) -> None:
    """AN13 AN17: nothing, drops, half of it, or something else."""
    server = await put_server(world, "server", AutoNATServer(max_per_target=50))
    victim = await put_victim(world, "closed")
    attacker = await Player.put(world, name="attacker")
    scales = Scales(server)
    scales.put_on(victim)
    for messages in ([], [b"\x00" * 99], [b"\x00" * 4000] * 5):
        stream = await attacker.open(server)
        channel = request_channel(stream)
        await channel.send(DialRequest((parse(port_of(victim, 1)),), 7))
        assert isinstance(await channel.receive(), DialDataRequest)
        for data in messages:
            await stream.send_all(data)
        await trio.sleep(16)
        stream.reset()
    assert scales.at_victim == 0


async def test_a_victim_in_other_clothes_is_not_dialled(world: World) -> None:
    """AN12 AN17: by name, through IPv6, through a relay, or behind an address of the attacker's."""
    both = ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001")
    server = await put_server(world, "server", families=DUAL_STACK, listen=both)
    victim = await put_victim(world, "closed")
    attacker = await Player.put(world, name="attacker")
    scales = Scales(server)
    scales.put_on(victim)
    ip = victim.addresses[0]
    world.names["victim.example", "A"] = (ip,)
    in_hex = "".join(f"{int(part):02x}" for part in ip.split("."))
    own = f"/ip4/{attacker.machine.addresses[0]}/tcp/1/p2p/{server.host.peer_id}/p2p-circuit"
    for address in (
        "/dns4/victim.example/tcp/1",
        f"/ip6/::ffff:{ip}/tcp/1",
        f"/ip6/64:ff9b::{in_hex[:4]}:{in_hex[4:]}/tcp/1",
        f"/ip6/2002:{in_hex[:4]}:{in_hex[4:]}::1/tcp/1",
        own,
    ):
        await attack(attacker, server, address)
    assert attacker.paid == 0
    assert scales.at_victim == 0
    await attack(attacker, server, port_of(victim, 1))
    assert scales.at_victim > 0


@pytest.mark.parametrize("kind", VICTIMS)
async def test_a_victim_with_ipv6_asked_for_over_ipv4(world: World, kind: str) -> None:
    """AN13 AN17."""
    both = ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001")
    server = await put_server(world, "server", WORST, families=DUAL_STACK, listen=both)
    victim = await put_victim(world, kind, families=DUAL_STACK)
    attacker = await Player.put(world, name="attacker")
    scales = Scales(server)
    scales.put_on(victim)
    ipv4 = f"/ip4/{server.addresses[0]}/tcp/4001/p2p/{server.host.peer_id}"
    await attacker.machine.host.connect(ipv4)
    for _ in range(5):
        await attack(attacker, server, f"/ip6/{victim.addresses[1]}/tcp/1")
        await trio.sleep(20)
    assert scales.knocks
    assert scales.ratio(*victim.addresses) <= 1


@pytest.mark.parametrize("kind", VICTIMS)
async def test_a_neighbour_behind_the_same_nat(world: World, kind: str) -> None:
    """AN11 AN17: such a dial costs no data, but there are few, and a request is as large."""
    server = await put_server(world, "server", WORST)
    home = world.home("full-cone", "home", link=NEAR)
    victim = await put_victim(world, kind, at=home)
    attacker = Player(await world.host(peer(), "attacker", at=home, families=IPV4_ONLY))
    nat = world.routers["home"].nat
    nat.map_port(
        "tcp", Endpoint(victim.addresses[0], 1), 1, seconds=1000.0, now=trio.current_time()
    )
    scales = Scales(server)
    scales.put_on(victim)
    outside = world.routers["home"].outside_addresses[0]
    end = trio.current_time() + 180
    while trio.current_time() < end:
        await attack(attacker, server, f"/ip4/{outside}/tcp/1")
        await trio.sleep(1)
    # Who answers, and is not the attacker, is known to be somebody else from then on.
    assert (attacker.paid > 0) is (kind in ("talkative", "libp2p"))
    dials = len(set(scales.knocks)) / (4 if kind == "silent" else 1)
    assert dials <= 3 * 12 + 1
    assert scales.ratio(own_port=1) <= 1


@pytest.mark.parametrize("kind", VICTIMS)
async def test_a_neighbour_of_whoever_wastes_no_byte(world: World, kind: str) -> None:
    """AN17: one who reads no answer, closes nothing, and comes under as many keys as he can use."""
    server = await put_server(world, "server", WORST)
    home = world.home("full-cone", "home", link=NEAR)
    victim = await put_victim(world, kind, at=home)
    attackers = [
        Player(await world.host(peer(), f"attacker {n}", at=home, families=IPV4_ONLY))
        for n in range(2)
    ]
    nat = world.routers["home"].nat
    nat.map_port("tcp", Endpoint(victim.addresses[0], 1), 1, seconds=1000.0, now=0.0)
    scales = Scales(server)
    scales.put_on(victim)
    outside = parse(f"/ip4/{world.routers['home'].outside_addresses[0]}/tcp/1")
    for attacker in attackers:
        await attacker.machine.host.connect(server.address)
    await trio.sleep(1)
    end = trio.current_time() + 180
    while trio.current_time() < end:
        for attacker in attackers:
            stream = await attacker.open(server)
            await request_channel(stream).send(DialRequest((outside,), 7))
        await trio.sleep(6)
    assert scales.knocks
    assert scales.ratio(own_port=1) <= 1


# ---- UDP: the first datagrams of QUIC are large ------------------------------------------

UDP_VICTIMS = ("silent", "mute", "talkative", "echo", "libp2p")
CORES = (QUIC(), QUIC(core="qh3"))


def core_of(quic: QUIC) -> str:
    return quic.core


def with_quic(config: HostConfig, quic: QUIC = CORES[0]) -> HostConfig:
    udp = [text.replace("/tcp/", "/udp/") + "/quic-v1" for text in config.listen]
    return replace(config, transports=[TCP(), quic], listen=[*config.listen, *udp])


async def put_quic_server(world: World, quic: QUIC) -> Machine:
    return await world.host(with_quic(peer(WORST), quic), "server", link=NEAR, families=IPV4_ONLY)


async def answer_all(socket: DatagramSocket, kind: str) -> None:
    """Say something to whoever sends anything, or send it back."""
    while True:
        data, remote = await socket.receive()
        await socket.send(data if kind == "echo" else b"who is it?", remote)


@asynccontextmanager
async def udp_victim(world: World, kind: str, at: Site | None = None) -> AsyncGenerator[Machine]:
    """Put somebody with UDP port 1 who wants nothing of all this."""
    victim = world.machine("victim", at=at, link=NEAR, families=IPV4_ONLY)
    if kind == "silent":
        victim.kernel.power_off()
        yield victim
    elif kind == "libp2p":
        await world.start(victim, with_quic(peer(listen=["/ip4/0.0.0.0/tcp/1"])))
        yield victim
    else:
        socket = await victim.env.network.bind_udp(Endpoint("0.0.0.0", 1))
        async with trio.open_nursery() as nursery:
            if kind != "mute":
                nursery.start_soon(answer_all, socket, kind)
            yield victim
            nursery.cancel_scope.cancel()
        await socket.aclose()


@pytest.mark.parametrize("quic", CORES, ids=core_of)
@pytest.mark.parametrize("kind", UDP_VICTIMS)
async def test_one_attacker_who_has_udp_dialled_for_three_minutes(
    world: World, kind: str, quic: QUIC
) -> None:
    """AN13 AN17."""
    server = await put_quic_server(world, quic)
    attacker = await Player.put(world, name="attacker")
    async with udp_victim(world, kind) as victim:
        scales = Scales(server)
        scales.put_on(victim)
        end = trio.current_time() + 180
        while trio.current_time() < end:
            await attack(attacker, server, f"/ip4/{victim.addresses[0]}/udp/1/quic-v1")
            await trio.sleep(6)
        assert scales.at_victim > 0
        assert scales.ratio(*victim.addresses) <= 1


@dataclass
class Neighbours:
    """Attackers behind one NAT, which leads datagrams for its UDP port 1 to their victim."""

    server: Machine
    attackers: list[Player]
    scales: Scales
    outside: str
    """What they ask for."""


@asynccontextmanager
async def neighbours(world: World, kind: str, count: int, quic: QUIC) -> AsyncGenerator[Neighbours]:
    server = await put_quic_server(world, quic)
    home = world.home("full-cone", "home", link=NEAR)
    attackers = [
        Player(await world.host(peer(), f"attacker {n}", at=home, families=IPV4_ONLY))
        for n in range(count)
    ]
    nat = world.routers["home"].nat
    async with udp_victim(world, kind, at=home) as victim:
        nat.map_port("udp", Endpoint(victim.addresses[0], 1), 1, seconds=1000.0, now=0.0)
        scales = Scales(server)
        scales.put_on(victim)
        for attacker in attackers:
            await attacker.machine.host.connect(server.address)
        await trio.sleep(1)
        outside = f"/ip4/{world.routers['home'].outside_addresses[0]}/udp/1/quic-v1"
        yield Neighbours(server, attackers, scales, outside)
    nat.unmap_port("udp", 1)


@pytest.mark.parametrize("quic", CORES, ids=core_of)
@pytest.mark.parametrize("kind", UDP_VICTIMS)
async def test_a_neighbour_behind_the_same_nat_whose_udp_port_is_dialled(
    world: World, kind: str, quic: QUIC
) -> None:
    """AN17 AN18: who asks without padding pays by data."""
    async with neighbours(world, kind, 6, quic) as scene:
        end = trio.current_time() + 150
        while trio.current_time() < end:
            async with trio.open_nursery() as nursery:
                for attacker in scene.attackers:
                    nursery.start_soon(attack, attacker, scene.server, scene.outside)
                await trio.sleep(3)
        assert scene.scales.at_victim > 0
        assert all(attacker.paid > 0 for attacker in scene.attackers)
        assert scene.scales.ratio(own_port=1) <= 1


@pytest.mark.parametrize("quic", CORES, ids=core_of)
@pytest.mark.parametrize("padding", [0, PADDING - 1, PADDING])
@pytest.mark.parametrize("kind", UDP_VICTIMS)
async def test_a_neighbour_of_whoever_pays_as_little_as_he_can_for_a_dial_over_udp(
    world: World, kind: str, padding: int, quic: QUIC
) -> None:
    """AN17 AN18: he reads no answer, meets no demand, and has many keys."""
    async with neighbours(world, kind, 2, quic) as scene:
        request = DialRequest((parse(scene.outside),), 7, padding)
        before = scene.scales.at_server.copy()
        end = trio.current_time() + 150
        while trio.current_time() < end:
            for attacker in scene.attackers:
                stream = await attacker.open(scene.server)
                await request_channel(stream).send(request)
            await trio.sleep(6)
        assert (scene.scales.at_victim > 0) is (padding == PADDING)
        # What came to the server before does not count: he may have had to.
        scene.scales.at_server.subtract(before)
        assert scene.scales.ratio(own_port=1) <= 1
