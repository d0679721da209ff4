"""The other end of a benchmark, in a process of its own. Prints where it listens."""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading

import trio

from p2pnet import Stream, open_host, presets
from p2pnet.commands.echo import ECHO, serve_echo

SINK = "/p2pnet/bench/sink/1.0.0"
MEMORY = "/p2pnet/bench/memory/1.0.0"
RECEIVE_BYTES = 262_144


async def serve_sink(stream: Stream) -> None:
    """Read to the end, then answer with the number of bytes."""
    total = 0
    async for chunk in stream:
        total += len(chunk)
    await stream.send_all(total.to_bytes(8, "big"))
    await stream.send_eof()


async def serve_memory(stream: Stream) -> None:
    """Answer with the resident memory of this process, in bytes."""
    await stream.send_all(resident_bytes().to_bytes(8, "big"))
    await stream.send_eof()


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def serve_raw(listener: socket.socket) -> None:
    """Count what comes over plain blocking sockets: the most this machine can do."""
    while True:
        connection, _ = listener.accept()
        with connection:
            total = 0
            while received := len(connection.recv(RECEIVE_BYTES)):
                total += received
            connection.sendall(total.to_bytes(8, "big"))


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve_raw, args=[listener], daemon=True).start()
    async with open_host(presets.minimal(listen=["/ip4/127.0.0.1/tcp/0"])) as host:
        host.handle(ECHO, serve_echo)
        host.handle(SINK, serve_sink)
        host.handle(MEMORY, serve_memory)
        told = {"address": str(host.addresses.value[0]), "raw_port": listener.getsockname()[1]}
        print(json.dumps(told), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main)
