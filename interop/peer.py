"""p2pnet as a peer of the interop matrix. The contract is in README.md."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping

import trio

from p2pnet import (
    TCP,
    TLS,
    HostConfig,
    Noise,
    Perf,
    Ping,
    PrivateKey,
    RelayServer,
    WebSocket,
    open_host,
    presets,
)
from p2pnet.commands.echo import ECHO, serve_echo
from p2pnet.core.addresses import is_relayed
from p2pnet.errors import describe
from p2pnet.events import AddressTested
from p2pnet.host.host import Host
from p2pnet.interfaces import Connection, Part, Security, Service, Stream, Transport
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat_v1 import AutoNATv1, AutoNATv1Server
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.identify import Identify
from p2pnet.security.pnet import PreSharedKey
from p2pnet.transports.quic import QUIC

CHUNK_BYTES = 65_536
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
AUTONAT: dict[str, Part[Service]] = {
    "v1-client": AutoNATv1(),
    "v1-server": AutoNATv1Server(),
    "v2-client": AutoNAT(),
    "v2-server": AutoNATServer(),
}
QUIC_CORES = {"aioquic": QUIC(), "qh3": QUIC(core="qh3")}
SECURITY: dict[str, Part[Security]] = {"noise": Noise(), "tls": TLS()}


def make_config(env: Mapping[str, str]) -> HostConfig:
    if env.get("MUXER", "yamux") != "yamux":
        raise ValueError("this peer speaks yamux")
    psk = PreSharedKey.from_file(env["PSK_FILE"]) if env.get("PSK_FILE") else None
    transports: list[Part[Transport]] = [TCP(), WebSocket()]
    if psk is None:
        quic = QUIC_CORES[env.get("QUIC_CORE", "aioquic")]
        is_strict = env.get("QUIC_RETRY", "0") == "1"
        transports.append(dataclasses.replace(quic, retry_above=0) if is_strict else quic)
    config = choose_preset(env)
    return dataclasses.replace(
        config,
        services=[*config.services, Perf()],
        transports=transports,
        security=[SECURITY[env.get("SECURITY", "noise")]],
        private_network=psk,
    )


def choose_preset(env: Mapping[str, str]) -> HostConfig:
    seed = env.get("KEY_SEED")
    key = PrivateKey.from_seed(bytes.fromhex(seed)) if seed else PrivateKey.generate()
    role = env["ROLE"]
    listen = [a for a in env.get("LISTEN", "" if role == "dial" else LOOPBACK).split(",") if a]
    if env.get("AUTONAT"):
        config = presets.minimal(key=key, listen=listen)
        services = [*config.services, AUTONAT[env["AUTONAT"]]]
        return dataclasses.replace(config, services=services)
    if role == "relay":
        unlimited = RelayServer(circuit_seconds=0, circuit_bytes=0)
        limited = env.get("RELAY_LIMITED", "1") == "1"
        return presets.relay(key=key, listen=listen, limits=None if limited else unlimited)
    relays = [env["RELAY"]] if env.get("RELAY") else []
    foreseen = int(env.get("PREDICTED_PORTS", DCUtR().predicted_ports))
    punching = DCUtR(predicted_ports=foreseen)
    config = presets.edge(key=key, listen=listen, relays=relays, services=[punching])
    if env.get("HOLE_PUNCH", "0") == "1":
        return config
    without = [part for part in config.services if not isinstance(part, DCUtR)]
    return dataclasses.replace(config, services=without)


async def serve(env: Mapping[str, str]) -> int:
    async with open_host(make_config(env)) as host:
        host.handle(ECHO, serve_echo)
        if env.get("RELAY"):
            with trio.fail_after(float(env.get("TIMEOUT_SECONDS", "60"))):
                await host.addresses.wait_for(lambda addresses: any(map(is_relayed, addresses)))
        circuits = [str(address) for address in host.addresses.value if is_relayed(address)]
        addresses = [str(address) for address in host.addresses.value]
        own = {"peer_id": str(host.peer_id), "addresses": addresses, "circuit_addresses": circuits}
        print(json.dumps(own), flush=True)
        await wait_end()
    return 0


async def wait_end() -> None:
    """Wait until stdin ends or SIGTERM comes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_stdin, nursery)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
        nursery.cancel_scope.cancel()


