"""Peers as processes: start one, read its line, end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent / "benchmarks"
COMMANDS = {
    "p2pnet": [sys.executable, str(HERE / "peer.py")],
    "go": [str(HERE / "go" / "bin" / "peer")],
    "js": ["node", str(HERE / "js" / "peer.mjs")],
    "rust": [str(HERE / "rust" / "target" / "debug" / "peer")],
    "py-libp2p": [
        str(BENCHMARKS / ".venvs" / "py-libp2p" / "bin" / "python"),
        str(BENCHMARKS / "peers" / "py_libp2p_punch.py"),
    ],
    "rust-perf": [str(HERE / "rust-perf" / "target" / "debug" / "peer")],
}
READY_SECONDS = 60.0
DIAL_SECONDS = 120.0
LAST_SECONDS = 30.0
"""For a dialer to print its line, if it takes all of the time that it was given."""

Line = dict[str, object]
Placed = Callable[[Sequence[str]], list[str]]


class PeerFailed(Exception):
    """A peer ended, or said nothing; its log is in the text."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A listener or relay that is ready."""

    peer_id: str
    addresses: list[str]
    circuit_addresses: list[str]


def here(argv: Sequence[str]) -> list[str]:
    return list(argv)


@asynccontextmanager
async def serving(
    kind: str, role: str, *, placed: Placed = here, **settings: str
) -> AsyncGenerator[Serving, None]:
    """Run a listener or a relay for as long as the block lasts."""
    async with running(kind, role, placed, settings) as (process, log):
        line = b""
        with trio.move_on_after(READY_SECONDS):
            line = await read_line(process)
        if not line:
            raise PeerFailed(f"the {kind} {role} was not ready:\n{read_log(log)}")
        told = json.loads(line)
        yield Serving(told["peer_id"], told["addresses"], told["circuit_addresses"])


async def dialled(kind: str, *, placed: Placed = here, **settings: str) -> Line:
    """Run a dialer to its end, and return its line; with ``log`` added if it failed."""
    async with running(kind, "dial", placed, settings) as (process, log):
        given = float(settings.get("TIMEOUT_SECONDS", 0))
        with trio.move_on_after(max(DIAL_SECONDS, given + LAST_SECONDS)):
            line = await read_line(process)
            code = await process.wait()
            result: Line = json.loads(line) if line else {"error": "it printed nothing"}
            result["exit_code"] = code
            if code or result["error"]:
                result["log"] = read_log(log)
            return result
    raise PeerFailed(f"the {kind} dialer did not end:\n{read_log(log)}")


@asynccontextmanager
async def running(
    kind: str, role: str, placed: Placed, settings: dict[str, str]
) -> AsyncGenerator[tuple[trio.Process, Path], None]:
    log = Path(os.environ.get("INTEROP_LOGS", "/tmp")) / f"interop-{os.getpid()}-{id(settings)}.log"
    with log.open("w") as stderr:
        process = await trio.lowlevel.open_process(
            placed(COMMANDS[kind]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "ROLE": role, **settings},
        )
    try:
        yield process, log
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.terminate()
                with trio.move_on_after(5):
                    await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()
        if process.stdin is not None and process.stdout is not None:
            await trio.aclose_forcefully(process.stdin)
            await trio.aclose_forcefully(process.stdout)
        if not os.environ.get("INTEROP_LOGS"):
            log.unlink(missing_ok=True)


async def read_line(process: trio.Process) -> bytes:
    """Read up to the end of a line, or of the stream."""
    line = b""
    if process.stdout is not None:
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            if not chunk:
                break
            line += chunk
    return bytes(line)


def read_log(log: Path) -> str:
    return log.read_text(errors="replace")[-8000:] if log.exists() else "(no log)"
