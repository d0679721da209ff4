"""The demo as a user runs it: how it ends, how it is interrupted, and what it leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

import pytest

from p2pnet.demo.namespaces import check_support

pytestmark = pytest.mark.sockets

DEAD = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
PEER = "12D3KooWNboJJwCs4aGsaH2USQiNXgQoMmyCkq1djKhTR172aEVA"
PATIENCE = 60.0
ON_LOOPBACK = """
import sys
from p2pnet.__main__ import main
from p2pnet.demo import program
from p2pnet.demo.namespaces import Support
program.check_support = lambda: Support(False, None, ("this is a test",))
sys.exit(main(["demo", "--json"]))
"""
WAYS = {
    "loopback": [sys.executable, "-c", ON_LOOPBACK],
    "namespaces": [sys.executable, "-m", "p2pnet", "demo", "--json"],
}


@pytest.fixture(params=WAYS)
def command(request: pytest.FixtureRequest) -> list[str]:
    way: str = request.param
    if way == "namespaces" and not check_support().usable:
        pytest.skip(f"not permitted here: {check_support().missing}")
    return WAYS[way]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    # A terminal interrupts a whole process group, which this one leads.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def read_until(process: subprocess.Popen[bytes], event: str) -> None:
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(json.loads(line))
        if told[-1]["event"] == event:
            return
    _, errors = process.communicate()
    pytest.fail(f"the demo told {told} and not {event}, and said {errors!r}")


def wait_all_gone(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for the end of stderr, which every process of the demo has; give what was in it."""
    assert process.stderr is not None
    said = b""
    while select.select([process.stderr], [], [], PATIENCE)[0]:
        chunk = os.read(process.stderr.fileno(), 65_536)
        if not chunk:
            return said
        said += chunk
    pytest.fail("something of the demo is still running")


def test_without_namespaces_it_says_so_and_ends_direct_on_loopback() -> None:
    done = subprocess.run(WAYS["loopback"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0] == {"event": "missing", "reason": "this is a test"}
    assert events[1] == {"event": "stage", "stage": "loopback"}
    assert [event["relayed"] for event in events if event["event"] == "connected"] == [True, False]
    assert events[-1] == {"event": "done", "ok": True}


def test_an_interrupt_ends_all_of_it_without_a_word(command: list[str]) -> None:
    """C3."""
    with start(command) as process:
        read_until(process, "begin")
        os.killpg(process.pid, signal.SIGINT)
        assert wait_all_gone(process) == b""
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_actor_outlives_the_director(command: list[str], number: signal.Signals) -> None:
    with start(command) as process:
        read_until(process, "begin")
        process.send_signal(number)
        assert b"Traceback" not in wait_all_gone(process)
    assert process.returncode != 0


def test_an_end_without_a_reader_is_no_success_and_no_traceback(command: list[str]) -> None:
    with start(command) as process:
        read_until(process, "relay")
        assert process.stdout is not None
        process.stdout.close()
        assert wait_all_gone(process) == b""
    assert process.returncode == 1


def test_an_actor_tells_why_it_failed() -> None:
    part = ["sender", "/ip4/127.0.0.1/tcp/0", DEAD, "loopback", PEER]
    with subprocess.Popen(
        [sys.executable, "-m", "p2pnet.demo.actor", *part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        assert wait_all_gone(process) == b""
    assert process.returncode == 1
    assert events[-1]["event"] == "failed"
    assert events[-1]["reason"].startswith(f"the sender: cannot reach {PEER}")
