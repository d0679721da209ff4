"""The entry points for other projects' runners, over a real Redis, and with go-libp2p."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from interop.conftest import unavailable
from interop.ports import free_port
from interop.processes import COMMANDS, HERE

START_SECONDS = 10.0
RUN_SECONDS = 60.0
ENTRY = {"p2pnet": [sys.executable, "-m", "interop.transport_entry"], "go": COMMANDS["go"]}
STACKS = [
    ("tcp", "noise"),
    ("tcp", "tls"),
    ("ws", "noise"),
    ("ws", "tls"),
    ("quic-v1", None),
]
PAIRS = [("p2pnet", "p2pnet"), ("p2pnet", "go"), ("go", "p2pnet")]

LATENCY = re.compile(
    r"latency:\n  handshake_plus_one_rtt: ([0-9.]+)\n  ping_rtt: ([0-9.]+)\n  unit: ms\n"
)


@pytest.fixture(scope="module")
def redis() -> Generator[str, None, None]:
    """Run a Redis that keeps nothing; gives its ``host:port``."""
    if shutil.which("redis-server") is None:
        unavailable("redis-server is not installed")
    port = str(free_port())
    argv = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", "/tmp"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(int(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def wait_for(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("Redis did not start")


def unified(redis: str, transport: str, security: str | None) -> dict[str, str]:
    own = {"SECURE_CHANNEL": security, "MUXER": "yamux"} if security else {}
    return {
        "REDIS_ADDR": redis,
        "TEST_KEY": secrets.token_hex(4),
        "TRANSPORT": transport,
        "LISTENER_IP": "0.0.0.0",
        "DEBUG": "false",
        **own,
    }


def legacy(redis: str, transport: str, security: str | None) -> dict[str, str]:
    own = {"security": security, "muxer": "yamux"} if security else {}
    return {"redis_addr": redis, "transport": transport, "ip": "0.0.0.0", **own}


@contextmanager
def listening(kind: str, env: dict[str, str]) -> Generator[subprocess.Popen[bytes], None, None]:
    process = subprocess.Popen(
        ENTRY[kind],
        cwd=HERE.parent,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def dial(kind: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ENTRY[kind],
        cwd=HERE.parent,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
@pytest.mark.parametrize(("transport", "security"), STACKS)
def test_unified_testing(
    redis: str, transport: str, security: str | None, dialer: str, listener: str
) -> None:
    env = unified(redis, transport, security)
    with listening(listener, {**env, "IS_DIALER": "false"}):
        done = dial(dialer, {**env, "IS_DIALER": "true"})
    assert done.returncode == 0, done.stderr
    found = LATENCY.fullmatch(done.stdout)
    assert found is not None, done.stdout
    assert 0 < float(found[2]) < float(found[1]) < RUN_SECONDS * 1000


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
@pytest.mark.parametrize(("transport", "security"), STACKS)
def test_test_plans(
    redis: str, transport: str, security: str | None, dialer: str, listener: str
) -> None:
    env = legacy(redis, transport, security)
    with listening(listener, {**env, "is_dialer": "false"}):
        done = dial(dialer, {**env, "is_dialer": "true"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["pingRTTMilllis"] < told["handshakePlusOneRTTMillis"] < RUN_SECONDS * 1000


def test_listener_that_nobody_ends_fails_after_its_time(redis: str) -> None:
    env = {**unified(redis, "tcp", "noise"), "IS_DIALER": "false", "TEST_TIMEOUT_SECS": "1"}
    with listening("p2pnet", env) as process:
        assert process.wait(RUN_SECONDS) == 1


def test_dialer_without_a_listener_fails_after_its_time(redis: str) -> None:
    env = {**unified(redis, "tcp", "noise"), "IS_DIALER": "true", "TEST_TIMEOUT_SECS": "1"}
    done = dial("p2pnet", env)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"TRANSPORT": "wss"}, "wss is not spoken here"),
        ({"TRANSPORT": "webtransport"}, "webtransport is not spoken here"),
        ({"MUXER": "mplex"}, "noise with mplex is not spoken here"),
        ({"SECURE_CHANNEL": "plaintext"}, "plaintext with yamux is not spoken here"),
        ({"TRANSPORT": ""}, "TRANSPORT is not set"),
    ],
)
def test_entry_says_what_it_does_not_speak(redis: str, wanted: dict[str, str], reason: str) -> None:
    done = dial("p2pnet", {**unified(redis, "tcp", "noise"), "IS_DIALER": "true", **wanted})
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
