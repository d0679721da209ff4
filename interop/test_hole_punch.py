"""A p2pnet peer and one of another implementation, each behind its own NAT, end up direct."""

from __future__ import annotations

import json

import pytest

from interop.worlds import run_in_world

SECONDS = 240

CELLS = [
    # relay, listener (begins the punch), dialer
    ("p2pnet", "p2pnet", "p2pnet"),
    ("p2pnet", "p2pnet", "go"),
    ("p2pnet", "go", "p2pnet"),
    ("go", "p2pnet", "go"),
    ("go", "go", "p2pnet"),
    ("go", "p2pnet", "p2pnet"),
    ("p2pnet", "rust", "p2pnet"),
    ("p2pnet", "p2pnet", "rust"),
    ("rust", "p2pnet", "p2pnet"),
]
QUIC_CELLS = [
    ("p2pnet", "p2pnet", "p2pnet"),
    ("p2pnet", "p2pnet", "go"),
    ("p2pnet", "go", "p2pnet"),
    ("p2pnet", "rust", "p2pnet"),
    ("p2pnet", "p2pnet", "rust"),
    ("go", "p2pnet", "p2pnet"),
    ("rust", "p2pnet", "p2pnet"),
]


@pytest.mark.parametrize(("relay", "listener", "dialer"), CELLS)
def test_hole_punch(relay: str, listener: str, dialer: str) -> None:
    check_punch(relay, listener, dialer, "tcp")


@pytest.mark.parametrize(("relay", "listener", "dialer"), QUIC_CELLS)
def test_hole_punch_over_quic(relay: str, listener: str, dialer: str) -> None:
    check_punch(relay, listener, dialer, "quic")


def check_punch(relay: str, listener: str, dialer: str, transport: str) -> None:
    done = run_in_world("hole_punch", relay, listener, dialer, transport, seconds=SECONDS)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["error"] is None, result.get("log")
    assert result["relayed"] is False
    assert result["echo_ok"] is True
