"""Rule I19: who is in our private network, and who only looks as if he were."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from p2pnet.core.addresses import Scope, encode, parse, with_peer
from p2pnet.events import PeerIdentified
from p2pnet.protocols.identify.messages import IDENTIFY
from p2pnet.protocols.identify.whereabouts import whereabouts
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
    def gateways(self) -> tuple[str, ...]:
        raise OSError("the system does not tell")


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
    assert whereabouts(end, Home(own)) is expected


async def test_a_system_that_tells_nothing_of_its_routers_has_none(world: MemoryWorld) -> None:
    here, there = world.host(1, HERE), world.host(2, f"/ip4/{ROUTER}/tcp/2")
    assert whereabouts(world.connect(there, here).other_end, Silent()) is Scope.PRIVATE


async def test_a_circuit_comes_from_where_its_relay_is(world: MemoryWorld) -> None:
    """I9."""
    relay = world.host(3, HERE).peer_id
    here, there = world.host(1, HERE), world.host(2, "/ip4/11.0.0.2/tcp/2")
    circuit = f"/ip4/{ROUTER}/tcp/1/p2p/{relay}/p2p-circuit"
    end = world.connect(there, here, relay=circuit).other_end
    assert whereabouts(end, Home()) is Scope.PRIVATE


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
