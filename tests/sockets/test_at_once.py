"""Sending on a socket at once, from whichever task, and what becomes of what did not fit."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.env import ByteStream
from p2pnet.core.prompt import SendNow, prompt_sender
from tests.sockets.test_env import connected, receive_exactly

pytestmark = pytest.mark.sockets


def fill(stream: ByteStream) -> bytes:
    """Send at once until not all fits; return what was sent and kept."""
    send_now, sent = prompt_sender(stream), b""
    assert send_now is not None
    while True:
        piece = len(sent).to_bytes(8) * 8192
        sent += piece
        if not send_now(piece):
            return sent


async def send_until_reset(send_now: SendNow) -> None:
    for _ in range(1000):
        send_now(b"x")
        await trio.lowlevel.checkpoint()


async def test_a_little_is_sent_without_waiting() -> None:
    async with connected() as (one, other):
        send_now = prompt_sender(one)
        assert send_now is not None
        assert send_now(b"hello")
        assert await receive_exactly(other, 5) == b"hello"
        assert send_now(bytearray(b"again"))
        await one.send_all(b"!")
        assert await receive_exactly(other, 6) == b"again!"


async def test_what_did_not_fit_goes_in_front_of_what_is_sent_next() -> None:
    async with connected() as (one, other):
        sent = fill(one)
        with pytest.raises(trio.BusyResourceError):
            fill(one)
        with trio.move_on_after(0.02) as scope:
            await one.send_all(b"lost")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, b"")
            assert await receive_exactly(other, len(sent)) == sent
        send_now = prompt_sender(one)
        assert send_now is not None
        assert send_now(b"end")
        assert await receive_exactly(other, 3) == b"end"


async def test_what_did_not_fit_goes_in_front_of_the_end() -> None:
    async with connected() as (one, other):
        sent = fill(one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_eof)
            assert await receive_exactly(other, len(sent)) == sent
        assert await other.receive_some() == b""


async def test_what_did_not_fit_is_lost_with_the_socket() -> None:
    async with connected() as (one, _):
        fill(one)
        await one.aclose()
        for _again in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await one.send_all(b"")


async def test_sending_at_once_raises_what_sending_raises() -> None:
    async with connected() as (one, other), trio.open_nursery() as nursery:
        send_now = prompt_sender(one)
        assert send_now is not None
        nursery.start_soon(one.send_all, bytes(64 * 1024 * 1024))
        await wait_all_tasks_blocked(0.05)
        with pytest.raises(trio.BusyResourceError):
            send_now(b"x")
        nursery.cancel_scope.cancel()
        await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            send_now(b"x")
        send_back = prompt_sender(other)
        assert send_back is not None
        with pytest.raises(trio.BrokenResourceError):
            await send_until_reset(send_back)
