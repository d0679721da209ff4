"""The guards that every test has (tests/conftest.py), seen to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOGS = """
import logging
import pytest

@pytest.fixture
def faulty():
    {setup}
    yield
    {teardown}

def test_it(faulty, caplog):
    {call}
"""
SAYS = 'logging.getLogger("p2pnet.swarm").error("a bug of ours")'


def outcome(where: Path, text: str) -> str:
    """Run a file of tests with our guards, and return what pytest said."""
    (where / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CI": "true"}
    ran = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(where), str(where)],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("phase", ["setup", "call", "teardown"])
def test_an_error_in_the_log_fails_a_test(tmp_path: Path, phase: str) -> None:
    parts = dict.fromkeys(("setup", "call", "teardown"), "pass") | {phase: SAYS}
    assert "1 passed, 1 error" in outcome(tmp_path, LOGS.format(**parts))


def test_who_provokes_an_error_clears_it(tmp_path: Path) -> None:
    text = LOGS.format(setup="pass", call=f"{SAYS}; caplog.clear()", teardown="pass")
    assert "1 passed in" in outcome(tmp_path, text)


def test_a_skip_fails_in_ci(tmp_path: Path) -> None:
    skips = 'pytest.skip("no such thing here")'
    assert "1 failed" in outcome(tmp_path, f"import pytest\ndef test_it():\n    {skips}\n")
