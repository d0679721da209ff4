"""Rule I19: who is in our private network, and who only looks as if he were."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from p2pnet.core.addresses import Scope, encode, parse, with_peer
from p2pnet.events import PeerIdentified
from p2pnet.protocols.identify.messages import IDENTIFY
from p2pnet.protocols.identify.whereabouts import LOOK_SECONDS, Neighbourhood
from tests.protocols.identify_peers import HERE, read_all, started
from tests.protocols.memory_env import NoNetwork
from tests.protocols.memory_world import MemoryWorld

ROUTER, NEIGHBOUR, CUSTOMER = "192.168.1.1", "192.168.1.7", "100.64.0.9"
AT_HOME, AT_CARRIER = ("127.0.0.1", "192.168.1.5"), ("127.0.0.1", "100.64.0.5")


class Home(NoNetwork):
    def __init__(self, own: tuple[str, ...] = AT_HOME) -> None:
        self.own = own
        self.routers = (ROUTER,)


class Silent(Home):
    """All descriptors are in use, for a while."""

    def __init__(self, own: tuple[str, ...] = AT_HOME) -> None:
        super().__init__(own)
        self.is_silent = True
        self.looks = 0

    def interface_addresses(self) -> tuple[str, ...]:
        self.look()
        return super().interface_addresses()

    def gateways(self) -> tuple[str, ...]:
        self.look()
        return super().gateways()

    def look(self) -> None:
        self.looks += 1
        if self.is_silent:
            raise OSError("too many open files")


@pytest.mark.parametrize(
    ("ip", "is_inbound", "own", "expected"),
    [
        (NEIGHBOUR, True, AT_HOME, Scope.PRIVATE),
        (NEIGHBOUR, False, AT_HOME, Scope.PRIVATE),
        # Another network behind another router of ours, as in an office.
        ("10.1.2.3", True, AT_HOME, Scope.PRIVATE),
        (ROUTER, True, AT_HOME, Scope.PUBLIC),
        # The router itself was dialled, or who is made known there.
        (ROUTER, False, AT_HOME, Scope.PRIVATE),
        (CUSTOMER, True, AT_HOME, Scope.PUBLIC),
        (CUSTOMER, False, AT_HOME, Scope.PUBLIC),
        (CUSTOMER, True, AT_CARRIER, Scope.PRIVATE),
        ("127.0.0.1", True, AT_HOME, Scope.LOOPBACK),
        ("11.0.0.2", True, AT_HOME, Scope.PUBLIC),
    ],
)
async def test_who_is_in_our_private_network(
    world: MemoryWorld, ip: str, is_inbound: bool, own: tuple[str, ...], expected: Scope
) -> None:
    here, there = world.host(1, HERE), world.host(2, f"/ip4/{ip}/tcp/2")
    end = world.connect(there, here).other_end if is_inbound else world.connect(here, there)
    assert Neighbourhood(Home(own)).whereabouts(end, 0.0) is expected


@pytest.mark.parametrize("ip", [ROUTER, NEIGHBOUR, CUSTOMER])
async def test_nobody_is_taken_for_a_neighbour_by_who_cannot_look(
    world: MemoryWorld, ip: str
) -> None:
    """I19."""
    here, there = world.host(1, HERE), world.host(2, f"/ip4/{ip}/tcp/2")
    end, network = world.connect(there, here).other_end, Silent(AT_CARRIER)
    neighbourhood = Neighbourhood(network)
    assert neighbourhood.whereabouts(end, 0.0) is Scope.PUBLIC
    network.is_silent = False
    found = neighbourhood.whereabouts(end, LOOK_SECONDS)
    assert found is (Scope.PUBLIC if ip == ROUTER else Scope.PRIVATE)


@pytest.mark.parametrize("ip", [NEIGHBOUR, CUSTOMER])
@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_crowd_is_met_with_one_look_a_second(
    world: MemoryWorld, ip: str, is_silent: bool
) -> None:
    here, there = world.host(1, HERE), world.host(2, f"/ip4/{ip}/tcp/2")
    end, network = world.connect(there, here).other_end, Silent()
    network.is_silent = is_silent
    neighbourhood = Neighbourhood(network)
    for number in range(100):
        neighbourhood.whereabouts(end, number / 50)
    assert network.looks == 2


async def test_a_circuit_comes_from_where_its_relay_is(world: MemoryWorld) -> None:
    """I9."""
    relay = world.host(3, HERE).peer_id
    here, there = world.host(1, HERE), world.host(2, "/ip4/11.0.0.2/tcp/2")
    circuit = f"/ip4/{ROUTER}/tcp/1/p2p/{relay}/p2p-circuit"
    end = world.connect(there, here, relay=circuit).other_end
    assert Neighbourhood(Home()).whereabouts(end, 0.0) is Scope.PRIVATE


async def test_a_stranger_behind_our_router_learns_nothing_and_is_not_believed(
    autojump_clock: MockClock, world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9 I17 I19."""
    monkeypatch.setattr(NoNetwork, "routers", (ROUTER,))
    here, there = world.host(1, HERE), world.host(2, "/ip4/10.0.0.8/tcp/2")
    for host in (here, there):
        await started(host)
    inside = parse("/ip4/192.168.1.5/tcp/4001")
    here.addresses.set(tuple(with_peer(each, here.peer_id) for each in (parse(HERE), inside)))
    connection = world.connect(there, here, dialer_place=parse(f"/ip4/{ROUTER}/tcp/5000"))
    told = await read_all(await connection.open_stream(IDENTIFY))
    assert told.addresses == (encode(parse(HERE)),)
    assert (await here.wait_event(PeerIdentified)).addresses == ()
