"""The server: whom it dials, what it answers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.channel import read_frame
from p2pnet.interfaces import Stream
from p2pnet.protocols.autonat import AutoNATServer
from p2pnet.protocols.autonat.channels import request_channel
from p2pnet.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    DialStatus,
    Status,
)
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import DUAL_STACK, IPV4_ONLY
from p2pnet.testing.world import World
from tests.protocols.autonat.scene import NEAR, Player, Sockless, peer, put_server

OK = Status.OK
REJECTED = DialResponse(Status.E_REQUEST_REJECTED)
REFUSED = DialResponse(Status.E_DIAL_REFUSED)
INTERNAL = DialResponse(Status.E_INTERNAL_ERROR)
QUICK = AutoNATServer(longest_pause=0.0)


async def pair(world: World, part: AutoNATServer | None = None) -> tuple[Machine, Player]:
    return await put_server(world, "server", part), await Player.put(world)


# ---- what it answers ---------------------------------------------------------------------


async def test_a_stranger_from_the_same_ip_says_the_nonce(world: World) -> None:
    """AN14 AN15 AN16: another key and another port, on a connection of its own."""
    server, client = await pair(world)
    response = await client.ask(server, client.address, nonce=2**64 - 1)
    assert response == DialResponse(OK, 0, DialStatus.OK)
    assert client.nonces == [2**64 - 1]
    assert client.paid == 0
    (connection,) = client.dialled_by
    assert connection.is_inbound
    assert connection.peer_id != server.host.peer_id
    assert f"/{server.addresses[0]}/" in str(connection.remote_address)
    assert "/tcp/4001" not in str(connection.remote_address)
    await trio.sleep(2)
    assert connection.is_closed


@pytest.mark.parametrize("lets_go_of", ["the stream", "the connection"])
async def test_an_answer_of_rust_counts_though_a_reset_takes_it_back(
    world: World, lets_go_of: str
) -> None:
    """AN15 AN16: it lets go of the stream once it has answered, which yamux makes a reset."""
    server, client = await pair(world)
    heard: list[bytes] = []

    async def answer(stream: Stream) -> None:
        heard.append(await read_frame(stream, max_bytes=10, protocol_id=DIAL_BACK))
        if lets_go_of == "the stream":
            stream.reset()
        else:
            await stream.connection.aclose()

    client.machine.host.unhandle(DIAL_BACK)
    client.machine.host.handle(DIAL_BACK, answer)
    response = await client.ask(server, client.address)
    assert response == DialResponse(OK, 0, DialStatus.OK)
    assert len(heard) == 1


async def test_who_serves_no_dial_backs_has_acknowledged_nothing(world: World) -> None:
    """AN15 AN16."""
    server, client = await pair(world)
    client.machine.host.unhandle(DIAL_BACK)
    response = await client.ask(server, client.address)
    assert response == DialResponse(OK, 0, DialStatus.E_DIAL_BACK_ERROR)


async def test_each_dial_is_made_under_another_key(world: World) -> None:
    """AN14."""
    server, client = await pair(world)
    for _ in range(2):
        await client.ask(server, client.address)
    assert len({connection.peer_id for connection in client.dialled_by}) == 2


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("port-restricted-reset", 0.0, 1.0), ("port-restricted", 8.0, 9.0)]
)
async def test_who_cannot_be_dialled_is_told_so(
    world: World, kind: str, least: float, most: float
) -> None:
    """AN16: at once, or after the time for a dial."""
    server = await put_server(world, "server")
    client = await Player.put(world, kind=kind)
    outside = world.routers["home of client"].outside_addresses[0]
    await client.machine.host.connect(server.address)
    began = trio.current_time()
    response = await client.ask(server, f"/ip4/{outside}/tcp/4001")
    assert response == DialResponse(OK, 0, DialStatus.E_DIAL_ERROR)
    assert least <= trio.current_time() - began <= most


async def test_another_peer_at_the_address_is_nobody(world: World) -> None:
    """AN15: what was asked about is this peer's reachability."""
    server, client = await pair(world)
    other = await Player.put(world, name="other")
    response = await client.ask(server, other.address)
    assert response == DialResponse(OK, 0, DialStatus.E_DIAL_ERROR)
    assert other.nonces == []


@pytest.mark.parametrize("answers", [b"", None, b"\x02\x08\x01", b"\x01\xff"])
async def test_a_nonce_that_is_not_acknowledged_is_told_as_that(
    world: World, answers: bytes | None
) -> None:
    """AN15 AN16: no answer, none in time, another status, nonsense."""
    server = await put_server(world, "server")
    client = await Player.put(world, answers=answers)
    response = await client.ask(server, client.address)
    assert response == DialResponse(OK, 0, DialStatus.E_DIAL_BACK_ERROR)


