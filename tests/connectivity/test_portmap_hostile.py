"""Routers, and those who pretend to be one, that do as no router should."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
import trio

from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.portmap.asking import Place, Refused, Unanswered, Wish
from p2pnet.connectivity.portmap.exchange import MAX_STRAYS, ask
from p2pnet.connectivity.portmap.nat_pmp.client import NatPmpClient
from p2pnet.connectivity.portmap.pcp.client import PcpClient
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import ProtocolError
from p2pnet.events import PortMapped
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.sites import Router
from p2pnet.testing.world import World
from tests.connectivity.portmap_home import (
    forwards,
    outside_of,
    put_host,
    put_router,
    service_of,
    start_host,
)
from tests.connectivity.portmap_puppet import Fault, Puppet, Values, network_of, pulled

UPNP = PortMapping(protocols=("upnp",))
OTHERS = {"NewInternalClient": "192.168.1.99", "NewInternalPort": "4001"}
SERVER = 5351


def bare_router(world: World) -> Router:
    return world.router("home", KINDS["symmetric"].nats[0])


def gateway(**answers: Values | int) -> Callable[[str, Values], Values]:
    """Make what a puppet does: for each action its values, or the number of its error."""
    usual: dict[str, Values | int] = {
        "GetExternalIPAddress": {"NewExternalIPAddress": "11.0.1.2"},
        "GetSpecificPortMappingEntry": 714,
    }

    def act(action: str, arguments: Values) -> Values:
        del arguments
        answer = {**usual, **answers}.get(action, {})
        if isinstance(answer, int):
            raise Fault(answer)
        return answer

    return act


# ---- UPnP --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "http://192.168.1.3:8080/page",
        "http://127.0.0.1:5000/page",
        "http://11.0.0.1/page",
        "https://192.168.1.1:5000/page",
        "http://router:5000/page",
    ],
)
async def test_a_location_elsewhere_is_never_asked(world: World, location: str) -> None:
    """PM14: not a single SYN."""
    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, gateway(), location=location)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(30)
        assert not [line for line in world.trace.lines(1000) if "SYN" in line]
        assert not diary.entries
        assert [each.is_spoken for each in service_of(alice).routers] == [False]


async def test_a_neighbour_is_asked_only_if_the_router_does_not_answer(world: World) -> None:
    """PM13: for homes whose gateway is not the default one."""
    router = put_router(world, "upnp")
    neighbour = world.machine("neighbour", at=router)
    puppet = Puppet(neighbour.env.network, neighbour.addresses[0], gateway())
    async with pulled(puppet):
        _, diary = await put_host(world, router, mapping=UPNP)
        await diary.next()
        assert not puppet.calls
        assert forwards(router)


async def test_a_neighbour_that_is_the_gateway_is_found(world: World) -> None:
    """PM13."""
    router = bare_router(world)
    neighbour = world.machine("neighbour", at=router)
    puppet = Puppet(neighbour.env.network, neighbour.addresses[0], gateway())
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        mapped = await diary.next()
        assert outside_of(mapped) == Endpoint("11.0.1.2", 4001)
        (asked,) = puppet.called("AddPortMapping")
        assert asked == {
            "NewRemoteHost": "",
            "NewExternalPort": "4001",
            "NewProtocol": "TCP",
            "NewInternalPort": "4001",
            "NewInternalClient": alice.addresses[0],
            "NewEnabled": "1",
            "NewPortMappingDescription": "p2pnet",
            "NewLeaseDuration": "3600",
        }
        await alice.stop()


async def test_a_port_that_another_has_is_not_asked_for(world: World) -> None:
    """PM21: this router would let one host overwrite what another has."""

    def act(action: str, arguments: Values) -> Values:
        if action == "GetSpecificPortMappingEntry" and arguments["NewExternalPort"] == "4001":
            return OTHERS
        return gateway()(action, arguments)

    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        mapped = await diary.next()
        (asked,) = puppet.called("AddPortMapping")
        assert asked["NewExternalPort"] == str(outside_of(mapped).port) != "4001"
        await alice.stop()


async def test_a_router_whose_every_port_is_taken_is_given_up_for_a_minute(world: World) -> None:
    """PM21, PM11."""
    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, gateway(AddPortMapping=718))
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(55)
        assert len(puppet.called("AddPortMapping")) == 5
        await trio.sleep(20)
        assert len(puppet.called("AddPortMapping")) == 10
        assert not diary.entries
        await alice.stop()


@pytest.mark.parametrize(("code", "count"), [(606, 1), (501, 4), (725, 2), (999, 1)])
async def test_how_often_a_refusing_gateway_is_asked(world: World, code: int, count: int) -> None:
    """PM11, PM18: within four minutes."""
    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, gateway(AddPortMapping=code))
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(235)
        assert len(puppet.called("AddPortMapping")) == count
        assert not diary.entries
        await alice.stop()


async def test_a_gateway_that_cannot_be_looked_at_is_asked_anew_each_time(world: World) -> None:
    """PM9: it does not know GetSpecificPortMappingEntry."""
    router = bare_router(world)
    act = gateway(GetSpecificPortMappingEntry=401)
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await diary.next()
        await trio.sleep(100)
        assert len(puppet.called("AddPortMapping")) == 3
        assert len(diary.entries) == 1
        await alice.stop()
        assert len(puppet.called("DeletePortMapping")) == 1


async def test_at_the_end_nothing_of_another_is_deleted(world: World) -> None:
    """PM22: the router forgot the mapping meanwhile, and gave the port to another."""
    taken = False

    def act(action: str, arguments: Values) -> Values:
        if action == "GetSpecificPortMappingEntry" and taken:
            return OTHERS
        return gateway()(action, arguments)

    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await diary.next()
        taken = True
        await alice.stop()
        assert not puppet.called("DeletePortMapping")


@pytest.mark.parametrize("code", [606, 714])
async def test_a_deletion_that_is_refused_keeps_nobody_from_closing(
    world: World, code: int
) -> None:
    """PM22."""
    router = bare_router(world)
    mine = {"NewInternalClient": "192.168.1.2", "NewInternalPort": "4001"}
    act = gateway(DeletePortMapping=code, GetSpecificPortMappingEntry=mine)
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await diary.next()
        await alice.stop()
        assert len(puppet.called("DeletePortMapping")) == 1


async def test_a_gateway_that_answers_byte_by_byte_is_not_waited_for(world: World) -> None:
    """PM15: five seconds are for all of an answer."""
    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, gateway(), seconds_a_byte=1.0)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(15)
        (report,) = service_of(alice).routers
        assert not report.is_spoken
        assert report.detail == "the router does not answer"
        assert not diary.entries
        await alice.stop()


async def test_a_gateway_without_an_outside_address_maps_nothing(world: World) -> None:
    """PM6."""
    router = bare_router(world)
    act = gateway(GetExternalIPAddress={"NewExternalIPAddress": "0.0.0.0"})
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(30)
        assert not puppet.called("AddPortMapping")
        assert not diary.entries
        await alice.stop()


# ---- datagrams ---------------------------------------------------------------------------


async def answer(
    network: Network,
    host: str,
    make: Callable[[bytes], list[bytes]],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Answer each question with some datagrams."""
    sock = await network.bind_udp(Endpoint(host, SERVER))
    try:
        task_status.started()
        while True:
            data, source = await sock.receive()
            for datagram in make(data):
                await sock.send(datagram, source)
    finally:
        with trio.CancelScope(shield=True):
            await sock.aclose()


