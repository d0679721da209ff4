"""The service around the clients: its configuration, and changes of what is there."""

from __future__ import annotations

import pytest
import trio

from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.portmap.asking import Place, Refused, Unanswered, Wish
from p2pnet.connectivity.portmap.nat_pmp.client import NatPmpClient
from p2pnet.connectivity.portmap.policy import nearest, plan
from p2pnet.connectivity.portmap.upnp.client import read_port
from p2pnet.core.addresses import Endpoint, Multiaddr, parse
from p2pnet.core.bus import EventBus
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.errors import ProtocolError
from p2pnet.events import AddressesChanged, PortMappingLost
from p2pnet.interfaces import Kit
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.portmap.settings import PortMapConfig
from p2pnet.testing.world import World
from tests.connectivity.portmap_home import (
    EVERY,
    can_dial,
    forwards,
    outside_of,
    put_host,
    put_router,
    start_host,
)
from tests.protocols.memory_env import NoUpgrader


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocols": ()},
        {"protocols": ("upnp", "upnp")},
        {"protocols": ("igd",)},
        {"lifetime": 119},
        {"check_interval": 1.0},
        {"search_interval": 1.0},
        {"look_interval": 0.0},
        {"close_seconds": 0.0},
        {"max_ports": 0},
        {"max_routers": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s") + "|named twice|limits"):
        PortMapping(**wrong)  # type: ignore[arg-type]


# ---- what is mapped where ----------------------------------------------------------------


def addresses(*texts: str) -> list[Multiaddr]:
    return [parse(text) for text in texts]


def test_addresses_at_one_port_share_its_mapping() -> None:
    """PM19."""
    found = plan(
        addresses(
            "/ip4/10.0.0.2/udp/4001/quic-v1",
            "/ip4/10.0.0.2/udp/4001/quic-v1/webtransport",
            "/ip4/10.0.0.2/udp/4001",
            "/ip4/10.0.0.2/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N/p2p-circuit",
        ),
        ["10.0.0.2"],
        ["10.0.0.1"],
        max_ports=16,
    )
    ((target,),) = found.values()
    assert (target.transport, target.inside) == ("udp", Endpoint("10.0.0.2", 4001))
    assert [str(each) for each in target.addresses] == [
        "/ip4/10.0.0.2/udp/4001/quic-v1",
        "/ip4/10.0.0.2/udp/4001/quic-v1/webtransport",
    ]


def test_two_routers_get_the_ports_in_their_networks_and_the_limit_is_for_both() -> None:
    """PM19, PM20."""
    listened = [
        f"/ip4/{host}/tcp/{port}" for host in ("10.0.0.2", "192.168.1.2") for port in (1, 2)
    ]
    interfaces = ["10.0.0.2", "192.168.1.2"]
    routers = ["192.168.1.1", "192.168.1.254", "10.0.0.1"]
    found = plan(addresses(*listened), interfaces, routers, max_ports=3)
    assert {place: len(targets) for place, targets in found.items()} == {
        Place("192.168.1.1", "192.168.1.2"): 2,
        Place("10.0.0.1", "10.0.0.2"): 1,
    }


@pytest.mark.parametrize("gateway", ["11.0.0.1", "fd00::1", "172.16.0.1", "192.168.1.2"])
def test_a_gateway_elsewhere_is_not_asked(gateway: str) -> None:
    """PM20: public, of IPv6, in another block, or this host itself."""
    assert nearest(gateway, ["192.168.1.2"]) is None


# ---- changes -----------------------------------------------------------------------------


class Pretended:
    """As much of a host as the service makes use of, with addresses as the test says."""

    def __init__(self, machine: Machine) -> None:
        key = PrivateKey.from_seed(bytes(32))
        kit = Kit(machine.env, key, PeerId.from_public_key(key.public_key), NoUpgrader())
        self.service = PortMapping().build(kit)
        self.addresses: Watch[tuple[Multiaddr, ...]] = Watch(())
        self._bus = EventBus()
        self.subscribe = self._bus.subscribe
        self.publish = self._bus.publish

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self.service.run(self, task_status=task_status)  # type: ignore[arg-type]

    async def have(self, *texts: str) -> list[str]:
        """Have these addresses; return those that are mapped a second later."""
        self.addresses.set(tuple(parse(text) for text in texts))
        self.publish(AddressesChanged(self.addresses.value))
        await trio.sleep(1)
        return [str(each.listen_address) for each in self.service.mappings]


async def test_a_port_that_is_not_listened_at_any_longer_is_given_back(world: World) -> None:
    """PM22."""
    router = put_router(world)
    alice = world.machine(at=router)
    host = Pretended(alice)
    first, second = (f"/ip4/{alice.addresses[0]}/tcp/{port}" for port in (4001, 4002))
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        assert await host.have(first, second) == [first, second]
        assert len(forwards(router)) == 2
        with host.subscribe(PortMappingLost) as lost:
            assert await host.have(second) == [second]
            assert str((await anext(lost)).listen_address) == first
        assert [inside.port for _, inside, _ in forwards(router)] == [4002]
        assert await host.have() == []
        assert host.service.routers == ()
        assert not forwards(router)
        assert await host.have(first, second) == [first, second]
        nursery.cancel_scope.cancel()
    assert not forwards(router)


async def test_too_many_changes_at_once_are_survived(world: World) -> None:
    router = put_router(world)
    alice, diary = await put_host(world, router)
    await diary.next()
    for _ in range(2000):
        alice.host.publish(AddressesChanged(alice.host.addresses.value))
    await trio.sleep(60)
    assert len(diary.entries) == 1


class Blind:
    """Looks of a machine that has no descriptors left."""

    is_blind = False

    def __init__(self, machine: Machine) -> None:
        self._look = machine.env.network.gateways
        machine.env.network.gateways = self.gateways  # type: ignore[method-assign]

    def gateways(self) -> tuple[str, ...]:
        if self.is_blind:
            raise OSError("too many open files")
        return self._look()


async def test_what_cannot_be_looked_at_stays_as_it_was(world: World) -> None:
    """PM19."""
    router = put_router(world)
    alice = world.machine(at=router)
    blind = Blind(alice)
    diary = await start_host(world, alice)
    await diary.next()
    blind.is_blind = True
    await trio.sleep(100)
    assert len(diary.entries) == len(forwards(router)) == 1


@pytest.mark.parametrize("protocol", EVERY)
async def test_a_lossy_network_loses_no_mapping(world: World, protocol: str) -> None:
    """PM7, PM8, PM11: one packet in ten is lost, both ways, for an hour."""
    router = put_router(world, protocol)  # type: ignore[arg-type]
    alice = world.machine(at=router, link=Quality(loss=0.1))
    diary = await start_host(world, alice)
    mapped = await diary.next()
    await trio.sleep(3600 - 120)
    assert diary.entries == [mapped]
    alice.link.quality = Quality()
    assert await can_dial(world, outside_of(mapped))


async def test_a_router_that_refused_is_asked_anew_after_it_was_restarted(world: World) -> None:
    """PM10, PM11: somebody may have changed its settings."""
    router = put_router(world, "nat-pmp", config=PortMapConfig(refuses=True))
    _, diary = await put_host(world, router)
    await trio.sleep(500)
    quiet = world.trace.packets
    await trio.sleep(100)
    assert world.trace.packets == quiet
    router.reboot()
    await trio.sleep(30)
    asked = [line for line in world.trace.lines(200) if f"> {router.address}:5351 len=12" in line]
    assert len(asked) >= 2
    assert not diary.entries


async def test_the_second_version_of_upnp_chooses_another_port_itself(world: World) -> None:
    """PM21."""
    router = put_router(world, "upnp", config=PortMapConfig(igd_version=2))
    _, of_alice = await put_host(world, router, "alice")
    await of_alice.next()
    bob, of_bob = await put_host(world, router, "bob")
    mapped = await of_bob.next()
    assert outside_of(mapped).port == 4002
    assert await can_dial(world, outside_of(mapped))
    await bob.stop()
    assert len(forwards(router)) == 1


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "4001x", "९", "1" * 9])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        read_port(text)


