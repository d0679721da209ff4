"""The command as a user runs it: processes, JSON lines, exit codes. Rules C1 to C10."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2pnet.connectivity.causes import Cause

pytestmark = pytest.mark.sockets

ROOT = Path(__file__).parents[2]
P2PNET = [sys.executable, "-m", "p2pnet"]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
PEER = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"


def run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*P2PNET, *arguments], input=data, capture_output=True, check=False)


def events(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(event: dict[str, object], field: str) -> list[dict[str, object]]:
    found = event[field]
    assert isinstance(found, list)
    return found


@asynccontextmanager
async def running(*arguments: str) -> AsyncGenerator[Running, None]:
    process = await trio.lowlevel.open_process(
        [*P2PNET, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield Running(process)
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.aclose()
        await process.stderr.aclose()


HANGS = 120.0
"""Seconds; nothing here takes so long, however busy the machine is."""


class Running:
    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def wait_event(self, name: str) -> dict[str, object]:
        """Return the next event of that name; one that never comes is an error."""
        with trio.fail_after(HANGS):
            while (event := await self._event(name))["event"] != name:
                pass
            return event

    async def _event(self, wanted: str) -> dict[str, object]:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            chunk = await self.process.stdout.receive_some()
            assert chunk, f"the process ended before it told {wanted}"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, object] = json.loads(line)
        return event

    async def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


async def ask(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return await trio.to_thread.run_sync(lambda: run(*arguments, data=data))


def test_a_new_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    """C6."""
    path = tmp_path / "key"
    made = run("key", "new", str(path))
    assert made.returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    again = run("key", "new", str(path))
    assert again.returncode == 1
    assert b"exists already" in again.stderr
    assert path.read_bytes() == content
    shown = run("id", "--key", str(path))
    assert shown.stdout == made.stdout
    assert shown.stdout.startswith(b"12D3KooW")
    (event,) = events(run("id", "--key", str(path), "--json"))
    assert event == {"event": "id", "peer_id": shown.stdout.decode().strip()}


def test_wrong_arguments_are_told_with_exit_code_2() -> None:
    """C3."""
    assert run("ping", "/ip4/127.0.0.1/tcp/1").returncode == 2
    assert run("ping", "nonsense").returncode == 2
    assert run("node", "--listen", "/ip4/300.0.0.1/tcp/1").returncode == 2
    assert run("node", "--listen", f"{LOOPBACK}/p2p/{PEER}").returncode == 2
    assert run("ping", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", "--direct", "nan").returncode == 2
    assert run("ping", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", "--count", "0").returncode == 2


def test_an_address_that_cannot_be_read_is_told_once_with_what_is_wrong() -> None:
    (line,) = [
        line for line in run("ping", "/ip4/1.2.3/tcp/1").stderr.splitlines() if b"1.2" in line
    ]
    assert line == (
        b"p2pnet ping: error: argument ADDR: '/ip4/1.2.3/tcp/1' is not a multiaddr: "
        b"base address '1.2.3' is not IPv4"
    )


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version").stdout.decode().strip() == f"p2pnet/{project['version']}"


def test_a_file_that_is_no_key_is_told_in_plain_words(tmp_path: Path) -> None:
    """C4."""
    path = tmp_path / "key"
    path.write_bytes(b"garbage\n")
    done = run("node", "--key", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path} holds no private key: ".encode())


def test_a_failure_tells_every_cause_and_a_remedy() -> None:
    """C4."""
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    done = run("ping", address, "--json")
    assert done.returncode == 1
    (event,) = events(done)
    assert event["event"] == "error"
    assert event["kind"] == "DialError"
    assert event["causes"] == [
        {
            "address": "/ip4/127.0.0.1/tcp/1",
            "cause": "ConnectionRefusedError: [Errno 111] Connection refused",
        }
    ]
    assert event["cause"] == "refused"
    assert event["remedy"] == Cause.REFUSED.remedy
    words = run("ping", address)
    assert words.stdout == b""
    assert words.stderr.decode().splitlines()[-1] == f"what to do: {Cause.REFUSED.remedy}"


def test_a_listen_address_that_is_not_ours_is_told_with_what_to_do() -> None:
    """C4."""
    done = run("node", "--listen", "/ip4/8.8.8.8/tcp/4001", "--json")
    assert done.returncode == 1
    (event,) = events(done)
    assert event["cause"] is None
    assert "--listen" in str(event["remedy"])


def test_the_doctor_tells_what_would_help_and_of_a_peer_why_it_is_not_reached() -> None:
    """C8 C10."""
    missing = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    done = run("doctor", "--listen", LOOPBACK, missing, "--json")
    assert done.returncode == 1
    (report,) = events(done)
    assert report["event"] == "doctor"
    assert report["remedy"] == Cause.LOOPBACK_ONLY.remedy
    assert rows(rows(report, "peers")[0], "findings")[0]["cause"] == "refused"
    words = run("doctor", "--listen", LOOPBACK).stdout.decode()
    assert f"What would help most: {Cause.LOOPBACK_ONLY.remedy}" in words


async def test_a_doctor_that_watches_ends_when_it_is_told_to() -> None:
    """C9 C10."""
    async with running("relay", "--listen", LOOPBACK) as relay:
        address = str((await relay.wait_event("listening"))["address"])
        async with running("doctor", "--watch", "--relay", address) as watching:
            while True:
                report = await watching.wait_event("doctor")
                if rows(report, "relays")[0]["held"]:
                    break
            assert await watching.stop(signal.SIGINT) == 0


def test_logs_go_to_stderr_and_leave_stdout_to_the_events() -> None:
    """C1 C2."""
    done = run("ping", "/ip4/127.0.0.1/tcp/1/p2p/" + PEER, "--json", "-vv")
    assert [event["event"] for event in events(done)] == ["error"]


def test_a_bare_peer_id_without_relay_says_what_is_missing() -> None:
    done = run("ping", PEER)
    assert done.returncode == 1
    assert b"--relay" in done.stderr


async def test_node_ping_identify_and_echo() -> None:
    async with running("node", "--listen", LOOPBACK, "--echo") as node:
        address = str((await node.wait_event("listening"))["address"])
        pinged = await ask("ping", address, "--count", "2", "--json")
        assert pinged.returncode == 0, pinged.stderr
        first, second = events(pinged)
        assert (first["event"], first["sequence"], first["relayed"]) == ("ping", 1, False)
        assert isinstance(second["rtt_ms"], float)

        (told,) = events(await ask("identify", address, "--json"))
        assert told["event"] == "identify"
        assert address.rpartition("/p2p/")[0] in str(told["addresses"])
        assert str(told["observed"]).startswith("/ip4/127.0.0.1/tcp/")

        data = os.urandom(1_000_000)
        echoed = await ask("echo", address, data=data)
        assert echoed.returncode == 0, echoed.stderr
        assert echoed.stdout == data

        silent = await ask("echo", address)
        assert (silent.returncode, silent.stdout, silent.stderr) == (0, b"", b"")

        opened = await node.wait_event("connection")
        assert opened["inbound"] is True
        await node.wait_event("closed")
        assert await node.stop(signal.SIGINT) == 0


async def test_a_node_tells_that_it_cannot_reach_its_relay() -> None:
    relay = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}"
    async with running("node", "--listen", LOOPBACK, "--relay", relay) as node:
        failed = await node.wait_event("reservation_failed")
        assert failed["relay"] == PEER
        assert "Connection refused" in str(failed["reason"])
        assert failed["remedy"] == Cause.RELAY_UNREACHABLE.remedy
        assert await node.stop(signal.SIGTERM) == 0


async def test_over_a_relay_by_peer_id() -> None:
    async with running("relay", "--listen", LOOPBACK) as relay:
        address = str((await relay.wait_event("listening"))["address"])
        async with running("node", "--listen", LOOPBACK, "--relay", address, "--echo") as node:
            reservation = await node.wait_event("reservation")
            circuit = str(reservation["address"])
            peer_id = circuit.rpartition("/p2p/")[2]
            assert circuit == f"{address}/p2p-circuit/p2p/{peer_id}"

            (pinged,) = events(
                await ask("ping", peer_id, "--relay", address, "--count", "1", "--json")
            )
            assert (pinged["event"], pinged["relayed"]) == ("ping", True)

            data = os.urandom(20_000)
            echoed = await ask("echo", peer_id, "--relay", address, data=data)
            assert echoed.returncode == 0, echoed.stderr
            assert echoed.stdout == data

            # More than the relay carries over one circuit.
            data = os.urandom(400_000)
            echoed = await ask("echo", peer_id, "--relay", address, data=data)
            assert echoed.returncode == 0, echoed.stderr
            assert echoed.stdout == data
        await relay.wait_event("ended")
        assert await relay.stop(signal.SIGTERM) == 0


async def test_a_node_names_the_port_that_is_taken_and_a_ping_the_wrong_peer() -> None:
    """C4."""
    async with running("node", "--listen", LOOPBACK) as node:
        address = str((await node.wait_event("listening"))["address"])
        place = address.rpartition("/p2p/")[0]
        (taken,) = events(await ask("node", "--listen", place, "--json"))
        assert f"cannot listen at {place}" in str(taken["message"])
        assert "--listen" in str(taken["remedy"])

        (wrong,) = events(await ask("ping", f"{place}/p2p/{PEER}", "--json"))
        assert wrong["cause"] == "wrong_peer"
        assert wrong["remedy"] == Cause.WRONG_PEER.remedy


async def test_echo_does_without_stdin_and_not_without_stdout() -> None:
    async with running("node", "--listen", LOOPBACK, "--echo") as node:
        address = str((await node.wait_event("listening"))["address"])
        for closed, code in (("<&-", 0), (">&-", 1)):
            script = f'echo hi | exec "$@" {closed}' if code else f'exec "$@" {closed}'
            command = ["sh", "-c", script, "sh", *P2PNET, "echo", address]
            done = await trio.run_process(command, capture_stderr=True, check=False)
            assert (done.returncode, done.stderr) == (code, b"")