def wish_at(host: str) -> Wish:
    return Wish("tcp", Endpoint(host, 4001), Endpoint("0.0.0.0", 4001), 3600)


def pmp_mapped(inside: int, outside: int, seconds: int, opcode: int = 130) -> bytes:
    return struct.pack("!BBHIHHI", 0, opcode, 0, 9, inside, outside, seconds)


async def mapped_by(world: World, make: Callable[[bytes], list[bytes]]) -> Endpoint:
    """Ask a router by NAT-PMP that answers requests for mappings as ``make`` says."""
    router = bare_router(world)
    alice = world.machine(at=router)

    def react(data: bytes) -> list[bytes]:
        if data[1] == 0:
            return [struct.pack("!BBHI4B", 0, 128, 0, 9, 11, 0, 1, 2)]
        return make(data)

    client = NatPmpClient(alice.env.network, Place(router.address, alice.addresses[0]))
    with bare_exceptions():
        async with trio.open_nursery() as nursery:
            await nursery.start(answer, network_of(router), router.address, react)
            grant = await client.map(wish_at(alice.addresses[0]))
            nursery.cancel_scope.cancel()
    return grant.outside


async def test_answers_about_other_ports_are_passed_over(world: World) -> None:
    """PM4."""
    found = await mapped_by(
        world,
        lambda data: [
            pmp_mapped(4002, 5001, 3600),
            pmp_mapped(4001, 5002, 3600, opcode=129),
            struct.pack("!BBHI", 0, 129, 2, 9),
            pmp_mapped(4001, 5003, 3600),
        ],
    )
    assert found == Endpoint("11.0.1.2", 5003)


