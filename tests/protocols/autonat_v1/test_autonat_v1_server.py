"""The server in a simulated internet: what it dials, what it says, and what it costs."""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from typing import Any

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, is_relayed, parse
from p2pnet.core.bus import Subscription
from p2pnet.core.env import ByteStream
from p2pnet.core.framing import encode_frame
from p2pnet.events import ConnectionOpened, ConnectionRef
from p2pnet.interfaces import Connection, Stream
from p2pnet.protocols.autonat_v1 import AutoNATv1Server
from p2pnet.protocols.autonat_v1.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_ID,
    Dial,
    DialResponse,
    Status,
)
from p2pnet.protocols.autonat_v1.server import channel_on
from p2pnet.protocols.identify import Identify
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.sockets import SimulatedNetwork
from p2pnet.testing.world import World
from tests.protocols.autonat_v1.autonat_v1_scene import (
    LISTEN,
    NEAR,
    PORT,
    ask,
    asking,
    connect,
    destinations,
    put_peer,
    put_server,
    service_of,
)


def request(asker: Machine, *addresses: str) -> Dial:
    return Dial(asker.host.peer_id, tuple(map(parse, addresses)))


def at(machine: Machine, port: int = PORT) -> str:
    return f"/ip4/{machine.addresses[0]}/tcp/{port}"


async def put_two(
    world: World, config: AutoNATv1Server | None = None
) -> tuple[Machine, Machine, Connection]:
    """Put a server, and a peer that is connected to it from a port where it cannot be dialled."""
    server = await put_server(world, config=config)
    asker = await put_peer(world, "asker")
    connection = await asker.host.dial(server.host.peer_id, [parse(server.address)], any_port=True)
    return server, asker, connection


async def first_inbound(events: Subscription[ConnectionOpened]) -> ConnectionRef:
    while True:
        ref = (await anext(events)).connection
        if ref.is_inbound:
            return ref


def is_clean(server: Machine) -> bool:
    """Tell if nothing is left of any request."""
    service = service_of(server)
    return not service.under_way and not service._dial_backs._asking


# ---- what is dialled ---------------------------------------------------------------------


async def test_the_address_that_works_is_named_and_nobody_stays(world: World) -> None:
    """AO8, AO9, AO13."""
    server, asker, connection = await put_two(world)
    with asker.host.subscribe(ConnectionOpened) as events:
        answer = await ask(connection, request(asker, at(asker, 9), at(asker)))
        came = await first_inbound(events)
    assert answer == DialResponse(Status.OK, "", parse(at(asker)))
    assert came.peer_id != server.host.peer_id
    assert str(came.remote_address).startswith(f"/ip4/{server.addresses[0]}/tcp/")
    assert came.remote_address != parse(at(server))
    await trio.sleep(2.0)
    assert [each.peer_id for each in asker.host.connections()] == [server.host.peer_id]
    assert is_clean(server)


async def test_where_the_client_is_seen_is_dialled_though_it_offers_nothing(world: World) -> None:
    """AO8."""
    server, asker = await put_server(world), await put_peer(world, "asker")
    (connection,) = await connect(asker, server)
    assert (await ask(connection, request(asker))).address == parse(at(asker))


async def test_nothing_is_sent_to_anybody_but_the_asker(world: World) -> None:
    """AO7: neither to a victim that is named, nor to one that is hidden in an address."""
    server, asker, connection = await put_two(world)
    victim = await put_peer(world, "victim")
    world.names[("victim.example", "A")] = (victim.addresses[0],)
    ip, other = victim.addresses[0], victim.host.peer_id
    addresses = [
        at(victim),
        f"{at(victim)}/p2p/{asker.host.peer_id}",
        f"/ip6/::ffff:{ip}/tcp/{PORT}",
        f"/dns4/victim.example/tcp/{PORT}",
        f"{at(victim)}/p2p/{other}/p2p-circuit",
        f"{at(asker)}/ip4/{ip}/tcp/{PORT}",
        f"{at(asker)}/p2p/{other}/p2p-circuit/p2p/{asker.host.peer_id}",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/127.0.0.1/tcp/4001",
        f"/ip4/{server.addresses[0]}/tcp/4001",
    ]
    answer = await ask(connection, request(asker, *addresses))
    assert answer.status == Status.E_DIAL_ERROR
    assert destinations(world, server) == {asker.addresses[0]}
    assert destinations(world, victim) == set()


