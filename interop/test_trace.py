"""``p2pnet trace`` through the kernel's NAT: direct where that is possible, else the cause."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interop.conftest import unavailable
from p2pnet.connectivity.causes import Cause
from p2pnet.demo.namespaces import check_support, reexec_command

ROOT = Path(__file__).parent.parent
SECONDS = 120

Fields = dict[str, object]


def trace(here: str, there: str) -> list[Fields]:
    support = check_support()
    if not support.usable or support.how is None:
        unavailable("; ".join(support.missing))
        return []
    argv = [sys.executable, "-m", "interop.natlab.trace_trial", here, there]
    done = subprocess.run(
        reexec_command(argv, how=support.how),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_trace(kind: str) -> None:
    events = trace(kind, kind)
    names = [event["event"] for event in events]
    verdict = events[-1]
    assert names.index("identified") < names.index("punching")
    assert verdict["event"] == "trace"
    if kind == "port-restricted":
        assert "punched" in names
        assert verdict["direct"] is True
        return
    assert names.count("punch_failed") == 3
    assert (verdict["connected"], verdict["direct"]) == (True, False)
    assert verdict["remedy"] == Cause.OWN_SYMMETRIC.remedy
