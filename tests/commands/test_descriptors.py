"""As many file descriptors as the system gives. Rule C19."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import trio

from tests.commands.test_commands import LOOPBACK, P2PNET, Running

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit"),
]

TOLD = """
import resource
from p2pnet.commands.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard"), [(200, 300), (300, 300)])
def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int) -> None:
    program = TOLD.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [str(hard).encode()] * 3


async def said_by_relay(limits: str, *arguments: str) -> str:
    """Start a relay under some limits of the shell, and end it; return what it said on stderr."""
    under = ["sh", "-c", f'{limits}; exec "$@"', "sh", *P2PNET, "relay", "--listen", LOOPBACK]
    process = await trio.lowlevel.open_process(
        [*under, "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = b""
    try:
        with trio.fail_after(30):
            await Running(process).wait_event("listening")
            process.send_signal(signal.SIGTERM)
            async for piece in process.stderr:
                said += piece
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
    return said.decode()


async def test_a_relay_warns_if_its_limits_need_more_than_it_may_have() -> None:
    said = await said_by_relay("ulimit -n 300")
    assert "room for 2688 connections, but no more than 300 open files" in said
    few = ["--limit", "max_circuits=7", "--limit", "max_reservations=7"]
    assert not await said_by_relay("ulimit -Sn 300; ulimit -Hn 600", *few)
    assert "room for 533 connections" in await said_by_relay("ulimit -n 590", *few)
