"""The client: what it pays for dials, and how it looks at the filtering of its NAT."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import parse
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat.channels import request_channel
from p2pnet.protocols.autonat.messages import (
    DialDataRequest,
    DialDataResponse,
    DialStatus,
    Status,
)
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.protocols.autonat.scene import (
    NEAR,
    Request,
    connect,
    heard_from,
    hearing,
    lie_of_fresh_ports,
    put_client,
    put_liar,
    put_server,
    put_servers,
    results,
)

OK, REACHED = Status.OK, DialStatus.OK
NO_SCOUT = AutoNAT(test_filtering=False)


# ---- what it pays ------------------------------------------------------------------------


async def collected(request: Request, num_bytes: int, *, index: int = 0) -> int:
    """Demand data; return how much came before the client had enough of it."""
    await request.send(DialDataRequest(index, num_bytes))
    came = 0
    channel = request_channel(request.stream)
    try:
        while came < num_bytes:
            message = await channel.receive()
            assert isinstance(message, DialDataResponse)
            came += len(message.data)
    except trio.BrokenResourceError:
        return came
    return came


async def test_a_server_that_wants_data_gets_it(world: World) -> None:
    """AN21: rust-libp2p's wants it nearly always."""
    paid: list[int] = []

    async def play(request: Request) -> None:
        paid.append(await collected(request, 30_000))
        await request.reach()
        await request.answer(OK, REACHED)

    server, _ = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=20)
    assert paid == [30_000]
    assert results(heard) == [True]


@pytest.mark.parametrize(("num_bytes", "index"), [(100_001, 0), (2**64 - 1, 0), (30_000, 1)])
async def test_demands_that_make_no_sense_are_not_met(
    world: World, num_bytes: int, index: int
) -> None:
    """AN21."""
    paid: list[int] = []

    async def play(request: Request) -> None:
        paid.append(await collected(request, num_bytes, index=index))

    server, _ = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=20)
    assert set(paid) == {0}
    assert results(heard) == []


async def test_no_more_is_paid_in_an_hour_than_is_allowed(world: World) -> None:
    """AN21."""
    paid: list[int] = []

    async def play(request: Request) -> None:
        paid.append(await collected(request, 100_000))
        await request.answer(OK, DialStatus.E_DIAL_ERROR)

    server, asked = await put_liar(world, "server", play)
    part = AutoNAT(max_data_bytes_per_hour=250_000, test_filtering=False)
    heard = await heard_from(await put_client(world, part=part), server, seconds=600)
    assert sum(paid) == 200_000
    assert results(heard) == [False, False]
    assert len(asked) <= 2 + 5


async def test_an_answer_in_the_middle_of_the_payment_is_heard(world: World) -> None:
    """AN21: go-libp2p's server may have had enough."""

    async def play(request: Request) -> None:
        await request.send(DialDataRequest(0, 100_000))
        await request.answer(Status.E_REQUEST_REJECTED)
        await trio.sleep(60)

    server, asked = await put_liar(world, "server", play)
    await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=200)
    assert [round(time - asked[0]) for time in asked] == [0, 120]


async def test_an_answer_before_the_request_was_read_is_heard(world: World) -> None:
    """AN21."""
    machine = await put_server(world, "server", AutoNATServer(max_per_peer=1))
    client = await put_client(world, part=NO_SCOUT)
    heard = await heard_from(client, machine, seconds=170.0)
    # The second request is one too many, and then there is rest.
    assert [time for time, _ in heard.tested] == pytest.approx([1.5, 151.5], abs=0.5)


async def test_a_server_that_reads_nothing_and_says_nothing_is_given_up(world: World) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.send(DialDataRequest(0, 100_000))
        await trio.sleep_forever()

    server, asked = await put_liar(world, "server", play)
    client = await put_client(world, part=NO_SCOUT)
    heard = await heard_from(client, server, seconds=100)
    assert results(heard) == []
    assert [round(time - asked[0]) for time in asked] == [0, 35, 75]
    (connection,) = client.host.connections()
    assert connection.streams == 1


async def test_a_server_that_leaves_in_the_middle_is_no_verdict(world: World) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.stream.connection.aclose()

    server, _ = await put_liar(world, "server", play)
    honest = await put_server(world, "honest")
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, honest)
    assert {event.server for _, event in heard.tested} == {honest.host.peer_id}


# ---- filtering ---------------------------------------------------------------------------


async def test_a_server_that_names_the_address_of_another_costs_nothing(world: World) -> None:
    """AN32."""
    victim = world.machine("victim", link=NEAR, families=IPV4_ONLY)
    servers = await put_servers(world, 3)
    for server in servers:
        lie_of_fresh_ports(server, parse(f"/ip4/{victim.addresses[0]}/tcp/80"))
    heard = await heard_from(await put_client(world), *servers, seconds=100)
    assert results(heard)
    assert heard.filtering == []
    assert not any(f"> {victim.addresses[0]}" in line for line in world.trace.lines())


@pytest.mark.parametrize("seen", ["", "/ip4/10.0.0.1/tcp/1", "/ip4/11.0.0.1/udp/1/quic-v1"])
async def test_a_server_that_names_no_address_of_use_is_passed_over(
    world: World, seen: str
) -> None:
    """AN31."""
    servers = await put_servers(world, 2)
    for server in servers:
        lie_of_fresh_ports(server, parse(seen) if seen else None)
    heard = await heard_from(await put_client(world), *servers, seconds=100)
    assert results(heard)
    assert heard.filtering == []


async def test_a_server_that_called_us_is_found_where_it_says_it_is(world: World) -> None:
    """AN31."""
    client = await put_client(world)
    server = await put_server(world, "server")
    async with hearing(client) as heard:
        await connect(server, client)
        await heard.listen(20.0)
    assert [(e.by_stranger, e.reached) for _, e in heard.filtering] == [(False, True)]


async def test_a_server_that_called_us_and_cannot_be_called_is_no_use_for_that(
    world: World,
) -> None:
    """AN31."""
    client = await put_client(world)
    home = world.home("symmetric", "home of server", link=NEAR)
    server = await put_server(world, "server", at=home)
    async with hearing(client) as heard:
        await connect(server, client)
        await heard.listen(100.0)
    assert results(heard)
    assert heard.filtering == []