async def wait_stdin(nursery: trio.Nursery) -> None:
    while await trio.to_thread.run_sync(os.read, 0, CHUNK_BYTES, abandon_on_cancel=True):
        pass
    nursery.cancel_scope.cancel()


async def dial(env: Mapping[str, str], result: dict[str, object]) -> None:
    async with open_host(make_config(env)) as host:
        result["peer_id"] = str(host.peer_id)
        began = trio.current_time()
        connection = await host.connect(env["TARGET"])
        result["handshake_ms"] = (trio.current_time() - began) * 1000
        result["remote_peer_id"] = str(connection.peer_id)
        info = await host.service(Identify).wait_identified(connection)
        result |= {
            "agent": info.agent_version,
            "protocols": list(info.protocols),
            "observed": str(info.observed_address) if info.observed_address else None,
            "listen_addrs": [str(address) for address in info.addresses],
        }
        direct_seconds = float(env.get("DIRECT_SECONDS", "0"))
        if direct_seconds:
            with trio.fail_after(direct_seconds):
                connection = await host.wait_direct(connection.peer_id)
        result["relayed"] = connection.is_relayed
        rounds = [await host.service(Ping).ping(connection) for _ in range(3)]
        result["ping_rtt_ms"] = min(rounds) * 1000
        upload, download = (int(env.get(f"PERF_{way}", "0")) for way in ("UPLOAD", "DOWNLOAD"))
        if upload or download:
            figures = await host.service(Perf).measure(
                connection, upload=upload, download=download, limited="allow"
            )
            result["perf_uploaded"] = figures.uploaded
            result["perf_downloaded"] = figures.downloaded
        size = int(env.get("ECHO_BYTES", "10485760"))
        if size:
            result["echo_bytes"] = size
            result["echo_ok"] = await echo(host, connection, size)


async def learn(env: Mapping[str, str], result: dict[str, object]) -> None:
    """Connect to AutoNAT servers, and wait until they have spoken about enough addresses."""
    learnt: dict[str, dict[str, str]] = {}
    async with open_host(make_config(env)) as host:
        result["peer_id"] = str(host.peer_id)
        with host.subscribe(AddressTested) as tests:
            for target in env["TARGET"].split(","):
                await host.connect(target)
            while len(learnt) < int(env.get("VERDICTS", "1")):
                test = await anext(tests)
                address = str(test.address)
                reachability = "public" if test.reached else "private"
                learnt[address] = {
                    "address": address,
                    "reachability": reachability,
                    "protocol": test.protocol,
                }
                result["learnt"] = list(learnt.values())


async def echo(host: Host, connection: Connection, size: int) -> bool:
    sent, received = hashlib.sha256(), hashlib.sha256()
    stream = await host.open_stream(connection.peer_id, ECHO, limited="allow")
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send, stream, size, sent)
        async for chunk in stream:
            received.update(chunk)
    return sent.digest() == received.digest()


async def send(stream: Stream, size: int, digest: hashlib._Hash) -> None:
    block = os.urandom(CHUNK_BYTES)
    while size:
        chunk = block[:size]
        digest.update(chunk)
        await stream.send_all(chunk)
        size -= len(chunk)
    await stream.send_eof()


async def run(env: Mapping[str, str]) -> int:
    if env["ROLE"] != "dial":
        return await serve(env)
    result: dict[str, object] = {"error": None}
    try:
        with trio.fail_after(float(env.get("TIMEOUT_SECONDS", "60"))):
            await (learn if env.get("AUTONAT") else dial)(env, result)
    except Exception as error:  # noqa: BLE001 - whatever it is, the contract wants it in the line
        result["error"] = describe(error)
    if result.get("echo_ok") is False:
        result["error"] = "what came back is not what was sent"
    print(json.dumps(result), flush=True)
    return 0 if result["error"] is None else 1


if __name__ == "__main__":
    sys.exit(trio.run(run, dict(os.environ)))
