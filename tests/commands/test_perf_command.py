"""``p2pnet perf`` and the nodes that serve it, as processes. Rules C11, C12."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest
import trio

from p2pnet.commands.perf import FACTORS, in_words, size_in_bytes, size_in_words
from p2pnet.protocols.perf import Figures
from tests.commands.test_commands import LOOPBACK, P2PNET, PEER, ask, events, run, running

MIB = 1_048_576


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1b", 1),
        ("10kB", 10_000),
        ("10KiB", 10_240),
        ("64MiB", 64 * MIB),
        ("64 mib", 64 * MIB),
        ("1TB", 10**12),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_a_size_is_digits_and_perhaps_a_unit(text: str, count: int) -> None:
    """C12."""
    assert size_in_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MiB",
        "-1",
        "1.5MiB",
        "1 MiBs",
        "1XB",
        "1m",
        "18446744073709551616",
        "9" * 5000,
        "\u0663",
    ],
)
def test_anything_else_is_no_size(text: str) -> None:
    """C12."""
    with pytest.raises(ValueError, match="bytes"):
        size_in_bytes(text)


@pytest.mark.sockets
def test_what_is_no_size_is_a_wrong_argument() -> None:
    """C3 C12."""
    assert run("perf", f"{LOOPBACK}/p2p/{PEER}", "--upload=1XB").returncode == 2


def test_sizes_and_figures_in_words() -> None:
    assert size_in_words(0) == "0 B"
    assert size_in_words(999) == "999 B"
    assert size_in_words(1000) == "0.9766 KiB"
    assert size_in_words(64 * MIB) == "64 MiB"
    assert size_in_words(2.0**70) == "1024 EiB"
    assert all(size_in_words(factor) for factor in FACTORS.values())
    assert in_words(Figures(0, 0, 0.25, 0.0)) == "nothing, in 0.250 s"
    assert in_words(Figures(MIB, 0, 2.0, 2.0)) == "up   1 MiB in 2.000 s: 512 KiB/s"
    both = in_words(Figures(MIB, 4 * MIB, 3.0, 2.0))
    assert both == "up   1 MiB in 2.000 s: 512 KiB/s\ndown 4 MiB in 1.000 s: 4 MiB/s"


@pytest.mark.sockets
async def test_a_node_with_perf_is_measured() -> None:
    """C11."""
    async with running("node", "--listen", LOOPBACK, "--perf") as node:
        address = str((await node.wait_event("listening"))["address"])
        done = await ask("perf", address, "--upload", "3MiB", "--download", "5MB", "--json")
        assert done.returncode == 0, done.stderr
        *_, figures = events(done)
        assert figures["event"] == "perf"
        assert (figures["uploaded"], figures["downloaded"]) == (3 * MIB, 5_000_000)
        assert figures["relayed"] is False
        words = await ask("perf", address, "--download", "1MiB")
        assert words.stdout.startswith(b"down 1 MiB in ")
        assert (words.stdout.count(b"\n"), words.stderr) == (1, b"")
        default = (await ask("perf", address)).stdout.splitlines()
        assert [line[:11] for line in default] == [b"up   16 MiB", b"down 16 MiB"]
        assert await node.stop(signal.SIGINT) == 0


@pytest.mark.sockets
async def test_each_second_tells_what_went_since_the_one_before() -> None:
    """C11."""
    async with running("relay", "--listen", LOOPBACK, "--perf") as relay:
        address = str((await relay.wait_event("listening"))["address"])
        async with running("perf", address, "--download", "1TiB") as asking:
            first = await asking.wait_event("perf_progress")
            second = await asking.wait_event("perf_progress")
            assert await asking.stop(signal.SIGINT) == 130
        assert first["uploaded"] == second["uploaded"] == 0
        assert isinstance(first["seconds"], float)
        assert isinstance(second["seconds"], float)
        assert 0.9 < second["seconds"] - first["seconds"] < 5
        assert isinstance(second["downloaded"], int)
        assert 0 < second["downloaded"] < 2**36


@pytest.mark.sockets
async def test_a_terminal_is_shown_a_bar_that_is_gone_in_the_end() -> None:
    """C11."""
    async with running("node", "--listen", LOOPBACK, "--perf") as node:
        address = str((await node.wait_event("listening"))["address"])
        ours, theirs = pty.openpty()
        command = [*P2PNET, "perf", address, "--upload", "256MiB"]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        drawn = await trio.to_thread.run_sync(read_terminal, ours)
        assert await process.wait() == 0
        assert process.stdout is not None
        assert bytes(await process.stdout.receive_some()).startswith(b"up   256 MiB in")
        await process.stdout.aclose()
        assert b"up   [" in drawn
        assert b"/s" in drawn
        assert drawn.endswith(b"\r\x1b[K")


def read_terminal(handle: int) -> bytes:
    """Read until the other end is gone, which Linux tells as an error."""
    drawn = b""
    try:
        while data := os.read(handle, 4096):
            drawn += data
    except OSError:
        pass
    finally:
        os.close(handle)
    return drawn


@pytest.mark.sockets
async def test_who_is_not_served_is_told_so() -> None:
    """C4."""
    async with running("node", "--listen", LOOPBACK, "--perf-for", PEER) as node:
        address = str((await node.wait_event("listening"))["address"])
        (refused,) = events(await ask("perf", address, "--json"))
        assert refused["kind"] == "PerfRefused"
        assert "list" in str(refused["remedy"])
    async with running("node", "--listen", LOOPBACK) as node:
        address = str((await node.wait_event("listening"))["address"])
        (refused,) = events(await ask("perf", address, "--json"))
        assert refused["cause"] == "nothing_in_common"
        assert "--perf" in str(refused["remedy"])
    assert run("node", "--perf-for", "nobody").returncode == 2


@pytest.mark.sockets
async def test_a_circuit_with_limits_is_not_measured() -> None:
    """C4."""
    async with running("relay", "--listen", LOOPBACK) as relay:
        address = str((await relay.wait_event("listening"))["address"])
        async with running("node", "--listen", LOOPBACK, "--relay", address, "--perf") as node:
            peer = str((await node.wait_event("reservation"))["address"]).rpartition("/")[2]
            (refused,) = events(await ask("perf", peer, "--relay", address, "--json"))
            assert refused["kind"] == "PerfRefused"
            assert "--direct" in str(refused["remedy"])
