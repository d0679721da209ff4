"""The matrix prints the same bytes in any process, the hash of all packets among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pnet.testing.matrix import TRANSPORTS, Punched

ROOT = Path(__file__).parents[2]


def start_matrix(transport: Punched, hash_seed: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    options = ["--kinds", "port-restricted", "--transport", transport, "--seed", "1", "--json"]
    program = [sys.executable, "-m", "p2pnet.testing", "matrix", *options]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_processes_print_the_same_bytes(transport: Punched) -> None:
    """Q24: for QUIC, whose library draws random numbers of its own."""
    processes = [start_matrix(transport, hash_seed) for hash_seed in ("1", "2")]
    one, other = (process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert one == other
    last = json.loads(one.splitlines()[-1])
    assert len(last["trace_sha256"]) == 64
