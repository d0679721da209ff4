"""A swarm apart from the host's own, in a simulated world."""

from __future__ import annotations

import pytest

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.env import ByteStream
from p2pnet.errors import DialError
from p2pnet.interfaces import Stream
from p2pnet.testing.machines import Machine
from p2pnet.testing.sockets import SimulatedNetwork
from p2pnet.testing.world import World

HELLO = "/hello/1"
LISTEN = "/ip4/0.0.0.0/tcp/4001"


async def two_hosts(world: World) -> tuple[Machine, Machine]:
    config = presets.minimal(listen=[LISTEN])
    return await world.host(config, "alice"), await world.host(config, "bob")


async def hello(stream: Stream) -> None:
    await stream.send_all(str(stream.connection.remote_address).encode())


def listening(machine: Machine) -> str:
    return f"/ip4/{machine.addresses[0]}/tcp/4001"


async def test_a_stranger_dials_under_another_key_and_from_another_port(world: World) -> None:
    alice, bob = await two_hosts(world)
    bob.host.handle(HELLO, hello)
    async with alice.host.apart(stranger=True) as apart:
        connection = await apart.dial(bob.host.peer_id, parse(listening(bob)))
        async with await connection.open_stream(HELLO) as stream:
            told = await stream.receive_some()
        (at_bob,) = bob.host.connections()
        assert at_bob.peer_id != alice.host.peer_id
        assert "/tcp/4001" not in str(at_bob.remote_address)
        assert told == str(at_bob.remote_address).encode()
    assert not alice.host.connections()


async def test_its_dials_leave_from_ports_of_no_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dcutr.md, D16."""
    alice, bob = await two_hosts(world)
    left_from: list[Endpoint | None] = []
    dial_tcp = SimulatedNetwork.dial_tcp

    async def dial(
        network: SimulatedNetwork, remote: Endpoint, *, local: Endpoint | None = None
    ) -> ByteStream:
        left_from.append(local)
        return await dial_tcp(network, remote, local=local)

    monkeypatch.setattr(SimulatedNetwork, "dial_tcp", dial)
    async with alice.host.apart(stranger=True) as apart:
        await apart.dial(bob.host.peer_id, parse(listening(bob)))
    assert left_from == [Endpoint("0.0.0.0", 0)]


async def test_sealed_it_opens_no_more_ports(world: World) -> None:
    """dcutr.md, D29."""
    alice, bob = await two_hosts(world)
    async with alice.host.apart(stranger=True) as apart:
        assert apart.last_port == 0
        for number in (1, 2):
            await apart.dial(bob.host.peer_id, parse(listening(bob)))
            assert apart.last_port == number
        async with alice.host.apart(stranger=True) as other:
            await other.dial(bob.host.peer_id, parse(listening(bob)))
            assert (apart.last_port, other.last_port) == (2, 3)
        apart.seal()
        with pytest.raises(DialError):
            await apart.dial(bob.host.peer_id, parse(listening(bob)))
        assert (alice.host.ports_apart("tcp"), alice.host.ports_apart("udp")) == (3, 0)


async def test_the_host_itself_serves_on_a_port_apart_and_dials_from_it(world: World) -> None:
    alice, bob = await two_hosts(world)
    for machine in (alice, bob):
        machine.host.handle(HELLO, hello)
    async with alice.host.apart(stranger=False) as apart:
        address = await apart.listen(parse("/ip4/0.0.0.0/tcp/4444"))
        assert str(address) == "/ip4/0.0.0.0/tcp/4444"
        assert "/tcp/4444" not in str(alice.host.addresses.value)
        connection = await apart.dial(bob.host.peer_id, parse(listening(bob)))
        async with await connection.open_stream(HELLO) as stream:
            assert await stream.receive_some() == f"/ip4/{alice.addresses[0]}/tcp/4444".encode()
        stranger = await world.host(presets.minimal(), "stranger")
        there = f"/ip4/{alice.addresses[0]}/tcp/4444/p2p/{alice.host.peer_id}"
        async with await stranger.host.open_stream(there, HELLO) as stream:
            assert stranger.addresses[0].encode() in await stream.receive_some()


async def test_nothing_is_left_of_it_and_it_can_fail(world: World) -> None:
    alice, bob = await two_hosts(world)
    with pytest.raises(DialError):
        async with alice.host.apart(stranger=True) as apart:
            await apart.dial(bob.host.peer_id, parse(f"/ip4/{bob.addresses[0]}/tcp/1"))


async def test_a_peer_tells_where_it_sees_a_port_apart(world: World) -> None:
    home = world.home("port-restricted-random")
    alice = await world.host(presets.minimal(listen=[LISTEN]), "alice", at=home)
    bob = await world.host(presets.minimal(listen=[LISTEN]), "bob")
    async with alice.host.apart(stranger=False) as apart:
        await apart.listen(parse("/ip4/0.0.0.0/tcp/4444"))
        connection = await apart.dial(bob.host.peer_id, parse(listening(bob)))
        seen = await alice.host.observe(connection)
        (at_bob,) = bob.host.connections()
        assert seen == at_bob.remote_address
        assert "192.168" not in str(seen)
