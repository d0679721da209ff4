"""Dials over UDP at the client's own IP address: who has to pay, and how (AN18, AN20, DI25)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet.core.addresses import parse
from p2pnet.host.config import HostConfig
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat.dialogue import MAX_PAYMENT
from p2pnet.protocols.autonat.messages import PADDING, DialStatus
from p2pnet.protocols.autonat.server import LEAST_PAYMENT
from p2pnet.swarm.black_hole import BlackHoles, Class, Outcome, State
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.packet import Datagram, Packet
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from tests.protocols.autonat.scene import NEAR, Player, Request, heard_from, peer, put_liar

DEFAULT = QUIC()
CORES = pytest.mark.parametrize("quic", [QUIC(), QUIC(core="qh3")], ids=lambda quic: quic.core)


def with_quic(config: HostConfig, quic: QUIC = DEFAULT) -> HostConfig:
    listen = ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1")
    return replace(config, transports=[TCP(), quic], listen=listen)


async def put(world: World, name: str, config: HostConfig, quic: QUIC = DEFAULT) -> Machine:
    return await world.host(with_quic(config, quic), name, link=NEAR, families=IPV4_ONLY)


async def connect_over(client: Machine, server: Machine, suffix: str) -> None:
    address = parse(f"/ip4/{server.addresses[0]}/{suffix}")
    await client.host.dial(server.host.peer_id, [address])


@pytest.mark.parametrize(
    ("connected_over", "padding", "pays"),
    [
        ("tcp/4001", 0, True),
        ("tcp/4001", PADDING - 1, True),
        ("tcp/4001", PADDING, False),
        ("udp/4001/quic-v1", 0, False),
    ],
)
async def test_who_is_not_seen_to_be_there_pays_in_one_way_or_the_other(
    world: World, connected_over: str, padding: int, pays: bool
) -> None:
    """AN18: and is dialled then."""
    server = await put(world, "server", peer(AutoNATServer()))
    client = Player(await put(world, "client", peer()))
    await connect_over(client.machine, server, connected_over)
    address = f"/ip4/{client.machine.addresses[0]}/udp/4001/quic-v1"
    answer = await client.ask(server, address, padding=padding)
    assert answer.dial_status == DialStatus.OK
    assert client.nonces == [7]
    assert LEAST_PAYMENT <= client.paid <= MAX_PAYMENT if pays else client.paid == 0


@CORES
async def test_who_paid_by_padding_and_is_not_there_gets_two_datagrams_and_no_more(
    world: World, quic: QUIC
) -> None:
    """AN14 AN18: the third is for who answers; and it is told as soon as anybody."""
    server = await put(world, "server", peer(AutoNATServer()), quic)
    client = Player(await put(world, "client", peer()))
    await connect_over(client.machine, server, "tcp/4001")
    arrived = sizes_of_datagrams(client.machine)
    began = trio.current_time()
    address = f"/ip4/{client.machine.addresses[0]}/udp/9/quic-v1"
    answer = await client.ask(server, address, padding=PADDING)
    assert answer.dial_status == DialStatus.E_DIAL_ERROR
    assert trio.current_time() - began == pytest.approx(8.0, abs=0.2)
    assert len(arrived) == 2
    assert sum(arrived) <= PADDING


@CORES
async def test_who_paid_by_padding_is_reached_however_far_away(world: World, quic: QUIC) -> None:
    """AN14 AN18: all that may be sent has left before an answer can come."""
    server = await put(world, "server", peer(AutoNATServer()), quic)
    far = Quality(latency=0.9)
    config = with_quic(peer())
    client = Player(await world.host(config, "client", link=far, families=IPV4_ONLY))
    await connect_over(client.machine, server, "tcp/4001")
    address = f"/ip4/{client.machine.addresses[0]}/udp/4001/quic-v1"
    answer = await client.ask(server, address, padding=PADDING)
    assert client.dialled_by
    assert answer.dial_status == DialStatus.OK


@pytest.mark.parametrize(
    ("quic", "latency"),
    [
        (QUIC(), 0.02),
        (QUIC(), 0.3),
        (QUIC(), 0.9),
        # Its first flight is two datagrams: the second one has to be repeated after the Retry,
        # and for who is farther away there is no time for that.
        (QUIC(core="qh3"), 0.02),
        (QUIC(core="qh3"), 0.3),
    ],
)
async def test_who_sends_a_dial_back_to_and_fro_is_reached_however_far_away(
    world: World, quic: QUIC, latency: float
) -> None:
    """AN18: a client that is busy answers with a Retry (Q6)."""
    server = await put(world, "server", peer(AutoNATServer()), quic)
    config = with_quic(peer(), QUIC(retry_above=0))
    link = Quality(latency=latency)
    client = Player(await world.host(config, "client", link=link, families=IPV4_ONLY))
    await connect_over(client.machine, server, "tcp/4001")
    address = f"/ip4/{client.machine.addresses[0]}/udp/4001/quic-v1"
    answer = await client.ask(server, address, padding=PADDING)
    assert answer.dial_status == DialStatus.OK
    assert client.dialled_by


@CORES
async def test_who_sends_it_back_and_then_is_silent_gets_no_more_than_was_paid_for(
    world: World, quic: QUIC
) -> None:
    """AN18: a neighbour who is so busy that no handshake is begun (Q7)."""
    server = await put(world, "server", peer(AutoNATServer()), quic)
    busy = QUIC(retry_above=0)
    client = Player(await put(world, "client", peer(), busy))
    await connect_over(client.machine, server, "tcp/4001")
    arrived = sizes_of_datagrams(client.machine, heard=1)
    address = f"/ip4/{client.machine.addresses[0]}/udp/4001/quic-v1"
    answer = await client.ask(server, address, padding=PADDING)
    assert answer.dial_status == DialStatus.E_DIAL_ERROR
    assert len(arrived) >= 2
    assert sum(arrived) <= PADDING


def sizes_of_datagrams(machine: Machine, *, heard: int = 1000) -> list[int]:
    """Note what comes to a machine over UDP from now on, headers included; so many it hears."""
    sizes: list[int] = []
    deliver = machine.plug.deliver

    def deliver_noted(packet: Packet) -> None:
        if isinstance(packet.payload, Datagram):
            sizes.append(packet.size)
            if len(sizes) > heard:
                return
        deliver(packet)

    machine.plug.deliver = deliver_noted
    return sizes


async def test_a_client_pads_what_it_asks_about_udp_and_nothing_else(world: World) -> None:
    """AN20."""
    asked: dict[str, set[int]] = {"tcp": set(), "udp": set()}

    async def play(request: Request) -> None:
        asked["udp" if "/udp/" in str(request.address) else "tcp"].add(request.padding)
        await request.reach()
        await request.answer(200, 200)

    server, _ = await put_liar(world, "server", play)
    client = await put(world, "client", peer(AutoNAT(test_filtering=False)))
    heard = await heard_from(client, server, seconds=40)
    assert heard.tested
    assert asked == {"tcp": {0}, "udp": {PADDING}}


async def test_di25_a_dial_back_neither_asks_about_black_holes_nor_tells(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of a server that takes itself for one without UDP."""
    server = await put(world, "server", peer(AutoNATServer()))
    client = Player(await put(world, "client", peer()))
    await connect_over(client.machine, server, "udp/4001/quic-v1")
    holes = server.host._swarm._dialling.black_holes
    for _ in range(100):
        holes.learn(
            Outcome(parse("/ip4/8.8.8.8/tcp/1"), silent=(parse("/ip4/8.8.8.8/udp/1/quic-v1"),))
        )
    assert holes.state(Class.UDP) is State.BLOCKED
    consulted: list[str] = []
    for name in ("screen", "learn", "state"):
        monkeypatch.setattr(BlackHoles, name, lambda *_, name=name, **__: consulted.append(name))
    answer = await client.ask(server, f"/ip4/{client.machine.addresses[0]}/udp/4001/quic-v1")
    monkeypatch.undo()
    assert answer.dial_status == DialStatus.OK
    assert client.nonces == [7]
    assert not consulted
    assert holes.state(Class.UDP) is State.BLOCKED
