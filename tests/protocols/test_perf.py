"""Perf: the service in a world in memory; the dialogue's scripts are those of specs/perf.md."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pnet.errors import (
    LimitedConnection,
    LimitExceeded,
    NegotiationFailed,
    ProtocolError,
    StreamReset,
)
from p2pnet.interfaces import Stream
from p2pnet.protocols.perf import Perf, PerfService, Progress
from p2pnet.protocols.perf.dialogue import BLOCK
from p2pnet.protocols.perf.messages import MAX_WANTED, PROTOCOL_ID, decode_untrusted, encode
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld

MIB = 1_048_576


async def two_hosts(
    world: MemoryWorld, *, latency: float = 0.0, relay: str | None = None, there: Perf | None = None
) -> tuple[MemoryHost, MemoryHost, MemoryConnection, PerfService]:
    asker = world.host(1, "/ip4/11.0.0.1/tcp/1")
    server = world.host(2, "/ip4/11.0.0.2/tcp/2")
    asker.window = server.window = 4 * MIB
    service = Perf(allow=()).build(asker.kit)
    await asker.start(service)
    await server.start((there or Perf()).build(server.kit))
    connection = world.connect(asker, server, latency=latency, relay=relay)
    return asker, server, connection, service


async def drained(stream: Stream) -> int:
    count = 0
    while data := await stream.receive_some():
        count += len(data)
    return count


async def test_a_run_goes_up_and_then_down(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """PF2, PF5."""
    _, server, connection, service = await two_hosts(world, latency=0.1)
    told: list[Progress] = []
    figures = await service.measure(
        connection, upload=3 * MIB + 1, download=MIB + 7, report=told.append
    )
    assert (figures.uploaded, figures.downloaded) == (3 * MIB + 1, MIB + 7)
    assert figures.upload_seconds == pytest.approx(0.2)
    assert figures.upload_rate == pytest.approx((3 * MIB + 1) / 0.2)
    assert told[-1] == Progress(3 * MIB + 1, MIB + 7)
    assert Progress(3 * MIB + 1, 0) in told
    assert told == sorted(told, key=lambda progress: (progress.uploaded, progress.downloaded))
    assert connection.opened == [PROTOCOL_ID]
    await trio.sleep(1)
    assert connection.streams == connection.other_end.streams == 0
    assert server.handler_errors == []


async def test_nothing_at_all_takes_a_round_trip(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, server, _, service = await two_hosts(world, latency=0.1)
    figures = await service.measure(server.peer_id)
    assert figures.seconds == pytest.approx(0.2)
    assert (figures.upload_rate, figures.download_rate) == (None, None)
    figures = await service.measure(str(server.peer_id), download=10)
    assert figures.upload_seconds == 0
    assert figures.download_rate == pytest.approx(50)
    assert world.limited_uses == ["refuse", "refuse"]


async def test_the_request_goes_in_one_piece_of_its_own(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF1: js-libp2p reads it from the first chunk."""
    _, server, connection, service = await two_hosts(world)
    chunks: list[bytes] = []

    async def spy(stream: Stream) -> None:
        while chunk := await stream.receive_some():
            chunks.append(bytes(chunk))

    server.handlers[PROTOCOL_ID] = spy
    await service.measure(connection, upload=len(BLOCK) + 1)
    assert list(map(len, chunks)) == [8, len(BLOCK), 1]


