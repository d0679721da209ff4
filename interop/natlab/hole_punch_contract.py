"""Hole-punch clients under the contract of a runner: Redis and a relay in public, two homes.

The addresses are those of the runners, whose internet is a private network of Docker's; but
public ones if go-libp2p takes part, for it punches at no others.

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
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import trio

from interop.natlab.hole_punch import Places, two_homes
from interop.processes import serving
from interop.redis_client import open_redis
from p2pnet.demo.namespaces import Laboratory

KEY = "a5b50d5e"
SECONDS = 75.0
READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
END_SECONDS = 10.0
CLIENT = [sys.executable, "-m", "interop.hole_punch_client"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Places):
    """Places, and where Redis is."""

    redis: str = "11.0.0.9"

    @property
    def redis_endpoint(self) -> str:
        return f"{self.redis}:6379"

    @property
    def listen(self) -> str:
        return f"/ip4/{self.relay}/tcp/4001,/ip4/{self.relay}/udp/4001/quic-v1"


PUBLIC = Stage()
AS_IN_RUNNERS = Stage(  # As unified-testing computes them from the key.
    internet=IPv4Network("10.197.213.64/27"),
    relay="10.197.213.68",
    redis="10.197.213.69",
    listener_outside="10.197.213.67",
    listener_inside="10.197.213.128/27",
    dialer_outside="10.197.213.66",
    dialer_inside="10.197.213.96/27",
)


def environment(
    contract: str, transport: str, redis: str, own: str, *, is_dialer: bool
) -> Mapping[str, str]:
    if contract == "test-plans":
        mode = "dial" if is_dialer else "listen"
        return {"MODE": mode, "TRANSPORT": transport, "REDIS_ADDR": redis}
    return {
        "IS_DIALER": "true" if is_dialer else "false",
        "DIALER_IP" if is_dialer else "LISTENER_IP": own,
        "REDIS_ADDR": redis,
        "TEST_KEY": KEY,
        "TRANSPORT": "quic-v1" if transport == "quic" else transport,
        **({} if transport == "quic" else {"SECURE_CHANNEL": "noise", "MUXER": "yamux"}),
    }


async def announce(contract: str, addresses: list[str], transport: str, at: str) -> None:
    """Put into Redis where the relay is, as the relay of each runner does."""
    quic, tcp = sorted(addresses, key=lambda text: "/tcp/" in text)
    async with open_redis(at) as redis:
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


async def wait_listener(contract: str, at: str) -> None:
    """Wait until the listener has said who it is.

    Upstream's Rust client waits for that itself, but for half a second at most.
    """
    key = f"{KEY}_listener_peer_id" if contract == "unified" else "LISTEN_CLIENT_PEER_ID"
    async with open_redis(at) as redis:
        # Whoever pops it must find it, so this only looks.
        while not await redis.call("EXISTS", key):  # noqa: ASYNC110
            await trio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Trial:
    """One meeting: who takes part, under which contract, over what, and where."""

    laboratory: Laboratory
    stage: Stage
    contract: str
    transport: str

    async def meet(self, relay: str, clients: tuple[str, str]) -> str:
        """Run a relay and both clients, and return what came of the dialer."""
        placed = partial(self.laboratory.command, "relay")
        async with serving(relay, "relay", placed=placed, LISTEN=self.stage.listen) as between:
            inside = f"/{self.stage.relay}/"
            direct = [address for address in between.addresses if inside in address]
            await announce(self.contract, direct, self.transport, self.stage.redis_endpoint)
            return await self.work(clients)

    async def work(self, clients: tuple[str, str]) -> str:
        listener, dialer = map(client, clients)
        redis = self.stage.redis_endpoint
        with self.running("listener", listener) as listening:
            with trio.move_on_after(READY_SECONDS) as waiting:
                await wait_listener(self.contract, redis)
            if waiting.cancelled_caught:
                listening.terminate()
                _, log = listening.communicate()
                return json.dumps(
                    {"code": None, "stdout": "", "log": f"no listener: {log[-4000:]}"}
                )
            with self.running("dialer", dialer) as dialing:
                wait = partial(dialing.communicate, timeout=SECONDS)
                told, log = await trio.to_thread.run_sync(wait)
        return json.dumps({"code": dialing.returncode, "stdout": told, "log": log[-4000:]})

    def running(self, host: str, argv: list[str]) -> AbstractContextManager[subprocess.Popen[str]]:
        """Run a client, which is what its host is called."""
        env = environment(
            self.contract,
            self.transport,
            self.stage.redis_endpoint,
            self.laboratory.address(host),
            is_dialer=host == "dialer",
        )
        return running(self.laboratory, host, argv, env)


def main(contract: str, relay: str, listener: str, dialer: str, transport: str) -> None:
    stage = PUBLIC if "go" in (relay, listener, dialer) else AS_IN_RUNNERS
    redis = ["redis-server", "--bind", stage.redis, "--save", "", "--dir", "/tmp"]
    with two_homes(stage) as laboratory:
        laboratory.add_public("redis", stage.redis)
        with running(laboratory, "redis", [*redis, "--protected-mode", "no"]):
            with laboratory.entered("relay"):
                trial = Trial(laboratory, stage, contract, transport)
                told = trio.run(trial.meet, relay, (listener, dialer))
            print(told, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
