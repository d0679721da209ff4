"""multistream-select over trio streams: M5, M6, M9, M10 and M11 of specs/multistream.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from p2pnet.errors import NegotiationFailed, ProtocolError, StreamReset
from p2pnet.negotiation.driver import LazyStream, handle_one, listen_now, select_one
from p2pnet.negotiation.machine import HEADER_LINE, Responder, encode_line

NA = b"\x03na\n"
PROPOSAL = HEADER_LINE + encode_line("/p")


async def test_both_ends_agree_and_what_follows_stays_in_the_stream() -> None:
    dialer, listener = trio.testing.memory_stream_pair()
    agreed = {}

    async def dial() -> None:
        agreed["dialer"] = await select_one(dialer, ["/a", "/b"])
        await dialer.send_all(b"hello")

    async def listen() -> None:
        agreed["listener"] = await handle_one(listener, {"/b"})
        assert await listener.receive_some() == b"hello"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(listen)
    assert agreed == {"dialer": "/b", "listener": "/b"}


async def test_m5_data_in_the_same_segment_is_left_for_the_protocol() -> None:
    dialer, listener = trio.testing.memory_stream_pair()
    await dialer.send_all(PROPOSAL + b"data")
    assert await handle_one(listener, ["/p"]) == "/p"
    assert await listener.receive_some() == b"data"
    await listener.send_all(b"more")
    assert await dialer.receive_some() == PROPOSAL + b"more"


async def test_an_initiator_that_waits_for_the_header_is_served() -> None:
    dialer, listener = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle_one, listener, ["/p"])
        await dialer.send_all(HEADER_LINE)
        assert await dialer.receive_some() == HEADER_LINE
        await dialer.send_all(encode_line("/p"))
        assert await dialer.receive_some() == encode_line("/p")


async def test_a_remote_that_hangs_up_is_told_apart_from_one_that_breaks_off() -> None:
    for sent, expected in ((b"", StreamReset), (HEADER_LINE, ProtocolError)):
        dialer, listener = trio.testing.memory_stream_pair()
        await dialer.send_all(sent)
        await dialer.send_eof()
        with pytest.raises(expected):
            await handle_one(listener, ["/p"])


async def test_m9_the_limit_of_proposals_is_the_callers() -> None:
    dialer, listener = trio.testing.memory_stream_pair()
    await dialer.send_all(HEADER_LINE + encode_line("/a") + encode_line("/b"))
    with pytest.raises(ProtocolError, match="more than 1 proposals"):
        await handle_one(listener, ["/p"], max_proposals=1)


async def test_m6_a_lazy_stream_sends_the_proposal_and_the_first_data_together() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await stream.send_all(bytearray(b"data"))
    assert await remote.receive_some() == PROPOSAL + b"data"
    await stream.send_all(b"more")
    assert await remote.receive_some() == b"more"
    await remote.send_all(PROPOSAL + b"answer")
    assert await stream.receive_some(3) == b"ans"
    assert await stream.receive_some() == b"wer"


async def receive(stream: LazyStream) -> None:
    with trio.move_on_after(1):
        await stream.receive_some()


@pytest.mark.parametrize(
    "act", [receive, LazyStream.send_eof, LazyStream.aclose], ids=["receive", "eof", "close"]
)
async def test_m6_the_proposal_is_sent_before_reading_or_ending(
    act: Callable[[LazyStream], Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(act, stream)
        assert await remote.receive_some() == PROPOSAL
        nursery.cancel_scope.cancel()


async def test_m12_the_end_waits_for_the_answer_and_data_does_not() -> None:
    """M12."""
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    async with trio.open_nursery() as nursery:
        await stream.send_all(b"data")
        nursery.start_soon(stream.send_eof)
        assert await remote.receive_some() == PROPOSAL + b"data"
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await remote.send_all(PROPOSAL + b"answer")
        assert await remote.receive_some() == b""
    assert await stream.receive_some() == b"answer"


async def test_m12_the_end_of_a_refused_stream_says_so() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await stream.send_all(b"data")
    await remote.send_all(HEADER_LINE + NA)
    with pytest.raises(NegotiationFailed):
        await stream.send_eof()
    await stream.aclose()


async def test_m6_reading_to_the_end_checks_the_answer() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await stream.send_all(b"data")
    await remote.send_all(PROPOSAL)
    await remote.send_eof()
    await stream.send_eof()
    assert await stream.receive_some() == b""

    raw, remote = trio.testing.memory_stream_pair()
    await remote.send_all(HEADER_LINE)
    await remote.send_eof()
    with pytest.raises(ProtocolError, match="ended during"):
        await LazyStream(raw, "/p").receive_some()


async def test_m10_a_refusal_is_raised_by_each_receive() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await stream.send_all(b"data")
    await remote.send_all(HEADER_LINE + NA)
    for _ in range(2):
        with pytest.raises(NegotiationFailed):
            await stream.receive_some()


async def test_a_sender_waits_while_the_receiver_sends_the_proposal() -> None:
    raw, remote = trio.testing.lockstep_stream_pair()
    stream = LazyStream(raw, "/p")
    received = bytearray()

    async def receive_answer() -> None:
        assert await stream.receive_some() == b"answer"

    async def serve() -> None:
        while len(received) < len(PROPOSAL + b"data"):
            received.extend(await remote.receive_some())
        await remote.send_all(PROPOSAL + b"answer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_answer)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(stream.send_all, b"data")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(serve)
    assert received == PROPOSAL + b"data"


async def test_no_data_goes_out_without_the_proposal_that_was_interrupted() -> None:
    raw, _ = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_some()
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError, match="interrupted"):
        await stream.send_all(b"data")


async def test_closing_twice_or_after_the_remote_left_is_no_error() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await remote.aclose()
    await stream.aclose()
    await stream.aclose()
    raw, _ = trio.testing.memory_stream_pair()
    await raw.aclose()
    await LazyStream(raw, "/p").aclose()


async def make_lazy_pair() -> tuple[LazyStream, LazyStream]:
    # Two proposals of the same protocol are each an acceptance of the other.
    left, right = (LazyStream(raw, "/p") for raw in trio.testing.memory_stream_pair())
    await left.send_all(b"")
    await right.send_all(b"")
    return left, right


async def test_a_lazy_stream_behaves_as_every_trio_stream() -> None:
    await trio.testing.check_half_closeable_stream(make_lazy_pair, None)


class Heard:
    """What has come on a stream, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]

    @property
    def left(self) -> bytes:
        return b"".join(self._pieces)

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        if not self._pieces:
            return None
        piece = self._pieces.pop(0)
        if len(piece) > max_bytes:
            self._pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]


