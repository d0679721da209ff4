"""Rules W4, W14, W15 and W16: certificates, time limits, and what is refused beforehand."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import memory_stream_pair

from p2pnet import HostConfig, Identify, Noise, Ping, Yamux, open_host
from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import AddressUnsupported, ExtraMissing, P2PError, SecurityError
from p2pnet.interfaces import Kit
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.security.tls import TLSStream
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.conformance.wires import read_exactly
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.tcp import TCP
from p2pnet.transports.websocket import WebSocket
from p2pnet.transports.websocket.outer_tls import (
    MAX_HANDSHAKE_BYTES,
    ServerIdentity,
    client_context,
    secure_as_client,
    secure_as_server,
    server_context,
)
from p2pnet.transports.websocket.transport import WebSocketTransport
from tests.transports.websocket.web_authority import Authority, Issued

KEY = PrivateKey.generate()
PEER = PeerId.from_public_key(KEY.public_key)
AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("a.example", "10.0.0.1")
SERVER = server_context(ISSUED.certificate, ISSUED.key)
VERSION_2, VERSION_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def kit_of(env: Env) -> Kit:
    return Kit(env, KEY, PEER, LayeredUpgrader())


def build(env: Env, part: WebSocket | None = None) -> WebSocketTransport:
    return (part or WebSocket()).build(kit_of(env))


# ---- the part ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"connect_timeout": 0},
        {"handshake_timeout": -1},
        {"max_head_bytes": 100},
        {"max_frame_bytes": 100},
        {"max_message_bytes": 100},
        {"certificate": b"x"},
        {"key": b"x"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WebSocket(**wrong)  # type: ignore[arg-type]


def test_the_key_is_not_shown() -> None:
    part = WebSocket(certificate=ISSUED.certificate, key=ISSUED.key)
    assert "PRIVATE" not in repr(part)


async def test_a_missing_extra_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("p2pnet.transports.websocket.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    with pytest.raises(ExtraMissing, match=r"p2pnet\[ws\]"):
        WebSocket().build(kit_of(world.machine().env))


async def test_without_a_certificate_there_is_no_listening_for_tls(world: World) -> None:
    transport = build(world.machine().env)
    with pytest.raises(AddressUnsupported, match="certificate"):
        await transport.listen(parse("/ip4/10.0.0.1/tcp/443/tls/ws"))


# ---- certificates ------------------------------------------------------------------------


async def secured(
    issued: Issued, name: str, authority: Authority = AUTHORITY
) -> tuple[TLSStream, TLSStream]:
    """Let a client ask for a name, and a server show a certificate."""
    near, far = memory_stream_pair()
    context = server_context(issued.certificate, issued.key)
    servers: list[TLSStream] = []

    async def serve() -> None:
        with suppress(SecurityError):  # The client's alert.
            servers.append(await secure_as_server(far, context))

    with bare_exceptions():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            client = await secure_as_client(near, client_context(authority.pem), name)
    return client, servers[0]


@pytest.mark.parametrize("name", ["a.example", "10.0.0.1"])
async def test_w14_w15_a_certificate_for_the_name_or_the_ip_is_taken(name: str) -> None:
    client, server = await secured(ISSUED, name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"hello")
        assert await server.receive_some() == b"hello"


@pytest.mark.parametrize("versions", [(VERSION_2, VERSION_2), (VERSION_2, VERSION_3)])
@pytest.mark.parametrize("is_client", [True, False])
async def test_w15_the_tls_of_others_understands_ours(
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion], is_client: bool
) -> None:
    """Their end is trio's, of the standard library."""
    near, far = memory_stream_pair()
    theirs = client_context(AUTHORITY.pem)
    if not is_client:
        theirs = server_context(ISSUED.certificate, ISSUED.key)
    theirs.minimum_version, theirs.maximum_version = versions
    name = "a.example" if is_client else None
    stranger = trio.SSLStream(
        far, theirs, server_side=not is_client, server_hostname=name, https_compatible=True
    )
    made: list[TLSStream] = []

    async def shake_hands() -> None:
        if is_client:
            made.append(await secure_as_server(near, SERVER))
        else:
            made.append(await secure_as_client(near, client_context(AUTHORITY.pem), "a.example"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.do_handshake)
        nursery.start_soon(shake_hands)
    (ours,) = made
    assert stranger.selected_alpn_protocol() == "http/1.1"
    words = bytes(range(256)) * 1200
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, words)
        assert await read_exactly(stranger, len(words)) == words
        nursery.start_soon(stranger.send_all, words)
        assert await read_exactly(ours, len(words)) == words
        nursery.start_soon(ours.aclose)
        assert await stranger.receive_some() == b""


