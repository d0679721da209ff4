"""64 MiB over QUIC to a reader that sleeps: what both ends hold stays at the windows.

Real sockets. It needs no peer of others, and is here because it takes its time; with 8 MiB and
virtual time the same is in tests/transports/quic.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet import HostConfig, PrivateKey, open_host, presets
from p2pnet.errors import StreamReset
from p2pnet.interfaces import Stream
from p2pnet.transports.quic import QUIC

SIZE = 64 * 1024 * 1024
BLOCK = 65_536
PROTOCOL = "/sleepy/1.0.0"
LISTEN = "/ip4/127.0.0.1/udp/0/quic-v1"
QUIET_SECONDS = 0.5
"""Nobody has had anything to do for so long: the sender is stuck."""


def config(core: Literal["aioquic", "qh3"], *listen: str) -> HostConfig:
    quic = QUIC(core=core, keep_alive=1000.0)
    return presets.minimal(key=PrivateKey.generate(), listen=listen, transports=[quic])


class Sender:
    """Sends blocks that differ from one another."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.taken = 0
        self.error: StreamReset | None = None

    async def send(self, stream: Stream) -> None:
        try:
            while self.taken < SIZE:
                block = self.taken.to_bytes(8) * (BLOCK // 8)
                await stream.send_all(block)
                self.digest.update(block)
                self.taken += BLOCK
            await stream.send_eof()
        except StreamReset as error:
            self.error = error


class Sleeper:
    """Reads when it is woken."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: StreamReset | None = None
        self.wake = trio.Event()
        self.done = trio.Event()

    async def read(self, stream: Stream) -> None:
        await self.wake.wait()
        try:
            async for chunk in stream:
                self.digest.update(chunk)
                self.size += len(chunk)
        except StreamReset as error:
            self.error = error
        self.done.set()


async def put_to_sleep(core: Literal["aioquic", "qh3"]) -> tuple[Sender, Sleeper, int]:
    """Send until it sticks, wake the reader; return what the sender had got rid of by then."""
    sender, sleeper = Sender(), Sleeper()
    async with open_host(config(core, LISTEN)) as there, open_host(config(core)) as here:
        there.handle(PROTOCOL, sleeper.read)
        target = f"{there.addresses.value[0]}/p2p/{there.peer_id}"
        connection = await here.connect(target)
        stream = await connection.open_stream(PROTOCOL)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(sender.send, stream)
            await wait_all_tasks_blocked(QUIET_SECONDS)
            stuck_at = sender.taken
            sleeper.wake.set()
            await sleeper.done.wait()
    return sender, sleeper, stuck_at


async def test_a_sleeping_reader_costs_its_window_and_loses_nothing() -> None:
    """Q13, Q14, Q22."""
    limits = QUIC()
    sender, sleeper, stuck_at = await put_to_sleep("aioquic")
    # Not read yet, the bytes are held by this end or by that one, and by nobody else.
    assert 0 < stuck_at <= limits.stream_window + limits.max_unsent_bytes
    assert sender.error is None
    assert sleeper.error is None
    assert sleeper.size == SIZE
    assert sleeper.digest.digest() == sender.digest.digest()


async def test_the_fast_core_cuts_off_what_a_sleeping_reader_would_have_to_hold() -> None:
    """Q13, Deviations: its library gives credit unasked; so there is a cap, and a reset says so."""
    limits = QUIC()
    sender, sleeper, stuck_at = await put_to_sleep("qh3")
    assert stuck_at < limits.max_connection_window + limits.max_unsent_bytes + BLOCK
    assert sender.error is not None
    with pytest.raises(StreamReset, match="out of room"):
        raise sleeper.error or AssertionError("the reader was not told")
