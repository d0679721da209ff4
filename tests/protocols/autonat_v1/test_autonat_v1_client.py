"""The client in a simulated internet: what it learns at home, whom it asks and believes."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
import trio

from p2pnet import presets
from p2pnet.core.addresses import is_relayed, parse
from p2pnet.events import AddressTested
from p2pnet.interfaces import Part, Service, Stream
from p2pnet.protocols.autonat_v1 import AutoNATv1
from p2pnet.protocols.autonat_v1.messages import PROTOCOL_ID, Dial, DialResponse, Status
from p2pnet.testing.kinds import KINDS, Kind
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat_kind import Dependence
from p2pnet.testing.sites import IPV4_ONLY, Router
from p2pnet.testing.theory import chained
from p2pnet.testing.world import World
from tests.protocols.autonat_v1.autonat_v1_scene import (
    NEAR,
    PORT,
    always,
    connect,
    learned_by,
    put_client,
    put_liar,
    put_peer,
    put_server,
    put_servers,
    serve_as,
)

VERSION_2 = "/libp2p/autonat/2/dial-request"
REFUSED = DialResponse(Status.E_DIAL_REFUSED)
FAILED = DialResponse(Status.E_DIAL_ERROR)


async def nothing(stream: Stream) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
async def test_at_home_the_answer_is_how_the_nats_filter_by_port(world: World, kind: Kind) -> None:
    """AO16, AO17, AO20: a server dials from its known IP, but from another port than it spoke."""
    servers = await put_servers(world, 3)
    home = world.home(kind, "home")
    client = await put_client(world, at=home)
    outside = home.outer if isinstance(home, Router) and len(kind.nats) > 1 else home
    seen_at = outside.outside_addresses[0] if isinstance(outside, Router) else client.addresses[0]
    if not all(nat.translates for nat in kind.nats):
        seen_at = client.addresses[0]
    await connect(client, *servers)
    found = await learned_by(client, 20.0)
    assert {test.server for test in found} == {server.host.peer_id for server in servers}
    expected = chained(kind).filtering is not Dependence.ADDRESS_AND_PORT
    assert {test.reached for test in found} == {expected}
    assert {str(test.address).split("/")[2] for test in found} == {seen_at}
    assert {test.protocol for test in found} == {PROTOCOL_ID}
    assert {str(test.server_address) for test in found} == {
        f"/ip4/{server.addresses[0]}/tcp/{PORT}" for server in servers
    }


async def test_two_seconds_after_a_change_it_asks_and_an_ok_is_there_at_once(world: World) -> None:
    """AO22."""
    server, client = await put_server(world), await put_client(world)
    await trio.sleep(30.0)
    await connect(client, server)
    connected = trio.current_time()
    with client.host.subscribe(AddressTested) as events:
        first = await anext(events)
    assert first.reached
    assert first.address == parse(f"/ip4/{client.addresses[0]}/tcp/{PORT}")
    assert 2.0 <= trio.current_time() - connected < 3.0


async def test_one_server_is_asked_every_minute(world: World) -> None:
    """AO20."""
    server, client = await put_server(world), await put_client(world)
    await connect(client, server)
    times = []
    with client.host.subscribe(AddressTested) as events:
        for _ in range(4):
            await anext(events)
            times.append(trio.current_time())
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == pytest.approx([60.0] * 3, abs=0.5)


async def test_a_new_address_is_asked_about_everywhere(world: World) -> None:
    """AO20, AO19: and yet nobody is asked twice within 30 s."""
    servers = await put_servers(world, 3)
    client = await put_client(world, at=world.home("full-cone", "home"))
    await connect(client, *servers)
    assert len(await learned_by(client, 10.0)) == 3
    world.routers["home"].renumber()
    for connection in client.host.connections():
        await connection.aclose()
    await connect(client, *servers)
    again = await learned_by(client, 60.0)
    outside = world.routers["home"].outside_addresses[0]
    assert {test.server for test in again} == {server.host.peer_id for server in servers}
    assert {str(test.address).split("/")[2] for test in again} == {outside}


async def test_peers_with_version_2_are_not_asked_and_three_of_them_are_enough(
    world: World,
) -> None:
    """AO21."""
    server = await put_server(world)
    both = [await put_server(world, f"both {number}") for number in range(3)]
    for machine in both:
        machine.host.handle(VERSION_2, nothing)
    client = await put_client(world)
    await connect(client, server, *both[:2])
    assert {test.server for test in await learned_by(client, 100.0)} == {server.host.peer_id}
    await connect(client, both[2])
    await trio.sleep(3.0)
    assert await learned_by(client, 300.0) == []
    (connection,) = client.host.connections(both[2].host.peer_id)
    await connection.aclose()
    assert await learned_by(client, 100.0) != []


async def test_without_an_address_to_be_reached_at_nobody_is_asked(world: World) -> None:
    """AO15."""
    asked: list[Dial] = []

    async def note(request: Dial, stream: Stream) -> DialResponse:
        asked.append(request)
        return FAILED

    server = await put_liar(world, "server", note)
    home = world.home("port-restricted", "home")
    client = await put_client(world, at=home)
    near = await put_liar(world, "near", note, at=home)
    await connect(client, near)
    await trio.sleep(100.0)
    assert asked == []
    await connect(client, server)
    await trio.sleep(10.0)
    assert [request.peer_id for request in asked] == [client.host.peer_id]
    assert [str(address).split("/")[2] for address in asked[0].addresses] == [
        world.routers["home"].outside_addresses[0]
    ]


@pytest.mark.parametrize(
    "answer",
    [
        REFUSED,
        DialResponse(Status.E_BAD_REQUEST),
        DialResponse(Status.E_INTERNAL_ERROR),
        DialResponse(Status.OK),
        DialResponse(Status.OK, "", parse("/ip4/11.99.0.1/tcp/1")),
    ],
    ids=["refused", "bad request", "internal error", "no address", "another address"],
)
async def test_an_answer_that_says_nothing_leads_to_a_pause_of_ten_minutes(
    world: World, answer: DialResponse
) -> None:
    """AO18."""
    times: list[float] = []

    async def note(request: Dial, stream: Stream) -> DialResponse:
        times.append(trio.current_time())
        return answer

    server, client = await put_liar(world, "server", note), await put_client(world)
    await connect(client, server)
    assert await learned_by(client, 1300.0) == []
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == 3
    assert gaps == pytest.approx([600.0] * 2, abs=8.0)


async def test_a_server_that_never_answers_is_given_up_after_a_minute(world: World) -> None:
    """AO18."""
    times: list[float] = []

    async def stall(request: Dial, stream: Stream) -> DialResponse:
        times.append(trio.current_time())
        await trio.sleep_forever()
        raise AssertionError

    server, client = await put_liar(world, "server", stall), await put_client(world)
    await connect(client, server)
    assert await learned_by(client, 100.0) == []
    (connection,) = client.host.connections()
    assert connection.streams == 0
    assert await learned_by(client, 600.0) == []
    assert times[1] - times[0] == pytest.approx(662.0, abs=1.0)


async def test_an_ok_is_not_believed_if_nobody_has_come(world: World) -> None:
    """AO16: behind a NAT that lets nobody in, that is what a lie looks like."""

    async def lie(request: Dial, stream: Stream) -> DialResponse:
        await trio.sleep(0.1)
        return DialResponse(Status.OK, "", request.addresses[0])

    liars = [await put_liar(world, f"liar {number}", lie) for number in range(3)]
    client = await put_client(world, at=world.home("port-restricted"))
    await connect(client, *liars)
    assert await learned_by(client, 30.0) == []


async def test_a_server_that_is_not_borne_out_has_a_second_chance(world: World) -> None:
    """AO18: who it sent may have hung up before it had said who it is."""
    times: list[float] = []

    async def lie(request: Dial, stream: Stream) -> DialResponse:
        times.append(trio.current_time())
        return DialResponse(Status.OK, "", request.addresses[0])

    liar, client = await put_liar(world, "liar", lie), await put_client(world)
    await connect(client, liar)
    assert await learned_by(client, 700.0) == []
    assert [b - a for a, b in pairwise(times)] == pytest.approx([37.0, 607.0], abs=1.0)


async def test_a_connection_that_this_host_opens_proves_no_ok(world: World) -> None:
    """AO16."""

    async def lie(request: Dial, stream: Stream) -> DialResponse:
        await connect(client, other)
        return DialResponse(Status.OK, "", request.addresses[0])

    liar, other = await put_liar(world, "liar", lie), await put_peer(world, "other")
    client = await put_client(world, at=world.home("port-restricted"))
    await connect(client, liar)
    assert await learned_by(client, 30.0) == []
    assert len(client.host.connections()) == 2


async def test_over_a_relay_nobody_is_asked(world: World) -> None:
    """AO19."""
    asked: list[Dial] = []

    async def note(request: Dial, stream: Stream) -> DialResponse:
        asked.append(request)
        return FAILED

    relay = await world.host(presets.relay(), "relay", link=NEAR, families=IPV4_ONLY)
    server = await put_edge(world, relay)
    serve_as(server, note)
    client = await put_edge(world, relay, AutoNATv1())
    await server.host.addresses.wait_for(lambda known: any(map(is_relayed, known)))
    connection = await client.host.connect(server.host.peer_id)
    assert connection.is_relayed
    await trio.sleep(100.0)
    assert PROTOCOL_ID in (client.host.peers.protocols(server.host.peer_id) or ())
    assert client.host.punch_addresses()
    assert asked == []


async def put_edge(world: World, relay: Machine, *services: Part[Service]) -> Machine:
    config = presets.edge(relays=[relay.address], services=services)
    return await world.host(config, at=world.home("symmetric"), families=IPV4_ONLY)


@pytest.mark.parametrize(("kind", "expected"), [("open", 1), ("port-restricted", 0)])
async def test_a_failure_says_nothing_if_nobody_knows_what_was_dialled(
    world: World, kind: str, expected: int
) -> None:
    """AO17: without a word of where it is seen, a host knows that only if it has no NAT."""
    server = await put_liar(world, "server", always(FAILED))
    client = await put_client(world, at=world.home(kind))
    await connect(client, server)
    await trio.sleep(1.0)
    vars(client.host.service(AutoNATv1))["_observed"].clear()
    assert len(await learned_by(client, 10.0)) == expected


async def test_an_ok_may_overtake_the_connection_that_it_is_about(world: World) -> None:
    """AO16."""
    client = await put_client(world)

    async def hasty(request: Dial, stream: Stream) -> DialResponse:
        nursery.start_soon(dial_later)
        return DialResponse(Status.OK, "", request.addresses[0])

    async def dial_later() -> None:
        await trio.sleep(4.0)
        async with server.host.apart(stranger=True) as apart:
            await apart.dial(client.host.peer_id, parse(client.address))

    server = await put_liar(world, "server", hasty)
    async with trio.open_nursery() as nursery:
        await connect(client, server)
        (test,) = await learned_by(client, 10.0)
    assert test.reached


async def test_a_connection_that_ends_meanwhile_is_nobodys_fault(world: World) -> None:
    """AO18."""
    times: list[float] = []

    async def leave(request: Dial, stream: Stream) -> DialResponse:
        times.append(trio.current_time())
        await stream.connection.aclose()
        return REFUSED

    server, client = await put_liar(world, "server", leave), await put_client(world)
    await connect(client, server)
    await trio.sleep(10.0)
    await connect(client, server)
    await trio.sleep(30.0)
    assert times[1] - times[0] == pytest.approx(30.0, abs=1.0)


async def test_what_is_learned_of_many_peers_is_forgotten_when_they_leave(world: World) -> None:
    servers = [await put_liar(world, f"server {n}", always(FAILED)) for n in range(4)]
    client = await put_client(world)
    await connect(client, *servers)
    await trio.sleep(5.0)
    service = client.host.service(AutoNATv1)
    observed = vars(service)["_observed"]
    assert len(observed) == 4
    for connection in client.host.connections():
        await connection.aclose()
    await trio.sleep(5.0)
    assert not observed


@pytest.mark.parametrize(
    "field", [field.name for field in fields(AutoNATv1) if field.name != "allow_private"]
)
def test_a_config_that_makes_no_sense_is_refused(field: str) -> None:
    settings: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=field):
        AutoNATv1(**settings)
