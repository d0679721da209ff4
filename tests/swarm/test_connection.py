"""Rule S23 of specs/connections.md: streams of one connection, and what ends only itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import parse
from p2pnet.errors import ConnectionLost, LimitExceeded, NegotiationFailed, PeerLeft, ProtocolError
from p2pnet.events import ConnectionRef
from p2pnet.interfaces import Stream, StreamHandler
from p2pnet.negotiation.driver import handle_one, select_one
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import (
    NEGOTIATION_FAILED,
    RESOURCE_LIMIT_EXCEEDED,
    LiveConnection,
)
from p2pnet.swarm.peerstore import Peerstore
from tests.swarm.fakes import HERE, PEER, Line, OneStream

THERE = parse("/ip4/8.8.8.8/tcp/1")


class Served:
    """A connection with everything around it."""

    def __init__(self, config: SwarmConfig, handlers: dict[str, StreamHandler]) -> None:
        self.line = Line(PEER, THERE)
        self.peers = Peerstore(config, trio.current_time)
        ref = ConnectionRef(7, PEER, HERE, THERE, is_inbound=False, is_relayed=False)
        self.connection = LiveConnection(
            self.line, ref, config=config, handlers=handlers, peers=self.peers
        )
        self.reason: str | None = None

    async def run(self) -> None:
        self.reason = await self.connection.run()

    async def arrive(self) -> OneStream:
        stream = OneStream()
        self.line.arrive(stream)
        await wait_all_tasks_blocked()
        return stream


@asynccontextmanager
async def serving(
    handler: StreamHandler | None = None, config: SwarmConfig | None = None
) -> AsyncGenerator[Served, None]:
    served = Served(config or SwarmConfig(), {"/x": handler or wait_for_ever})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        yield served
        nursery.cancel_scope.cancel()


async def wait_for_ever(stream: Stream) -> None:
    await trio.sleep_forever()


# ---- streams of the peer -----------------------------------------------------------------


async def test_a_stream_of_the_peer_is_served_and_closed() -> None:
    async def greet(stream: Stream) -> None:
        assert (stream.peer_id, stream.protocol_id) == (PEER, "/x")
        assert stream.connection is served.connection
        assert await stream.receive_some(5) == b"hello"
        await stream.send_all(b"goodbye")

    async with serving(greet) as served:
        stream = await served.arrive()
        assert served.connection.streams == 1
        assert await select_one(stream.far, ["/x"]) == "/x"
        await stream.far.send_all(b"hello")
        assert await stream.far.receive_some(7) == b"goodbye"
        assert await stream.far.receive_some() == b""
        assert served.connection.streams == 0
        assert stream.reset_codes == []


async def test_s23_the_peer_has_only_so_many_streams() -> None:
    async with serving(config=SwarmConfig(max_inbound_streams=2)) as served:
        streams = [await served.arrive() for _ in range(3)]
        assert [stream.reset_codes for stream in streams] == [[], [], [RESOURCE_LIMIT_EXCEEDED]]
        assert served.connection.streams == 2


async def test_s23_a_stream_has_so_long_to_agree(autojump_clock: MockClock) -> None:
    async with serving(config=SwarmConfig(negotiation_timeout=3.0)) as served:
        stream = await served.arrive()
        await trio.sleep(2.9)
        assert stream.reset_codes == []
        await trio.sleep(0.2)
        assert stream.reset_codes == [0]
        assert not served.connection.is_closed


async def test_s23_an_agreed_stream_has_no_deadline(autojump_clock: MockClock) -> None:
    async with serving(config=SwarmConfig(negotiation_timeout=3.0)) as served:
        stream = await served.arrive()
        await select_one(stream.far, ["/x"])
        await trio.sleep(1000)
        assert stream.reset_codes == []


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ProtocolError("/x", "bad"), logging.WARNING),
        (ConnectionLost("gone"), logging.DEBUG),
        (KeyError("ours"), logging.ERROR),
        (ExceptionGroup("", [KeyError("ours")]), logging.ERROR),
    ],
)
async def test_s23_an_error_of_a_handler_resets_its_stream_alone(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int
) -> None:
    async def fail(stream: Stream) -> None:
        raise error

    caplog.set_level(logging.DEBUG, "p2pnet.swarm")
    async with serving(fail) as served:
        stream, other = await served.arrive(), await served.arrive()
        await select_one(stream.far, ["/x"])
        await wait_all_tasks_blocked()
        assert stream.reset_codes == [0]
        assert other.reset_codes == []
        assert [record.levelno for record in caplog.records] == [level]
        assert served.connection.streams == 1
        assert not served.connection.is_closed
    caplog.clear()


async def test_s23_a_peer_that_breaks_the_rules_on_a_stream_loses_that_stream_alone() -> None:
    async with serving() as served:
        stream = await served.arrive()
        await stream.far.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await wait_all_tasks_blocked()
        assert stream.reset_codes == [0]
        assert not served.connection.is_closed


# ---- streams of this host ----------------------------------------------------------------


async def test_a_stream_is_opened_for_the_first_protocol_that_the_peer_accepts() -> None:
    opened: list[Stream] = []

    async def open_stream() -> None:
        opened.append(await served.connection.open_stream("/a", "/b"))

    async with serving() as served, trio.open_nursery() as nursery:
        nursery.start_soon(open_stream)
        await wait_all_tasks_blocked()
        assert await handle_one(served.line.opened[0].far, {"/b": None}) == "/b"
        await wait_all_tasks_blocked()
        assert opened[0].protocol_id == "/b"
        assert served.connection.streams == 1
        await opened[0].aclose()
        assert served.connection.streams == 0


async def test_a_protocol_that_the_peer_is_known_to_serve_is_not_waited_for() -> None:
    async with serving() as served:
        served.peers.set_protocols(PEER, ["/b"])
        stream = await served.connection.open_stream("/a", "/b")
        assert stream.protocol_id == "/b"
        await stream.send_all(b"hello")
        far = served.line.opened[0].far
        assert await handle_one(far, {"/b": None}) == "/b"
        assert await far.receive_some() == b"hello"


async def test_an_unknown_protocol_is_not_waited_for_if_so_wanted() -> None:
    async with serving() as served:
        stream = await served.connection.open_stream("/b", lazy=True)
        await stream.send_all(b"hello")
        far = served.line.opened[0].far
        assert await handle_one(far, {"/b": None}) == "/b"
        assert await far.receive_some() == b"hello"


async def test_a_refused_stream_is_reset() -> None:
    async def open_stream() -> None:
        with pytest.raises(NegotiationFailed, match="/a"):
            await served.connection.open_stream("/a")

    async with serving() as served, trio.open_nursery() as nursery:
        nursery.start_soon(open_stream)
        nursery.start_soon(refuse_all, served)
    assert served.line.opened[0].reset_codes == [NEGOTIATION_FAILED]


async def refuse_all(served: Served) -> None:
    await wait_all_tasks_blocked()
    far = served.line.opened[0].far
    received = b""
    while b"/a" not in received:
        received += bytes(await far.receive_some())
    await far.send_all(b"\x13/multistream/1.0.0\n\x03na\n")


async def test_s23_opening_has_a_deadline(autojump_clock: MockClock) -> None:
    async with serving(config=SwarmConfig(negotiation_timeout=3.0)) as served:
        started = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await served.connection.open_stream("/a")
        assert trio.current_time() - started == pytest.approx(3.0)
        assert served.line.opened[0].reset_codes == [NEGOTIATION_FAILED]


async def test_s23_this_host_has_only_so_many_streams_the_unfinished_included() -> None:
    async with serving(config=SwarmConfig(max_outbound_streams=2)) as served:
        async with trio.open_nursery() as nursery:
            served.peers.set_protocols(PEER, ["/x"])
            first = await served.connection.open_stream("/x")
            nursery.start_soon(served.connection.open_stream, "/unanswered")
            await wait_all_tasks_blocked()
            with pytest.raises(LimitExceeded, match="max_outbound_streams = 2"):
                await served.connection.open_stream("/x")
            first.reset()
            await served.connection.open_stream("/x")
            nursery.cancel_scope.cancel()
        await served.connection.open_stream("/x")


# ---- the end -----------------------------------------------------------------------------


async def test_the_end_of_a_connection_ends_its_handlers_and_says_why() -> None:
    async with serving() as served:
        stream = await served.arrive()
        await select_one(stream.far, ["/x"])
        await served.connection.aclose("trimmed")
        await served.connection.aclose("too late")
        await wait_all_tasks_blocked()
        assert served.reason == "trimmed"
        assert served.connection.is_closed
        assert served.connection.streams == 0
        with pytest.raises(ConnectionLost):
            await served.connection.open_stream("/x")


async def test_a_connection_that_the_peer_ends_says_so() -> None:
    async with serving() as served:
        await served.line.aclose()
        await wait_all_tasks_blocked()
        assert served.reason == "closed by the peer"
        assert isinstance(served.connection.failure, PeerLeft)


async def test_a_connection_of_which_the_end_is_known_is_closed_before_its_tasks_have_ended() -> (
    None
):
    """S24: else the next stream would be opened on it, and die."""
    async with serving() as served:
        served.line.is_over = True
        assert served.connection.is_closed
        assert served.reason is None
        with pytest.raises(ConnectionLost):
            await served.connection.open_stream("/x")
    assert served.line.opened == []


async def test_a_connection_that_breaks_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(accept: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("the wire was cut")

    served = Served(SwarmConfig(), {})
    monkeypatch.setattr(served.line, "run", broken)
    assert await served.connection.run() == "the wire was cut"
    assert served.line.is_closed


def test_a_connection_shows_what_it_is() -> None:
    async def show() -> None:
        shown = repr(Served(SwarmConfig(), {}).connection)
        assert shown == f"<Connection 7 direct to {PEER} at {THERE}>"

    trio.run(show)
