"""Attacks on relays, on those behind them, and on hole punching."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from p2pnet.core.addresses import encode, parse
from p2pnet.core.framing import encode_frame
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import StreamReset
from p2pnet.events import ConnectionOpened, PunchAttemptFailed, PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Connection, Part, Service, Stream
from p2pnet.pb import circuit_pb2, dcutr_pb2
from p2pnet.presets import edge, relay
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.protocols.relay.channels import hop_channel, stop_channel
from p2pnet.protocols.relay.messages import (
    HOP,
    STOP,
    HopConnect,
    HopMessage,
    HopStatus,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
)
from tests.hostile.attacker import (
    GONE,
    LOOPBACK,
    PATIENCE,
    LoopbackNetwork,
    bare,
    drain,
    enclosed,
    first_address,
    infiltrated,
    still_serves,
    warnings,
)

pytestmark = pytest.mark.sockets

PUNCH = "/libp2p/dcutr"


def stranger() -> PeerId:
    return PeerId.from_public_key(PrivateKey.generate().public_key)


def idle_relay() -> HostConfig:
    return enclosed(relay(listen=LOOPBACK))


def idle_edge(relays: Sequence[str] = ()) -> HostConfig:
    return enclosed(edge(listen=LOOPBACK, relays=relays))


async def ask(connection: Connection, request: HopMessage) -> HopMessage:
    """Make one request of a relay."""
    stream = await connection.open_stream(HOP)
    channel = hop_channel(stream)
    await channel.send(request)
    answer = await channel.receive()
    stream.reset()
    return answer


# ---- the relay ---------------------------------------------------------------------------

MALFORMED = {
    "garbage": encode_frame(b"\xff" * 100),
    "an oversized message": encode_frame(bytes(5000)),
    "a length without end": b"\xff" * 20,
    "no type": encode_frame(b""),
    "an unknown type": encode_frame(b"\x08\x63"),
    "an answer": encode_frame(
        circuit_pb2.HopMessage(type="STATUS", status="OK").SerializeToString()
    ),
    "a call of nobody": encode_frame(circuit_pb2.HopMessage(type="CONNECT").SerializeToString()),
    "a call of a peer id that is none": encode_frame(
        circuit_pb2.HopMessage(
            type="CONNECT", peer=circuit_pb2.Peer(id=b"\xff" * 64)
        ).SerializeToString()
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_malformed_request_is_refused_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_relay()) as host, infiltrated(host) as (_, connection):
            stream = await connection.open_stream(HOP)
            with suppress(*GONE):
                await stream.send_all(MALFORMED[kind])
                answer = await hop_channel(stream).receive()
                assert isinstance(answer, HopStatus)
                assert answer.status in (Status.MALFORMED_MESSAGE, Status.UNEXPECTED_MESSAGE)
            await still_serves(host)
            assert await ask(connection, HopConnect(stranger())) == refusal("NO_RESERVATION")
            assert host.service(RelayServer).circuits == 0
    assert len(warnings(caplog)) == 1


def refusal(name: str) -> HopStatus:
    return HopStatus(Status[name])


async def test_thousands_of_reservations_of_one_peer_are_one() -> None:
    limits = RelayServer(requests_per_minute_per_peer=1e6, requests_per_minute_per_prefix=1e6)
    patient = enclosed(relay(listen=LOOPBACK, limits=limits))
    with trio.fail_after(PATIENCE):
        async with open_host(patient) as host, infiltrated(host) as (attacker, connection):
            for _ in range(1000):
                answer = await ask(connection, Reserve())
                assert isinstance(answer, HopStatus)
                assert answer.status == Status.OK
            assert host.service(RelayServer).reservations == 1
            assert await ask(connection, HopConnect(attacker.peer_id)) == refusal(
                "PERMISSION_DENIED"
            )
            assert await ask(connection, HopConnect(host.peer_id)) == refusal("NO_RESERVATION")
            await still_serves(host)


async def test_many_peers_of_one_address_have_few_reservations() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_relay()) as host, AsyncExitStack() as crowd:
            for _ in range(20):
                _, connection = await crowd.enter_async_context(infiltrated(host))
                await ask(connection, Reserve())
            assert host.service(RelayServer).reservations == 8


async def test_requests_that_say_nothing_are_few_at_a_time() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_relay()) as host, infiltrated(host) as (_, connection):
            silent = [await connection.open_stream(HOP) for _ in range(8)]
            assert await ask(connection, Reserve()) == refusal("RESOURCE_LIMIT_EXCEEDED")
            await still_serves(host)
            for stream in silent:
                stream.reset()
            while await ask(connection, Reserve()) == refusal("RESOURCE_LIMIT_EXCEEDED"):
                pass


async def test_a_target_that_never_answers_holds_few_requests() -> None:
    async def hang(stream: Stream) -> None:
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        async with open_host(idle_relay()) as host:
            service = host.service(RelayServer)
            async with infiltrated(host) as (target, reserved), infiltrated(host) as (_, calling):
                target.handle(STOP, hang)
                await ask(reserved, Reserve())
                for _ in range(50):
                    stream = await calling.open_stream(HOP)
                    await hop_channel(stream).send(HopConnect(target.peer_id))
                while service.circuits < 8:
                    await trio.lowlevel.checkpoint()
                await still_serves(host)
                assert service.circuits == 8
            await still_serves(host)
            while service.circuits:
                await trio.lowlevel.checkpoint()
            assert service.reservations == 0


async def test_a_circuit_through_which_nobody_reads_is_bounded_and_ends() -> None:
    async def accept(stream: Stream) -> None:
        channel = stop_channel(stream)
        await channel.receive()
        await channel.send(StopStatus(Status.OK))
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        limits = RelayServer(circuit_seconds=1.0, circuit_bytes=None)
        async with open_host(enclosed(relay(listen=LOOPBACK, limits=limits))) as host:
            async with infiltrated(host) as (target, reserved), infiltrated(host) as (_, calling):
                target.handle(STOP, accept)
                await ask(reserved, Reserve())
                stream = await calling.open_stream(HOP)
                channel = hop_channel(stream)
                await channel.send(HopConnect(target.peer_id))
                await channel.receive()
                sent = 0
                with suppress(*GONE):
                    while True:
                        await stream.send_all(bytes(65_536))
                        sent += 65_536
                assert sent < 2_000_000
                assert host.service(RelayServer).circuits == 0
                await still_serves(host)


# ---- behind a relay ----------------------------------------------------------------------


async def offer(connection: Connection, caller: PeerId) -> StopMessage:
    """Hand over a circuit on which nothing will be said, and return the answer."""
    channel = stop_channel(await connection.open_stream(STOP))
    await channel.send(StopConnect(caller))
    return await channel.receive()


async def test_a_circuit_from_a_stranger_is_refused() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_edge()) as host, infiltrated(host) as (_, connection):
            for _ in range(100):
                answer = await offer(connection, stranger())
                assert answer == StopStatus(Status.NO_RESERVATION)
            assert host.service(RelayClient).inbound_circuits == 0
            await still_serves(host)


@asynccontextmanager
async def hostile_relay() -> AsyncGenerator[tuple[Host, Host, Connection], None]:
    """Yield a victim that has a reservation at a hostile relay, that relay, and its connection."""

    async def promise(stream: Stream) -> None:
        channel = hop_channel(stream)
        await channel.receive()
        await channel.send(HopStatus(Status.OK, Reservation(expire=2**40)))

    config = dataclasses.replace(bare(), listen=LOOPBACK)
    async with open_host(config) as attacker:
        attacker.handle(HOP, promise)
        async with open_host(idle_edge([first_address(attacker)])) as host:
            await reserved(host)
            (connection,) = attacker.connections(host.peer_id)
            yield host, attacker, connection


async def reserved(host: Host) -> None:
    await host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )


async def test_a_relay_that_hands_over_silence_is_bounded() -> None:
    with trio.fail_after(PATIENCE):
        async with hostile_relay() as (host, _, connection):
            answers = [await offer(connection, stranger()) for _ in range(200)]
            assert answers.count(StopStatus(Status.OK)) == 128
            assert answers.count(StopStatus(Status.RESOURCE_LIMIT_EXCEEDED)) == 72
            assert host.service(RelayClient).inbound_circuits == 128
            await still_serves(host)
            await connection.aclose()
            while host.service(RelayClient).inbound_circuits:
                await trio.lowlevel.checkpoint()


async def test_a_relay_that_lies_about_who_calls_is_found_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(PATIENCE):
        async with hostile_relay() as (host, attacker, connection):
            assert await offer(connection, host.peer_id) == StopStatus(Status.PERMISSION_DENIED)
            stream = await connection.open_stream(STOP)
            channel = stop_channel(stream)
            await channel.send(StopConnect(stranger()))
            assert await channel.receive() == StopStatus(Status.OK)
            await stream.send_all(b"\xff" * 100)
            await drain(stream)
            await still_serves(host)
            assert len(host.connections(attacker.peer_id)) == 1
    assert len(warnings(caplog)) == 1


async def test_a_reservation_or_a_call_over_a_circuit_is_refused() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_relay()) as between:
            services: list[Part[Service]] = [RelayClient(relays=[first_address(between)])]
            config = enclosed(relay(listen=LOOPBACK, services=services))
            attacking = dataclasses.replace(bare(), services=[RelayClient()])
            async with open_host(config) as host, open_host(attacking) as attacker:
                await reserved(host)
                connection = await attacker.connect(
                    f"{first_address(between)}/p2p-circuit/p2p/{host.peer_id}"
                )
                assert connection.is_relayed
                for request in (Reserve(), HopConnect(between.peer_id)):
                    assert await ask(connection, request) == refusal("PERMISSION_DENIED")
                assert host.service(RelayServer).reservations == 0


# ---- hole punching -----------------------------------------------------------------------


def punching(relays: Sequence[str], network: LoopbackNetwork) -> HostConfig:
    """Describe a victim that has a public address to offer, and little patience."""
    config = enclosed(edge(listen=LOOPBACK, relays=relays), network)
    hasty = DCUtR(exchange_timeout=0.3, punch_timeout=0.3, retry_pause=0.01, max_redials=2)
    services = [hasty if isinstance(part, DCUtR) else part for part in config.services]
    return dataclasses.replace(config, services=services, announce=["/ip4/192.88.98.1/tcp/4001"])


@asynccontextmanager
async def called(
    network: LoopbackNetwork | None = None,
) -> AsyncGenerator[tuple[Host, Connection], None]:
    """Yield a victim that called the attacker over a relay, and the attacker's connection."""
    async with open_host(idle_relay()) as between:
        relays = [first_address(between)]
        attacking = dataclasses.replace(bare(), services=[RelayClient(relays=relays)])
        config = punching(relays, network or LoopbackNetwork())
        async with open_host(attacking) as attacker, open_host(config) as host:
            await reserved(attacker)
            with attacker.subscribe(ConnectionOpened) as openings:
                await host.connect(attacker.peer_id)
                opened = await anext(openings)
            connection = attacker.connection(opened.connection.number)
            assert connection is not None
            assert connection.is_relayed
            yield host, connection


