"""Perf each way with each implementation: what is asked for comes, to the byte.

Of rust-libp2p it is its own perf, which is published; go-libp2p has none, and the peers here speak
what the specification says.
"""

from __future__ import annotations

import json
import sys

import pytest
import trio

from interop.processes import dialled, serving
from interop.test_direct import LISTEN

UPLOAD_BYTES = 10 * 1024 * 1024 + 1
DOWNLOAD_BYTES = 10 * 1024 * 1024 - 1

STACKS = [("tcp", "noise"), ("tcp", "tls"), ("quic", "tls")]
PAIRS = [
    # dialer, listener
    ("p2pnet", "go"),
    ("p2pnet", "rust-perf"),
    ("p2pnet", "js"),
    ("go", "p2pnet"),
    ("rust-perf", "p2pnet"),
    ("js", "p2pnet"),
]


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
@pytest.mark.parametrize(("transport", "security"), STACKS)
async def test_perf(transport: str, security: str, dialer: str, listener: str) -> None:
    """PF1, PF2."""
    async with serving(listener, "listen", LISTEN=LISTEN[transport], SECURITY=security) as there:
        result = await dialled(
            dialer,
            TARGET=there.addresses[0],
            SECURITY=security,
            ECHO_BYTES="0",
            PERF_UPLOAD=str(UPLOAD_BYTES),
            PERF_DOWNLOAD=str(DOWNLOAD_BYTES),
        )
    assert result["error"] is None, result.get("log")
    assert result["exit_code"] == 0
    assert result["remote_peer_id"] == there.peer_id
    moved = (result["perf_uploaded"], result["perf_downloaded"])
    assert moved == (UPLOAD_BYTES, DOWNLOAD_BYTES)


@pytest.mark.parametrize("listener", ["go", "rust-perf", "js"])
@pytest.mark.parametrize("transport", ["tcp", "quic"])
async def test_the_command_measures_them(transport: str, listener: str) -> None:
    """C11 PF1 PF2."""
    async with serving(listener, "listen", LISTEN=LISTEN[transport]) as there:
        sizes = ["--upload", str(UPLOAD_BYTES), "--download", str(DOWNLOAD_BYTES)]
        command = [sys.executable, "-m", "p2pnet", "perf", there.addresses[0], *sizes, "--json"]
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
    assert done.returncode == 0, done.stderr.decode()
    *_, figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert figures["event"] == "perf"
    assert figures["peer"] == there.peer_id
    assert (figures["uploaded"], figures["downloaded"]) == (UPLOAD_BYTES, DOWNLOAD_BYTES)
    assert figures["seconds"] > figures["upload_seconds"] > 0
