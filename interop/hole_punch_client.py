"""p2pnet in hole-punch tests of other projects: ``python -m interop.hole_punch_client``.

Speaks the contracts of libp2p/test-plans (``hole-punch-interop``) and of libp2p/unified-testing
(``hole-punch``): settings in environment variables; where the relay and who the listener is goes
through Redis; the dialer prints how long a ping took on the direct connection. ``TEST_KEY`` tells
the latter. With an argument, ``go`` or ``rust``, the peer of that name does the work (README.md).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import trio

from interop.processes import dialled, here, serving
from interop.redis_client import Redis, Reply, open_redis
from interop.runner import UnfitSettings, exit_code, latency, need
from p2pnet import TCP, TLS, HostConfig, Noise, Ping, open_host, presets
from p2pnet.core.addresses import is_relayed
from p2pnet.interfaces import Part, Security, Transport
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.transports.quic import QUIC

DEFAULT_SECONDS = "60"
POLL_SECONDS = 0.1
OWN = "p2pnet"
ANYWHERE = "0.0.0.0"
TRANSPORTS: dict[str, tuple[str, Part[Transport]]] = {
    "tcp": ("/ip4/{}/tcp/0", TCP()),
    "quic": ("/ip4/{}/udp/0/quic-v1", QUIC()),
}
SECURITY: dict[str, Part[Security]] = {"noise": Noise(), "tls": TLS()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    transport: str
    security: str
    is_dialer: bool
    redis: str
    relay_key: str
    listener_key: str
    seconds: float
    is_unified: bool
    ip: str = ANYWHERE
    """Where to listen: in unified-testing Redis is in another network, which both peers share."""

    @property
    def listen(self) -> str:
        return TRANSPORTS[self.transport][0].format(self.ip)


def read_settings(env: Mapping[str, str]) -> Settings:
    """Read the variables of either contract.

    Raises:
        UnfitSettings: if something is missing, or asks for what is not spoken here.
    """
    is_unified = bool(env.get("TEST_KEY"))
    transport = need(env, "TRANSPORT")
    if is_unified:
        transport = "quic" if transport == "quic-v1" else transport
    security = (is_unified and env.get("SECURE_CHANNEL")) or "noise"
    muxer = (is_unified and env.get("MUXER")) or "yamux"
    if transport not in TRANSPORTS or security not in SECURITY or muxer != "yamux":
        raise UnfitSettings(f"{transport} with {security} and {muxer} is not spoken here")
    own = {"transport": transport, "security": security}
    if is_unified:
        key = need(env, "TEST_KEY")
        is_dialer = need(env, "IS_DIALER") == "true"
        return Settings(
            **own,
            is_dialer=is_dialer,
            redis=need(env, "REDIS_ADDR"),
            relay_key=f"{key}_relay_multiaddr",
            listener_key=f"{key}_listener_peer_id",
            seconds=float(env.get("TEST_TIMEOUT_SECS") or DEFAULT_SECONDS),
            is_unified=True,
            ip=env.get("DIALER_IP" if is_dialer else "LISTENER_IP") or ANYWHERE,
        )
    if (mode := need(env, "MODE")) not in ("listen", "dial"):
        raise UnfitSettings(f"MODE is {mode}, not listen or dial")
    return Settings(
        **own,
        is_dialer=mode == "dial",
        redis=env.get("REDIS_ADDR") or "redis:6379",
        relay_key=f"RELAY_{transport.upper()}_ADDRESS",
        listener_key="LISTEN_CLIENT_PEER_ID",
        seconds=float(DEFAULT_SECONDS),
        is_unified=False,
    )


# ---- what goes through Redis -------------------------------------------------------------


async def take(redis: Redis, key: str, settings: Settings) -> str:
    """Wait for a value: of a list, or with unified-testing of a string."""
    if not settings.is_unified:
        return value_of(key, await redis.call("BLPOP", key, "0"))
    # Redis could say when a key is set, if it was configured to; the contract knows of no more.
    while not (found := await redis.call("GET", key)):  # noqa: ASYNC110
        await trio.sleep(POLL_SECONDS)
    return value_of(key, found)


def value_of(key: str, reply: Reply) -> str:
    match reply:
        case str(value) | [_, str(value)]:
            return value
    raise UnfitSettings(f"what Redis has at {key} is no text")


async def put(redis: Redis, key: str, value: str, settings: Settings) -> None:
    await redis.call("SET" if settings.is_unified else "RPUSH", key, value)


# ---- by p2pnet ---------------------------------------------------------------------------


def make_config(settings: Settings, relay: str) -> HostConfig:
    """Return an edge that punches at private addresses: the runners' internet has no others."""
    _, transport = TRANSPORTS[settings.transport]
    edge = presets.edge(
        listen=[settings.listen],
        relays=[relay],
        transports=[transport],
        port_mapping=False,
        services=[DCUtR(allow_private=True)],
    )
    return dataclasses.replace(edge, security=[SECURITY[settings.security]])


