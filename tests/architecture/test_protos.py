"""The generated code is what protos/ says, and runs on the oldest protobuf we allow."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PB = ROOT / "p2pnet" / "pb"


def generated(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2.py*")}


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the pinned protoc comes for Linux on x86_64 only",
)
def test_generated_code_is_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "protos" / "generate.py", tmp_path], check=True)

    assert generated(PB), "no generated code at all"
    assert generated(tmp_path / "p2pnet" / "pb") == generated(PB)


def test_generated_code_runs_on_the_oldest_protobuf_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [
        re.fullmatch(r"protobuf>=(\d+\.\d+(?:\.\d+)?)(?:,<.*)?", line)
        for line in project["dependencies"]
    ]
    (allowed,) = [found.group(1) for found in bounds if found]

    needed = {
        re.search(r"^# Protobuf Python Version: (\S+)$", source.decode(), re.MULTILINE)
        for name, source in generated(PB).items()
        if name.endswith(".py")
    }
    assert {found.group(1) if found else None for found in needed} == {allowed}