async def test_no_port_of_a_machine_is_told_from_another(world: World) -> None:
    """AO12: closed, silent, or open with somebody else behind it, it takes just as long."""
    server, asker, connection = await put_two(world)
    other = await asker.env.network.listen_tcp(Endpoint("0.0.0.0", 22))
    home = world.home("symmetric", "home")
    inside = await put_peer(world, "inside", at=home)
    (dark,) = await connect(inside, server)
    took = []
    for through, request_ in [
        (connection, request(asker, at(asker, 9))),
        (connection, request(asker, at(asker, 22))),
        (dark, request(inside)),
    ]:
        began = trio.current_time()
        answer = await ask(through, request_)
        assert answer.status == Status.E_DIAL_ERROR
        assert answer.address is None
        took.append(trio.current_time() - began)
    assert took == pytest.approx([15.0] * 3, abs=0.2)
    await other.aclose()
    await trio.sleep(1.0)
    assert is_clean(server)


async def test_over_a_relay_nobody_is_dialled(world: World) -> None:
    """AO6."""
    relay = await world.host(presets.relay(), "relay", link=NEAR, families=IPV4_ONLY)
    config = presets.edge(relays=[relay.address], services=[AutoNATv1Server()])
    server = await world.host(config, "server", at=world.home("symmetric"), families=IPV4_ONLY)
    asker = await world.host(
        presets.edge(relays=[relay.address]),
        "asker",
        at=world.home("symmetric"),
        families=IPV4_ONLY,
    )
    await server.host.addresses.wait_for(lambda known: any(map(is_relayed, known)))
    connection = await asker.host.connect(server.host.peer_id)
    assert connection.is_relayed
    answer = await ask(connection, request(asker, "/ip4/11.0.0.99/tcp/1"))
    assert answer == DialResponse(Status.E_DIAL_REFUSED, "ask over a direct connection")
    assert "11.0.0.99" not in destinations(world, server)


async def test_within_a_home_nobody_is_dialled_unless_that_is_wanted(world: World) -> None:
    """AO7."""
    home = world.home("port-restricted")
    asker = await put_peer(world, "asker", at=home)
    strict = await put_peer(world, "strict", AutoNATv1Server(), at=home)
    lenient = await put_peer(world, "lenient", AutoNATv1Server(allow_private=True), at=home)
    answers = [await ask(c, request(asker)) for c in await connect(asker, strict, lenient)]
    assert [answer.status for answer in answers] == [Status.E_DIAL_REFUSED, Status.OK]


async def test_nobody_is_dialled_where_the_server_is_itself(world: World) -> None:
    """AO7: behind one NAT the way out and in again says nothing of the way in."""
    asker = await put_peer(world, "asker")
    config = replace(
        presets.minimal(listen=LISTEN),
        services=[Identify(), AutoNATv1Server()],
        announce=[f"/ip4/{asker.addresses[0]}/tcp/9"],
    )
    server = await world.host(config, "server", link=NEAR, families=IPV4_ONLY)
    (connection,) = await connect(asker, server)
    assert (await ask(connection, request(asker))).status == Status.E_DIAL_REFUSED


async def test_addresses_that_no_transport_dials_are_refused_at_once(world: World) -> None:
    """AO8, AO13: what was not tried has not failed."""
    server, asker = await put_server(world), await put_peer(world, "asker")
    (connection,) = await connect(asker, server)
    service = service_of(server)
    chosen = (parse(f"/ip4/{asker.addresses[0]}/udp/1/quic-v1"),)
    began = trio.current_time()
    answer = await service._dial_back(server.host, asker.host.peer_id, chosen, "net")
    assert answer.status == Status.E_DIAL_REFUSED
    assert trio.current_time() - began < 2.0
    assert not connection.is_closed


class OutOfSockets(SimulatedNetwork):
    """A network of a process that has no descriptors left."""

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "too many open files")


async def test_a_server_that_cannot_dial_says_so_and_blames_nobody(world: World) -> None:
    """AO12, AO13."""
    server = world.machine("server", link=NEAR, families=IPV4_ONLY)
    server.env = replace(server.env, network=OutOfSockets(server.kernel, server._lookup))
    plain = presets.minimal(listen=LISTEN)
    await world.start(server, replace(plain, services=[*plain.services, AutoNATv1Server()]))
    asker = await put_peer(world, "asker")
    (connection,) = await connect(asker, server)
    began = trio.current_time()
    answer = await ask(connection, request(asker))
    assert answer.status == Status.E_INTERNAL_ERROR
    assert trio.current_time() - began == pytest.approx(15.0, abs=0.2)


# ---- what it costs -----------------------------------------------------------------------


