"""Where the recipes listen, by the transports they are given; room for a relay (R44)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from p2pnet import QUIC, TCP, HostConfig, WebSocket, presets
from p2pnet.interfaces import Kit, Part, Service, Transport
from p2pnet.protocols.dcutr import Birthday, DCUtR
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.protocols.relay.limits import room_for
from p2pnet.protocols.resume import Resume
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.world import World

TCP_ANYWHERE = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")
QUIC_ANYWHERE = ("/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1")


class Foreign:
    """A transport of somebody else's, who says nothing of where to listen."""

    def build(self, kit: Kit) -> Transport:
        return TCP().build(kit)


@pytest.mark.parametrize(
    ("transports", "expected"),
    [
        ([TCP()], TCP_ANYWHERE),
        ([QUIC()], QUIC_ANYWHERE),
        ([QUIC(), TCP()], QUIC_ANYWHERE + TCP_ANYWHERE),
        ([TCP(), QUIC(), WebSocket()], TCP_ANYWHERE + QUIC_ANYWHERE),
        ([Foreign(), TCP()], TCP_ANYWHERE),
    ],
)
def test_an_edge_listens_by_each_transport_it_has(
    transports: list[Part[Transport]], expected: tuple[str, ...]
) -> None:
    assert presets.edge(transports=transports).listen == expected
    at_4001 = tuple(
        text.replace("/0", "/4001").replace("4001.0.0.0", "0.0.0.0") for text in expected
    )
    assert presets.relay(transports=transports).listen == at_4001


def test_without_more_all_is_tcp() -> None:
    assert presets.edge().listen == presets.ANYWHERE == TCP_ANYWHERE
    assert presets.relay().listen == presets.RELAY_PORTS
    assert presets.minimal(transports=[QUIC()]).listen == ()


@pytest.mark.parametrize("preset", [presets.edge, presets.relay])
def test_who_says_where_listens_there_only(preset: type[HostConfig]) -> None:
    assert preset(listen=(), transports=[QUIC()]).listen == ()
    assert preset(listen=["/ip4/1.2.3.4/tcp/5"]).listen == ["/ip4/1.2.3.4/tcp/5"]


@pytest.mark.parametrize(
    ("preset", "service"),
    [
        (presets.edge, DCUtR(birthday=Birthday())),
        (presets.edge, RelayClient(wanted_relays=3)),
        (presets.edge, Resume()),
        (presets.relay, RelayServer(max_circuits=7)),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_a_service_of_ones_own_takes_the_place_of_that_of_the_preset(
    preset: Callable[..., HostConfig], service: Part[Service]
) -> None:
    kind = type(service)
    assert [p for p in preset(services=[service]).services if isinstance(p, kind)] == [service]
    assert len(preset(services=[service]).services) == len(preset().services)


async def test_such_a_host_can_be_reached_by_both(world: World) -> None:
    relay = await world.host(presets.relay(transports=[TCP(), QUIC()]), "relay")
    addresses = [str(address) for address in relay.host.addresses.value]
    assert {text.split("/")[3] for text in addresses} == {"tcp", "udp"}
    assert {text.split("/")[4] for text in addresses} == {"4001"}
    public = [text for text in addresses if "127.0.0.1" not in text and "/::1/" not in text]
    assert len(public) == 4
    for address in public:
        caller = await world.host(presets.edge(transports=[QUIC(), TCP()]))
        connection = await caller.host.connect(address)
        assert str(connection.remote_address) == address.partition("/p2p/")[0]


def test_r44_a_relay_has_room_for_what_its_limits_allow() -> None:
    small, large = RelayServer(max_circuits=7), RelayServer(max_reservations=5000)
    assert presets.relay().swarm == room_for(RelayServer())
    assert presets.relay(limits=large).swarm == room_for(large)
    assert presets.relay(services=[large]).swarm == room_for(large)
    assert presets.relay(limits=small, services=[large]).swarm == room_for(large)
    for other in (presets.edge(), presets.minimal()):
        assert other.swarm == SwarmConfig()


def test_r44_bounds_of_ones_own_stand() -> None:
    own = SwarmConfig(max_connections=5, high_connections=4, low_connections=3)
    assert replace(presets.relay(), swarm=own).swarm == own
