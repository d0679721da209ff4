"""Attacks on identify, ping and the handlers of users, over genuine streams."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, suppress

import pytest
import trio

from p2pnet.core.addresses import encode, parse
from p2pnet.core.envelope import PeerRecord, seal_peer_record
from p2pnet.core.framing import encode_frame
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.errors import StreamReset
from p2pnet.events import IdentifyFailed, PeerIdentified
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Stream
from p2pnet.pb import identify_pb2 as pb
from p2pnet.protocols.identify.messages import IDENTIFY, PUSH
from tests.hostile.attacker import (
    GONE,
    PATIENCE,
    RawYamux,
    bare,
    dial,
    drain,
    first_address,
    infiltrated,
    negotiate_noise,
    shake_hands,
    still_serves,
    victim,
    warnings,
)

pytestmark = pytest.mark.sockets

PING = "/ipfs/ping/1.0.0"
MINE = "/test/mine/1.0.0"
"""What a user's handler serves in these tests."""

PUBLIC = encode(parse("/ip4/8.8.8.8/tcp/4001"))
LOOPBACK_PLACE = encode(parse("/ip4/127.0.0.1/tcp/9"))


def told(**fields: object) -> bytes:
    return encode_frame(pb.Identify(**fields).SerializeToString())  # type: ignore[arg-type]


def foreign_record() -> bytes:
    key = PrivateKey.generate()
    record = PeerRecord(PeerId.from_public_key(key.public_key), 1, (PUBLIC,))
    return seal_peer_record(key, record)


