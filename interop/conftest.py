"""Finds or builds the peers; skips with the reason what is not installed, but never in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
NPM_INSTALL = ["npm", "install", "--legacy-peer-deps", "--no-audit", "--no-fund"]
BUILD_SECONDS = 1800


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be missing: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def go_peer() -> str | None:
    """Build the Go peer; returns why it cannot be had, or None."""
    if shutil.which("go") is None:
        return "Go is not installed"
    return run(["go", "build", "-o", "bin/peer", "."], HERE / "go")


@pytest.fixture(scope="session")
def js_peer() -> str | None:
    """Install what the JavaScript peer needs; returns why it cannot be had, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node.js is not installed"
    return run(NPM_INSTALL, HERE / "js")


@pytest.fixture(scope="session")
def rust_peer() -> str | None:
    """Build the Rust peer; returns why it cannot be had, or None."""
    return build_rust("rust")


@pytest.fixture(scope="session")
def rust_perf_peer() -> str | None:
    """Build the Rust peer with libp2p's own perf; returns why it cannot be had, or None."""
    return build_rust("rust-perf")


def build_rust(folder: str) -> str | None:
    if shutil.which("cargo") is None:
        return "Rust is not installed"
    return run(["cargo", "build", "--quiet", "--locked"], HERE / folder)


def run(argv: list[str], folder: Path) -> str | None:
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode == 0:
        return None
    return f"{' '.join(argv)} failed: {done.stderr.strip()[-2000:]}"


@pytest.fixture(autouse=True)
def peers(request: pytest.FixtureRequest) -> None:
    """Have the peers that a test names in its parameters.

    The test itself is too late: of an asynchronous one, the reason for a skip gets lost.
    """
    call = getattr(request.node, "callspec", None)
    named = [] if call is None else list(call.params.values())
    for kind in ("go", "js", "rust", "rust-perf"):
        fixture = f"{kind.replace('-', '_')}_peer"
        reason = request.getfixturevalue(fixture) if kind in named else None
        if reason is not None:
            unavailable(reason)
