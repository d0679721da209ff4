"""p2pnet as a benchmark peer. The contract is in README.md.

With ``qh3`` as its argument, QUIC has the fast core.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version

import trio
from trio_peer import HANDLERS, answer_lines

from p2pnet import (
    TCP,
    TLS,
    Connection,
    Host,
    HostConfig,
    Identify,
    Noise,
    Stream,
    WebSocket,
    open_host,
    presets,
)
from p2pnet.transports.quic import QUIC


class Node:
    """A host, as the works want it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._connections: dict[str, Connection] = {}

    async def connect(self, address: str) -> None:
        known = self._connections.get(address)
        if known is None or known.is_closed:
            connection = await self._host.connect(address)
            await self._host.service(Identify).wait_identified(connection)
            self._connections[address] = connection

    async def open(self, address: str, protocol: str) -> Stream:
        return await self._host.open_stream(self._connections[address].peer_id, protocol)

    async def disconnect(self, address: str) -> None:
        connection = self._connections.pop(address, None)
        if connection is not None:
            await connection.aclose()


def make_config() -> HostConfig:
    serving = os.environ["ROLE"] == "serve"
    config = presets.minimal(listen=[os.environ["LISTEN"]] if serving else [])
    return replace(
        config,
        transports=[TCP(), WebSocket(), QUIC(core="qh3" if "qh3" in sys.argv else "aioquic")],
        security=[TLS() if os.environ.get("SECURITY") == "tls" else Noise()],
    )


async def main() -> None:
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(open_host(make_config()))
            for _ in range(int(os.environ.get("HOSTS", "1")))
        ]
        addresses = []
        for host in hosts:
            for protocol, handler in HANDLERS.items():
                host.handle(protocol, handler)
            addresses += [str(address) for address in host.addresses.value]
        await answer_lines([Node(host) for host in hosts], version("p2pnet"), addresses)


if __name__ == "__main__":
    trio.run(main)