async def test_who_does_not_serve_dial_backs_is_told_so(world: World) -> None:
    """AN16."""
    server, client = await pair(world)
    client.machine.host.unhandle("/libp2p/autonat/2/dial-back")
    response = await client.ask(server, client.address)
    assert response == DialResponse(OK, 0, DialStatus.E_DIAL_BACK_ERROR)


async def test_the_first_address_that_may_be_dialled_is_with_its_own_index(world: World) -> None:
    """AN4 AN12."""
    server, client = await pair(world)
    response = await client.ask(
        server,
        "",
        "/ip4/10.0.0.1/tcp/1",
        "/dns4/x.org/tcp/1",
        client.address,
        "/ip4/11.9.9.9/tcp/1",
    )
    assert response == DialResponse(OK, 3, DialStatus.OK)


async def test_what_may_not_be_dialled_is_refused(world: World) -> None:
    """AN12."""
    server, client = await pair(world, AutoNATServer(max_per_peer=60))
    own = f"/ip4/{server.addresses[0]}/tcp/22"
    before = world.trace.packets
    for addresses in ([], [""], ["/ip4/192.168.1.1/tcp/1"], [own], ["/ip6/2a00::1/tcp/1"]):
        assert await client.ask(server, *addresses) == REFUSED
    assert client.nonces == []
    assert world.trace.packets - before < 200


async def test_a_server_with_ipv6_dials_ipv6_and_has_it_paid(world: World) -> None:
    """AN12 AN13: asked over IPv4, it cannot know whose the IPv6 address is."""
    both = ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001")
    server = await put_server(world, "server", families=DUAL_STACK, listen=both)
    machine = await world.host(peer(listen=both), "client", link=NEAR, families=DUAL_STACK)
    client = Player(machine)
    ipv4 = f"/ip4/{server.addresses[0]}/tcp/4001/p2p/{server.host.peer_id}"
    await machine.host.connect(ipv4)
    response = await client.ask(server, f"/ip6/{machine.addresses[1]}/tcp/4001")
    assert response == DialResponse(OK, 0, DialStatus.OK)
    assert 30_000 <= client.paid <= 100_000


@pytest.mark.parametrize("fails_while_asked", [False, True])
async def test_a_server_that_is_out_of_sockets_blames_itself(
    world: World, fails_while_asked: bool
) -> None:
    """AN16."""
    machine = world.machine("server", link=NEAR, families=IPV4_ONLY)
    network = Sockless(machine.env.network)
    machine.env = replace(machine.env, network=network)
    await world.start(machine, peer(AutoNATServer()))
    client = await Player.put(world)
    await client.machine.host.connect(machine.address)
    network.looks = not fails_while_asked
    assert await client.ask(machine, client.address) == INTERNAL


async def test_where_another_peer_was_found_the_next_dial_is_paid_for(world: World) -> None:
    """AN13: though it is at the client's IP address; until the client is found there."""
    server = await put_server(world, "server", QUICK)
    home = world.home("full-cone", "home", link=NEAR)
    machine = await world.host(peer(), "client", at=home, families=IPV4_ONLY)
    other = await world.host(peer(), "other", at=home, families=IPV4_ONLY)
    client, nat = Player(machine), world.routers["home"].nat
    outside = f"/ip4/{world.routers['home'].outside_addresses[0]}/tcp/99"
    paid = []
    for target in (other, other, machine, machine):
        inside = Endpoint(target.addresses[0], 4001)
        nat.unmap_port("tcp", 99)
        await trio.sleep(300)  # What came in by it goes on for some time.
        assert nat.map_port("tcp", inside, 99, seconds=600, now=trio.current_time())
        client.paid = 0
        response = await client.ask(server, outside)
        paid.append((client.paid > 0, response.dial_status == DialStatus.OK))
    assert paid == [(False, False), (True, False), (True, True), (False, True)]


# ---- whom it serves ----------------------------------------------------------------------