@pytest.mark.parametrize(("port", "seconds"), [(0, 3600), (4001, 0), (4001, 9)])
async def test_a_mapping_that_is_of_no_use_is_none(world: World, port: int, seconds: int) -> None:
    """PM5."""
    with pytest.raises(Refused, match="grants port"):
        await mapped_by(world, lambda data: [pmp_mapped(4001, port, seconds)])


async def test_garbage_in_place_of_an_answer_is_told_in_the_end(world: World) -> None:
    """PM1, PM7: something better might have come."""
    with pytest.raises(ProtocolError, match="1 bytes"):
        await mapped_by(world, lambda data: [b"?"])
    assert trio.current_time() > 7.75


async def test_answers_from_elsewhere_are_dropped(world: World) -> None:
    """PM3: from a neighbour, and from another port of the router."""
    router = bare_router(world)
    alice, neighbour = world.machine(at=router), world.machine(at=router)

    async def forge(*, task_status: trio.TaskStatus[None]) -> None:
        heard = await network_of(router).bind_udp(Endpoint(router.address, SERVER))
        liars = [
            await network.bind_udp(Endpoint(host, port))
            for network, host, port in (
                (network_of(router), router.address, 1234),
                (neighbour.env.network, neighbour.addresses[0], SERVER),
            )
        ]
        try:
            task_status.started()
            while True:
                _, source = await heard.receive()
                for liar in liars:
                    await liar.send(b"forged", source)
        finally:
            with trio.CancelScope(shield=True):
                for sock in (heard, *liars):
                    await sock.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(forge)
        with pytest.raises(Unanswered):
            await ask(
                alice.env.network,
                b"?",
                own=alice.addresses[0],
                remote=Endpoint(router.address, SERVER),
                waits=[1.0, 1.0],
                read=bytes,
            )
        nursery.cancel_scope.cancel()


async def test_a_flood_that_is_no_answer_ends_the_question(world: World) -> None:
    """PM3."""
    with pytest.raises(ProtocolError, match="too many datagrams"):
        await mapped_by(world, lambda data: [b"no answer"] * (MAX_STRAYS + 1))
    assert trio.current_time() < 1.0


async def test_nobody_else_can_know_the_nonce_and_it_survives_a_crash(world: World) -> None:
    """PM4: the router gives a mapping to none but him who made it."""
    router = put_router(world, "pcp")
    alice, diary = await put_host(world, router)
    first = await diary.next()
    await alice.power_off()
    assert forwards(router)
    alice.power_on()
    guessing = PcpClient(
        alice.env.network,
        Place(router.address, alice.addresses[0]),
        secret=b"guessed",
        jitter=alice.env.jitter,
    )
    with pytest.raises(Refused, match="NOT_AUTHORIZED"):
        await guessing.map(wish_at(alice.addresses[0]))
    diary = await start_host(world, alice)
    assert outside_of(await diary.next()) == outside_of(first)
    await alice.stop()
    assert not forwards(router)


async def test_questions_are_asked_one_after_the_other(world: World) -> None:
    """PM7."""
    router = put_router(world, "nat-pmp")
    listen = [f"/ip4/0.0.0.0/tcp/{4001 + number}" for number in range(20)]
    mapping = PortMapping(protocols=("nat-pmp",))
    alice, diary = await put_host(world, router, mapping=mapping, listen=listen)
    await trio.sleep(10)
    assert len(diary.entries) == PortMapping().max_ports  # PM19
    assert all(isinstance(entry, PortMapped) for entry in diary.entries)
    asked = 0
    for line in world.trace.lines(1000):
        asked += (f"> {router.address}:{SERVER}" in line) - (f"{router.address}:{SERVER} >" in line)
        assert asked in (0, 1)
    await alice.stop()
    assert not forwards(router)


async def test_a_gateway_whose_pages_make_no_sense_is_reported_and_not_used(world: World) -> None:
    """PM16, PM17."""
    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, gateway(), service="urn:other:1")
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await trio.sleep(15)
        (report,) = service_of(alice).routers
        assert "without a service that maps ports" in report.detail
        assert not diary.entries
        await alice.stop()


async def test_a_gateway_that_begins_to_talk_nonsense_is_given_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """PM11, PM18: and the log is not flooded."""
    sane = True

    def act(action: str, arguments: Values) -> Values:
        return gateway()(action, arguments) if sane else {"<nonsense": ""}

    router = bare_router(world)
    puppet = Puppet(network_of(router), router.address, act)
    async with pulled(puppet):
        alice, diary = await put_host(world, router, mapping=UPNP)
        await diary.next()
        sane = False
        await diary.next(within=120)
        assert "not well-formed" in diary.lost[0].reason
        await trio.sleep(600)
        assert len(diary.entries) == 2
        await alice.stop()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert 0 < len(warnings) < 10
