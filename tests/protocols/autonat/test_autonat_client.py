"""The client: whom it believes, whom it leaves alone, and what it does not let itself in for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet.core.addresses import parse
from p2pnet.events import PortMappingLost
from p2pnet.interfaces import Connection
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat.messages import (
    DIAL_BACK,
    DialStatus,
    Status,
)
from p2pnet.protocols.identify import Identify
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from tests.protocols.autonat.scene import (
    NEAR,
    PORT,
    Request,
    Sockless,
    connect,
    heard_from,
    hearing,
    peer,
    put_client,
    put_liar,
    put_server,
    put_servers,
    results,
    say_nonce,
    say_so_on_inbound_connections_only,
)

OK, REACHED = Status.OK, DialStatus.OK
NO_SCOUT = AutoNAT(test_filtering=False)


# ---- what it believes --------------------------------------------------------------------


async def test_a_server_that_dials_and_says_so_is_believed(world: World) -> None:
    """AN20 AN22."""

    async def play(request: Request) -> None:
        assert await request.reach() == [True]
        await request.answer(OK, REACHED)

    server, asked = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server)
    assert results(heard) == [True] * 4
    (_, event), *_ = heard.tested
    assert event.server == server.host.peer_id
    assert str(event.server_address) == f"/ip4/{server.addresses[0]}/tcp/4001"
    assert len(asked) == 4


async def test_each_request_has_another_nonce_and_one_address(world: World) -> None:
    """AN20."""
    nonces: list[int] = []

    async def play(request: Request) -> None:
        nonces.append(request.nonce)
        await request.answer(Status.OK, DialStatus.E_DIAL_ERROR)

    server, _ = await put_liar(world, "server", play)
    await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=300)
    assert len(set(nonces)) == len(nonces) > 5
    assert 0 not in nonces


async def test_a_nonce_that_was_heard_counts_though_the_answer_to_it_was_lost(
    world: World,
) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.reach()
        await request.answer(OK, DialStatus.E_DIAL_BACK_ERROR)

    server, _ = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server)
    assert results(heard) == [True] * 4


@pytest.mark.parametrize(
    ("status", "dial_status"),
    [
        (OK, DialStatus.E_DIAL_BACK_ERROR),
        (OK, DialStatus.UNUSED),
        (OK, 102),
        (Status.E_INTERNAL_ERROR, 0),
        (301, REACHED),
    ],
)
async def test_other_answers_are_no_verdict_and_lead_to_a_back_off(
    world: World, status: int, dial_status: int
) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.answer(status, dial_status)

    server, asked = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server)
    assert results(heard) == []
    assert len(asked) == 5  # after 5, 10, 20 and 40 seconds


@pytest.mark.parametrize("status", [Status.E_REQUEST_REJECTED, Status.E_DIAL_REFUSED])
async def test_a_server_that_refuses_is_left_alone_for_two_minutes(
    world: World, status: Status
) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.answer(status)

    server, asked = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=300)
    assert results(heard) == []
    assert [round(time - asked[0]) for time in asked] == [0, 120, 240]


async def test_who_claims_to_have_told_the_nonce_and_has_not_is_left_alone_for_an_hour(
    world: World,
) -> None:
    """AN22."""

    async def play(request: Request) -> None:
        await request.answer(OK, REACHED)

    server, asked = await put_liar(world, "liar", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=3000)
    assert results(heard) == []
    assert len(asked) == 1


async def test_a_dial_back_on_the_connection_that_is_there_proves_nothing(world: World) -> None:
    """AN24."""
    acknowledged: list[bool] = []

    async def play(request: Request) -> None:
        acknowledged.append(await say_nonce(request.stream.connection, request.nonce))
        await request.answer(OK, REACHED)

    server, asked = await put_liar(world, "liar", play)
    client = await put_client(world, "port-restricted", NO_SCOUT)
    heard = await heard_from(client, server, seconds=300)
    assert acknowledged == [False]
    assert results(heard) == []
    assert len(asked) == 1


async def test_a_dial_back_on_an_older_inbound_connection_proves_nothing(world: World) -> None:
    """AN24."""
    acknowledged: list[bool] = []

    async def play(request: Request) -> None:
        acknowledged.append(await say_nonce(old[0], request.nonce))
        await request.answer(OK, REACHED)

    server, _ = await put_liar(world, "liar", play)
    client = await put_client(world, part=NO_SCOUT)
    old = [await server.host.connect(client.address)]
    await heard_from(client, server, seconds=60)
    assert acknowledged == [False]


async def test_a_nonce_counts_once(world: World) -> None:
    """AN23."""
    acknowledged: list[list[bool]] = []

    async def play(request: Request) -> None:
        acknowledged.append(await request.reach(times=3))
        await request.answer(OK, REACHED)

    server, _ = await put_liar(world, "server", play)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server, seconds=20)
    assert acknowledged == [[True, False, False]]
    assert results(heard) == [True]


async def test_a_nonce_that_nobody_waits_for_is_not_acknowledged(world: World) -> None:
    """AN23."""
    client = await put_client(world)
    stranger = await world.host(peer(), "stranger", link=NEAR, families=IPV4_ONLY)
    connection = await stranger.host.connect(client.address)
    for nonce in (1, 2**64 - 1):
        assert not await say_nonce(connection, nonce)
    for data in (b"\x00", b"\x09\x09\x00", b"\x81\x08", b"\x01\xff"):
        async with await connection.open_stream(DIAL_BACK) as stream:
            await stream.send_all(data)
            if data != b"\x09\x09\x00":
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()


async def test_a_dial_back_stream_that_stalls_is_dropped(world: World) -> None:
    """AN23."""
    client = await put_client(world)
    stranger = await world.host(peer(), "stranger", link=NEAR, families=IPV4_ONLY)
    connection = await stranger.host.connect(client.address)
    began = trio.current_time()
    async with await connection.open_stream(DIAL_BACK) as stream:
        await stream.send_all(b"\x09")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert trio.current_time() - began == pytest.approx(5, abs=1)


async def test_one_liar_among_three_is_one_voice_and_makes_no_storm(world: World) -> None:
    """AN27."""

    async def play(request: Request) -> None:
        await request.answer(OK, DialStatus.E_DIAL_ERROR)

    liar, asked = await put_liar(world, "liar", play)
    honest = await put_servers(world, 2)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), liar, *honest, seconds=900.0)
    by_server: dict[object, dict[bool, int]] = {}
    for _, event in heard.tested:
        counts = by_server.setdefault(event.server, {})
        counts[event.reached] = counts.get(event.reached, 0) + 1
    assert set(by_server.pop(liar.host.peer_id)) == {False}
    assert [set(counts) for counts in by_server.values()] == [{True}, {True}]
    for window in range(0, 900, 60):
        assert sum(window <= time < window + 60 for time in asked) <= 5


# ---- whom it asks ------------------------------------------------------------------------


async def test_rust_which_tests_the_last_address_is_understood(world: World) -> None:
    """AN20 AN21: of one address the last is the first."""

    async def play(request: Request) -> None:
        await request.reach()
        await request.answer(OK, REACHED, index=0)

    server, _ = await put_liar(world, "rust", play)
    assert results(await heard_from(await put_client(world), server, seconds=20))[:1] == [True]


async def test_rust_which_says_less_on_connections_that_it_has_dialled_is_still_a_server(
    world: World,
) -> None:
    """AN25: it dials back under its own name, and there it does not say that it serves."""
    kept: list[Connection] = []

    async def play(request: Request) -> None:
        host = request.machine.host
        kept.append(await host.dial(request.stream.peer_id, [request.address], any_port=True))
        await host.service(Identify).wait_identified(kept[-1])
        assert await say_nonce(kept[-1], request.nonce)
        await request.answer(OK, REACHED)

    server, asked = await put_liar(world, "rust", play)
    say_so_on_inbound_connections_only(server)
    heard = await heard_from(await put_client(world, part=NO_SCOUT), server)
    assert results(heard) == [True] * 4
    assert len(asked) == 4
    assert not any(connection.is_closed for connection in kept)


async def test_a_server_in_our_own_network_is_not_asked(world: World) -> None:
    """AN25."""
    home = world.home("full-cone", "home", link=NEAR)
    near = await put_server(world, "near", AutoNATServer(allow_private=True), at=home)
    client = await world.host(peer(NO_SCOUT), "client", at=home, families=IPV4_ONLY)
    far = await put_server(world, "far")
    heard = await heard_from(client, near, far)
    assert {event.server for _, event in heard.tested} == {far.host.peer_id}


async def test_two_hosts_with_client_and_server_test_one_another(world: World) -> None:
    both = peer(AutoNAT(), AutoNATServer())
    one = await world.host(both, "one", link=NEAR, families=IPV4_ONLY)
    other = await world.host(both, "other", link=NEAR, families=IPV4_ONLY)
    async with hearing(one) as at_one, hearing(other) as at_other:
        await connect(one, other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_one.listen, 100.0)
            nursery.start_soon(at_other.listen, 100.0)
    for heard in (at_one, at_other):
        assert results(heard) == [True] * 4
        assert {(e.by_stranger, e.reached) for _, e in heard.filtering} == {(False, True)}


async def test_in_another_network_all_is_learnt_anew_within_a_minute(world: World) -> None:
    """AN28."""
    client = await put_client(world, part=AutoNAT())
    servers = await put_servers(world, 4)
    async with hearing(client) as heard:
        await connect(client, *servers)
        await heard.listen(60.0)
        assert set(results(heard)) == {True}
        heard.tested.clear()
        heard.filtering.clear()
        client.move(world.home("port-restricted", "new home", link=NEAR))
        for connection in client.host.connections():
            with trio.move_on_after(1):
                await connection.aclose()
        await connect(client, *servers)
        await heard.listen(60.0)
    outside = world.routers["new home"].outside_addresses[0]
    assert heard.verdicts(f"/ip4/{outside}/tcp/4001").count(False) >= 3
    assert True not in results(heard)
    assert {event.reached for _, event in heard.filtering} == {False}


async def test_what_was_under_way_when_the_network_changed_says_nothing(world: World) -> None:
    """AN28."""

    async def play(request: Request) -> None:
        await trio.sleep(29.5)
        await request.answer(OK, DialStatus.E_DIAL_ERROR)

    server, asked = await put_liar(world, "server", play)
    client = await put_client(world, part=NO_SCOUT)
    async with hearing(client) as heard:
        await connect(client, server)
        await heard.listen(5.0)
        client.kernel.addresses.append("11.77.0.1")
        await heard.listen(70.0)
    # The interfaces are looked at every 30 seconds: just before the answer would have come.
    assert [round(time) for time in asked[:2]] == [1, 31]
    assert [round(time) for time, _ in heard.tested] == [61]


async def test_a_host_that_missed_events_or_cannot_look_goes_on(world: World) -> None:
    """AN28: to be out of sockets, or to miss events, is no other network."""
    machine = world.machine("client", link=NEAR, families=IPV4_ONLY)
    network = Sockless(machine.env.network, dials=True)
    machine.env = replace(machine.env, network=network)
    await world.start(machine, peer(NO_SCOUT))
    async with hearing(machine) as heard:
        await connect(machine, await put_server(world, "server"))
        await heard.listen(20.0)
        network.looks = False
        for _ in range(2000):
            machine.host.publish(PortMappingLost("upnp", parse(PORT), "a test says so"))
        await heard.listen(40.0)
    assert results(heard) == [True, True]


async def test_zero_is_no_nonce_and_no_nonce_is_used_twice_at_once(world: World) -> None:
    """AN20."""
    nonces: list[int] = []
    drawn = [bytes(8), b"\x01" + bytes(7), b"\x01" + bytes(7), b"\x02" + bytes(7)]

    async def play(request: Request) -> None:
        nonces.append(request.nonce)
        await request.answer(Status.E_REQUEST_REJECTED)

    machine = world.machine("client", link=NEAR, families=IPV4_ONLY)
    random_bytes = machine.env.random_bytes
    machine.env = replace(
        machine.env,
        random_bytes=lambda n: drawn.pop(0) if n == 8 and drawn else random_bytes(n),
    )
    await world.start(machine, peer(NO_SCOUT))
    servers = [(await put_liar(world, f"server {n}", play))[0] for n in range(2)]
    await heard_from(machine, *servers, seconds=10)
    assert sorted(nonces) == [1, 2]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="recheck_interval"):
        AutoNAT(recheck_interval=0.0)
    AutoNAT(max_data_bytes_per_hour=0)
