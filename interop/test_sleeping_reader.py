"""64 MiB over QUIC to readers that sleep: what both ends hold stays at the windows.

Real sockets. It needs no peer of others, and is here because it takes its time; with 8 MiB and
virtual time the same is in tests/transports/quic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import psutil
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet import HostConfig, PrivateKey, open_host, presets
from p2pnet.errors import StreamReset
from p2pnet.interfaces import Stream
from p2pnet.transports.quic import QUIC
from tests.transports.quic.test_quic_streams import CoreName

SIZE = 64 * 1024 * 1024
BLOCK = 65_536
PROTOCOL = "/sleepy/1.0.0"
LISTEN = "/ip4/127.0.0.1/udp/0/quic-v1"
QUIET_SECONDS = 0.5
"""Nobody has had anything to do for so long: the senders are stuck."""
LIMITS = QUIC()
MIB = 1024 * 1024


def config(core: CoreName, *listen: str) -> HostConfig:
    quic = QUIC(core=core, keep_alive=1000.0)
    return presets.minimal(key=PrivateKey.generate(), listen=listen, transports=[quic])


class Sender:
    """Sends blocks that differ from one another."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.digest = hashlib.sha256()
        self.taken = 0
        self.error: StreamReset | None = None

    async def send(self, stream: Stream) -> None:
        try:
            while self.taken < self.size:
                block = self.taken.to_bytes(8) * (BLOCK // 8)
                await stream.send_all(block)
                self.digest.update(block)
                self.taken += BLOCK
            await stream.send_eof()
        except StreamReset as error:
            self.error = error


class Sleeper:
    """Reads when it is woken, whatever streams come."""

    def __init__(self, streams: int) -> None:
        self.wake = trio.Event()
        self.done = trio.Event()
        self._streams = streams
        self.sizes: list[int] = []
        self.digests: set[bytes] = set()
        self.errors: list[StreamReset] = []

    async def read(self, stream: Stream) -> None:
        digest, size = hashlib.sha256(), 0
        await self.wake.wait()
        try:
            async for chunk in stream:
                digest.update(chunk)
                size += len(chunk)
            self.digests.add(digest.digest())
        except StreamReset as error:
            self.errors.append(error)
        self.sizes.append(size)
        if len(self.sizes) == self._streams:
            self.done.set()
        await stream.aclose()


@dataclass
class Night:
    """What came of it."""

    senders: list[Sender]
    sleeper: Sleeper
    stuck_at: int = 0
    """Bytes that the senders had got rid of when nothing moved any more ..."""
    grown_by: int = 0
    """... and by how much this process had grown then; both ends are in it."""

    @property
    def errors(self) -> list[StreamReset]:
        return [sender.error for sender in self.senders if sender.error is not None]


async def put_to_sleep(core: CoreName, streams: int) -> Night:
    """Send until it sticks, wake the readers, and let them come to an end."""
    night = Night([Sender(SIZE // streams) for _ in range(streams)], Sleeper(streams))
    async with open_host(config(core, LISTEN)) as there, open_host(config(core)) as here:
        there.handle(PROTOCOL, night.sleeper.read)
        target = f"{there.addresses.value[0]}/p2p/{there.peer_id}"
        connection = await here.connect(target)
        before = psutil.Process().memory_info().rss
        async with trio.open_nursery() as nursery:
            for sender in night.senders:
                stream = await connection.open_stream(PROTOCOL)
                nursery.start_soon(sender.send, stream)
            await wait_all_tasks_blocked(QUIET_SECONDS)
            night.stuck_at = sum(sender.taken for sender in night.senders)
            night.grown_by = psutil.Process().memory_info().rss - before
            night.sleeper.wake.set()
        await night.sleeper.done.wait()
    return night


@pytest.mark.parametrize(
    ("streams", "window"), [(1, LIMITS.stream_window), (8, LIMITS.connection_window)]
)
async def test_sleeping_readers_cost_their_window_and_lose_nothing(
    streams: int, window: int
) -> None:
    """Q13, Q14, Q22: one stream is held by its own window, many by that of the connection."""
    night = await put_to_sleep("aioquic", streams)
    # Not read yet, the bytes are held by this end or by that one, and by nobody else.
    assert 0 < night.stuck_at <= window + LIMITS.max_unsent_bytes
    assert night.grown_by < 16 * MIB
    check(night, streams)


@pytest.mark.parametrize("streams", [1, 8])
async def test_with_the_fast_core_they_cost_half_of_the_largest_window(streams: int) -> None:
    """Q13, Deviations: its library gives credit for all streams, or for none; nothing is lost."""
    night = await put_to_sleep("qh3", streams)
    assert night.stuck_at < LIMITS.max_connection_window + LIMITS.max_unsent_bytes
    assert night.grown_by < 64 * MIB
    check(night, streams)


def check(night: Night, streams: int) -> None:
    """See that what was sent has arrived, whole."""
    assert not night.errors
    assert not night.sleeper.errors
    assert night.sleeper.sizes == [SIZE // streams] * streams
    assert night.sleeper.digests == {sender.digest.digest() for sender in night.senders}