def punch(kind: str, addresses: Sequence[bytes] = ()) -> bytes:
    message = dcutr_pb2.HolePunch(type=kind, obs_addrs=addresses)
    return encode_frame(message.SerializeToString())


PLACE = encode(parse("/ip4/8.8.8.8/tcp/1"))
TALK = {
    "sync first": punch("SYNC"),
    "connect twice": punch("CONNECT", [PLACE]) + punch("CONNECT", [PLACE]),
    "garbage": encode_frame(b"\xff" * 50),
    "no type": encode_frame(b""),
    "a length without end": b"\xff" * 20,
    "ten thousand addresses": punch("CONNECT", [PLACE] * 10_000),
}


@pytest.mark.parametrize("kind", TALK)
async def test_a_hole_punch_against_the_rules_is_refused_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(PATIENCE):
        async with called() as (host, connection):
            with host.subscribe(PunchAttemptFailed) as failures:
                stream = await connection.open_stream(PUNCH)
                with suppress(*GONE):
                    await stream.send_all(TALK[kind])
                await anext(failures)
                await drain(stream)
            await still_serves(host)
            assert not connection.is_closed
    assert len(warnings(caplog)) == 1


async def test_silence_in_a_hole_punch_ends_and_the_attempts_are_counted() -> None:
    with trio.fail_after(PATIENCE):
        async with called() as (host, connection):
            with host.subscribe(PunchAttemptFailed) as failures:
                for _ in range(3):
                    await connection.open_stream(PUNCH)
                    await anext(failures)
                with pytest.raises(StreamReset):
                    await (await connection.open_stream(PUNCH)).receive_some()
            await still_serves(host)