@pytest.mark.parametrize("is_silent", [True, False])
async def test_w11_the_end_is_an_end_with_tls_s_word_for_it_or_without(is_silent: bool) -> None:
    near, far = memory_stream_pair()
    made: list[TLSStream] = []

    async def serve() -> None:
        made.append(await secure_as_server(far, SERVER))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await secure_as_client(near, client_context(AUTHORITY.pem), "a.example")
    if is_silent:
        await near.send_eof()
    else:
        await client.aclose()
    assert await made[0].receive_some() == b""
    assert await made[0].receive_some() == b""


async def test_w15_a_handshake_without_end_is_ended() -> None:
    """A client passes over a HelloRequest, and over however many of them."""
    near, far = memory_stream_pair()
    hello_request = bytes.fromhex("1603030004 00000000")
    await far.send_all(hello_request * 20_000)
    with pytest.raises(SecurityError, match="no end"):
        await secure_as_client(near, client_context(AUTHORITY.pem), "a.example")
    assert len(await near.receive_some()) == 180_000 - MAX_HANDSHAKE_BYTES


@pytest.mark.parametrize(
    ("issued", "name", "authority", "reason"),
    [
        (ISSUED, "b.example", AUTHORITY, "b.example"),
        (ISSUED, "10.0.0.2", AUTHORITY, "10.0.0.2"),
        (ISSUED, "a.example", Authority(), "certificate"),
        (AUTHORITY.issue("a.example", is_expired=True), "a.example", AUTHORITY, "expired"),
    ],
)
async def test_w14_any_other_certificate_is_refused(
    issued: Issued, name: str, authority: Authority, reason: str
) -> None:
    with pytest.raises(SecurityError, match=reason):
        await secured(issued, name, authority)


@pytest.mark.parametrize(
    "noise", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(100), b"\x16\x03\x01"]
)
@pytest.mark.parametrize("is_client", [True, False])
async def test_w14_what_is_no_tls_is_a_typed_error(noise: bytes, is_client: bool) -> None:
    near, far = memory_stream_pair()
    await far.send_all(noise)
    await far.send_eof()
    if is_client:
        shake_hands = partial(
            secure_as_client, near, client_context(AUTHORITY.pem), server_name="a.example"
        )
    else:
        context = server_context(ISSUED.certificate, ISSUED.key)
        shake_hands = partial(secure_as_server, near, context)
    with pytest.raises((SecurityError, trio.BrokenResourceError)):
        await shake_hands()


