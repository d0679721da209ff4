"""Whole hosts on loopback: what a user does, and what a hostile peer does."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio

from p2pnet.core.addresses import parse, tcp_endpoint
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    DialError,
    LimitedConnection,
    NegotiationFailed,
    PeerIdMismatch,
    ProtocolError,
    RelayRefused,
    StreamReset,
)
from p2pnet.events import ConnectionClosed, HolePunched, PeerIdentified, ReservationAccepted
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Part, Service, Stream
from p2pnet.presets import edge, minimal, relay
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.relay import RelayServer
from p2pnet.swarm.config import SwarmConfig

pytestmark = pytest.mark.sockets

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/test/echo/1.0.0"


async def serve_echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


def with_punching(config: HostConfig) -> HostConfig:
    """On loopback, let DCUtR dial addresses of this machine."""
    services: list[Part[Service]] = [
        DCUtR(allow_private=True) if isinstance(part, DCUtR) else part for part in config.services
    ]
    return dataclasses.replace(config, services=services)


def without_punching(config: HostConfig) -> HostConfig:
    services = [part for part in config.services if not isinstance(part, DCUtR)]
    return dataclasses.replace(config, services=services)


def first_address(host: Host) -> str:
    return str(host.addresses.value[0])


async def read_all(stream: Stream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def exchange(stream: Stream, data: bytes) -> bytes:
    async with stream:
        await stream.send_all(data)
        await stream.send_eof()
        return await read_all(stream)


async def test_two_hosts_echo_and_ping() -> None:
    async with open_host(edge(listen=LOOPBACK)) as server, open_host(minimal()) as client:
        server.handle(ECHO, serve_echo)
        connection = await client.connect(first_address(server))
        assert connection.peer_id == server.peer_id
        assert not connection.is_relayed
        assert await client.service(Ping).ping(server.peer_id) > 0
        async with await client.open_stream(server.peer_id, ECHO) as stream:
            assert stream.peer_id == server.peer_id
            await stream.send_all(b"hello")
            await stream.send_eof()
            assert await read_all(stream) == b"hello"


async def test_an_exception_of_the_block_leaves_it_bare() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_host(minimal()):
            raise KeyError("mine")


async def test_a_taken_port_is_an_oserror() -> None:
    async with open_host(minimal(listen=LOOPBACK)) as first:
        taken = first_address(first).rpartition("/p2p/")[0]
        with pytest.raises(OSError, match="in use"):
            async with open_host(minimal(listen=[taken])):
                pass


async def test_identify_tells_protocols_and_observed_address() -> None:
    async with (
        open_host(edge(listen=LOOPBACK)) as server,
        open_host(edge(listen=LOOPBACK)) as client,
    ):
        server.handle(ECHO, serve_echo)
        with client.subscribe(PeerIdentified) as identified:
            connection = await client.connect(first_address(server))
            info = await anext(identified)
        assert ECHO in info.protocols
        # Dials leave from the port that is listened on, so this is where others can dial.
        assert info.observed_address == parse(first_address(client).rpartition("/p2p/")[0])
        assert client.peers.protocols(connection.peer_id) == frozenset(info.protocols)


async def test_a_new_protocol_is_pushed_to_connected_peers() -> None:
    async with (
        open_host(edge(listen=LOOPBACK)) as server,
        open_host(edge(listen=LOOPBACK)) as client,
    ):
        with client.subscribe(PeerIdentified) as identified:
            await client.connect(first_address(server))
            await anext(identified)
            server.handle(ECHO, serve_echo)
            async for info in identified:
                if info.pushed and ECHO in info.protocols:
                    break


async def test_an_unknown_protocol_fails_and_leaves_the_connection() -> None:
    async with open_host(edge(listen=LOOPBACK)) as server, open_host(minimal()) as client:
        await client.connect(first_address(server))
        with pytest.raises(NegotiationFailed):
            await client.open_stream(server.peer_id, "/test/unknown")
        assert await client.service(Ping).ping(server.peer_id) > 0


async def test_a_failing_handler_resets_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(stream: Stream) -> None:
        raise RuntimeError("a bug of the user")

    async with open_host(edge(listen=LOOPBACK)) as server, open_host(minimal()) as client:
        server.handle("/test/fail", fail)
        await client.connect(first_address(server))
        with pytest.raises(StreamReset):
            await exchange(await client.open_stream(server.peer_id, "/test/fail"), b"")
        assert await client.service(Ping).ping(server.peer_id) > 0
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    caplog.clear()


async def test_the_wrong_peer_id_is_refused_with_the_address_and_the_cause() -> None:
    async with open_host(edge(listen=LOOPBACK)) as server, open_host(minimal()) as client:
        stranger = PeerId.from_public_key(PrivateKey.generate().public_key)
        address = first_address(server).rpartition("/p2p/")[0]
        with pytest.raises(DialError) as raised:
            await client.connect(f"{address}/p2p/{stranger}")
        (attempt,) = raised.value.attempts
        assert isinstance(attempt.cause, PeerIdMismatch)
        assert str(attempt.address) == address


async def answer_http(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_a_port_that_speaks_http_is_a_protocol_error() -> None:
    async with trio.open_nursery() as nursery:
        listeners: Sequence[trio.SocketListener] = await nursery.start(
            trio.serve_tcp, answer_http, 0
        )
        port = listeners[0].socket.getsockname()[1]
        peer = PeerId.from_public_key(PrivateKey.generate().public_key)
        async with open_host(minimal()) as client:
            with pytest.raises(DialError) as raised:
                await client.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")
        assert isinstance(raised.value.attempts[0].cause, ProtocolError)
        assert "HTTP" in str(raised.value)
        nursery.cancel_scope.cancel()


async def test_a_dead_address_does_not_keep_from_the_live_one() -> None:
    async with open_host(edge(listen=LOOPBACK)) as server, open_host(minimal()) as client:
        dead = parse("/ip4/127.0.0.1/tcp/1")
        client.peers.add_addresses(server.peer_id, [dead], seconds=60)
        connection = await client.connect(first_address(server))
        assert connection.peer_id == server.peer_id


async def test_a_silent_peer_is_dropped_when_its_time_is_up() -> None:
    config = minimal(listen=LOOPBACK)
    config = dataclasses.replace(config, swarm=SwarmConfig(upgrade_timeout=0.2))
    async with open_host(config) as host:
        endpoint = tcp_endpoint(parse(first_address(host)))
        assert endpoint is not None
        silent = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        async with silent:
            received = b"".join([bytes(chunk) async for chunk in silent])
        assert b"multistream" in received or received == b""


async def test_half_open_connections_are_bounded_and_the_oldest_give_way() -> None:
    config = minimal(listen=LOOPBACK)
    config = dataclasses.replace(config, swarm=SwarmConfig(max_pending_inbound=8))
    async with open_host(config) as host, open_host(minimal()) as honest:
        endpoint = tcp_endpoint(parse(first_address(host)))
        assert endpoint is not None
        silent = [await trio.open_tcp_stream(endpoint.host, endpoint.port) for _ in range(200)]
        # The oldest gave way: it is at its end, though its time was not up.
        async with silent[0]:
            async for _ in silent[0]:
                pass
        assert await honest.service(Ping).ping(first_address(host)) > 0
        for stream in silent[1:]:
            await trio.aclose_forcefully(stream)


async def test_garbage_ends_its_own_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with open_host(minimal(listen=LOOPBACK)) as host, open_host(minimal()) as honest:
        endpoint = tcp_endpoint(parse(first_address(host)))
        assert endpoint is not None
        for garbage in (b"\x00" * 64, b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02"):
            async with await trio.open_tcp_stream(endpoint.host, endpoint.port) as stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(garbage)
                    async for _ in stream:
                        pass
        assert await honest.service(Ping).ping(first_address(host)) > 0
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("127.0.0.1" in warning for warning in warnings)


async def test_streams_beyond_the_limit_are_reset_and_others_go_on() -> None:
    config = edge(listen=LOOPBACK)
    config = dataclasses.replace(config, swarm=SwarmConfig(max_inbound_streams=4))
    async with open_host(config) as server, open_host(minimal()) as client:
        server.handle(ECHO, serve_echo)
        with client.subscribe(PeerIdentified) as identified:
            connection = await client.connect(first_address(server))
            await anext(identified)
        streams = [await connection.open_stream(ECHO) for _ in range(8)]
        worked = 0
        for stream in streams:
            try:
                await stream.send_all(b"x")
                worked += await stream.receive_some(1) == b"x"
            except StreamReset:
                continue
        assert 1 <= worked <= 4


async def test_leaving_says_goodbye() -> None:
    async with open_host(minimal()) as client:
        with client.subscribe(ConnectionClosed) as closed:
            async with open_host(edge(listen=LOOPBACK)) as server:
                await client.connect(first_address(server))
            event = await anext(closed)
        assert event.connection.peer_id == server.peer_id


async def reserved(host: Host) -> None:
    await host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )


async def test_two_edges_meet_over_a_relay_by_peer_id() -> None:
    async with open_host(relay(listen=LOOPBACK)) as between:
        relays = [first_address(between)]
        config = without_punching(edge(listen=LOOPBACK, relays=relays))
        async with open_host(config) as there, open_host(config) as here:
            there.handle(ECHO, serve_echo)
            await reserved(there)
            connection = await here.connect(there.peer_id)
            assert connection.is_relayed
            assert connection.is_limited
            assert await here.service(Ping).ping(there.peer_id) > 0
            with pytest.raises(LimitedConnection):
                await here.open_stream(there.peer_id, ECHO, limited="refuse")
            stream = await here.open_stream(there.peer_id, ECHO, limited="allow")
            async with stream:
                await stream.send_all(b"over the relay")
                await stream.send_eof()
                assert await read_all(stream) == b"over the relay"


async def test_a_relayed_connection_becomes_direct() -> None:
    async with open_host(relay(listen=LOOPBACK)) as between:
        config = with_punching(edge(listen=LOOPBACK, relays=[first_address(between)]))
        async with open_host(config) as there, open_host(config) as here:
            there.handle(ECHO, serve_echo)
            await reserved(there)
            with there.subscribe(HolePunched) as punched:
                assert (await here.connect(there.peer_id)).is_relayed
                direct = await here.wait_direct(there.peer_id)
                assert (await anext(punched)).peer_id == here.peer_id
            assert not direct.is_relayed
            # With limited="wait", the default, the stream is on the direct connection.
            async with await here.open_stream(there.peer_id, ECHO) as stream:
                assert not stream.connection.is_relayed


async def test_a_peer_without_reservation_cannot_be_reached_and_the_error_says_so() -> None:
    async with open_host(relay(listen=LOOPBACK)) as between:
        stranger = PeerId.from_public_key(PrivateKey.generate().public_key)
        async with open_host(edge(listen=LOOPBACK, relays=[first_address(between)])) as here:
            with pytest.raises(DialError) as raised:
                await here.connect(stranger)
        (attempt,) = raised.value.attempts
        assert isinstance(attempt.cause, RelayRefused)
        assert attempt.cause.status == "NO_RESERVATION"


async def test_a_circuit_over_its_limit_is_reset() -> None:
    limits = RelayServer(circuit_bytes=50_000)
    async with open_host(relay(listen=LOOPBACK, limits=limits)) as between:
        config = without_punching(edge(listen=LOOPBACK, relays=[first_address(between)]))
        async with open_host(config) as there, open_host(config) as here:
            there.handle(ECHO, serve_echo)
            await reserved(there)
            connection = await here.connect(there.peer_id)
            stream = await connection.open_stream(ECHO)
            with pytest.raises(trio.BrokenResourceError):
                await exchange(stream, bytes(100_000))


async def test_a_reservation_is_made_anew_when_the_relay_comes_back() -> None:
    key = PrivateKey.generate()
    async with open_host(relay(key=key, listen=LOOPBACK)) as before:
        address = first_address(before)
        async with trio.open_nursery() as nursery:
            started = trio.Event()
            again = trio.Event()

            async def keep() -> None:
                async with open_host(edge(listen=LOOPBACK, relays=[address])) as host:
                    with host.subscribe(ReservationAccepted) as reservations:
                        await reserved(host)
                        reservations.take_waiting()
                        started.set()
                        await anext(reservations)
                        again.set()

            nursery.start_soon(keep)
            await started.wait()
            connection = before.connections()[0]
            await connection.aclose()
            await again.wait()