async def test_a_hole_punch_on_a_direct_connection_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(idle_edge()) as host, infiltrated(host) as (_, connection):
            with pytest.raises(StreamReset):
                await (await connection.open_stream(PUNCH)).receive_some()
            await still_serves(host)
    assert len(warnings(caplog)) == 1


async def test_nobody_is_dialled_for_an_attacker() -> None:
    with trio.fail_after(PATIENCE), socket.create_server(("127.0.0.1", 0)) as third:
        third.setblocking(False)
        port = third.getsockname()[1]
        places = [
            f"/ip4/127.0.0.1/tcp/{port}",
            f"/ip6/::ffff:127.0.0.1/tcp/{port}",
            f"/dns4/localhost/tcp/{port}",
            f"/dns4/example.test/tcp/{port}",
            "/ip4/10.0.0.1/tcp/22",
            "/ip4/169.254.169.254/tcp/80",
            f"/ip4/127.0.0.1/tcp/{port}/p2p/{stranger()}",
        ]
        network = LoopbackNetwork()
        async with called(network) as (host, connection):
            with host.subscribe(PunchAttemptFailed) as failures:
                stream = await connection.open_stream(PUNCH)
                await stream.send_all(punch("CONNECT", [encode(parse(text)) for text in places]))
                await stream.send_all(punch("SYNC"))
                assert (await anext(failures)).reason == "the peer offered no public address"
            await still_serves(host)
            with pytest.raises(BlockingIOError):
                third.accept()
            assert not network.beyond


