"""Runs the laboratory's programs, each in a world of network namespaces of its own."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from interop.conftest import unavailable
from p2pnet.demo.namespaces import How, check_support, reexec_command

ROOT = Path(__file__).parent.parent


@cache  # Each trial is one more that a busy machine may be too slow for.
def need_namespaces() -> How:
    """Return how a world is made here; where there can be none, skip the test, or fail it in CI."""
    support = check_support()
    if not support.usable or support.how is None:
        unavailable("; ".join(support.missing))
    return support.how


def run_in_world(module: str, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a module of `interop.natlab` with these words for so long at most."""
    argv = [sys.executable, "-m", f"interop.natlab.{module}", *words]
    return subprocess.run(
        reexec_command(argv, how=need_namespaces()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