async def test_over_a_relay_nobody_is_served(world: World) -> None:
    """AN10."""
    relay = await world.host(presets.relay(), "relay", link=NEAR, families=IPV4_ONLY)
    edge = presets.edge(relays=[relay.address], services=[AutoNATServer()])
    home = world.home("symmetric", "home of server", link=NEAR)
    server = await world.host(edge, "server", at=home, families=IPV4_ONLY)
    await server.host.addresses.wait_for(lambda all_: any("circuit" in str(a) for a in all_))
    home = world.home("symmetric", "home of client", link=NEAR)
    machine = await world.host(presets.edge(relays=[relay.address]), "client", at=home)
    await machine.host.connect(server.host.peer_id)
    stream = await machine.host.open_stream(server.host.peer_id, DIAL_REQUEST, limited="allow")
    async with stream:
        assert stream.connection.is_relayed
        assert await request_channel(stream).receive() == REJECTED


async def test_too_many_requests_of_a_peer_are_rejected_unread(world: World) -> None:
    """AN11: the answer comes though nothing was asked."""
    server, client = await pair(world, AutoNATServer(max_per_peer=2))
    for _ in range(2):
        assert (await client.ask(server, client.address)).status == OK
    async with await client.machine.host.connections()[0].open_stream(DIAL_REQUEST) as stream:
        assert await request_channel(stream).receive() == REJECTED
    await trio.sleep(60)
    assert (await client.ask(server, client.address)).status == OK


async def test_a_peer_has_two_requests_at_a_time(world: World) -> None:
    """AN11."""
    server, client = await pair(world)
    connection = await client.machine.host.connect(server.address)
    idle = [await connection.open_stream(DIAL_REQUEST) for _ in range(2)]
    for stream in idle:
        await stream.send_all(b"\x13")
    assert await client.ask(server, client.address) == REJECTED
    for stream in idle:
        stream.reset()
    await trio.sleep(1)
    assert (await client.ask(server, client.address)).status == OK


async def test_whoever_stalls_is_dropped_after_15_seconds(world: World) -> None:
    """AN13."""
    server, client = await pair(world)
    async with await client.open(server) as stream:
        await stream.send_all(b"\x13")
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - began == pytest.approx(15, abs=1)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x02\x12\x00",
        b"\x05\x22\x03\x0a\x01\x00",
        b"\x81\x40",
        b"\xff" * 20,
    ],
    ids=["empty", "an answer", "data", "a length of 8193", "no length"],
)
async def test_what_is_no_request_is_reset(world: World, data: bytes) -> None:
    """AN1 AN10."""
    server, client = await pair(world)
    async with await client.open(server) as stream:
        await stream.send_all(data)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert (await client.ask(server, client.address)).status == OK


async def test_a_client_that_leaves_in_between_leaves_nothing(world: World) -> None:
    server = await put_server(world, "server")
    client = await Player.put(world, kind="port-restricted")
    outside = world.routers["home of client"].outside_addresses[0]
    with trio.move_on_after(3):
        await client.ask(server, f"/ip4/{outside}/tcp/4001")
    service = server.host.service(AutoNATServer)
    await client.machine.stop()
    await trio.sleep(1)
    assert service.running == 0
    again = await Player.put(world, name="again")
    assert (await again.ask(server, again.address)).status == OK


# ---- what others must pay for ------------------------------------------------------------


async def test_a_dial_of_another_ip_is_paid_for_and_takes_its_time(world: World) -> None:
    """AN13 AN14: whether the port is closed or silent, the answer comes after five seconds."""
    server, client = await pair(world, QUICK)
    victim = world.machine("victim", link=NEAR, families=IPV4_ONLY)
    silent = world.home("port-restricted", "silent home", link=NEAR)
    await world.host(peer(), "within", at=silent, families=IPV4_ONLY)
    took = []
    await client.machine.host.connect(server.address)
    for ip in (victim.addresses[0], world.routers["silent home"].outside_addresses[0]):
        client.paid, began = 0, trio.current_time()
        response = await client.ask(server, f"/ip4/{ip}/tcp/9")
        assert response == DialResponse(OK, 0, DialStatus.E_DIAL_ERROR)
        assert 30_000 <= client.paid <= 100_000
        took.append(trio.current_time() - began)
    assert took[0] == pytest.approx(took[1], abs=0.2)
    assert took[0] > 5


async def test_the_dial_of_another_ip_begins_after_a_random_pause(world: World) -> None:
    """AN14."""
    server = await put_server(world, "server", AutoNATServer(max_per_target=10))
    client = await Player.put(world)
    both = []
    for _ in range(5):
        began = trio.current_time()
        await client.ask(server, "/ip4/11.200.0.1/tcp/9")
        both.append(trio.current_time() - began)
    assert max(both) - min(both) > 0.5
    assert max(both) < 9