async def test_w16_a_renewed_certificate_is_shown_and_half_a_renewal_is_not(
    tmp_path: Path, autojump_clock: object
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    renewed = AUTHORITY.issue("a.example")
    chain.write_bytes(ISSUED.certificate)
    key.write_bytes(ISSUED.key)
    identity = ServerIdentity(chain, str(key))
    first = identity.context()
    chain.write_bytes(renewed.certificate)
    os.utime(chain, (1, 1))
    assert identity.context() is first
    await trio.sleep(11)
    assert identity.context() is first  # The key is still the old one.
    key.unlink()
    await trio.sleep(11)
    assert identity.context() is first
    key.write_bytes(renewed.key)
    await trio.sleep(11)
    second = identity.context()
    assert second is not first
    await trio.sleep(11)
    assert identity.context() is second


async def test_w16_a_renewal_that_fails_is_told_once(
    tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(ISSUED.certificate)
    key.write_bytes(ISSUED.key)
    identity = ServerIdentity(chain, key)
    chain.write_bytes(AUTHORITY.issue("a.example").certificate)
    os.utime(chain, (1, 1))
    for _ in range(3):
        await trio.sleep(11)
        identity.context()
    (told,) = caplog.messages
    assert told.startswith("the certificate of WebSocket stays as it was")
    assert "mismatch" in told.lower()


def test_an_encrypted_key_is_refused_and_asks_nobody_for_a_password() -> None:
    key = serialization.load_pem_private_key(ISSUED.key, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ValueError, match="encrypted"):
        server_context(ISSUED.certificate, encrypted)


@pytest.mark.parametrize(
    ("certificate", "key"),
    [(b"", ISSUED.key), (ISSUED.certificate, b""), (ISSUED.certificate, AUTHORITY.issue("a").key)],
)
def test_a_certificate_that_is_none_is_refused(certificate: bytes, key: bytes) -> None:
    with pytest.raises(OSError, match=r"."):
        server_context(certificate, key)


# ---- time --------------------------------------------------------------------------------


@asynccontextmanager
async def silence(machine: Machine) -> AsyncGenerator[Endpoint]:
    """Accept one connection and say nothing."""
    listener = await machine.env.network.listen_tcp(Endpoint(machine.addresses[0], 4001))
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            async with await listener.accept():
                await trio.sleep_forever()

        nursery.start_soon(accept)
        yield listener.local
        nursery.cancel_scope.cancel()
    await listener.aclose()


@pytest.mark.parametrize("form", ["ws", "tls/ws"])
async def test_w4_a_server_that_is_silent_is_given_up(world: World, form: str) -> None:
    here, there = world.machine(), world.machine()
    transport = build(there.env, WebSocket(handshake_timeout=3))
    async with silence(here) as end:
        started = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await transport.dial(parse(f"/ip4/{end.host}/tcp/{end.port}/{form}"), peer_id=PEER)
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("form", ["ws", "tls/ws"])
@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_w4_a_client_that_does_not_finish_is_given_up(
    world: World, form: str, words: bytes
) -> None:
    here, there = world.machine(), world.machine()
    part = WebSocket(handshake_timeout=3, certificate=ISSUED.certificate, key=ISSUED.key)
    listener = await build(here.env, part).listen(
        parse(f"/ip4/{here.addresses[0]}/tcp/4001/{form}")
    )
    stream = await there.env.network.dial_tcp(Endpoint(here.addresses[0], 4001))
    if words:
        await stream.send_all(words)
    pending = await listener.accept()
    started = trio.current_time()
    with pytest.raises((trio.TooSlowError, P2PError)):
        await pending.upgrade()
    assert trio.current_time() - started <= 3
    await stream.aclose()
    await listener.aclose()


# ---- hosts -------------------------------------------------------------------------------


def sharing(env: Env, *listen: str, web: WebSocket | None = None) -> HostConfig:
    return HostConfig(
        env=env,
        listen=listen,
        transports=[TCP(), web or WebSocket()],
        security=[Noise()],
        muxers=[Yamux()],
        services=[Identify(), Ping()],
    )


async def test_w20_hosts_meet_at_one_port_in_a_simulated_world(world: World) -> None:
    machine = world.machine()
    issued = AUTHORITY.issue(machine.addresses[0])
    web = WebSocket(certificate=issued.certificate, key=issued.key, authorities=AUTHORITY.pem)
    base = f"/ip4/{machine.addresses[0]}/tcp/4001"
    listen = (base, f"{base}/ws", f"{base}/tls/ws")

    async with open_host(sharing(machine.env, *listen, web=web)) as host:
        for address in listen:
            async with open_host(sharing(world.machine().env, web=web)) as guest:
                connection = await guest.connect(f"{address}/p2p/{host.peer_id}")
                assert str(connection.remote_address) == address
                await guest.service(Ping).ping(host.peer_id)


async def test_w22_the_silent_at_a_shared_port_are_few_and_gone_in_time(world: World) -> None:
    """S6: whoever has not said what it speaks is counted among those that prove nothing."""
    machine = world.machine()
    base = f"/ip4/{machine.addresses[0]}/tcp/4001"
    swarm = SwarmConfig(max_pending_inbound=8, upgrade_timeout=5.0)
    config = replace(sharing(machine.env, base, f"{base}/ws"), swarm=swarm)
    async with open_host(config) as host:
        there = Endpoint(machine.addresses[0], 4001)
        crowd = [world.machine() for _ in range(20)]
        silent = [await each.env.network.dial_tcp(there) for each in crowd]
        await trio.sleep(0.5)
        assert len(host._swarm._pending) == 8
        for address in (base, f"{base}/ws"):
            async with open_host(sharing(world.machine().env)) as guest:
                connection = await guest.connect(f"{address}/p2p/{host.peer_id}")
                assert str(connection.remote_address) == address
        await trio.sleep(5)
        assert len(host._swarm._pending) == 0
        for stream in silent:
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
            await stream.aclose()