async def test_an_interface_that_is_gone_is_an_error_and_no_crash(world: World) -> None:
    router = put_router(world, "nat-pmp")
    alice = world.machine(at=router)
    client = NatPmpClient(alice.env.network, Place(router.address, "192.168.1.77"))
    wish = Wish("tcp", Endpoint("192.168.1.77", 1), Endpoint("0.0.0.0", 1), 60)
    with pytest.raises(OSError, match="assign"):
        await client.map(wish)


async def test_nobody_there_is_told_after_eight_seconds(world: World) -> None:
    """PM7."""
    router = put_router(world, "upnp")
    alice = world.machine(at=router)
    client = NatPmpClient(alice.env.network, Place(router.address, alice.addresses[0]))
    with pytest.raises(Unanswered):
        await client.outside_address()
    assert trio.current_time() == pytest.approx(7.75)


async def test_a_router_without_a_connection_refuses_for_a_minute(world: World) -> None:
    """PM6, PM11."""
    router = put_router(world, "nat-pmp", config=PortMapConfig(reported_address="0.0.0.0"))
    alice = world.machine(at=router)
    client = NatPmpClient(alice.env.network, Place(router.address, alice.addresses[0]))
    wish = Wish("tcp", Endpoint(alice.addresses[0], 1), Endpoint("0.0.0.0", 1), 60)
    with pytest.raises(Refused, match="no outside address") as refused:
        await client.map(wish)
    assert refused.value.seconds == 60
    assert not forwards(router)
