"""``p2pnet echo``: stdin to the remote and back to stdout; and the handler that does the echo."""

from __future__ import annotations

import os
import sys

import trio

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.host.host import Host
from p2pnet.interfaces import Stream, Target

ECHO = "/p2pnet/echo/1.0.0"
CHUNK_BYTES = 262_144


class EchoCut(Exception):
    """The stream ended before everything came back."""


async def serve_echo(stream: Stream) -> None:
    """Send back what comes, until its end."""
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def echo(host: Host, target: Target) -> int:
    """Send stdin to the remote's echo, and what comes back to stdout."""
    stream = await host.open_stream(target, ECHO, limited="allow")
    try:
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send_stdin, stream)
            async for chunk in stream:
                await trio.to_thread.run_sync(write_stdout, bytes(chunk))
            nursery.cancel_scope.cancel()
    except* (StreamReset, ConnectionLost) as lost:
        limit = stream.connection.limit
        why = "; ".join(str(error) for error in lost.exceptions)
        if limit is not None:
            why += f"; the relay allows {limit.data_bytes} bytes and {limit.seconds} seconds"
        raise EchoCut(f"the stream was cut: {why}") from None
    return 0


async def send_stdin(stream: Stream) -> None:
    while True:
        chunk = await trio.to_thread.run_sync(
            os.read, sys.stdin.fileno(), CHUNK_BYTES, abandon_on_cancel=True
        )
        if not chunk:
            break
        await stream.send_all(chunk)
    await stream.send_eof()


def write_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
