"""A host at home has its port mapped, in each protocol, and given back at the end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet import presets
from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.portmap.asking import ProtocolName
from p2pnet.core.addresses import Endpoint, Scope, scope, with_peer
from p2pnet.events import PortMapped
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.sites import CARRIER_LAN, RouterSetup
from p2pnet.testing.world import World
from tests.connectivity.portmap_home import (
    EVERY,
    can_dial,
    forwards,
    outside_of,
    put_host,
    put_router,
    service_of,
    start_host,
)

DAY = 86_400.0


@pytest.mark.parametrize("protocol", EVERY)
async def test_each_protocol_alone_makes_a_host_behind_a_symmetric_nat_dialable(
    world: World, protocol: ProtocolName
) -> None:
    router = put_router(world, protocol)
    alice, diary = await put_host(world, router)
    mapped = await diary.next()
    assert outside_of(mapped).host == router.outside_addresses[0]
    assert outside_of(mapped).port == 4001
    assert mapped.protocol == protocol
    assert str(mapped.listen_address) == f"/ip4/{alice.addresses[0]}/tcp/4001"
    stranger = await world.host(presets.minimal(), "stranger")
    address = with_peer(diary.mapped[0].outside_address, alice.host.peer_id)
    connection = await stranger.host.connect(address)
    assert not connection.is_relayed
    assert diary.entries == [mapped]


async def test_of_all_three_one_is_used_and_all_are_reported(world: World) -> None:
    """PM20: the preferred of those that were found."""
    router = put_router(world)
    alice, diary = await put_host(world, router)
    await diary.next()
    await trio.sleep(60)
    assert [each.protocol for each in diary.mapped] == ["pcp"]
    assert len(forwards(router)) == 1
    outside = router.outside_addresses[0]
    assert [
        (each.gateway, each.protocol, each.is_spoken, each.detail)
        for each in service_of(alice).routers
    ] == [
        (router.address, "pcp", True, ""),
        (router.address, "nat-pmp", True, outside),
        (router.address, "upnp", True, outside),
    ]
    (port,) = service_of(alice).mappings
    assert (port.gateway, port.protocol) == (router.address, "pcp")
    assert port.outside_address == diary.mapped[0].outside_address


async def test_the_order_of_preference_is_that_of_the_configuration(world: World) -> None:
    router = put_router(world)
    mapping = PortMapping(protocols=("upnp", "pcp"))
    _, diary = await put_host(world, router, mapping=mapping)
    mapped = await diary.next()
    assert mapped.protocol == "upnp"


@pytest.mark.parametrize("protocol", EVERY)
async def test_a_mapping_lasts_for_a_day_without_a_gap(
    protocol: ProtocolName, autojump_clock: MockClock
) -> None:
    """PM9: a router that grants half an hour is asked again and again."""
    del autojump_clock
    async with World(patience=2 * DAY) as world:
        router = put_router(world, protocol, config=PortMapConfig(longest_seconds=1800))
        # Looks are rarer than they are by default, only because a day of them takes long to play.
        mapping = PortMapping(lifetime=1800, check_interval=300)
        _, diary = await put_host(world, router, mapping=mapping)
        mapped = await diary.next()
        for _ in range(24):
            await trio.sleep(DAY / 24)
            assert await can_dial(world, outside_of(mapped))
        assert diary.entries == [mapped]


@pytest.mark.parametrize("keeps_epoch", [False, True])
@pytest.mark.parametrize("protocol", EVERY)
async def test_after_a_reboot_of_the_router_the_port_is_mapped_again_within_a_minute(
    world: World, protocol: ProtocolName, keeps_epoch: bool
) -> None:
    """PM10: by the router's clock, its announcements, or because it is asked anyway."""
    router = put_router(world, protocol, config=PortMapConfig(keeps_epoch=keeps_epoch))
    _, diary = await put_host(world, router)
    mapped = await diary.next()
    await trio.sleep(100)
    router.reboot()
    assert not await can_dial(world, outside_of(mapped), patience=0.1)
    await trio.sleep(60 - 1)
    assert await can_dial(world, outside_of(mapped))
    assert not diary.lost


@pytest.mark.parametrize("protocol", EVERY)
async def test_another_outside_address_is_told_within_a_minute(
    world: World, protocol: ProtocolName
) -> None:
    router = put_router(world, protocol)
    _, diary = await put_host(world, router)
    await diary.next()
    await trio.sleep(100)
    router.renumber()
    mapped = await diary.next(within=60)
    assert outside_of(mapped).host == router.outside_addresses[0]
    assert await can_dial(world, outside_of(mapped))


@pytest.mark.parametrize("protocol", EVERY)
async def test_the_mapping_is_removed_when_the_host_closes(
    world: World, protocol: ProtocolName
) -> None:
    """PM22: what nobody listens at is no use, and the next one may want the port."""
    router = put_router(world, protocol)
    alice, diary = await put_host(world, router)
    await diary.next()
    assert forwards(router)
    began = trio.current_time()
    await alice.stop()
    assert not forwards(router)
    assert trio.current_time() - began < 1.0


async def test_closing_does_not_wait_long_for_a_router_that_is_silent(world: World) -> None:
    """PM22: two seconds at most."""
    router = put_router(world)
    alice, diary = await put_host(world, router)
    await diary.next()
    alice.link.is_cut = True
    began = trio.current_time()
    await alice.stop()
    assert trio.current_time() - began < 3.0
    alice.link.is_cut = False


async def test_losing_power_ends_it_without_an_error(world: World) -> None:
    router = put_router(world)
    alice, diary = await put_host(world, router)
    await diary.next()
    await alice.power_off()


