"""Rules W4 to W13 over streams: the handshakes, the stream, and remotes that do as they please."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    check_two_way_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from p2pnet.errors import ConnectionLost, P2PError, ProtocolError
from p2pnet.interfaces import Role
from p2pnet.transports.websocket.driver import (
    PIECE_BYTES,
    REPLY_SECONDS,
    WebSocketStream,
    open_as_client,
    open_as_server,
)
from p2pnet.transports.websocket.engine import FrameLimits, answer, ask
from p2pnet.transports.websocket.heads import Refused, UpgradeRefused
from tests.transports.websocket.test_websocket_engine import masked, request

MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
LIMITS = FrameLimits(1 << 20, 1 << 20)
MAX_HEAD = 4096
DATA = hashlib.sha256(b"data").digest() * 10_000

client_of = partial(open_as_client, host="a.example", limits=LIMITS, max_head_bytes=MAX_HEAD)
server_of = partial(open_as_server, limits=LIMITS, max_head_bytes=MAX_HEAD)


async def connect(
    near: trio.abc.Stream, far: trio.abc.Stream
) -> tuple[WebSocketStream, WebSocketStream]:
    """Make a WebSocket of two ends of a stream: the client's and the server's."""
    servers: list[WebSocketStream] = []

    async def serve() -> None:
        servers.append(await server_of(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await client_of(near, role=Role.DIALER)
    return client, servers[0]


async def pair() -> tuple[WebSocketStream, WebSocketStream]:
    return await connect(*memory_stream_pair())


async def serving() -> tuple[WebSocketStream, MemoryStream]:
    """Return a server's stream, and what is under the client's: bytes can be sent there by hand."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, request())
        server = await server_of(far)
    await near.receive_some(1000)
    return server, near


# ---- the stream --------------------------------------------------------------------------


async def test_it_is_a_stream_as_trio_wants_one() -> None:
    async def clogged() -> tuple[WebSocketStream, WebSocketStream]:
        """Each end writes into a pipe that holds nothing."""
        near, far = memory_stream_pair()
        ends = await connect(near, far)
        lock_near, lock_far = lockstep_stream_pair()
        ends[0]._stream, ends[1]._stream = lock_near, lock_far
        return ends

    await check_two_way_stream(pair, clogged)


@pytest.mark.parametrize("size", [1, 1000, None])
async def test_w8_bytes_go_both_ways_at_once(size: int | None) -> None:
    ends = await pair()
    data = DATA if size is None else DATA[: size * 100]

    async def receive(end: WebSocketStream) -> None:
        got = b""
        while len(got) < len(data):
            got += await end.receive_some(size)
        assert got == data

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.send_all, data)
            nursery.start_soon(receive, end)


async def test_w8_what_comes_with_the_response_is_not_lost() -> None:
    near, far = memory_stream_pair()

    async def serve_in_one_breath() -> None:
        heard = bytes(await far.receive_some())
        frames, response = answer(heard, LIMITS)
        await far.send_all(response + frames.frame(b"at once"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_in_one_breath)
        client = await client_of(near, role=Role.DIALER)
    assert await client.receive_some() == b"at once"


async def test_w11_closing_is_the_end_for_the_other() -> None:
    client, server = await pair()
    await client.send_all(b"last words")
    await client.aclose()
    assert await server.receive_some() == b"last words"
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"too late")


async def test_w11_the_end_under_it_is_an_end() -> None:
    server, near = await serving()
    await near.send_all(masked(2, b"abc"))
    await near.aclose()
    assert await server.receive_some() == b"abc"
    assert await server.receive_some() == b""


async def test_w12_who_closes_one_direction_hears_the_other_close() -> None:
    client, server = await pair()
    await client.send_eof()
    await client.send_eof()
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"more")
    assert await client.receive_some() == b""


async def test_w11_another_code_is_a_loss() -> None:
    server, near = await serving()
    await near.send_all(masked(8, (1011).to_bytes(2)))
    with pytest.raises(ConnectionLost, match="1011"):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"more")
    assert await near.receive_some() == b""


async def test_w11_who_breaks_a_rule_is_told_and_cut_off() -> None:
    server, near = await serving()
    await near.send_all(masked(1, b"text"))
    with pytest.raises(ProtocolError, match="text"):
        await server.receive_some()
    assert (await near.receive_some())[:4] == b"\x88\x02\x03\xeb"
    assert await near.receive_some() == b""
    for call in (server.receive_some, partial(server.send_all, b"more")):
        with pytest.raises(trio.BrokenResourceError):
            await call()
    await server.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await server.receive_some()


async def test_a_send_that_was_cut_short_is_the_last() -> None:
    near, far = memory_stream_pair()
    client, _ = await connect(near, far)
    lock, _ = lockstep_stream_pair()
    client._stream = lock
    with trio.move_on_after(0.01):
        await client.send_all(b"nobody reads this")
    with pytest.raises(trio.BrokenResourceError, match="interrupted"):
        await client.send_all(b"more")
    await client.aclose()


# ---- pings -------------------------------------------------------------------------------


async def test_w10_a_ping_is_answered_while_waiting_for_data() -> None:
    server, near = await serving()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.receive_some)
        await near.send_all(masked(9, b"hello"))
        assert await near.receive_some() == b"\x8a\x05hello"
        await near.send_all(masked(10, b"unasked") + masked(2, b"x"))


