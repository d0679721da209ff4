"""Ping: the dialogue by script, the service in a world in memory."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse, with_peer
from p2pnet.errors import LimitExceeded, NegotiationFailed, ProtocolError, StreamReset
from p2pnet.interfaces import Stream
from p2pnet.protocols.ping import Ping, PingService
from p2pnet.protocols.ping.dialogue import PING_BYTES, PROTOCOL_ID
from tests.protocols.memory_streams import receive_exactly
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld


async def two_hosts(
    world: MemoryWorld, *, latency: float = 0.0, there: Ping | None = None
) -> tuple[MemoryHost, MemoryHost, MemoryConnection, PingService]:
    asker = world.host(1, "/ip4/11.0.0.1/tcp/1")
    answerer = world.host(2, "/ip4/11.0.0.2/tcp/2")
    service = Ping().build(asker.kit)
    await asker.start(service)
    await answerer.start((there or Ping()).build(answerer.kit))
    return asker, answerer, world.connect(asker, answerer, latency=latency), service


async def test_a_ping_takes_a_round_trip(autojump_clock: MockClock, world: MemoryWorld) -> None:
    _, there, connection, service = await two_hosts(world, latency=0.05)
    assert await service.ping(connection) == pytest.approx(0.1)
    assert await service.ping(there.peer_id) == pytest.approx(0.1)
    assert await service.ping(str(there.peer_id)) == pytest.approx(0.1)
    address = with_peer(parse("/ip4/11.0.0.2/tcp/2"), there.peer_id)
    assert await service.ping(address) == pytest.approx(0.1)
    assert await service.ping(str(address)) == pytest.approx(0.1)
    assert connection.opened == [PROTOCOL_ID] * 5


async def test_a_limited_connection_will_do(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """PI7."""
    _, there, _, service = await two_hosts(world)
    await service.ping(there.peer_id)
    await service.ping(there.peer_id, limited="refuse")
    assert world.limited_uses == ["allow", "refuse"]


async def test_several_pings_share_a_stream(autojump_clock: MockClock, world: MemoryWorld) -> None:
    _, _, connection, service = await two_hosts(world, latency=0.01)
    rounds = [seconds async for seconds in service.pings(connection, 5)]
    assert rounds == pytest.approx([0.02] * 5)
    assert connection.opened == [PROTOCOL_ID]
    await trio.sleep(1)
    assert connection.streams == connection.other_end.streams == 0


async def test_each_ping_has_bytes_of_its_own(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, there, connection, service = await two_hosts(world)
    seen: list[bytes] = []

    async def spy(stream: Stream) -> None:
        for _ in range(3):
            seen.append(await receive_exactly(stream, PING_BYTES))
            await stream.send_all(seen[-1])

    there.handlers[PROTOCOL_ID] = spy
    assert len([s async for s in service.pings(connection, 3)]) == 3
    assert len(set(seen)) == 3


async def test_a_wrong_echo_closes_the_connection(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI2."""
    _, there, connection, service = await two_hosts(world)

    async def lie(stream: Stream) -> None:
        ping = await receive_exactly(stream, PING_BYTES)
        await stream.send_all(ping[:-1] + bytes([ping[-1] ^ 1]))

    there.handlers[PROTOCOL_ID] = lie
    with pytest.raises(ProtocolError, match="differs"):
        await service.ping(connection)
    assert connection.is_closed


