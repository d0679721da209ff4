"""p2pnet in the transport tests of other projects' runners: ``python -m interop.transport_entry``.

Speaks the contracts of libp2p/unified-testing (``transport``) and of libp2p/test-plans
(``transport-interop``): settings in environment variables, the listener's address goes through
Redis, the dialer prints how long its handshake and a ping took. ``TEST_KEY`` tells the former.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import trio

from interop.redis_client import open_redis
from interop.runner import UnfitSettings, exit_code, latency, need
from p2pnet import TCP, TLS, HostConfig, Noise, Ping, WebSocket, open_host, presets
from p2pnet.core.addresses import Multiaddr, components
from p2pnet.interfaces import Part, Security, Transport
from p2pnet.transports.quic import QUIC

DEFAULT_SECONDS = "180"
TRANSPORTS: dict[str, tuple[str, Part[Transport]]] = {
    "tcp": ("/ip4/{}/tcp/0", TCP()),
    "ws": ("/ip4/{}/tcp/0/ws", WebSocket()),
    "quic-v1": ("/ip4/{}/udp/0/quic-v1", QUIC()),
}
SECURITY: dict[str, Part[Security]] = {"noise": Noise(), "tls": TLS()}
NOT_SPOKEN = {
    "wss": "those who listen in these tests have no certificate that an authority signed",
    "webtransport": "it is for browsers",
    "webrtc": "it is for browsers",
    "webrtc-direct": "it is for browsers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    transport: str
    security: str
    is_dialer: bool
    ip: str
    redis: str
    key: str
    """Where in Redis the listener's address is."""
    seconds: float
    is_unified: bool


def read_settings(env: Mapping[str, str]) -> Settings:
    """Read the variables of either contract.

    Raises:
        UnfitSettings: if something is missing, or asks for what is not spoken here.
    """
    if "TEST_KEY" in env:
        return check(
            Settings(
                transport=need(env, "TRANSPORT"),
                security=env.get("SECURE_CHANNEL") or "noise",
                is_dialer=need(env, "IS_DIALER") == "true",
                ip=env.get("LISTENER_IP") or "0.0.0.0",
                redis=need(env, "REDIS_ADDR"),
                key=f"{need(env, 'TEST_KEY')}_listener_multiaddr",
                seconds=float(env.get("TEST_TIMEOUT_SECS") or DEFAULT_SECONDS),
                is_unified=True,
            ),
            env.get("MUXER"),
        )
    return check(
        Settings(
            transport=need(env, "transport"),
            security=env.get("security") or "noise",
            is_dialer=need(env, "is_dialer") == "true",
            ip=env.get("ip") or "0.0.0.0",
            redis=env.get("redis_addr") or "redis:6379",
            key="listenerAddr",
            seconds=float(env.get("test_timeout_seconds") or DEFAULT_SECONDS),
            is_unified=False,
        ),
        env.get("muxer"),
    )


def check(settings: Settings, muxer: str | None) -> Settings:
    if settings.transport not in TRANSPORTS:
        why = NOT_SPOKEN.get(settings.transport, "nothing is known of it")
        raise UnfitSettings(f"{settings.transport} is not spoken here: {why}")
    if settings.security not in SECURITY or muxer not in (None, "", "yamux"):
        raise UnfitSettings(f"{settings.security} with {muxer} is not spoken here")
    return settings


def make_config(settings: Settings) -> HostConfig:
    form, transport = TRANSPORTS[settings.transport]
    listen = [] if settings.is_dialer else [form.format(settings.ip)]
    return dataclasses.replace(
        presets.minimal(listen=listen),
        transports=[transport],
        security=[SECURITY[settings.security]],
    )


async def listen(settings: Settings) -> None:
    """Say where this host is, and be there until the runner ends this process."""
    async with open_host(make_config(settings)) as host, open_redis(settings.redis) as redis:
        # Another container does not get to this one's loopback.
        address = min(host.addresses.value, key=is_loopback)
        await redis.call("DEL", settings.key)  # What an earlier run may have left there.
        await redis.call("RPUSH", settings.key, str(address))
        print(f"listening at {address}", file=sys.stderr)
        await trio.sleep_forever()


def is_loopback(address: Multiaddr) -> bool:
    return ip_address(components(address)[0][1]).is_loopback


async def dial(settings: Settings) -> None:
    """Take the listener's address from Redis, connect, ping once, and print what it took."""
    async with open_host(make_config(settings)) as host, open_redis(settings.redis) as redis:
        popped = await redis.call("BLPOP", settings.key, str(max(1, int(settings.seconds))))
        match popped:
            case [_, str(target)]:
                print(f"dialling {target}", file=sys.stderr)
            case _:
                raise UnfitSettings(f"nothing came to be at {settings.key} in Redis")
        began = trio.current_time()
        connection = await host.connect(target)
        ping = await host.service(Ping).ping(connection)
        both = trio.current_time() - began
    print(report(settings, both * 1000, ping * 1000), flush=True)


def report(settings: Settings, handshake_ms: float, ping_ms: float) -> str:
    if not settings.is_unified:
        # Three l's, as the contract has it.
        return json.dumps({"handshakePlusOneRTTMillis": handshake_ms, "pingRTTMilllis": ping_ms})
    return latency(handshake_ms, ping_ms)


async def run(env: Mapping[str, str]) -> int:
    async def act() -> None:
        settings = read_settings(env)
        with trio.fail_after(settings.seconds):
            await (dial if settings.is_dialer else listen)(settings)

    return await exit_code(act)


if __name__ == "__main__":
    sys.exit(trio.run(run, dict(os.environ)))
