"""The programs of the README run as printed, and its list of names is the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

README = Path(__file__).parent.parent.parent / "README.md"
PROGRAM = re.compile(r"<!-- program: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
PROGRAMS = dict(PROGRAM.findall(README.read_text()))


@asynccontextmanager
async def running(
    name: str, *arguments: str, port: str = "0"
) -> AsyncGenerator[trio.abc.ReceiveStream, None]:
    """Run a program; only its fixed port is replaced, as a test must not rely on that."""
    source = re.sub(r"/(tcp|udp)/400\d", rf"/\1/{port}", PROGRAMS[name])
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with process.stdout:
            yield process.stdout
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()


async def read_line(stream: trio.abc.ReceiveStream) -> str:
    line = b""
    while not line.endswith(b"\n"):
        chunk = await stream.receive_some(1)
        assert chunk, "the program ended early"
        line += chunk
    return line.decode().strip()


async def run_client(*arguments: str, patience: str = "15") -> list[str]:
    source = PROGRAMS["echo_client"].replace("move_on_after(15)", f"move_on_after({patience})")
    done = await trio.run_process([sys.executable, "-c", source, *arguments], capture_stdout=True)
    return done.stdout.decode().splitlines()


@pytest.mark.sockets
async def test_a_program_names_the_transports_it_wants() -> None:
    async with running("all_transports") as host:
        lines = [await read_line(host) for _ in range(3)]
    assert ["quic" in lines[0], "/tcp/" in lines[1], "/ws/" in lines[2]] == [True] * 3


@pytest.mark.sockets
async def test_the_echo_programs_run_as_printed() -> None:
    async with running("echo_server") as server:
        address = await read_line(server)
        assert await run_client(address) == ["direct", "b'hello'"]


@pytest.mark.sockets
async def test_the_three_programs_meet_by_peer_id() -> None:
    async with running("relay") as relay:
        relay_address = await read_line(relay)
        async with running("echo_server", relay_address) as server:
            peer_id = (await read_line(server)).rpartition("/p2p/")[2]
            assert (await read_line(relay)).startswith("ReservationGranted(")
            # On loopback nothing is punched, so there is nothing to wait for.
            answer = await run_client(peer_id, relay_address, patience="0.1")
            assert answer == ["relayed", "b'hello'"]
            # The client reserves and calls at the same time.
            told = [(await read_line(relay)).partition("(")[0] for _ in range(2)]
            assert sorted(told) == ["CircuitOpened", "ReservationGranted"]


async def test_the_simulated_homes_meet_as_printed() -> None:
    program = [sys.executable, "-c", PROGRAMS["two_homes"]]
    done = await trio.run_process(program, capture_stdout=True)
    assert done.stdout.startswith(b"direct: <Connection")


@pytest.mark.sockets
async def test_the_program_that_asks_why_says_so() -> None:
    peer = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
    command = [sys.executable, "-c", PROGRAMS["why"], f"/ip4/127.0.0.1/tcp/1/p2p/{peer}"]
    done = await trio.run_process(command, capture_stdout=True)
    cause, remedy, *about_itself = done.stdout.decode().splitlines()
    assert cause == "Cause.REFUSED"
    assert remedy == "see whether the peer runs, and whether the port is right"
    assert about_itself[0].startswith("this host: ")


def test_each_program_is_short() -> None:
    assert set(PROGRAMS) == {
        "all_transports",
        "echo_server",
        "echo_client",
        "relay",
        "two_homes",
        "why",
    }
    for name, source in PROGRAMS.items():
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) <= 17, name
