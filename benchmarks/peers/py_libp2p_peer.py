"""py-libp2p as a benchmark peer. The contract is in README.md.

Its `connect` waits a fixed 250 ms, so what is measured is the dial below it, without identify.
"""

# ruff: noqa: ANN001, ANN201 - its types are not here where this is checked.

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from importlib.metadata import version

import trio
from libp2p import generate_new_ed25519_identity, new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import new_resource_manager
from libp2p.security.noise import transport as noise
from libp2p.security.tls import transport as tls
from multiaddr import Multiaddr
from trio_peer import BLOCK, HANDLERS, answer_lines


class Channel:
    """A stream with the names of trio."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self.send_all = stream.write
        self.send_eof = stream.close_write
        self.aclose = stream.close

    async def receive_some(self) -> bytes:
        try:
            return await self._stream.read(len(BLOCK))
        except StreamEOF:
            return b""


class Node:
    """A host, as the works want it."""

    def __init__(self, host) -> None:
        self._host = host
        self._connections: dict = {}

    async def connect(self, address: str) -> None:
        if address not in self._connections:
            where = Multiaddr(address)
            peer_id = split_peer(address)
            dial = self._host.get_network().dial_addr
            self._connections[address] = await dial(where, peer_id)

    async def open(self, address: str, protocol: str) -> Channel:
        return Channel(await self._host.new_stream(split_peer(address), [protocol]))

    async def disconnect(self, address: str) -> None:
        connection = self._connections.pop(address, None)
        if connection is not None:
            await connection.close()


def split_peer(address: str):
    return ID.from_base58(address.split("/p2p/")[1])


def make_host():
    listen = os.environ["LISTEN"]
    key = generate_new_ed25519_identity()
    if os.environ.get("SECURITY") == "tls":
        security = {tls.PROTOCOL_ID: tls.TLSTransport(key)}
    else:
        own = noise.Transport(key, noise_privkey=new_x25519().private_key)
        security = {noise.PROTOCOL_ID: own}
    return new_host(
        key_pair=key,
        resource_manager=new_resource_manager(connection_limits=ConnectionLimits()),
        sec_opt=security,
        enable_tcp="/tcp/" in listen and not listen.endswith("/ws"),
        enable_websocket=listen.endswith("/ws"),
        enable_quic="/quic-v1" in listen,
    )


def handling(serve):
    async def handle(stream) -> None:
        # What leaves a handler would end the whole process.
        try:
            await serve(Channel(stream))
        except Exception:
            logging.exception("a handler broke off")

    return handle


async def main() -> None:
    listen = [Multiaddr(os.environ["LISTEN"])] if os.environ["ROLE"] == "serve" else []
    async with AsyncExitStack() as stack:
        hosts = [make_host() for _ in range(int(os.environ.get("HOSTS", "1")))]
        addresses = []
        for host in hosts:
            for protocol, serve in HANDLERS.items():
                host.set_stream_handler(protocol, handling(serve))
            await stack.enter_async_context(host.run(listen_addrs=listen))
            addresses += [str(address) for address in host.get_addrs()][: len(listen)]
        await answer_lines([Node(host) for host in hosts], version("libp2p"), addresses)
        os._exit(0)  # It takes its time to close, which nobody waits for.


if __name__ == "__main__":
    trio.run(main)
