"""The arguments of the command are read before anything large is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from p2pnet.commands.parser import build_parser
from p2pnet.commands.running import birthday
from p2pnet.protocols.dcutr import Birthday, DCUtR

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
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


@pytest.mark.parametrize("command", ["node", "ping", "trace", "echo", "perf"])
def test_birthday_punching_has_a_switch(command: str) -> None:
    """C18."""
    words = [command] if command == "node" else [command, PEER]
    parser = build_parser()
    assert birthday(parser.parse_args(words)) == []
    assert birthday(parser.parse_args([*words, "--birthday"])) == [DCUtR(birthday=Birthday())]


def test_what_punches_nothing_has_no_such_switch() -> None:
    """C18."""
    assert birthday(build_parser().parse_args(["identify", PEER])) == []


@pytest.mark.parametrize("command", ["node", "ping", "trace", "identify", "echo", "perf", "doctor"])
def test_relays_may_be_several(command: str) -> None:
    """C20: none takes the place of another."""
    words = [command] if command in ("node", "doctor") else [command, PEER]
    relays = [f"/ip4/11.{n}.0.1/tcp/4001/p2p/{PEER}" for n in range(2)]
    parser = build_parser()
    assert parser.parse_args(words).relay == []
    named = [word for relay in relays for word in ("--relay", relay)]
    assert parser.parse_args([*words, *named]).relay == relays
