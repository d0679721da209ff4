"""What a hostile peer has at hand: raw sockets, a genuine handshake, yamux frames by hand."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2pnet.core.addresses import Endpoint, Scope, parse, scope, tcp_endpoint
from p2pnet.core.env import ByteStream, Env, RecordKind, SystemNetwork
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Connection, Kit, Role
from p2pnet.muxers.yamux.messages import (
    DATA,
    HEADER_BYTES,
    SYN,
    WINDOW_UPDATE,
    Header,
    decode_untrusted,
    encode,
)
from p2pnet.negotiation.driver import select_one
from p2pnet.negotiation.machine import HEADER, encode_line
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.presets import minimal
from p2pnet.protocols.ping import Ping
from p2pnet.security.noise import Noise
from p2pnet.swarm.config import SwarmConfig

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
PATIENCE = 120
"""Seconds until a test that hangs is given up; no test waits for it."""
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class LoopbackNetwork(SystemNetwork):
    """A network that ends at this machine; it remembers who was to be dialled beyond."""

    def __init__(self) -> None:
        self.beyond: list[Endpoint] = []

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        if not ipaddress.ip_address(remote.host).is_loopback:
            self.beyond.append(remote)
            await trio.lowlevel.checkpoint()
            raise OSError(errno.ENETUNREACH, "tests do not leave this machine")
        return await super().dial_tcp(remote, local=local)

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.ENETUNREACH, f"tests do not ask for {name}")


def enclosed(config: HostConfig, network: LoopbackNetwork | None = None) -> HostConfig:
    """Keep a host on this machine; every host of these tests is."""
    env = dataclasses.replace(Env.system(), network=network or LoopbackNetwork())
    return dataclasses.replace(config, env=env)


def victim(swarm: SwarmConfig | None = None) -> HostConfig:
    """Describe a small host on loopback, maybe with other bounds than the default ones."""
    config = dataclasses.replace(minimal(listen=LOOPBACK), swarm=swarm or SwarmConfig())
    return enclosed(config)


def bare() -> HostConfig:
    """Describe a host without any protocol of its own: the attacker handles them as it likes."""
    return enclosed(dataclasses.replace(minimal(), services=[]))


def first_address(host: Host) -> str:
    """Return where a host listens on loopback, whatever else it announces."""
    return next(str(a) for a in host.addresses.value if scope(a) is Scope.LOOPBACK)


async def still_serves(host: Host) -> None:
    """Make sure that an honest client that comes now is served."""
    with trio.fail_after(PATIENCE):
        async with open_host(enclosed(minimal())) as honest:
            await honest.connect(first_address(host))
            assert await honest.service(Ping).ping(host.peer_id) > 0


@asynccontextmanager
async def attacked(config: HostConfig | None = None) -> AsyncGenerator[Host, None]:
    """Open a host for an attack; when that is over, make sure that it still serves others."""
    with trio.fail_after(PATIENCE):
        async with open_host(config or victim()) as host:
            yield host
            await still_serves(host)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what p2pnet logged as WARNING."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.startswith("p2pnet")
    ]


def resident_bytes() -> int:
    """Return how much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# ---- raw bytes ---------------------------------------------------------------------------


def place(host: Host) -> tuple[str, int]:
    endpoint = tcp_endpoint(parse(first_address(host)))
    assert endpoint is not None
    return endpoint.host, endpoint.port


async def dial(host: Host) -> trio.SocketStream:
    return await trio.open_tcp_stream(*place(host))


def dial_at_once(host: Host) -> socket.socket:
    """Connect without a pause; on loopback that waits for nobody."""
    return socket.create_connection(place(host))


async def drain(stream: trio.abc.ReceiveStream) -> bytes:
    """Read until the other side ends it, however it does."""
    received = bytearray()
    with suppress(*GONE):
        async for chunk in stream:
            received += chunk
    return bytes(received)


async def say(stream: trio.SocketStream, data: bytes) -> bytes:
    """Send, end the sending, and return what was answered until the host hung up."""
    with suppress(*GONE):
        await stream.send_all(data)
        await stream.send_eof()
    return await drain(stream)


async def shout(host: Host, data: bytes) -> bytes:
    """Connect, and say only that."""
    async with await dial(host) as stream:
        return await say(stream, data)


# ---- behind a genuine handshake ----------------------------------------------------------


async def negotiate_noise(host: Host) -> trio.SocketStream:
    stream = await dial(host)
    await select_one(stream, ["/noise"])
    return stream


async def shake_hands(stream: trio.SocketStream, key: PrivateKey | None = None) -> trio.abc.Stream:
    """Return a secured stream, to speak yamux on."""
    key = key or PrivateKey.generate()
    kit = Kit(Env.system(), key, PeerId.from_public_key(key.public_key), LayeredUpgrader())
    noise = Noise().build(kit)
    secured = await noise.secure(stream, Role.DIALER, expected=None, muxers=["/yamux/1.0.0"])
    assert secured.muxer == "/yamux/1.0.0"
    return secured.stream


@dataclass
class RawYamux:
    """A yamux connection as its dialer, where every frame is the attacker's own."""

    stream: trio.abc.Stream
    _buffer: bytearray = field(default_factory=bytearray)

    async def send(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        await self.stream.send_all(encode(kind, flags, stream_id, length))

    async def data(self, stream_id: int, payload: bytes, flags: int = 0) -> None:
        await self.stream.send_all(encode(DATA, flags, stream_id, len(payload)) + payload)

    async def open(self, stream_id: int, *protocols: str) -> None:
        await self.stream.send_all(encode(WINDOW_UPDATE, SYN, stream_id, 0))
        await self.data(stream_id, lines(HEADER, *protocols))

    async def receive(self) -> tuple[Header, bytes] | None:
        """Return the next frame; None once the host hung up."""
        head = await self._read(HEADER_BYTES)
        if not head:
            return None
        header = decode_untrusted(head)
        return header, await self._read(header.length if header.kind == DATA else 0)

    async def _read(self, count: int) -> bytes:
        with suppress(*GONE):
            while len(self._buffer) < count:
                chunk = await self.stream.receive_some()
                if not chunk:
                    break
                self._buffer += chunk
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data if len(data) == count else b""

    async def wait_for(self, kind: int, stream_id: int) -> tuple[Header, bytes]:
        """Pass over all frames up to one of a kind, about a stream."""
        while frame := await self.receive():
            if (frame[0].kind, frame[0].stream_id) == (kind, stream_id):
                return frame
        raise AssertionError("the host hung up")

    async def rest(self) -> list[Header]:
        """Return the headers of all that the host still sends; it has to hang up."""
        headers = []
        while frame := await self.receive():
            headers.append(frame[0])
        return headers


@asynccontextmanager
async def muxed(host: Host) -> AsyncGenerator[RawYamux, None]:
    stream = await shake_hands(await negotiate_noise(host))
    try:
        yield RawYamux(stream)
    finally:
        await trio.aclose_forcefully(stream)


def lines(*texts: str) -> bytes:
    return b"".join(encode_line(text) for text in texts)


# ---- a host that misuses protocols -------------------------------------------------------


@asynccontextmanager
async def infiltrated(host: Host) -> AsyncGenerator[tuple[Host, Connection], None]:
    """Connect a host without protocols of its own."""
    async with open_host(bare()) as attacker:
        yield attacker, await attacker.connect(first_address(host))
