"""The laboratory of all kinds of NAT, as people use it: from the command line, without root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from interop.conftest import unavailable
from p2pnet.demo.namespaces import Support, check_support

ROOT: Final = Path(__file__).parent.parent
SECONDS: Final = 60
NATLAB: Final = [sys.executable, "-m", "interop.natlab"]
# Without capabilities root is to the kernel like anybody, so that it takes a user namespace.
ORDINARY: Final = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all", "--no-new-privs"]
HOMES: Final = ["home-a=port-restricted", "home-b=carrier", "home-c=firewall", "home-d=open"]
ADDRESSES: Final = {
    "relay": "11.0.0.1",
    "a": "192.168.1.2",
    "b": "192.168.1.2",
    "c": "11.0.3.130",
    "d": "11.0.4.1",
}
OWN_ADDRESSES: Final = (
    "import psutil; print([a[0].address for a in psutil.net_if_addrs().values()])"
)


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: plain sockets do here."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who uses the laboratory, root or not, with a folder for notes of their own."""

    prefix: list[str]
    notes: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.notes)}

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *argv],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    @contextmanager
    def up(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        laboratory = subprocess.Popen(
            [*self.prefix, *NATLAB, "up", "--json", *options],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # A process group of its own, as in a terminal.
        )
        try:
            yield laboratory
        finally:
            laboratory.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def support() -> Support:
    found = check_support()
    if not found.usable:
        unavailable("; ".join(found.missing))
    return found


@pytest.fixture
def user(support: Support, tmp_path: Path) -> User:
    """Be an ordinary user, also where root runs the tests."""
    return User(ORDINARY if os.geteuid() == 0 else [], tmp_path)


def test_root_enters_hosts_too(support: Support, tmp_path: Path) -> None:
    if support.how != "root":
        unavailable("needs root")
    root = User([], tmp_path)
    with root.up("home-a=open") as laboratory:
        assert laboratory.stdout is not None
        hosts = json.loads(laboratory.stdout.readline())["hosts"]
        look = [sys.executable, "-c", OWN_ADDRESSES]
        assert "11.0.1.1" in root.run(*hosts["a"]["enter"], *look).stdout
    assert laboratory.returncode == 0


def test_hosts_are_entered_from_another_terminal_until_the_end_of_input(user: User) -> None:
    with user.up(*HOMES, "--delay", "1ms") as laboratory:
        assert laboratory.stdout is not None
        hosts = json.loads(laboratory.stdout.readline())["hosts"]
        assert {name: hosts[name]["address"] for name in ADDRESSES} == ADDRESSES
        look = [sys.executable, "-c", OWN_ADDRESSES]
        for name, address in ADDRESSES.items():
            assert address in user.run(*hosts[name]["enter"], *look).stdout
        assert "192.168.1.2" in user.run(*NATLAB, "run", "a", "--", *look).stdout
        wrong = user.run(*NATLAB, "run", "z", "--", "true")
        assert wrong.returncode == 1
        assert "there is no host z; there are relay" in wrong.stderr
    assert laboratory.returncode == 0
    after = user.run(*NATLAB, "run", "a", "--", "true")
    assert after.returncode == 1
    assert "no laboratory is up" in after.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_laboratory_cleanly(user: User, number: signal.Signals) -> None:
    with user.up("home-a=symmetric") as laboratory:
        assert laboratory.stdout is not None
        hosts = json.loads(laboratory.stdout.readline())["hosts"]
        if number is signal.SIGINT:
            os.killpg(laboratory.pid, number)  # As Ctrl-C does.
        else:
            laboratory.send_signal(number)
        assert laboratory.wait(SECONDS) == 0
    assert user.run(*hosts["a"]["enter"], "true").returncode != 0
    assert not list(user.notes.rglob("*.json"))


def test_command_runs_in_the_laboratory_and_its_status_comes_back(user: User) -> None:
    inner = f"{sys.executable} -m interop.natlab run b -- {sys.executable} -c '{OWN_ADDRESSES}'"
    done = user.run(
        *NATLAB, "up", "home-a=open", "home-b=full-cone", "--", "sh", "-c", f"{inner}; exit 7"
    )
    assert "'192.168.1.2'" in done.stdout, done.stderr
    assert done.returncode == 7


def test_hosts_behind_a_fabric_and_behind_the_kernel_classify_alike(user: User) -> None:
    options = ["--kinds", "address-restricted", "--transport", "udp", "--no-simulation", "--json"]
    found = []
    for engine in ("kernel", "fabric"):
        done = user.run(*NATLAB, "calibrate", "--engine", engine, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found.append([row["found"] for row in rows if row["event"] == "classified"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "home-a=strict"], "no kind 'strict'; there are open, firewall"),
        (["up", "home-a=open", "--delay", "long"], "'long' is no duration"),
        (["up", "home-a=open", "home-a=open"], "a is there already"),
        (["up", "home-a=open", "--", "no-such-program"], "no-such-program cannot be run"),
        (["run", "a"], "what is to be run there?"),
        (["calibrate", "--", "true"], "a command is for `up` and `run` only"),
    ],
)
def test_mistakes_are_told(user: User, arguments: list[str], complaint: str) -> None:
    done = user.run(*NATLAB, *arguments)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr


def test_kinds_are_listed(user: User) -> None:
    listed = [json.loads(line) for line in user.run(*NATLAB, "kinds", "--json").stdout.splitlines()]
    nats = {each["kind"]: each["nats"] for each in listed}
    assert nats["open"] == []
    assert nats["symmetric"] == [
        [
            "address-and-port-dependent mapping",
            "address-and-port-dependent filtering",
            "ports: random",
        ]
    ]
    assert len(nats["carrier"]) == 2
