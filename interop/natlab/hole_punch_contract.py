"""Hole-punch clients under the contract of a runner: Redis and a relay in public, two homes.

Runs in a private world (see ``p2pnet.demo.namespaces``); prints what came of it as JSON.
Arguments: contract (``test-plans`` or ``unified``), relay, listener and dialer, each the name
of an implementation or the path of a client, and a transport.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from interop.natlab.hole_punch import two_homes
from interop.processes import serving
from interop.redis_client import open_redis
from p2pnet.demo.namespaces import Laboratory

REDIS = "11.0.0.9"
RELAY = "11.0.0.1"
KEY = "a5b50d5e"
SECONDS = 75.0
READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
END_SECONDS = 10.0
LISTEN = f"/ip4/{RELAY}/tcp/4001,/ip4/{RELAY}/udp/4001/quic-v1"
CLIENT = [sys.executable, "-m", "interop.hole_punch_client"]
ROOT = Path(__file__).parents[2]


def environment(contract: str, transport: str, *, is_dialer: bool) -> Mapping[str, str]:
    if contract == "test-plans":
        mode = "dial" if is_dialer else "listen"
        return {"MODE": mode, "TRANSPORT": transport, "REDIS_ADDR": f"{REDIS}:6379"}
    return {
        "IS_DIALER": "true" if is_dialer else "false",
        "REDIS_ADDR": f"{REDIS}:6379",
        "TEST_KEY": KEY,
        "TRANSPORT": "quic-v1" if transport == "quic" else transport,
        **({} if transport == "quic" else {"SECURE_CHANNEL": "noise", "MUXER": "yamux"}),
    }


async def announce(contract: str, addresses: list[str], transport: str) -> None:
    """Put into Redis where the relay is, as the relay of each runner does."""
    quic, tcp = sorted(addresses, key=lambda text: "/tcp/" in text)
    async with open_redis(f"{REDIS}:6379") as redis:
        if contract == "unified":
            chosen = quic if transport == "quic" else tcp
            await redis.call("SET", f"{KEY}_relay_multiaddr", chosen)
            return
        for _ in range(2):  # One for each client, as they pop it.
            await redis.call("RPUSH", "RELAY_TCP_ADDRESS", tcp)
            await redis.call("RPUSH", "RELAY_QUIC_ADDRESS", quic)


@contextmanager
def running(
    laboratory: Laboratory, host: str, argv: list[str], env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str], None, None]:
    process = subprocess.Popen(
        laboratory.command(host, argv),
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        # Asked first, a client ends the peer that works for it.
        process.terminate()
        try:
            process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def client(name: str) -> list[str]:
    if "/" in name:
        return [name]
    return CLIENT if name == "p2pnet" else [*CLIENT, name]


async def wait_listener(contract: str) -> None:
    """Wait until the listener has said who it is.

    Upstream's Rust client waits for that itself, but for half a second at most.
    """
    key = f"{KEY}_listener_peer_id" if contract == "unified" else "LISTEN_CLIENT_PEER_ID"
    async with open_redis(f"{REDIS}:6379") as redis:
        # Whoever pops it must find it, so this only looks.
        while not await redis.call("EXISTS", key):  # noqa: ASYNC110
            await trio.sleep(LOOK_SECONDS)


async def work(
    laboratory: Laboratory, contract: str, clients: tuple[str, str], transport: str
) -> str:
    """Run both clients, and return what came of the dialer."""
    listener, dialer = map(client, clients)
    settings = partial(environment, contract, transport)
    with running(laboratory, "listener", listener, settings(is_dialer=False)) as listening:
        with trio.move_on_after(READY_SECONDS) as waiting:
            await wait_listener(contract)
        if waiting.cancelled_caught:
            listening.terminate()
            _, log = listening.communicate()
            return json.dumps({"code": None, "stdout": "", "log": f"no listener: {log[-4000:]}"})
        with running(laboratory, "dialer", dialer, settings(is_dialer=True)) as dialing:
            told, log = await trio.to_thread.run_sync(partial(dialing.communicate, timeout=SECONDS))
    return json.dumps({"code": dialing.returncode, "stdout": told, "log": log[-4000:]})


async def meet(
    laboratory: Laboratory, contract: str, relay: str, clients: tuple[str, str], transport: str
) -> str:
    placed = partial(laboratory.command, "relay")
    async with serving(relay, "relay", placed=placed, LISTEN=LISTEN) as between:
        direct = [address for address in between.addresses if f"/{RELAY}/" in address]
        await announce(contract, direct, transport)
        return await work(laboratory, contract, clients, transport)


def main(contract: str, relay: str, listener: str, dialer: str, transport: str) -> None:
    redis = ["redis-server", "--bind", REDIS, "--save", "", "--dir", "/tmp"]
    with two_homes() as laboratory:
        laboratory.add_public("redis", REDIS)
        with running(laboratory, "redis", [*redis, "--protected-mode", "no"]):
            with laboratory.entered("relay"):
                clients = (listener, dialer)
                told = trio.run(meet, laboratory, contract, relay, clients, transport)
            print(told, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
