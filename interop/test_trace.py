"""``p2pnet trace`` through the kernel's NAT: direct where that is possible, else the cause."""

from __future__ import annotations

import json

import pytest

from interop.worlds import run_in_world
from p2pnet.connectivity.causes import Cause

SECONDS = 120

Fields = dict[str, object]


def trace(here: str, there: str) -> list[Fields]:
    done = run_in_world("trace_trial", here, there, seconds=SECONDS)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_trace(kind: str) -> None:
    events = trace(kind, kind)
    names = [event["event"] for event in events]
    verdict = events[-1]
    # CONNECT may come in the handshake, and the punch begin before identify has answered.
    assert names.index("connection") < names.index("punching")
    assert "identified" in names
    assert verdict["event"] == "trace"
    if kind == "port-restricted":
        assert "punched" in names
        assert verdict["direct"] is True
        return
    assert names.count("punch_failed") == 3
    assert (verdict["connected"], verdict["direct"]) == (True, False)
    assert verdict["remedy"] == Cause.OWN_SYMMETRIC.remedy
