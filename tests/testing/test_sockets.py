"""Sockets of simulated machines behave as those of the operating system do."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import check_half_closeable_stream

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import Leaked, World

BULK = bytes(range(256)) * 4096
ANY = Endpoint("0.0.0.0", 4001)


@asynccontextmanager
async def joined(
    one: Machine, other: Machine, port: int = 4001
) -> AsyncGenerator[tuple[ByteStream, ByteStream]]:
    """Give both ends of a TCP connection."""
    listener = await other.env.network.listen_tcp(Endpoint("0.0.0.0", port))
    near = await one.env.network.dial_tcp(Endpoint(other.addresses[0], port))
    far = await listener.accept()
    await listener.aclose()
    async with near, far:
        yield near, far


async def test_both_ends_know_both_ends(world: World) -> None:
    async with joined(world.machine(), world.machine()) as (near, far):
        assert (near.local, near.remote) == (far.remote, far.local)
        assert far.local.port == 4001


async def test_a_connection_takes_one_round_trip_and_a_half(world: World) -> None:
    quality = Quality(latency=0.05)
    one, other = world.machine(link=quality), world.machine(link=quality)
    began = trio.current_time()
    async with joined(one, other):
        assert trio.current_time() - began == pytest.approx(0.3)


async def test_the_stream_is_one_that_trio_would_call_so(world: World) -> None:
    one, other = world.machine(), world.machine()

    async def make() -> tuple[ByteStream, ByteStream]:
        listener = await other.env.network.listen_tcp(Endpoint("0.0.0.0", 0))
        near = await one.env.network.dial_tcp(Endpoint(other.addresses[0], listener.local.port))
        far = await listener.accept()
        await listener.aclose()
        return near, far

    await check_half_closeable_stream(make, None)


@pytest.mark.parametrize(
    "quality",
    [
        Quality(),
        Quality(loss=0.05),
        Quality(jitter=0.02, reorder=0.1),
        Quality(duplicate=0.1, loss=0.02),
        Quality(bandwidth=10e6),
        Quality(mtu=600),
    ],
    ids=["plain", "loss", "reorder", "duplicate", "narrow", "small packets"],
)
async def test_bulk_arrives_whole_whatever_the_link_does(world: World, quality: Quality) -> None:
    one, other = world.machine(link=quality), world.machine(link=quality)
    async with joined(one, other) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, BULK)
            nursery.start_soon(send, far, BULK[::-1])
            assert await receive(far) == BULK
            assert await receive(near) == BULK[::-1]


async def send(stream: ByteStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def receive(stream: ByteStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_nobody_there_is_a_refusal_and_no_machine_a_timeout(world: World) -> None:
    one, other = world.machine(), world.machine()
    with pytest.raises(OSError, match="refused") as refused:
        await one.env.network.dial_tcp(Endpoint(other.addresses[0], 1))
    assert refused.value.errno == errno.ECONNREFUSED
    began = trio.current_time()
    with pytest.raises(OSError, match="timed out"):
        await one.env.network.dial_tcp(Endpoint("11.200.0.1", 1))
    assert trio.current_time() - began == pytest.approx(123)


async def test_without_ipv6_there_is_no_way_to_an_ipv6_address(world: World) -> None:
    home = world.home("port-restricted")
    with pytest.raises(OSError, match="unreachable"):
        await world.machine(at=home).env.network.dial_tcp(Endpoint("2a00:1::1", 1))


async def test_loopback_reaches_only_the_machine_itself(world: World) -> None:
    network = world.machine().env.network
    listener = await network.listen_tcp(Endpoint("127.0.0.1", 5000))
    near = await network.dial_tcp(Endpoint("127.0.0.1", 5000))
    far = await listener.accept()
    async with near, far:
        assert near.local.host == "127.0.0.1"
    await listener.aclose()
    with pytest.raises(OSError, match="refused"):
        await world.machine().env.network.dial_tcp(Endpoint("127.0.0.1", 5000))


async def test_a_port_is_listened_on_once_and_dials_may_leave_from_it(world: World) -> None:
    one, other = world.machine(), world.machine()
    network = one.env.network
    listener = await network.listen_tcp(ANY)
    with pytest.raises(OSError, match="in use"):
        await network.listen_tcp(Endpoint(one.addresses[0], 4001))
    there = await other.env.network.listen_tcp(ANY)
    remote = Endpoint(other.addresses[0], 4001)
    near = await network.dial_tcp(remote, local=ANY)
    assert near.local == Endpoint(one.addresses[0], 4001)
    with pytest.raises(OSError, match="assign") as taken:
        await network.dial_tcp(remote, local=ANY)
    assert taken.value.errno == errno.EADDRNOTAVAIL
    await near.aclose()
    await (await there.accept()).aclose()
    await listener.aclose()
    await there.aclose()


async def test_two_dials_that_cross_become_one_connection(world: World) -> None:
    one, other = world.machine(), world.machine()
    ends: list[ByteStream] = []

    async def dial(own: Machine, to: Machine) -> None:
        ends.append(await own.env.network.dial_tcp(Endpoint(to.addresses[0], 4001), local=ANY))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, one, other)
        nursery.start_soon(dial, other, one)
    near, far = ends
    assert (near.local, near.remote) == (far.remote, far.local)
    await near.send_all(b"crossed")
    assert await far.receive_some() == b"crossed"
    await near.aclose()
    await far.aclose()


async def test_a_listener_that_closes_refuses_who_was_not_accepted(world: World) -> None:
    one, other = world.machine(), world.machine()
    listener = await other.env.network.listen_tcp(ANY)
    near = await one.env.network.dial_tcp(Endpoint(other.addresses[0], 4001))
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
    await near.aclose()


async def test_a_dial_that_is_cancelled_leaves_nothing(world: World) -> None:
    one = world.machine()
    with trio.move_on_after(1):
        await one.env.network.dial_tcp(Endpoint("11.200.0.1", 1))
    assert one.kernel.flows == 0


async def test_a_machine_without_power_says_nothing_and_its_peer_gives_up(world: World) -> None:
    one, other = world.machine(), world.machine()
    async with joined(one, other) as (near, _):
        await other.power_off()
        await near.send_all(b"anybody?")
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="timed out"):
            await near.receive_some()
        assert trio.current_time() - began > 500
        other.power_on()


async def test_datagrams_arrive_with_their_source(world: World) -> None:
    one, other = world.machine(), world.machine()
    there = await other.env.network.bind_udp(ANY)
    here = await one.env.network.bind_udp(Endpoint("0.0.0.0", 0))
    await here.send(b"hello", Endpoint(other.addresses[0], 4001))
    assert await there.receive() == (b"hello", Endpoint(one.addresses[0], here.local.port))
    await here.aclose()
    await there.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await here.receive()


async def test_ipv6_works_as_ipv4_does(world: World) -> None:
    one, other = world.machine(), world.machine()
    listener = await other.env.network.listen_tcp(Endpoint("::", 4001))
    near = await one.env.network.dial_tcp(Endpoint(other.addresses[1], 4001))
    far = await listener.accept()
    await near.send_all(b"six")
    assert await far.receive_some() == b"six"
    for closing in (near, far, listener):
        await closing.aclose()


async def test_a_socket_that_nobody_closed_is_told_at_the_end(autojump_clock: object) -> None:
    with pytest.raises(Leaked, match="listening at"):
        async with World() as world:
            await world.machine("careless").env.network.listen_tcp(ANY)


async def test_a_machine_that_is_moved_is_told_once_even_if_its_address_is_the_same(
    world: World,
) -> None:
    machine = world.machine(at=world.home("port-restricted", "one"))
    addresses = machine.addresses
    changes, late, heard = machine.env.network.changes(), machine.env.network.changes(), 0

    async def listen() -> None:
        nonlocal heard
        while True:
            await changes.wait()
            heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(60)
        assert heard == 0
        machine.move(world.home("port-restricted", "another"))
        assert machine.addresses == addresses
        await trio.sleep(60)
        assert heard == 1
        await late.wait()
        nursery.cancel_scope.cancel()
    changes.close()
    late.close()
