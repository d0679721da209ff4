"""Rule D15: by its first word, or none, a remote says which role it leaves to us."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from p2pnet.core.rewound import RewoundStream
from p2pnet.interfaces import Role
from p2pnet.negotiation.driver import handle_one, select_one
from p2pnet.negotiation.first_word import role_left
from p2pnet.negotiation.machine import HEADER_LINE, encode_line

PROPOSAL = HEADER_LINE + encode_line("/noise")
PATIENCE = 0.2


@pytest.mark.parametrize(
    ("said", "role", "seconds"),
    [
        ([], Role.DIALER, PATIENCE),
        ([HEADER_LINE], Role.DIALER, PATIENCE),
        ([HEADER_LINE[:7]], Role.DIALER, PATIENCE),
        ([HEADER_LINE[:7], HEADER_LINE[7:]], Role.DIALER, PATIENCE),
        ([PROPOSAL], Role.LISTENER, 0.0),
        ([HEADER_LINE, encode_line("/noise")], Role.LISTENER, 0.05),
        ([b"GET / HTTP/1.1"], Role.LISTENER, 0.0),
        ([b""], Role.LISTENER, 0.0),
        ([HEADER_LINE, b""], Role.LISTENER, 0.05),
    ],
)
async def test_who_proposes_is_a_dialer_and_who_does_not_is_none(
    autojump_clock: MockClock, said: list[bytes], role: Role, seconds: float
) -> None:
    """D15: go-libp2p says the header as a listener, too; an empty word is the end."""
    near, far = memory_stream_pair()

    async def speak() -> None:
        for number, word in enumerate(said):
            await trio.sleep(0.05 if number else 0.0)
            await (far.send_all(word) if word else far.send_eof())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        stream, left = await role_left(near, PATIENCE)
    assert left is role
    assert trio.current_time() - began == pytest.approx(seconds)
    await far.send_eof()
    assert b"".join([bytes(chunk) async for chunk in stream]) == b"".join(said)


async def test_who_proposes_too_late_finds_a_dialer(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    _, left = await role_left(near, PATIENCE)
    await far.send_all(PROPOSAL)
    assert left is Role.DIALER


async def test_what_was_heard_is_heard_again_and_all_else_goes_through() -> None:
    near, far = memory_stream_pair()
    stream = RewoundStream(near, b"heard")
    await far.send_all(b" and new")
    assert await stream.receive_some(2) == b"he"
    assert await stream.receive_some() == b"ard"
    assert await stream.receive_some(4) == b" and"
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"answer")
    await stream.send_eof()
    assert await far.receive_some() == b"answer"
    assert await far.receive_some() == b""
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()


@given(st.lists(st.integers(1, 30), max_size=8))
def test_any_chunking_of_a_proposal_and_what_follows_gives_the_same(cuts: list[int]) -> None:
    """D15."""

    async def negotiate() -> None:
        near, far = memory_stream_pair()
        data, chunks = PROPOSAL + b"the rest", []
        for cut in cuts:
            chunks.append(data[:cut])
            data = data[cut:]

        async def speak() -> None:
            for chunk in filter(None, [*chunks, data]):
                await far.send_all(chunk)
                await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            stream, left = await role_left(near, 60.0)
            assert left is Role.LISTENER
            assert await handle_one(stream, ["/noise"]) == "/noise"
            assert await stream.receive_some(1) == b"t"

    trio.run(negotiate, clock=MockClock(autojump_threshold=0.0))


async def test_a_listener_that_began_with_the_header_understands_the_proposal(
    autojump_clock: MockClock,
) -> None:
    """D15: As go-libp2p does it, which sends the header before it reads."""
    near, far = memory_stream_pair()

    async def listen_as_go_does() -> None:
        await far.send_all(HEADER_LINE)
        heard = b""
        while len(heard) < len(PROPOSAL):
            heard += await far.receive_some()
        assert heard == PROPOSAL
        await far.send_all(encode_line("/noise"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen_as_go_does)
        stream, left = await role_left(near, PATIENCE)
        assert left is Role.DIALER
        assert await select_one(stream, ["/noise"]) == "/noise"
