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
    ("p2pnet", "js", "p2pnet"),
    ("p2pnet", "p2pnet", "js"),
]
FORESEEN_CELLS = [
    # the same; p2pnet is behind the NAT whose next ports it foresees
    ("p2pnet", "p2pnet", "go"),
    ("p2pnet", "go", "p2pnet"),
    ("p2pnet", "p2pnet", "rust"),
    ("p2pnet", "rust", "p2pnet"),
]
COUNTING, ORDINARY = "symmetric-sequential", "port-restricted"
"""Kinds of homes: the NAT of the one gives each destination the next port."""
PUBLIC = "open"
REVERSAL_CELLS = [
    # the same, and the homes of listener and dialer
    ("p2pnet", "js", "p2pnet", ORDINARY, PUBLIC),
    ("p2pnet", "p2pnet", "js", PUBLIC, ORDINARY),
    ("p2pnet", "p2pnet", "js", ORDINARY, PUBLIC),
]


@pytest.mark.parametrize(("relay", "listener", "dialer"), CELLS)
def test_hole_punch(relay: str, listener: str, dialer: str) -> None:
    check_punch(relay, listener, dialer, "tcp")


@pytest.mark.parametrize(("relay", "listener", "dialer"), QUIC_CELLS)
def test_hole_punch_over_quic(relay: str, listener: str, dialer: str) -> None:
    check_punch(relay, listener, dialer, "quic")


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(("relay", "listener", "dialer"), FORESEEN_CELLS)
def test_foreseen_ports(relay: str, listener: str, dialer: str, transport: str) -> None:
    """D16 D17: the other peer need not know of it, it only dials what it is told."""
    check_punch(relay, listener, dialer, transport, *homes(listener, dialer))


def test_nobody_gets_through_where_no_port_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show that it is the foreseen ports that the others meet at."""
    monkeypatch.setenv("PREDICTED_PORTS", "0")
    result = punch("p2pnet", "p2pnet", "go", "tcp", *homes("p2pnet", "go"))
    assert result["relayed"] is True
    assert str(result["error"]).startswith("no direct connection")


@pytest.mark.parametrize("transport", ["tcp", "quic"])
@pytest.mark.parametrize(
    ("relay", "listener", "dialer", "listeners_home", "dialers_home"), REVERSAL_CELLS
)
def test_the_one_in_public_is_dialled(
    relay: str, listener: str, dialer: str, listeners_home: str, dialers_home: str, transport: str
) -> None:
    check_punch(relay, listener, dialer, transport, listeners_home, dialers_home)


def homes(listener: str, dialer: str) -> list[str]:
    return [COUNTING if peer == "p2pnet" else ORDINARY for peer in (listener, dialer)]


def punch(*words: str) -> dict[str, object]:
    done = run_in_world("hole_punch", *words, seconds=SECONDS)
    assert done.stdout, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def check_punch(*words: str) -> None:
    result = punch(*words)
    assert result["error"] is None, result.get("log")
    assert result["relayed"] is False
    assert result["echo_ok"] is True
