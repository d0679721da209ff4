"""The implementations: how to have each one ready, or why it is not to be had."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers"
VENVS = ROOT / "benchmarks" / ".venvs"
INTEROP = ROOT / "interop"
PY_LIBP2P = "libp2p==0.8.1"
INSTALL_SECONDS = 3600.0

STACKS = {
    "tcp-noise": {"LISTEN": "/ip4/127.0.0.1/tcp/0", "SECURITY": "noise"},
    "tcp-tls": {"LISTEN": "/ip4/127.0.0.1/tcp/0", "SECURITY": "tls"},
    "quic": {"LISTEN": "/ip4/127.0.0.1/udp/0/quic-v1"},
    "ws-noise": {"LISTEN": "/ip4/127.0.0.1/tcp/0/ws", "SECURITY": "noise"},
}
"""The muxer is yamux, but QUIC has its own."""


class Missing(Exception):
    """An implementation is not to be had; the text tells why."""


@dataclass(frozen=True, slots=True)
class Implementation:
    name: str
    command: tuple[str, ...]
    prepare: Callable[[], None]
    """Installs and builds what is needed, unless it is there; raises Missing."""
    stacks: tuple[str, ...] = tuple(STACKS)


def nothing() -> None:
    """Prepare what is always there."""


def environment(name: str, *packages: str) -> Path:
    """Return the Python of a virtual environment with the packages, made if it is not there."""
    folder = VENVS / name
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != " ".join(packages):
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages])
        ready.write_text(" ".join(packages))
    return folder / "bin" / "python"


def prepare_fast_core() -> None:
    if importlib.util.find_spec("qh3") is None:
        raise Missing("p2pnet[quic-fast] is not installed")


def prepare_py_libp2p() -> None:
    environment("py-libp2p", PY_LIBP2P)


def prepare_js() -> None:
    need("node", "npm")
    packages = INTEROP / "js" / "node_modules"
    if not packages.exists():
        flags = ["--legacy-peer-deps", "--no-audit", "--no-fund"]
        run(["npm", "install", *flags], INTEROP / "js")
    link = PEERS / "js" / "node_modules"
    if not link.is_symlink():
        link.symlink_to("../../../interop/js/node_modules")


def prepare_go() -> None:
    need("go")
    modules = "-modfile=../../../interop/go/go.mod"
    run(["go", "build", modules, "-o", "bin/peer", "."], PEERS / "go")


def prepare_rust() -> None:
    need("cargo")
    run(["cargo", "build", "--quiet", "--release", "--locked"], PEERS / "rust")


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")


def run(command: Sequence[str], folder: Path = ROOT) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
    )
    if done.returncode:
        raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


RAW = "raw"
OURS = "p2pnet"
IMPLEMENTATIONS = (
    Implementation(RAW, (sys.executable, str(PEERS / "raw_peer.py")), nothing),
    Implementation(OURS, (sys.executable, str(PEERS / "p2pnet_peer.py")), nothing),
    Implementation(
        "p2pnet-qh3",
        (sys.executable, str(PEERS / "p2pnet_peer.py"), "qh3"),
        prepare_fast_core,
        stacks=("quic",),
    ),
    Implementation(
        "py-libp2p",
        (str(VENVS / "py-libp2p" / "bin" / "python"), str(PEERS / "py_libp2p_peer.py")),
        prepare_py_libp2p,
    ),
    Implementation(
        "js-libp2p", ("node", "--expose-gc", str(PEERS / "js" / "peer.mjs")), prepare_js
    ),
    Implementation("go-libp2p", (str(PEERS / "go" / "bin" / "peer"),), prepare_go),
    Implementation(
        "rust-libp2p", (str(PEERS / "rust" / "target" / "release" / "peer"),), prepare_rust
    ),
)
