"""p2pnet gets through the NATs of the kernel where theory says so: each kind in two pairs.

``python -m interop.natlab matrix`` does the same with all pairs, and takes half an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interop.natlab.matrix import pairs_of
from interop.worlds import need_namespaces
from p2pnet.testing.kinds import MATRIX
from p2pnet.testing.matrix import TRANSPORTS

ROOT = Path(__file__).parent.parent
SECONDS = 1200
"""Only so that it ends, should it hang: on a quiet machine it takes about 70."""


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: all are p2pnet."""


def test_the_sample_has_each_kind_twice() -> None:
    callers, called = zip(*pairs_of(None, sample=True), strict=True)
    assert {kind.name for kind in callers} == {kind.name for kind in called} == set(MATRIX)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_pairs_get_as_far_as_theory_allows_in_the_laboratory_too(transport: str) -> None:
    need_namespaces()
    options = ["matrix", "--sample", "--transport", transport, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "interop.natlab", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    assert rows.pop() == {"event": "done", "measured": len(MATRIX), "disagreeing": 0}, rows
    assert all(row["outcome"] == row["expected"] for row in rows)
    assert all(row["reason"] for row in rows if row["outcome"] == "relayed")
