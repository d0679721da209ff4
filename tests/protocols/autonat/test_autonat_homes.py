"""What a client learns behind each kind of home, by five servers (AN26, AN30, AN31)."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.protocols.autonat import AutoNAT
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.nat_kind import Dependence
from p2pnet.testing.theory import chained
from p2pnet.testing.world import World
from tests.protocols.autonat.scene import RESULTS, Heard, connect, put_client, put_servers

SETTLED = 30.0
INDEPENDENT, BY_ADDRESS, BY_PORT = Dependence


async def listen(world: World, client: Machine, servers: list[Machine], seconds: float) -> Heard:
    with client.host.subscribe(*RESULTS) as events:
        heard = Heard(events)
        await connect(client, *servers)
        await heard.listen(seconds)
    return heard


@pytest.mark.parametrize("kind", KINDS)
async def test_results_are_as_theory_says_within_30_seconds(world: World, kind: str) -> None:
    """AN26 AN31: servers that were spoken to get through unless ports are filtered."""
    client = await put_client(world, kind)
    heard = await listen(world, client, await put_servers(world, 5), SETTLED)
    filtering = chained(KINDS[kind]).filtering
    addresses = {event.address for _, event in heard.tested}
    assert addresses
    first = heard.tested[0][1].address
    assert len(heard.verdicts(first)) >= 3
    for _, event in heard.tested:
        assert event.reached is (filtering is not BY_PORT)
        assert event.protocol == "/libp2p/autonat/2/dial-request"
    by_server = {e.server: e.server_address for _, e in heard.tested if e.address == first}
    assert len(by_server) >= 3
    assert len(set(by_server.values())) == len(by_server)
    results = {(event.by_stranger, event.reached) for _, event in heard.filtering}
    assert results == {(False, filtering is not BY_PORT), (True, filtering is INDEPENDENT)}
    assert len(heard.filtering) == 6
    assert {event.transport for _, event in heard.filtering} == {"tcp"}


async def test_results_go_on_every_30_seconds_for_20_minutes_and_never_change(world: World) -> None:
    """AN26 AN30."""
    client = await put_client(world, "address-restricted")
    heard = await listen(world, client, await put_servers(world, 5), 1300.0)
    verdicts = heard.verdicts(heard.tested[0][1].address)
    assert all(verdicts)
    assert 43 <= len(verdicts) <= 50
    rounds = [time for time, event in heard.filtering if event.by_stranger]
    assert len(rounds) == 3 * 3
    assert {(e.by_stranger, e.reached) for _, e in heard.filtering} == {
        (True, False),
        (False, True),
    }


async def test_the_filtering_is_tested_only_if_that_is_wanted(world: World) -> None:
    """AN31."""
    client = await put_client(world, "port-restricted", AutoNAT(test_filtering=False))
    heard = await listen(world, client, await put_servers(world, 3), SETTLED)
    assert heard.tested
    assert heard.filtering == []


@pytest.mark.parametrize(("count", "filtering"), [(1, 1), (2, 4)])
async def test_with_few_servers_there_is_as_much_as_they_can_tell(
    world: World, count: int, filtering: int
) -> None:
    """AN26 AN30."""
    client = await put_client(world, "port-restricted")
    heard = await listen(world, client, await put_servers(world, count), SETTLED)
    assert heard.verdicts(heard.tested[0][1].address) == [False] * count
    assert len(heard.filtering) == filtering


async def test_a_port_that_is_forwarded_or_no_more_is_noticed_within_60_seconds(
    world: World,
) -> None:
    """AN27."""
    client = await put_client(world, "port-restricted")
    servers = await put_servers(world, 5)
    nat = world.routers["home of client"].nat
    inside = Endpoint(client.addresses[0], 4001)
    with client.host.subscribe(*RESULTS) as events:
        heard = Heard(events)
        await connect(client, *servers)
        await heard.listen(100.0)
        address = heard.tested[0][1].address
        assert not any(heard.verdicts(address))
        heard.tested.clear()
        nat.map_port("tcp", inside, 4001, seconds=None, now=trio.current_time())
        await heard.listen(60.0)
        assert heard.verdicts(address).count(True) >= 3
        heard.tested.clear()
        assert nat.unmap_port("tcp", 4001)
        await heard.listen(60.0)
        assert heard.verdicts(address).count(False) >= 3