REFUSED = {
    "a MiB": encode_frame(bytes(1_048_576)),
    "a length without end": b"\xff" * 20,
    "eleven messages": told(agent_version="x") * 11,
    "garbage": encode_frame(b"\xff" * 100),
    "a foreign key": told(public_key=PrivateKey.generate().public_key.encode()),
    "no key at all": told(public_key=b"\x08\x01\x12\x01\x00"),
    "half a message": encode_frame(bytes(100))[:50],
    "nothing": b"",
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_false_identity_is_not_believed_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def lie(stream: Stream) -> None:
        with suppress(*GONE):
            await stream.send_all(REFUSED[kind])

    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, open_host(bare()) as attacker:
            attacker.handle(IDENTIFY, lie)
            with host.subscribe(IdentifyFailed) as failures:
                await attacker.connect(first_address(host))
                await anext(failures)
            assert host.peers.protocols(attacker.peer_id) is None
            assert len(host.connections()) == 1
            await still_serves(host)
    (warning,) = warnings(caplog)
    assert str(attacker.peer_id) in warning
    assert len(warning) < 500


TAKEN = {
    "ten thousand addresses": told(
        listen_addrs=[encode(parse(f"/ip4/8.8.8.8/tcp/{port}")) for port in range(1, 800)]
    )
    * 10,
    "ten thousand protocols": told(protocols=[f"/{n}" for n in range(1000)])
    + told(protocols=[f"/{n}" for n in range(1000, 2000)]),
    "control characters": told(
        agent_version="\x1b[2J\r\nERROR root: \x00" * 100,
        protocols=["/a\n/b", "", "no slash", "/" + "x" * 5000],
    ),
    "a foreign signed record": told(signed_peer_record=foreign_record(), listen_addrs=[PUBLIC]),
    "addresses that are none": told(listen_addrs=[b"", b"\xff" * 40, bytes(5000), b"\x04\x01"]),
    "a nonsensical observation": told(observed_addr=b"\x91\x02" * 100),
}


@pytest.mark.parametrize("kind", TAKEN)
async def test_what_is_exaggerated_is_cut_to_size(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def exaggerate(stream: Stream) -> None:
        await stream.send_all(TAKEN[kind])

    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, open_host(bare()) as attacker:
            attacker.handle(IDENTIFY, exaggerate)
            with host.subscribe(PeerIdentified) as told_of:
                await attacker.connect(first_address(host))
                event = await anext(told_of)
            assert len(event.addresses) <= 100
            assert len(event.protocols) <= 1024
            assert event.agent_version.isprintable()
            assert len(event.agent_version) <= 128
            assert all(name.isprintable() and len(name) <= 256 for name in event.protocols)
            assert len(host.peers.addresses(attacker.peer_id)) <= 64
            if kind == "a foreign signed record":
                assert not event.addresses
            await still_serves(host)
    assert not warnings(caplog)


async def test_a_flood_of_pushes_is_refused_after_a_few() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            with host.subscribe(PeerIdentified) as heard:
                for number in range(500):
                    with suppress(*GONE):
                        stream = await connection.open_stream(PUSH)
                        await stream.send_all(told(agent_version=f"{number}"))
                        await stream.send_eof()
                        await drain(stream)
                        stream.reset()
                await still_serves(host)
                pushed = 0
                with trio.move_on_after(0):
                    while True:
                        pushed += (await anext(heard)).pushed
            assert pushed <= 12


async def test_identify_that_is_asked_and_never_read_holds_nobody_up() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            streams = [await connection.open_stream(IDENTIFY) for _ in range(200)]
            await still_serves(host)
            for stream in streams:
                stream.reset()


# ---- ping --------------------------------------------------------------------------------


async def test_half_a_ping_resets_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            stream = await connection.open_stream(PING)
            await stream.send_all(bytes(31))
            await stream.send_eof()
            with pytest.raises(StreamReset):
                await stream.receive_some()
            stream = await connection.open_stream(PING)
            await stream.send_all(bytes(32))
            assert await stream.receive_some() == bytes(32)
    assert len(warnings(caplog)) == 1


async def test_pings_without_end_are_slowed_down() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            stream = await connection.open_stream(PING)
            echoed = 0

            async def count() -> None:
                nonlocal echoed
                while True:
                    echoed += len(await stream.receive_some()) // 32

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                with trio.move_on_after(0.5):
                    await stream.send_all(bytes(32 * 100_000))
                await still_serves(host)
                nursery.cancel_scope.cancel()
            assert 1 <= echoed <= 300


async def test_a_third_ping_stream_is_refused() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            for _ in range(2):
                stream = await connection.open_stream(PING)
                await stream.send_all(bytes(32))
                await stream.receive_some()
            with pytest.raises(StreamReset):
                await (await connection.open_stream(PING)).receive_some()


# ---- handlers of users, and leaving ------------------------------------------------------


async def test_a_handler_that_raises_harms_its_stream_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            raise LookupError("a bug of the user")

    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, infiltrated(host) as (_, connection):
            host.handle(MINE, fail)
            for _ in range(3):
                stream = await connection.open_stream(MINE)
                with pytest.raises(StreamReset):
                    await stream.receive_some()
            await still_serves(host)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 3
    caplog.clear()


async def test_handlers_that_never_return_end_with_their_connection() -> None:
    running = Watch(0)

    async def hang(stream: Stream) -> None:
        running.set(running.value + 1)
        try:
            await trio.sleep_forever()
        finally:
            running.set(running.value - 1)

    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            host.handle(MINE, hang)
            async with infiltrated(host) as (_, connection):
                for _ in range(256):
                    await connection.open_stream(MINE)
                with pytest.raises(StreamReset):
                    await connection.open_stream(MINE)
                await still_serves(host)
                assert running.value == 256
            await running.wait_for(lambda now: now == 0)


async def test_a_host_can_leave_while_hostile_peers_hang_on_every_layer() -> None:
    async def hang(stream: Stream) -> None:
        await trio.sleep_forever()

    async def pour(stream: Stream) -> None:
        while True:
            await stream.send_all(bytes(65_536))

    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as hostile, open_host(bare()) as attacker:
            attacker.handle(MINE, hang)
            async with open_host(victim()) as host, trio.open_nursery() as nursery:
                host.handle(MINE, pour)
                host.handle("/test/hang", hang)
                for stage in (dial, negotiate_noise, secured):
                    await hostile.enter_async_context(await stage(host))
                for protocol in (MINE, "/test/hang", IDENTIFY, PING, "/test/unknown"):
                    stream = await hostile.enter_async_context(await secured(host))
                    await RawYamux(stream).open(1, protocol)
                connection = await attacker.connect(first_address(host))
                nursery.start_soon(pour, await connection.open_stream("/test/hang"))
                nursery.start_soon(pour, await host.open_stream(attacker.peer_id, MINE))
                await still_serves(host)
                nursery.cancel_scope.cancel()


async def secured(host: Host) -> trio.abc.Stream:
    return await shake_hands(await negotiate_noise(host))