async def test_one_network_is_dialled_for_others_twice_a_minute(world: World) -> None:
    """AN11: whoever pays, and however many they are."""
    server = await put_server(world, "server", QUICK)
    clients = [await Player.put(world, name=f"client {number}") for number in range(4)]
    responses = [await c.ask(server, "/ip4/11.200.0.1/tcp/9") for c in clients]
    assert responses == [DialResponse(OK, 0, DialStatus.E_DIAL_ERROR)] * 2 + [REJECTED] * 2
    assert [client.paid > 0 for client in clients] == [True, True, False, False]


async def demanded(client: Player, server: Machine) -> tuple[Stream, int]:
    """Ask for a dial of a third party; return the stream, and what is wanted for it."""
    stream = await client.open(server)
    channel = request_channel(stream)
    await channel.send(DialRequest((parse("/ip4/11.200.0.1/tcp/9"),), 7))
    demand = await channel.receive()
    assert isinstance(demand, DialDataRequest)
    return stream, demand.num_bytes


def knocks(world: World) -> int:
    """Return how many packets have gone to the third party."""
    return sum("> 11.200.0.1" in line for line in world.trace.lines())


async def test_data_in_drops_is_refused(world: World) -> None:
    """AN13."""
    server, client = await pair(world)
    stream, _ = await demanded(client, server)
    for size in (4000, 99):
        await request_channel(stream).send(DialDataResponse(bytes(size)))
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert knocks(world) == 0


async def test_data_that_comes_slowly_is_not_waited_for(world: World) -> None:
    """AN13: 100 bytes a message are enough, but all must be there after 15 seconds."""
    server, client = await pair(world)
    stream, wanted = await demanded(client, server)
    began = trio.current_time()

    async def drip() -> None:
        for _ in range(wanted // 100):
            await request_channel(stream).send(DialDataResponse(bytes(100)))
            await trio.sleep(0.2)

    with pytest.raises(trio.BrokenResourceError):
        await drip()
    assert trio.current_time() - began < 17
    assert knocks(world) == 0


async def test_one_byte_too_few_is_not_enough(world: World) -> None:
    """AN13."""
    server, client = await pair(world, QUICK)
    stream, wanted = await demanded(client, server)
    channel = request_channel(stream)
    for _ in range(wanted // 4000):
        await channel.send(DialDataResponse(bytes(4000)))
    if wanted % 4000 > 1:
        await channel.send(DialDataResponse(bytes(wanted % 4000 - 1)))
    await trio.sleep(5)
    assert knocks(world) == 0
    await channel.send(DialDataResponse(bytes(1)))
    assert await channel.receive() == DialResponse(OK, 0, DialStatus.E_DIAL_ERROR)
    assert knocks(world) > 0


# ---- where it stands ---------------------------------------------------------------------


async def test_a_server_behind_a_nat_serves_those_it_has_called(world: World) -> None:
    home = world.home("symmetric", "home of server", link=NEAR)
    server = await put_server(world, "server", at=home)
    client = await Player.put(world)
    await server.host.connect(client.machine.address)
    await trio.sleep(1)
    connection = client.machine.host.connections(server.host.peer_id)[0]
    async with await connection.open_stream(DIAL_REQUEST) as stream:
        await request_channel(stream).send(DialRequest((parse(client.address),), 7))
        assert await request_channel(stream).receive() == DialResponse(OK, 0, DialStatus.OK)


async def test_a_server_dials_nobody_at_the_address_of_its_own_nat(world: World) -> None:
    """AN12: from within, nobody can tell what comes through it."""
    home = world.home("full-cone", "home", link=NEAR)
    server = await put_server(world, "server", at=home)
    client = Player(await world.host(peer(), "client", at=home, families=IPV4_ONLY))
    observer = await world.host(peer(), "observer", link=NEAR, families=IPV4_ONLY)
    await server.host.connect(observer.address)
    await trio.sleep(1)
    outside = world.routers["home"].outside_addresses[0]
    assert await client.ask(server, f"/ip4/{outside}/tcp/4002") == REFUSED


async def test_in_a_network_of_ones_own_private_addresses_are_dialled(world: World) -> None:
    """AN12."""
    home = world.home("full-cone", "home", link=NEAR)
    server = await put_server(world, "server", AutoNATServer(allow_private=True), at=home)
    client = Player(await world.host(peer(), "client", at=home, families=IPV4_ONLY))
    assert await client.ask(server, client.address) == DialResponse(OK, 0, DialStatus.OK)


@pytest.mark.parametrize(
    "wrong", [{"max_per_minute": 0}, {"dial_timeout": -1.0}, {"longest_pause": -0.1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AutoNATServer(**wrong)  # type: ignore[arg-type]