@pytest.mark.parametrize("protocol", EVERY)
async def test_two_hosts_with_one_port_get_two_outside_ports(
    world: World, protocol: ProtocolName
) -> None:
    """PM21: nobody takes what another has."""
    router = put_router(world, protocol)
    _, of_alice = await put_host(world, router, "alice")
    first = await of_alice.next()
    _, of_bob = await put_host(world, router, "bob")
    second = await of_bob.next()
    assert outside_of(first).port == 4001
    assert outside_of(second).port != 4001
    for outside in (outside_of(first), outside_of(second)):
        assert await can_dial(world, outside)
    await trio.sleep(300)
    assert len(of_alice.entries) == len(of_bob.entries) == 1


async def test_behind_a_carrier_the_mapping_is_told_and_recognisable(world: World) -> None:
    """PM6: nobody can dial it, and its address says so."""
    carrier = world.router("carrier", KINDS["carrier"].nats[-1], setup=RouterSetup(lan=CARRIER_LAN))
    router = put_router(world, behind=carrier)
    _, diary = await put_host(world, router)
    mapped = await diary.next()
    assert isinstance(mapped, PortMapped)
    assert outside_of(mapped).host.startswith("100.64.")
    assert scope(mapped.outside_address) is Scope.PRIVATE
    assert not await can_dial(world, replace(outside_of(mapped), host=carrier.outside_addresses[0]))


@pytest.mark.parametrize(
    "config",
    [PortMapConfig(igd_version=2), PortMapConfig(wan_ppp=True), PortMapConfig(only_permanent=True)],
    ids=["second version", "behind a DSL modem", "only permanent mappings"],
)
async def test_gateways_differ_and_are_understood(world: World, config: PortMapConfig) -> None:
    """PM17, PM18: what is not known to end is given back all the same."""
    router = put_router(world, "upnp", config=config)
    alice, diary = await put_host(world, router)
    mapped = await diary.next()
    assert isinstance(mapped, PortMapped)
    assert mapped.seconds == (math.inf if config.only_permanent else 3600)
    assert await can_dial(world, outside_of(mapped))
    await trio.sleep(3600 - trio.current_time() - 60)
    assert diary.entries == [mapped]
    await alice.stop()
    assert not forwards(router)


@pytest.mark.parametrize("protocol", EVERY)
async def test_a_router_that_refuses_is_asked_rarely(world: World, protocol: ProtocolName) -> None:
    """PM11: half an hour is to pass before it is asked for a mapping again."""
    router = put_router(world, protocol, config=PortMapConfig(refuses=True))
    alice, diary = await put_host(world, router)
    await trio.sleep(120)
    before = world.trace.packets
    await trio.sleep(240)
    assert world.trace.packets - before < 100
    assert not diary.entries
    assert not forwards(router)
    assert service_of(alice).mappings == ()


async def test_without_a_router_that_maps_ports_little_is_sent(world: World) -> None:
    router = world.router("home", KINDS["symmetric"].nats[0])
    alice, diary = await put_host(world, router)
    await trio.sleep(14)
    assert [each.is_spoken for each in service_of(alice).routers] == [False] * 3
    at_first = world.trace.packets
    await trio.sleep(600)
    assert world.trace.packets == 6 * at_first  # After 15 s, 30 s, 60 s, 120 s, 240 s.
    before = world.trace.packets
    await trio.sleep(300)
    assert world.trace.packets == before + at_first
    assert not diary.entries
    assert not await can_dial(world, Endpoint(router.outside_addresses[0], 4001))


async def test_a_public_host_asks_nobody(world: World) -> None:
    """PM19: it has no private address."""
    alice, diary = await put_host(world, world.internet)
    await trio.sleep(600)
    assert world.trace.packets == 0
    assert service_of(alice).routers == ()
    assert not diary.entries


@pytest.mark.parametrize("protocol", EVERY)
async def test_a_router_that_comes_back_after_minutes_is_found_within_one(
    world: World, protocol: ProtocolName
) -> None:
    """PM11: without a word from it, and whatever it forgot."""
    router = put_router(world, protocol)
    alice, diary = await put_host(world, router)
    await diary.next()
    alice.link.is_cut = True
    lost = await diary.next(within=120)
    assert lost is diary.lost[0]
    await trio.sleep(600)
    router.nat.reset()
    alice.link.is_cut = False
    mapped = await diary.next(within=60)
    assert await can_dial(world, outside_of(mapped))


async def test_a_router_that_was_not_there_at_first_is_found_later(world: World) -> None:
    """PM11: after a minute, as two searches were in vain."""
    alice = world.machine(at=put_router(world, "upnp"))
    alice.link.is_cut = True
    diary = await start_host(world, alice)
    await trio.sleep(100)
    alice.link.is_cut = False
    await diary.next(within=60)


async def test_a_router_that_announces_itself_is_found_at_once(world: World) -> None:
    """PM10, PM11."""
    router = put_router(world, "nat-pmp")
    alice = world.machine(at=router)
    alice.link.is_cut = True
    diary = await start_host(world, alice)
    await trio.sleep(100)
    alice.link.is_cut = False
    router.reboot()
    await diary.next(within=10)


async def test_in_another_home_another_router_is_asked(world: World) -> None:
    """PM19, PM20: gateways and interfaces are looked at again and again."""
    first, second = put_router(world), put_router(world, name="elsewhere")
    alice, diary = await put_host(world, first)
    await diary.next()
    neighbour = world.machine("neighbour", at=second)
    alice.move(second)
    await diary.next(within=60)
    await trio.sleep(30)
    mapped = diary.mapped[-1]
    assert outside_of(mapped).host == second.outside_addresses[0]
    assert await can_dial(world, outside_of(mapped))
    assert str(mapped.listen_address) == f"/ip4/{alice.addresses[0]}/tcp/4001"
    assert neighbour.addresses != alice.addresses