async def test_a_crowd_of_strangers_is_not_dialled_for_an_attacker() -> None:
    with trio.fail_after(PATIENCE):
        network = LoopbackNetwork()
        async with called(network) as (host, connection):
            crowd = [
                encode(parse(f"/ip4/8.8.{n}.8/tcp/{port}")) for n in range(8) for port in (1, 2)
            ]
            with host.subscribe(PunchAttemptFailed) as failures:
                stream = await connection.open_stream(PUNCH)
                await stream.send_all(punch("CONNECT", crowd) + punch("SYNC"))
                await anext(failures)
            assert len({endpoint.host for endpoint in network.beyond}) <= 4
            assert len(set(network.beyond)) <= 8
            assert len(network.beyond) <= 8 * 3
            await still_serves(host)


ANSWERS = {
    "sync": punch("SYNC"),
    "garbage": encode_frame(b"\xff" * 50),
    "an oversized message": encode_frame(bytes(10_000)),
    "nothing": b"",
    "places on this machine": punch("CONNECT", [encode(parse("/ip4/127.0.0.1/tcp/9"))] * 50),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_caller_who_answers_a_hole_punch_with_nonsense_is_given_up(kind: str) -> None:
    async def answer(stream: Stream) -> None:
        with suppress(*GONE):
            await stream.send_all(ANSWERS[kind])
            await drain(stream)

    with trio.fail_after(PATIENCE):
        network = LoopbackNetwork()
        async with open_host(idle_relay()) as between:
            relays = [first_address(between)]
            attacking = dataclasses.replace(bare(), services=[RelayClient(relays=relays)])
            config = punching(relays, network)
            async with open_host(config) as host, open_host(attacking) as attacker:
                attacker.handle(PUNCH, answer)
                await reserved(host)
                with host.subscribe(PunchGivenUp) as ends:
                    await attacker.connect(host.peer_id)
                    assert len((await anext(ends)).reasons) == 3
                assert not network.beyond
                await still_serves(host)
