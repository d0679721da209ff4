"""For the tests of identify: hosts with the service, and peers that say what a test wants."""

from __future__ import annotations

import trio

from p2pnet.core.channel import read_frame
from p2pnet.interfaces import Stream
from p2pnet.protocols.identify import Identify, IdentifyService
from p2pnet.protocols.identify.messages import (
    IDENTIFY,
    MAX_MESSAGE_BYTES,
    PUSH,
    IdentifyMessage,
    decode_untrusted,
    frames,
)
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld

HERE, THERE = "/ip4/11.0.0.1/tcp/4001", "/ip4/11.0.0.2/tcp/4002"
RELAY_ID = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
CIRCUIT = f"/ip4/11.9.9.9/tcp/4001/p2p/{RELAY_ID}/p2p-circuit"


async def started(host: MemoryHost, config: Identify | None = None) -> IdentifyService:
    service = (config or Identify()).build(host.kit)
    await host.start(service)
    return service


async def pair(world: MemoryWorld) -> tuple[MemoryHost, MemoryHost]:
    """Make a host with the service, and one that only answers what a test tells it to."""
    host, peer = world.host(1, HERE), world.host(2, THERE)
    await started(host)
    return host, peer


def tells(peer: MemoryHost, message: IdentifyMessage) -> None:
    """Let a peer answer identify with a message."""

    async def answer(stream: Stream) -> None:
        await stream.send_all(frames(message))

    peer.handlers[IDENTIFY] = answer


async def push(connection: MemoryConnection, message: IdentifyMessage) -> None:
    stream = await connection.open_stream(PUSH)
    await stream.send_all(frames(message))
    await stream.send_eof()
    await trio.sleep(1)


async def read_all(stream: Stream) -> IdentifyMessage:
    parts = []
    while True:
        try:
            parts.append(
                await read_frame(stream, max_bytes=MAX_MESSAGE_BYTES, protocol_id=IDENTIFY)
            )
        except EOFError:
            return decode_untrusted(parts)


async def never(stream: Stream) -> None:
    raise AssertionError("nobody opens this")
