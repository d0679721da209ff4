"""What a campaign of the NAT matrix knows: of which code its runs are, and how many there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.matrix import main
from benchmarks.matrix_code import (
    LABORATORY,
    NOT_USED,
    ROOT,
    code_hash,
    commit,
    commits_of,
    note,
    sources,
)
from benchmarks.matrix_futures import Run

ONE = Run("open", "carrier", "tcp", 0.08, 0, "direct", 0.3, 1, "")
USED = """
import sys
import benchmarks.matrix_futures
from p2pnet.testing.matrix import measure
for transport in ("tcp", "quic"):
    measure("open", "symmetric", seed=0, transport=transport)
print("\\n".join(str(getattr(module, "__file__", "")) for module in sys.modules.values()))
"""


def test_the_code_of_a_run_is_all_that_it_imports_of_p2pnet() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", USED], env=environment, capture_output=True, text=True, check=True
    )
    used = {Path(line) for line in ran.stdout.splitlines() if line.startswith(f"{ROOT}/p2pnet/")}
    assert len(used) > 200
    assert used <= set(sources())


def test_a_meeting_in_the_laboratory_depends_on_that_and_not_on_the_simulation() -> None:
    both = set(sources()) & set(sources(LABORATORY))
    assert {path.parent for path in set(sources(LABORATORY)) - both} == {ROOT / "interop/natlab"}
    assert {path.name for path in set(sources()) - both} == {"matrix_futures.py"}


def test_folders_that_no_run_uses_are_there_and_do_not_count() -> None:
    for folder in NOT_USED:
        assert list((ROOT / folder).glob("*.py"))
        assert not any(path.is_relative_to(ROOT / folder) for path in sources())


def test_each_commit_at_which_runs_were_made_is_named_once(tmp_path: Path) -> None:
    assert commits_of(tmp_path) == ()
    note(tmp_path, to_go=2)
    note(tmp_path, to_go=1)
    assert commits_of(tmp_path) == (commit(),)


def test_the_status_counts_the_runs_of_each_pair_whoever_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / code_hash()
    file = folder / "tcp-80" / "open+carrier" / "0-20.json"
    file.parent.mkdir(parents=True)
    back = replace(ONE, a="carrier", b="open", seed=1)
    file.write_text(json.dumps([asdict(run) for run in (ONE, back, replace(ONE, seed=2))]))
    note(folder, to_go=3)
    words = "--status --kinds open,carrier --round-trips 80 --transports tcp --seeds 40 --results"
    assert main([*words.split(), str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"code {folder.name}, commits: {commit()}"
    assert said[1] == "tcp 80 ms: 2 pairs 0/40, 1 pairs 3/40"
    assert said[2] == "in all: 3 of 120 runs"
    assert [line.split() for line in said[-2:]] == [["1", "open", "0", "3"], ["2", "carrier", "0"]]