async def listen(settings: Settings, redis: Redis, relay: str) -> None:
    """Say who this host is, once it has a reservation, and be there until the runner ends it."""
    async with open_host(make_config(settings, relay)) as host:
        await host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
        await put(redis, settings.listener_key, str(host.peer_id), settings)
        await trio.sleep_forever()


async def dial(settings: Settings, redis: Redis, relay: str) -> None:
    """Dial the listener over the relay, wait for the direct connection, and ping on that."""
    listener = await take(redis, settings.listener_key, settings)
    async with open_host(make_config(settings, relay)) as host:
        began = trio.current_time()
        await host.connect(f"{relay}/p2p-circuit/p2p/{listener}")
        direct = await host.wait_direct(listener)
        ping = await host.service(Ping).ping(direct)
        both = trio.current_time() - began
    print(report(settings, both * 1000, ping * 1000), flush=True)


def report(settings: Settings, handshake_ms: float, ping_ms: float) -> str:
    if settings.is_unified:
        return latency(handshake_ms, ping_ms)
    return json.dumps({"rtt_to_holepunched_peer_millis": round(ping_ms)})


# ---- by a peer of somebody else ----------------------------------------------------------


def peer_settings(settings: Settings, relay: str) -> dict[str, str]:
    return {
        "TEST_KEY": "",  # By which the Go peer would know that it is in a test of transports.
        "LISTEN": settings.listen,
        "RELAY": relay,
        "SECURITY": settings.security,
        "HOLE_PUNCH": "1",
        "TIMEOUT_SECONDS": f"{settings.seconds:g}",
    }


async def listen_by(kind: str, settings: Settings, redis: Redis, relay: str) -> None:
    async with serving(kind, "listen", placed=here, **peer_settings(settings, relay)) as peer:
        await put(redis, settings.listener_key, peer.peer_id, settings)
        await trio.sleep_forever()


async def dial_by(kind: str, settings: Settings, redis: Redis, relay: str) -> None:
    """Have a peer dial; it fails without a direct connection, and pings on that."""
    listener = await take(redis, settings.listener_key, settings)
    began = trio.current_time()
    line = await dialled(
        kind,
        placed=here,
        TARGET=f"{relay}/p2p-circuit/p2p/{listener}",
        DIRECT_SECONDS=f"{settings.seconds:g}",
        ECHO_BYTES="0",
        **peer_settings(settings, relay),
    )
    if line["error"] or line["relayed"]:
        raise UnfitSettings(f"the {kind} peer has no direct connection: {line}")
    both = trio.current_time() - began  # With the start of a program, so it is no measure.
    print(report(settings, both * 1000, float(str(line["ping_rtt_ms"]))), flush=True)


async def run(env: Mapping[str, str], kind: str = OWN) -> int:
    if env.get("DEBUG") == "true":
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)

    async def act() -> None:
        settings = read_settings(env)
        with trio.fail_after(settings.seconds):
            async with open_redis(settings.redis) as redis:
                relay = await take(redis, settings.relay_key, settings)
                print(f"the relay is at {relay}", file=sys.stderr)
                if kind == OWN:
                    await (dial if settings.is_dialer else listen)(settings, redis, relay)
                else:
                    by = dial_by if settings.is_dialer else listen_by
                    await by(kind, settings, redis, relay)

    return await exit_code(act)


if __name__ == "__main__":
    sys.exit(trio.run(partial(run, dict(os.environ), *sys.argv[1:2])))
