"""A network that keeps to an allowance of datagrams until somebody answers (AN18)."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.progress import answered, hearing, overhearing
from p2pnet.core.sparing import HEADER_BYTES, Allowance, PortCount, SparingNetwork
from p2pnet.testing.machines import Machine
from p2pnet.testing.pytest_plugin import world
from p2pnet.testing.world import World

__all__ = ["world"]

ANY = Endpoint("0.0.0.0", 4001)
EACH = 100 + HEADER_BYTES


async def what_comes(machine: Machine, allowance: Allowance, *, lifts: bool = False) -> list[bytes]:
    """Return what comes of three datagrams of 100 bytes from two sockets, and one of 10."""
    other = SparingNetwork(machine.env.network, allowance)
    receiver = await machine.env.network.bind_udp(ANY)
    target = Endpoint(machine.addresses[0], ANY.port)
    first, second = [await other.bind_udp(Endpoint("0.0.0.0", 0)) for _ in range(2)]
    await first.send_many([b"a" * 100, b"b" * 100], target)
    if lifts:
        allowance.lift()
    await second.send(b"c" * 100, target)
    await second.send(b"d" * 10, target)
    came: list[bytes] = []
    with trio.move_on_after(5):
        while True:
            came.append((await receiver.receive())[0][:1])
    for socket in (first, second, receiver):
        await socket.aclose()
    return came


@pytest.mark.parametrize(
    ("max_bytes", "left"),
    [
        (0, b""),
        (EACH - 1, b"d"),
        (EACH, b"a"),
        (2 * EACH, b"ab"),
        (3 * EACH - 1, b"abd"),
        (4 * EACH, b"abcd"),
    ],
)
async def test_what_is_beyond_the_allowance_is_lost(
    world: World, max_bytes: int, left: bytes
) -> None:
    came = await what_comes(world.machine(), Allowance(max_bytes))
    assert b"".join(came) == left


async def test_once_it_is_lifted_all_leaves(world: World) -> None:
    came = await what_comes(world.machine(), Allowance(EACH), lifts=True)
    assert b"".join(came) == b"acd"


async def test_once_it_is_sealed_only_ports_in_use_send(world: World) -> None:
    machine, other = world.machine(), world.machine()
    ports = PortCount(tcp=5)
    network = SparingNetwork(machine.env.network, ports=ports)
    receiver = await other.env.network.bind_udp(ANY)
    listener = await other.env.network.listen_tcp(ANY)
    target = Endpoint(other.addresses[0], ANY.port)
    used, fresh = [await network.bind_udp(Endpoint("0.0.0.0", 0)) for _ in range(2)]
    await used.send(b"a", target)
    await used.send(b"b", target)
    assert network.last_port == 1
    stream = await network.dial_tcp(target)
    assert network.last_port == 6
    for nobody in ("11.77.77.77", "2001:db8::1"):  # Who does not answer, and by IPv6 no NAT.
        with trio.move_on_after(1):
            await network.dial_tcp(Endpoint(nobody, 1))
    network.seal()
    await fresh.send(b"c", target)
    await used.send(b"d", target)
    with pytest.raises(OSError, match="cancel"):
        await network.dial_tcp(target)
    assert ports == {"tcp": 7, "udp": 1}
    assert [(await receiver.receive())[0] for _ in range(3)] == [b"a", b"b", b"d"]
    for each in (used, fresh, receiver, stream, listener):
        await each.aclose()


async def test_a_port_from_which_all_is_withheld_is_not_counted(world: World) -> None:
    ports = PortCount()
    network = SparingNetwork(world.machine().env.network, Allowance(EACH), ports)
    socket = await network.bind_udp(Endpoint("0.0.0.0", 0))
    for size, count in ((101, 0), (100, 1)):
        await socket.send(bytes(size), Endpoint("11.77.77.77", 1))
        assert ports["udp"] == count
    await socket.aclose()


async def test_the_rest_of_the_network_is_as_it_was(world: World) -> None:
    machine, other = world.machine(), world.machine()
    network = SparingNetwork(machine.env.network, Allowance(0))
    assert network.interface_addresses() == machine.env.network.interface_addresses()
    assert network.gateways() == machine.env.network.gateways()
    changes = network.changes()
    machine.move(machine.site)
    await changes.wait()
    changes.close()
    listener = await network.listen_tcp(ANY)
    theirs = await other.env.network.dial_tcp(Endpoint(machine.addresses[0], ANY.port))
    ours = await listener.accept()
    await theirs.send_all(b"hello")
    assert await ours.receive_some() == b"hello"
    socket = await network.bind_udp(Endpoint("0.0.0.0", 0))
    assert socket.source_for(Endpoint(other.addresses[0], 1)) == machine.addresses[0]
    for each in (ours, theirs, listener, socket):
        await each.aclose()


def test_who_overhears_is_told_beside_who_hears() -> None:
    told: list[str] = []
    with overhearing(lambda: told.append("outside")):
        with hearing(lambda: told.append("inside")):
            answered()
        answered()
    answered()
    assert told == ["inside", "outside", "outside"]


def test_what_is_kept_is_for_when_anything_was_heard() -> None:
    """AN18."""
    allowance = Allowance(3 * EACH, kept=EACH)
    data = b"a" * 100
    assert [allowance.spend(data) for _ in range(3)] == [True, True, False]
    allowance.hear()
    assert [allowance.spend(data) for _ in range(2)] == [True, False]


async def test_whatever_comes_lets_what_was_kept_go(world: World) -> None:
    """AN18: by either way of receiving."""
    machine = world.machine()
    for many in (False, True):
        allowance = Allowance(EACH, kept=EACH)
        one = await SparingNetwork(machine.env.network, allowance).bind_udp(ANY)
        other = await machine.env.network.bind_udp(Endpoint("0.0.0.0", 0))
        assert not allowance.spend(b"a" * 100)
        await other.send(b"x", Endpoint(machine.addresses[0], ANY.port))
        await (one.receive_many() if many else one.receive())
        assert allowance.spend(b"a" * 100)
        for socket in (one, other):
            await socket.aclose()