async def test_an_echo_cut_short_is_a_protocol_error(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, there, connection, service = await two_hosts(world)

    async def half(stream: Stream) -> None:
        await stream.send_all((await receive_exactly(stream, PING_BYTES))[:31])

    there.handlers[PROTOCOL_ID] = half
    with pytest.raises(ProtocolError, match="within a ping"):
        await service.ping(connection)
    assert connection.is_closed


@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_a_stream_that_the_peer_closed_is_opened_anew_once(
    autojump_clock: MockClock, world: MemoryWorld, end: str
) -> None:
    """PI5: As go-libp2p does it: a ping stream that was idle for 10 s is closed."""
    _, there, connection, service = await two_hosts(world)

    async def one_each(stream: Stream) -> None:
        await stream.send_all(await receive_exactly(stream, PING_BYTES))
        await trio.sleep(10)
        if end == "reset":
            stream.reset()

    there.handlers[PROTOCOL_ID] = one_each
    rounds = []
    async for seconds in service.pings(connection, 3):
        rounds.append(seconds)
        await trio.sleep(15)
    assert len(rounds) == 3
    assert len(connection.opened) == 3
    assert not connection.is_closed


async def test_a_peer_that_never_answers_has_failed_after_two_streams(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI5."""
    _, there, connection, service = await two_hosts(world)

    async def hang_up(stream: Stream) -> None:
        await receive_exactly(stream, 1)

    there.handlers[PROTOCOL_ID] = hang_up
    with pytest.raises(StreamReset):
        await service.ping(connection)
    assert len(connection.opened) == 2


async def test_a_peer_that_is_silent_is_too_slow(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, there, connection, service = await two_hosts(world)

    async def be_silent(stream: Stream) -> None:
        await trio.sleep_forever()

    there.handlers[PROTOCOL_ID] = be_silent
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await service.ping(connection)
    assert trio.current_time() - began == pytest.approx(Ping().echo_timeout)
    assert connection.streams == 0


async def test_a_peer_without_ping_says_so(autojump_clock: MockClock, world: MemoryWorld) -> None:
    _, there, connection, service = await two_hosts(world)
    del there.handlers[PROTOCOL_ID]
    with pytest.raises(NegotiationFailed):
        await service.ping(connection)


async def test_pings_to_one_peer_take_turns(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """PI6."""
    _, _, connection, service = await two_hosts(world, latency=0.5)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, connection.streams)
            await trio.sleep(0.1)

    world.nursery.start_soon(watch)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(service.ping, connection)
    assert most == 1
    assert trio.current_time() == pytest.approx(4.0)
    assert service._turns == {}


async def test_leaving_the_pings_early_leaves_no_stream(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, _, connection, service = await two_hosts(world)
    async with contextlib.aclosing(service.pings(connection, 100)) as rounds:
        await anext(rounds)
    assert connection.streams == 0
    assert await service.ping(connection) >= 0


@pytest.mark.parametrize("target", ["/ip4/11.0.0.2/tcp/2", "nobody"])
async def test_a_target_that_names_no_peer_is_refused(
    autojump_clock: MockClock, world: MemoryWorld, target: str
) -> None:
    _, _, _, service = await two_hosts(world)
    with pytest.raises(ValueError, match="peer id"):
        await service.ping(target)


async def test_misuse_is_told(autojump_clock: MockClock, world: MemoryWorld) -> None:
    _, _, connection, service = await two_hosts(world)
    with pytest.raises(ValueError, match="at least once"):
        await anext(service.pings(connection, 0))
    idle = Ping().build(world.host(3, "/ip4/11.0.0.3/tcp/3").kit)
    with pytest.raises(trio.ClosedResourceError):
        await idle.ping(connection)


def test_nonsense_is_no_config() -> None:
    with pytest.raises(ValueError, match="idle_timeout must be positive"):
        Ping(idle_timeout=0.0)


# ---- the side that answers -------------------------------------------------------------------


async def test_the_echo_goes_on_until_the_end(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI3."""
    _, _, connection, _ = await two_hosts(world)
    stream = await connection.open_stream(PROTOCOL_ID)
    for number in range(3):
        ping = bytes([number]) * PING_BYTES
        for byte in ping:
            await stream.send_all(bytes([byte]))
        assert await receive_exactly(stream, PING_BYTES) == ping
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def test_a_stream_that_ends_within_a_ping_is_reset(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    _, there, connection, _ = await two_hosts(world)
    stream = await connection.open_stream(PROTOCOL_ID)
    await stream.send_all(bytes(31))
    await stream.send_eof()
    with pytest.raises(StreamReset):
        await stream.receive_some()
    assert [type(error) for error in there.handler_errors] == [ProtocolError]


async def test_the_third_stream_of_a_peer_is_served_when_another_has_ended(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI4: what was ended before may be heard of later, as with QUIC after a loss."""
    _, there, connection, _ = await two_hosts(world)
    streams = [await connection.open_stream(PROTOCOL_ID) for _ in range(5)]
    for stream in streams[:4]:
        await stream.send_all(bytes(PING_BYTES))
    await trio.sleep(0.9)
    assert [stream.inward.is_reset for stream in streams] == [False] * 4 + [True]
    for ended, served in ((0, 2), (1, 3)):
        await streams[ended].aclose()
        assert await receive_exactly(streams[served], PING_BYTES) == bytes(PING_BYTES)
    await trio.sleep(1)
    assert [stream.inward.is_reset for stream in streams[2:]] == [False, False, True]
    assert len(there.handler_errors) == 1


async def test_the_third_stream_of_a_peer_is_reset(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI4."""
    _, there, connection, _ = await two_hosts(world)
    streams = [await connection.open_stream(PROTOCOL_ID) for _ in range(3)]
    await trio.sleep(1.5)
    assert [stream.inward.is_reset for stream in streams] == [False, False, True]
    assert isinstance(there.handler_errors[0], LimitExceeded)
    other = world.host(3, "/ip4/11.0.0.3/tcp/3")
    fresh = await world.connect(other, there).open_stream(PROTOCOL_ID)
    await fresh.send_all(bytes(PING_BYTES))
    assert await receive_exactly(fresh, PING_BYTES) == bytes(PING_BYTES)
    await streams[0].aclose()
    await trio.sleep(1)
    again = await connection.open_stream(PROTOCOL_ID)
    await again.send_all(bytes(PING_BYTES))
    assert await receive_exactly(again, PING_BYTES) == bytes(PING_BYTES)


async def test_a_stream_without_whole_pings_is_closed(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """PI4."""
    _, _, connection, _ = await two_hosts(world, there=Ping(idle_timeout=10.0))
    stream = await connection.open_stream(PROTOCOL_ID)
    await trio.sleep(9)
    await stream.send_all(bytes(PING_BYTES))
    await receive_exactly(stream, PING_BYTES)
    began = trio.current_time()
    for _ in range(9):
        await trio.sleep(1)
        await stream.send_all(b"x")
    assert await stream.receive_some() == b""
    assert trio.current_time() - began == pytest.approx(10.0)


async def test_echoes_come_at_a_bounded_pace(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """PI4."""
    _, _, connection, _ = await two_hosts(
        world, there=Ping(max_echoes_per_second=10, idle_timeout=0.5)
    )
    stream = await connection.open_stream(PROTOCOL_ID)
    began = trio.current_time()
    await stream.send_all(bytes(35 * PING_BYTES))
    await receive_exactly(stream, 35 * PING_BYTES)
    assert trio.current_time() - began == pytest.approx(3.0)
    await stream.send_all(bytes(PING_BYTES))
    await receive_exactly(stream, PING_BYTES)
    assert trio.current_time() - began == pytest.approx(3.0)