async def test_w10_a_pong_goes_between_the_frames_of_what_is_being_sent() -> None:
    server, near = await serving()
    lock, end = lockstep_stream_pair()
    old, server._stream = server._stream, lock
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, bytes(70_000))
        await wait_all_tasks_blocked()
        nursery.start_soon(server.receive_some)
        await end.send_all(masked(9, b"ping") + masked(2, b"x"))
        got = bytearray()
        while len(got) < 70_000 + 6 + 4 + 10:
            got += await end.receive_some()
    assert got[10 + 65_536 :].startswith(b"\x8a\x04ping\x82")
    await trio.aclose_forcefully(old)
    await near.aclose()


async def test_w10_a_ping_that_comes_while_a_pong_is_sent_is_answered_too() -> None:
    server, near = await serving()
    lock, end = lockstep_stream_pair()
    old, server._stream = server._stream, lock
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"data")
        await wait_all_tasks_blocked()
        nursery.start_soon(server.receive_some)
        await end.send_all(masked(9, b"one"))
        got = bytearray(await end.receive_some(6))
        await wait_all_tasks_blocked()  # The pong is on its way.
        await end.send_all(masked(9, b"two"))
        with trio.fail_after(1):
            while len(got) < 6 + 5 + 5:
                got += await end.receive_some()
        await end.send_all(masked(2, b"x"))
    assert bytes(got) == b"\x82\x04data\x8a\x03one\x8a\x03two"
    await trio.aclose_forcefully(old)
    await near.aclose()


async def test_w10_who_wants_answers_and_takes_none_is_given_up(
    autojump_clock: MockClock,
) -> None:
    server, near = await serving()
    lock, end = lockstep_stream_pair()
    server._stream = lock
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.send_all, masked(9, b"ping"))
        started = trio.current_time()
        with pytest.raises(ProtocolError, match="does not read"):
            await server.receive_some()
        assert trio.current_time() - started == pytest.approx(REPLY_SECONDS)
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"more")
    await near.aclose()


async def test_w10_who_stops_waiting_while_a_pong_is_sent_loses_no_data(
    autojump_clock: MockClock,
) -> None:
    server, near = await serving()
    lock, end = lockstep_stream_pair()
    server._stream = lock
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.send_all, masked(9, b"ping") + masked(2, b"data"))
        with trio.move_on_after(REPLY_SECONDS / 2) as patience:
            await server.receive_some()
    assert patience.cancelled_caught
    with trio.fail_after(1):
        assert await server.receive_some() == b"data"
    await near.aclose()


async def test_w10_a_flood_of_frames_with_nothing_in_them_leaves_others_their_turns() -> None:
    server, near = await serving()
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        await near.send_all(masked(2, b"") * 8_000 + masked(2, b"x"))
        nursery.start_soon(take_turns)
        assert await server.receive_some() == b"x"
        nursery.cancel_scope.cancel()
    assert turns >= 8_000 * 6 // PIECE_BYTES
    await near.aclose()


# ---- handshakes --------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(0, len(request()), 7))
async def test_w5_a_request_that_ends_early_is_a_loss(cut: int) -> None:
    near, far = memory_stream_pair()
    await near.send_all(request()[:cut])
    await near.send_eof()
    with pytest.raises(ConnectionLost, match="handshake"):
        await server_of(far)


async def test_w5_a_request_may_come_byte_by_byte() -> None:
    near, far = memory_stream_pair()

    async def dribble() -> None:
        for byte in request() + masked(2, b"abc"):
            await near.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        server = await server_of(far)
        assert await server.receive_some(3) in (b"a", b"ab", b"abc")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request(line="POST / HTTP/1.1"), 405),
        (b"\x13/multistream/1.0.0\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * MAX_HEAD, 431),
        (b"a" * (1 << 20), 431),
    ],
)
async def test_w4_w5_who_asks_wrongly_is_told_why(head: bytes, status: int) -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, head)
        with pytest.raises(Refused, match=str(status)):
            await server_of(far)
        await far.aclose()
    said = b"".join([chunk async for chunk in near])
    assert said.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", ConnectionLost),
        (b"HTTP/1.1 101", ConnectionLost),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", UpgradeRefused),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_HEAD, ProtocolError),
        (b"\x13/multistream/1.0.0\n" + b"\r\n\r\n", ProtocolError),
    ],
)
async def test_w4_w7_a_bad_response_is_a_typed_error(
    response: bytes, error: type[P2PError]
) -> None:
    near, far = memory_stream_pair()
    await far.send_all(response)
    await far.send_eof()
    with pytest.raises(error):
        await client_of(near, role=Role.DIALER)


async def test_w13_two_that_dial_at_once_find_each_other() -> None:
    near, far = memory_stream_pair()
    ends: dict[Role, WebSocketStream] = {}

    async def dial(stream: trio.abc.Stream, role: Role) -> None:
        ends[role] = await client_of(stream, role=role)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, near, Role.DIALER)
        nursery.start_soon(dial, far, Role.LISTENER)
    dialer, listener = ends[Role.DIALER], ends[Role.LISTENER]
    await dialer.send_all(b"ping")
    assert await listener.receive_some() == b"ping"
    await listener.send_all(b"pong")
    assert await dialer.receive_some() == b"pong"


async def test_w13_two_dialers_get_nowhere() -> None:
    near, far = memory_stream_pair()
    _, asked = ask("a.example")
    await far.send_all(asked + asked)
    with pytest.raises(ProtocolError, match="malformed"):
        await client_of(near, role=Role.DIALER)
