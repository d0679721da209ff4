"""Resumable streams within their bounds: how many, how many bytes, who is dialled. RS13, RS15."""

from __future__ import annotations

import errno

import pytest
import trio

from p2pnet.core.addresses import encode as encode_address
from p2pnet.core.addresses import parse, without_peer
from p2pnet.core.framing import encode_frame
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import StreamReset
from p2pnet.events import DialPlanned, NetworkChanged
from p2pnet.interfaces import Stream
from p2pnet.pb import identify_pb2 as pb
from p2pnet.protocols.identify.messages import IDENTIFY
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Open, encode
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.resuming import count, open_echo, put, put_both
from tests.network.scene import ECHO, say_on


async def test_beyond_the_bounds_streams_are_plain(world: World) -> None:
    """RS15."""
    alice, bob = await put_both(world, Resume(max_streams_per_peer=2))
    streams = [await open_echo(alice, bob) for _ in range(4)]
    assert count(alice) == 2
    for stream in streams:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


async def test_what_comes_beyond_the_bounds_is_refused(world: World) -> None:
    """RS15."""
    alice = await put(world, "alice", Resume())
    bob = await put(world, "bob", Resume(max_streams_per_peer=1))
    first = await open_echo(alice, bob)
    await first.send_all(b"hello")
    assert await first.receive_some() == b"hello"
    second = await open_echo(alice, bob)
    with pytest.raises(StreamReset, match="keeps no more"):
        await second.receive_some()
    await first.aclose()


MIB = 1 << 20


def given_out(machine: Machine) -> int:
    return machine.host.service(Resume).given_out


async def test_all_streams_together_keep_no_more_than_the_limit(world: World) -> None:
    """RS15: nobody reads, and each side writes as much as it may."""
    small = Resume(max_bytes=4 * MIB)
    alice = await put(world, "alice", small)
    bob = await put(world, "bob", Resume(max_bytes=8 * MIB))
    bob.host.handle("/pour", pour)
    await say_on(await open_echo(alice, bob))
    streams = []
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            streams.append(await alice.host.open_stream(bob.host.peer_id, "/pour"))
            nursery.start_soon(pour, streams[-1])
        await trio.sleep(30)
        assert 4 < count(alice) == count(bob) < 10, "the others are plain"
        for machine in (alice, bob):
            entries = machine.host.service(Resume)._entries.values()
            kept = [
                part
                for machine in (entry.stream.machine for entry in entries)
                for part in (len(machine.sending._kept), machine.receiving.waiting)
            ]
            assert all(kept)
            assert MIB < sum(kept) <= given_out(machine) <= small.max_bytes
        nursery.cancel_scope.cancel()
    for stream in streams:
        stream.reset()
    await trio.sleep(10)
    assert given_out(alice) == given_out(bob) == 0


async def pour(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(16_384))


async def test_what_nobody_has_read_yet_counts_also_when_the_stream_is_over(world: World) -> None:
    """RS15: or one could leave a window full there again and again."""
    alice, bob = await put_both(world)
    kept: list[Stream] = []
    go_on = trio.Event()

    async def keep(stream: Stream) -> None:
        kept.append(stream)
        await go_on.wait()
        while await stream.receive_some(1000):
            pass

    bob.host.handle("/keep", keep)
    await say_on(await open_echo(alice, bob))
    stream = await alice.host.open_stream(bob.host.peer_id, "/keep")
    await stream.send_all(bytes(100_000))
    await stream.send_eof()
    await trio.sleep(1)
    stream.reset()
    await trio.sleep(60)
    assert (count(alice), count(bob)) == (0, 1)
    assert given_out(bob) > 100_000
    go_on.set()
    await trio.sleep(1)
    assert (count(bob), given_out(bob)) == (0, 0)


async def test_who_was_one_too_many_opens_plain_streams_for_a_while(world: World) -> None:
    """RS15: a stream that nobody can carry on is better than none."""
    alice = await put(world, "alice", Resume())
    bob = await put(world, "bob", Resume(max_streams_per_peer=1))
    first = await open_echo(alice, bob)
    await first.send_all(b"hello")
    assert await first.receive_some() == b"hello"
    with pytest.raises(StreamReset, match="keeps no more"):
        await (await open_echo(alice, bob)).receive_some()
    for _ in range(2):
        await say_on(await open_echo(alice, bob))
        await trio.sleep(30)
    await first.aclose()
    await trio.sleep(10)
    await say_on(await open_echo(alice, bob))
    assert count(alice) == 1, "it is resumable again"


async def test_few_are_dialled_that_do_not_come_back_for_their_streams(world: World) -> None:
    """RS13: each says where it is to be dialled, and they may all name a third party."""
    bob = await put(world, "bob", Resume())
    third = await put(world, "third", Resume())
    place = encode_address(without_peer(parse(third.address)))
    told = pb.Identify(protocols=[PROTOCOL_ID, ECHO], listen_addrs=[place])

    async def lie(stream: Stream) -> None:
        await stream.send_all(encode_frame(told.SerializeToString()))

    with bob.host.subscribe(DialPlanned) as plans:
        for number in range(6):
            mallory = await put(world, f"mallory {number}", None)
            mallory.host.unhandle(IDENTIFY)
            mallory.host.handle(IDENTIFY, lie)
            connection = await mallory.host.connect(bob.address)
            carrier = await connection.open_stream(PROTOCOL_ID)
            await carrier.send_all(encode(Open(bytes(16), 65536, ECHO)))
            await carrier.receive_some()
            await trio.sleep(1)
            await connection.aclose()
            await mallory.stop()
        dialled = set[PeerId]()
        began = trio.current_time()
        with trio.move_on_at(began + 50):
            async for plan in plans:
                dialled.add(plan.peer_id)
        assert len(dialled) == 4
        with trio.move_on_at(began + 110):
            async for plan in plans:
                dialled.add(plan.peer_id)
        assert len(dialled) > 4


async def test_who_has_no_descriptor_left_when_the_network_changes_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RS16: to look which connections are left behind takes one."""
    alice, bob = await put_both(world)

    def refuse(_: object) -> tuple[str, ...]:
        raise OSError(errno.EMFILE, "too many open files")

    stream = await open_echo(alice, bob)
    with monkeypatch.context() as patch:
        patch.setattr(type(alice.env.network), "interface_addresses", refuse)
        alice.host.publish(NetworkChanged("another network"))
        await trio.sleep(1)
    for each in (stream, await open_echo(alice, bob)):
        await each.send_all(b"hello")
        assert await each.receive_some() == b"hello"
        await each.aclose()
    assert count(alice) == 2