async def test_nothing_is_sent_before_the_upload_is_over(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF2."""
    _, _, connection, _ = await two_hosts(world)
    stream = await connection.open_stream(PROTOCOL_ID)
    for byte in encode(70_000):
        await stream.send_all(bytes([byte]))
    await stream.send_all(b"some")
    await trio.sleep(10)
    with trio.move_on_after(10):
        assert await stream.receive_some() == b"nothing yet"
    await stream.send_eof()
    assert await drained(stream) == 70_000


async def test_a_run_by_time_asks_for_all_there_is_and_hangs_up(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF3, PF6: 2^64 - 1 bytes are sent as they are taken, block by block."""
    _, server, connection, service = await two_hosts(world)
    told: list[Progress] = []

    def report(progress: Progress) -> None:
        told.append(progress)
        if progress.downloaded >= 4 * MIB:
            scope.cancel()

    with trio.CancelScope() as scope:
        await service.measure(connection, download=MAX_WANTED, report=report)
    assert scope.cancelled_caught
    assert 4 * MIB <= told[-1].downloaded < 8 * MIB
    assert connection.streams == 0
    await trio.sleep(1)
    assert connection.other_end.streams == 0
    assert [type(error) for error in server.handler_errors] == [StreamReset]


@pytest.mark.parametrize("count", [99, 101])
async def test_another_number_of_bytes_is_a_protocol_error(
    autojump_clock: MockClock, world: MemoryWorld, count: int
) -> None:
    """PF4."""
    _, server, connection, service = await two_hosts(world)

    async def miscount(stream: Stream) -> None:
        await drained(stream)
        await stream.send_all(bytes(count))

    server.handlers[PROTOCOL_ID] = miscount
    with pytest.raises(ProtocolError, match="100"):
        await service.measure(connection, download=100)
    assert connection.streams == 0


async def test_an_endless_answer_is_not_listened_to(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF4."""
    _, server, connection, service = await two_hosts(world)

    async def babble(stream: Stream) -> None:
        while True:
            await stream.send_all(bytes(100))

    server.handlers[PROTOCOL_ID] = babble
    with pytest.raises(ProtocolError, match="more than"):
        await service.measure(connection, download=1000)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Perf(max_upload=MIB - 1), "max_upload"),
        (Perf(max_download=MIB - 1), "max_download"),
        (Perf(allow=()), None),
    ],
)
async def test_beyond_a_limit_a_run_is_reset(
    autojump_clock: MockClock, world: MemoryWorld, limits: Perf, limit: str | None
) -> None:
    """PF6."""
    _, server, connection, service = await two_hosts(world, there=limits)
    with pytest.raises(StreamReset if limit else NegotiationFailed):
        await service.measure(connection, upload=MIB, download=MIB)
    errors = [error for error in server.handler_errors if isinstance(error, LimitExceeded)]
    assert [error.limit for error in errors] == ([limit] if limit else [])
    if limit:
        figures = await service.measure(connection, upload=MIB - 1, download=MIB - 1)
        assert figures.uploaded == figures.downloaded == MIB - 1


async def test_a_run_has_its_seconds(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """PF6."""
    _, server, connection, _ = await two_hosts(world, there=Perf(max_seconds=20.0))
    stream = await connection.open_stream(PROTOCOL_ID)
    await stream.send_all(encode(1))
    began = trio.current_time()
    with pytest.raises(StreamReset):
        await stream.receive_some()
    assert trio.current_time() - began == pytest.approx(20.0)
    (error,) = server.handler_errors
    assert isinstance(error, LimitExceeded)
    assert error.limit == "max_seconds"


async def test_so_many_runs_are_served_at_once_and_so_many_of_one_peer(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF6."""
    _, server, connection, service = await two_hosts(
        world, there=Perf(max_runs=3, max_runs_per_peer=2)
    )
    other = world.connect(world.host(3, "/ip4/11.0.0.3/tcp/3"), server)
    mine = [await connection.open_stream(PROTOCOL_ID) for _ in range(3)]
    await trio.sleep(1)
    theirs = [await other.open_stream(PROTOCOL_ID) for _ in range(2)]
    await trio.sleep(1)
    assert [stream.inward.is_reset for stream in mine] == [False, False, True]
    assert [stream.inward.is_reset for stream in theirs] == [False, True]
    errors = [error for error in server.handler_errors if isinstance(error, LimitExceeded)]
    assert [error.limit for error in errors] == ["max_runs_per_peer", "max_runs"]
    mine[0].reset()
    await trio.sleep(1)
    assert (await service.measure(connection, upload=5)).uploaded == 5


async def test_only_those_on_the_list_are_served(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF7."""
    friend = world.host(7, "/ip4/11.0.0.7/tcp/7")
    _, server, connection, service = await two_hosts(world, there=Perf(allow=[friend.peer_id]))
    with pytest.raises(StreamReset):
        await service.measure(connection, upload=5)
    (error,) = server.handler_errors
    assert "this peer is not among them" in str(error)
    asking = Perf(allow=()).build(friend.kit)
    await friend.start(asking)
    assert (await asking.measure(world.connect(friend, server), upload=5)).uploaded == 5


async def test_a_limited_connection_is_not_measured(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PF8: neither do we ask, nor is anybody served who does."""
    relay = f"/ip4/11.0.0.9/tcp/9/p2p/{world.host(9, '/ip4/11.0.0.9/tcp/9').peer_id}/p2p-circuit"
    _, server, connection, service = await two_hosts(world, relay=relay)
    connection.other_end.limit = connection.limit
    with pytest.raises(LimitedConnection):
        await service.measure(connection, upload=5)
    assert connection.opened == []
    with pytest.raises(StreamReset):
        await service.measure(connection, upload=5, limited="allow")
    assert [type(error) for error in server.handler_errors] == [LimitedConnection]


async def test_who_only_asks_serves_nothing(autojump_clock: MockClock, world: MemoryWorld) -> None:
    asker, server, _, _ = await two_hosts(world)
    assert PROTOCOL_ID not in asker.handlers
    assert PROTOCOL_ID in server.handlers


async def test_misuse_is_told(autojump_clock: MockClock, world: MemoryWorld) -> None:
    _, _, connection, service = await two_hosts(world)
    with pytest.raises(ValueError, match="upload"):
        await service.measure(connection, upload=-1)
    with pytest.raises(ValueError, match="download"):
        await service.measure(connection, download=2**64)
    idle = Perf().build(world.host(3, "/ip4/11.0.0.3/tcp/3").kit)
    with pytest.raises(trio.ClosedResourceError):
        await idle.measure(connection)
    for name in ("max_runs", "max_runs_per_peer", "max_upload", "max_download", "max_seconds"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            Perf(**{name: 0})  # type: ignore[arg-type]


@given(st.binary(max_size=20))
def test_a_request_is_eight_bytes_or_a_protocol_error(data: bytes) -> None:
    """PF1."""
    if len(data) == 8:
        assert encode(decode_untrusted(data)) == data
    else:
        with pytest.raises(ProtocolError):
            decode_untrusted(data)


@given(st.integers(0, MAX_WANTED))
def test_every_number_can_be_asked_for(wanted: int) -> None:
    """PF1."""
    assert decode_untrusted(encode(wanted)) == wanted
