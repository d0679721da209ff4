"""``p2pnet echo``: stdin to the remote and back to stdout; and the handler that does the echo."""

from __future__ import annotations

import os
import sys

import trio

from p2pnet.commands.output import CommandError
from p2pnet.core.tasks import leaves
from p2pnet.errors import ConnectionLost, StreamReset, describe
from p2pnet.host.host import Host
from p2pnet.interfaces import CircuitLimit, Stream, Target

ECHO = "/p2pnet/echo/1.0.0"
CHUNK_BYTES = 262_144
GO_DIRECT = "send less, or wait for a direct connection first, with --direct SECONDS"


class EchoCut(CommandError):
    """The stream ended before everything came back."""


async def serve_echo(stream: Stream) -> None:
    """Send back what comes, until its end."""
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def echo(host: Host, target: Target, *, direct_seconds: float = 0.0) -> int:
    """Send stdin to the remote's echo, and what comes back to stdout.

    Raises:
        EchoCut: if the stream ended early, as at the limits of a relay.
    """
    connection = await host.connect(target)
    if connection.is_relayed:
        with trio.move_on_after(direct_seconds):
            await host.wait_direct(connection.peer_id)
    stream = await host.open_stream(connection.peer_id, ECHO, limited="allow")
    try:
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send_stdin, stream)
            async for chunk in stream:
                await trio.to_thread.run_sync(write_stdout, bytes(chunk))
            nursery.cancel_scope.cancel()
    except* (StreamReset, ConnectionLost) as lost:
        limit = stream.connection.limit
        why = "; ".join(dict.fromkeys(map(describe, leaves(lost))))
        if limit is None:
            raise EchoCut(f"the stream was cut: {why}") from None
        raise EchoCut(f"the stream was cut: {why}; {say(limit)}", GO_DIRECT) from None
    return 0


def say(limit: CircuitLimit) -> str:
    allowed = []
    if limit.data_bytes is not None:
        allowed.append(f"{limit.data_bytes} bytes each way")
    if limit.seconds is not None:
        allowed.append(f"{limit.seconds:g} seconds")
    return f"the relay allows a connection {' and '.join(allowed) or 'some unknown amount'}"


async def send_stdin(stream: Stream) -> None:
    while sys.stdin is not None:  # None if the command was started without one
        chunk = await trio.to_thread.run_sync(
            os.read, sys.stdin.fileno(), CHUNK_BYTES, abandon_on_cancel=True
        )
        if not chunk:
            break
        await stream.send_all(chunk)
    await stream.send_eof()


def write_stdout(data: bytes) -> None:
    if sys.stdout is None:
        raise BrokenPipeError("there is no stdout")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
