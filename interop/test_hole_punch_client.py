"""Hole-punch clients under other projects' contracts: a real Redis, kernel NATs, go and rust."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from interop.conftest import unavailable
from interop.hole_punch_client import read_settings
from interop.runner import UnfitSettings
from interop.worlds import run_in_world

SECONDS = 240
LATENCY = re.compile(
    r"latency:\n  handshake_plus_one_rtt: ([0-9.]+)\n  ping_rtt: ([0-9.]+)\n  unit: ms\n"
)
PAIRS = [  # relay, listener (begins the punch), dialer
    ("p2pnet", "p2pnet", "p2pnet"),
    ("p2pnet", "p2pnet", "go"),
    ("go", "go", "p2pnet"),
    ("rust", "p2pnet", "rust"),
    ("p2pnet", "rust", "p2pnet"),
]


def run(contract: str, relay: str, clients: tuple[str, str], transport: str) -> str:
    if shutil.which("redis-server") is None:
        unavailable("redis-server is not installed")
    words = (contract, relay, *clients, transport)
    done = run_in_world("hole_punch_contract", *words, seconds=SECONDS)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["code"] == 0, result["log"]
    return str(result["stdout"])


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(("relay", "listener", "dialer"), PAIRS)
def test_test_plans(relay: str, listener: str, dialer: str, transport: str) -> None:
    told = json.loads(run("test-plans", relay, (listener, dialer), transport))
    assert list(told) == ["rtt_to_holepunched_peer_millis"]
    # 20 ms each way; over the relay it would be twice that, and other work takes its time.
    assert 40 <= told["rtt_to_holepunched_peer_millis"] < 1000


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(("relay", "listener", "dialer"), PAIRS)
def test_unified_testing(relay: str, listener: str, dialer: str, transport: str) -> None:
    found = LATENCY.fullmatch(run("unified", relay, (listener, dialer), transport))
    assert found is not None
    assert 40 <= float(found[2]) < float(found[1])


UNIFIED = {
    "TEST_KEY": "a5b50d5e",
    "IS_DIALER": "true",
    "REDIS_ADDR": "redis:6379",
    "TRANSPORT": "quic-v1",
}


def test_settings_are_those_of_the_contract_that_the_environment_is_of() -> None:
    unified = read_settings(UNIFIED)
    assert (unified.relay_key, unified.listener_key) == (
        "a5b50d5e_relay_multiaddr",
        "a5b50d5e_listener_peer_id",
    )
    assert (unified.transport, unified.is_dialer, unified.is_unified) == ("quic", True, True)
    here = {"DIALER_IP": "10.197.213.99", "LISTENER_IP": "10.197.213.131"}
    there = read_settings({**UNIFIED, **here, "IS_DIALER": "false"})
    assert read_settings({**UNIFIED, **here}).listen == "/ip4/10.197.213.99/udp/0/quic-v1"
    assert (unified.listen, there.ip) == ("/ip4/0.0.0.0/udp/0/quic-v1", "10.197.213.131")
    legacy = read_settings({"MODE": "listen", "TRANSPORT": "tcp"})
    assert (legacy.relay_key, legacy.listener_key) == ("RELAY_TCP_ADDRESS", "LISTEN_CLIENT_PEER_ID")
    assert (legacy.redis, legacy.is_dialer, legacy.is_unified) == ("redis:6379", False, False)


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({**UNIFIED, "TRANSPORT": "webrtc-direct"}, "webrtc-direct with noise and yamux"),
        ({**UNIFIED, "SECURE_CHANNEL": "plaintext"}, "quic with plaintext"),
        ({**UNIFIED, "MUXER": "mplex"}, "noise and mplex"),
        ({**UNIFIED, "REDIS_ADDR": ""}, "REDIS_ADDR is not set"),
        ({"MODE": "relay", "TRANSPORT": "tcp"}, "MODE is relay"),
        ({"MODE": "dial"}, "TRANSPORT is not set"),
    ],
)
def test_settings_that_are_unfit_are_refused_with_the_reason(
    env: dict[str, str], reason: str
) -> None:
    with pytest.raises(UnfitSettings, match=reason):
        read_settings(env)