async def test_m13_a_proposal_that_has_come_whole_is_agreed_to_without_waiting() -> None:
    """M13 M5."""
    for cut in range(len(PROPOSAL)):
        if cut == len(HEADER_LINE):
            continue  # M3: who says no more than that waits for our header.
        stream = Heard(PROPOSAL[:cut], PROPOSAL[cut:] + b"data")
        machine = Responder(["/p"])
        assert listen_now(stream.receive_nowait, machine) == "/p"
        assert machine.answer == machine.data_to_send() == PROPOSAL
        assert machine.answer == b""
        assert stream.left == b"data"


async def test_m13_listening_stops_at_a_refusal_and_where_more_must_come() -> None:
    stream = Heard(HEADER_LINE + encode_line("/q") + encode_line("/p"))
    machine = Responder(["/p"])
    assert listen_now(stream.receive_nowait, machine) is None
    assert machine.data_to_send() == HEADER_LINE + NA
    assert listen_now(stream.receive_nowait, machine) == "/p"
    assert machine.data_to_send() == encode_line("/p")

    machine = Responder(["/p"])
    assert listen_now(Heard(PROPOSAL[:-1]).receive_nowait, machine) is None
    assert machine.data_to_send() == b""
    assert machine.wanted() == 1


async def test_m6_data_that_came_with_the_answer_is_received_with_it() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    for most, first in ((None, b"answer"), (3, b"ans")):
        stream = LazyStream(raw, "/p")
        await stream.send_all(b"data")
        await remote.send_all(PROPOSAL[:-1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_and_compare, stream, most, first)
            await trio.testing.wait_all_tasks_blocked()
            await remote.send_all(PROPOSAL[-1:] + b"answer")
        if most is not None:
            assert await stream.receive_some() == b"wer"
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(0)


async def receive_and_compare(stream: LazyStream, most: int | None, expected: bytes) -> None:
    assert await stream.receive_some(most) == expected


async def test_m6_who_ends_a_stream_takes_no_data_from_who_receives() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/p")
    await remote.send_all(PROPOSAL + b"answer")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_eof)
        nursery.start_soon(receive_and_compare, stream, None, b"answer")


async def test_m6_a_refusal_is_told_from_an_answer_though_more_is_read() -> None:
    raw, remote = trio.testing.memory_stream_pair()
    stream = LazyStream(raw, "/a/long/name")
    await stream.send_all(b"data")
    await remote.send_all(HEADER_LINE + NA + encode_line("/a/long/name"))
    with pytest.raises(NegotiationFailed):
        await stream.receive_some()
