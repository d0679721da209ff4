"""The arguments of the command are read before anything large is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from p2pnet.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
sys.exit(sorted({"trio", "cryptography", "multiaddr"} & set(sys.modules)) or 0)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ping", "--help"], ["pong"]])
def test_help_and_typing_errors_need_no_large_imports(arguments: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr


def test_a_network_needs_them() -> None:
    command = [sys.executable, "-c", PROGRAM, "relay", "--limits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "['cryptography', 'multiaddr', 'trio']"
