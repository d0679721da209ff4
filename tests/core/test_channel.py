from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from p2pnet.core.channel import MessageChannel, read_frame
from p2pnet.core.framing import encode_frame
from p2pnet.errors import ProtocolError


def decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("/talk", "not text") from None


def channel_on(stream: trio.abc.Stream) -> MessageChannel[str]:
    return MessageChannel(stream, "/talk", encode=str.encode, decode=decode, max_bytes=100)


def pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
    return trio.testing.memory_stream_pair()


async def test_messages_come_out_as_they_went_in() -> None:
    ours, theirs = pair()
    await channel_on(ours).send("hello")
    await channel_on(ours).send("")
    assert await channel_on(theirs).receive() == "hello"
    assert await channel_on(theirs).receive() == ""


async def test_a_channel_reads_not_a_byte_beyond_its_message() -> None:
    ours, theirs = pair()
    await ours.send_all(encode_frame(b"hello") + b"another layer")
    assert await channel_on(theirs).receive() == "hello"
    assert await theirs.receive_some() == b"another layer"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", "the stream ended without an answer"),
        (b"\x80", "the stream ended within a message"),
        (b"\x05hell", "the stream ended within a message"),
        (b"\x65" + b"x" * 101, "over 100"),
        (b"\x01\xff", "not text"),
        (b"\xff" * 20, "varint"),
    ],
)
async def test_a_remote_that_breaks_the_rules_is_told_so(sent: bytes, told: str) -> None:
    ours, theirs = pair()
    if sent:
        await ours.send_all(sent)
    await ours.send_eof()
    with pytest.raises(ProtocolError, match=told):
        await channel_on(theirs).receive()


async def test_a_stream_that_ends_before_a_frame_is_no_error_of_the_remote() -> None:
    ours, theirs = pair()
    await ours.send_eof()
    with pytest.raises(EOFError):
        await read_frame(theirs, max_bytes=100, protocol_id="/talk")


def chunked(cuts: list[int]) -> tuple[MemorySendStream, MemoryReceiveStream]:
    sending, receiving = memory_stream_one_way_pair()
    sizes = iter(cuts)
    whole = receiving.receive_some

    async def receive_some(max_bytes: int | None = None) -> bytearray:
        size = next(sizes, 1)
        return await whole(min(size, max_bytes or size))

    receiving.receive_some = receive_some  # type: ignore[method-assign]
    return sending, receiving


@given(st.binary(max_size=300), st.binary(max_size=10), st.lists(st.integers(1, 50), max_size=20))
def test_any_chunking_gives_the_same_frame(body: bytes, behind: bytes, cuts: list[int]) -> None:
    async def play() -> None:
        sending, receiving = chunked(cuts)
        await sending.send_all(encode_frame(body) + behind)
        await sending.aclose()
        assert await read_frame(receiving, max_bytes=300, protocol_id="/talk") == body
        left = b""
        while data := await receiving.receive_some(100):
            left += data
        assert left == behind

    trio.run(play)