async def test_what_makes_no_sense_is_told_so_and_costs_nothing(world: World) -> None:
    """AO1, AO5."""
    server, asker, connection = await put_two(world)
    other = Dial(server.host.peer_id, (parse(at(asker)),))
    nonsense: list[Dial | DialResponse | bytes] = [
        other,
        DialResponse(Status.OK),
        encode_frame(b"\xff" * 10),
        encode_frame(b""),
        b"\xff" * 20,
        b"\xff\x7f" + bytes(100),
        encode_frame(bytes(MAX_MESSAGE_BYTES + 1)),
    ]
    for each in nonsense:
        answer = await ask(connection, each)
        assert answer.status == Status.E_BAD_REQUEST, each
        assert answer.text
    assert is_clean(server)
    # None of that counts as a dial-back.
    assert (await ask(connection, request(asker, at(asker)))).status == Status.OK
    assert service_of(server)._dial_backs.remembered == 1


async def test_the_fourth_request_of_a_minute_is_refused(world: World) -> None:
    """AO11."""
    server, asker, connection = await put_two(world)
    answers = [await ask(connection, request(asker, at(asker))) for _ in range(5)]
    assert [answer.status for answer in answers] == [Status.OK] * 3 + [Status.E_DIAL_REFUSED] * 2
    await trio.sleep(60.0)
    assert (await ask(connection, request(asker, at(asker)))).status == Status.OK
    assert service_of(server)._dial_backs.remembered == 1


async def test_many_names_at_one_address_share_its_allowance(world: World) -> None:
    """AO11."""
    server = await put_server(world)
    home = world.home("full-cone")
    answers = []
    for number in range(8):
        sybil = await put_peer(world, f"sybil {number}", at=home)
        (connection,) = await connect(sybil, server)
        answers.append((await ask(connection, request(sybil))).status)
    assert answers == [Status.OK] * 6 + [Status.E_DIAL_REFUSED] * 2


async def test_a_flood_of_requests_is_one_request(world: World) -> None:
    """AO10."""
    server, asker, connection = await put_two(world)
    answers: list[DialResponse] = []

    async def flood() -> None:
        answers.append(await ask(connection, request(asker, at(asker, 9))))

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(flood)
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [Status.E_DIAL_ERROR] + [Status.E_DIAL_REFUSED] * 199
    assert is_clean(server)
    assert service_of(server)._dial_backs.remembered == 1
    assert connection.streams == 0


async def test_who_stalls_is_given_up_and_may_ask_again(world: World) -> None:
    """AO1, AO10."""
    server, asker, connection = await put_two(world)
    began = trio.current_time()
    async with asking(connection, b"\x40\x08\x00") as stream:
        assert (await ask(connection, request(asker, at(asker)))).text == "one request at a time"
        with pytest.raises(trio.BrokenResourceError):
            await channel_on(stream).receive()
    assert trio.current_time() - began == pytest.approx(15.0, abs=0.5)
    assert is_clean(server)
    assert (await ask(connection, request(asker, at(asker)))).status == Status.OK


async def test_a_request_in_drops_has_no_longer_than_one_at_once(world: World) -> None:
    """AO1."""
    server, _, connection = await put_two(world)
    began = trio.current_time()
    stream = await connection.open_stream(PROTOCOL_ID)
    with pytest.raises(trio.BrokenResourceError):
        await send_in_drops(stream, encode_frame(bytes(200)))
    assert trio.current_time() - began == pytest.approx(16.0, abs=1.5)
    assert is_clean(server)


async def send_in_drops(stream: Stream, data: bytes) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1.0)


async def test_who_leaves_while_it_is_dialled_leaves_nothing_behind(world: World) -> None:
    server, asker, connection = await put_two(world)
    async with asking(connection, request(asker, at(asker, 9))) as stream:
        await trio.sleep(1.0)
        stream.reset()
    assert service_of(server).under_way == 1
    await connection.aclose()
    await trio.sleep(2.0)
    assert is_clean(server)
    assert server.host.connections() == ()


async def test_all_addresses_are_dialled_at_the_same_moment(world: World) -> None:
    """AO9: each has the whole time, so that a failure is the failure of them all."""
    server, asker, connection = await put_two(world)
    ports = range(100, 102)
    began = trio.current_time()
    async with asking(connection, request(asker, *(at(asker, port) for port in ports))) as stream:
        answer = await channel_on(stream).receive()
    assert isinstance(answer, DialResponse)
    assert answer.status == Status.E_DIAL_ERROR
    dialled = {
        hop.packet.destination.port: hop.time
        for hop in world.trace._hops
        if not isinstance(hop, str)
        and hop.sender == server.name
        and hop.packet.destination.port in ports
    }
    assert set(dialled) == set(ports)
    assert max(dialled.values()) - min(dialled.values()) < 0.1
    assert min(dialled.values()) - began < 0.5


@pytest.mark.parametrize(
    "field", [field.name for field in fields(AutoNATv1Server) if field.name != "allow_private"]
)
def test_a_config_that_makes_no_sense_is_refused(field: str) -> None:
    settings: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=field):
        AutoNATv1Server(**settings)
