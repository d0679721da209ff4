"""QUIC is driven by trio alone, and sends and receives many datagrams in one system call."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass, field
from typing import NoReturn

import pytest
import trio

from p2pnet import QUIC, Stream, open_host, presets
from p2pnet.core.udp import IS_LINUX, SOL_UDP, UDP_SEGMENT
from tests.transports.quic.test_quic_streams import CoreName, both

pytestmark = pytest.mark.sockets

SIZE = 4 * 1024 * 1024
PROTOCOL = "/count/1"
LISTEN = "/ip4/127.0.0.1/udp/0/quic-v1"
SMALLEST = 1000
"""Bytes of a datagram that is full, or nearly."""


@dataclass
class Calls:
    """The system calls by which full datagrams went, and how many datagrams there were."""

    calls: int = 0
    datagrams: int = 0
    arrivals: list[int] = field(default_factory=list)

    def note(self, size: int, segment: int) -> None:
        if size >= SMALLEST:
            self.calls += 1
            self.datagrams += -(-size // segment) if segment else 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    send_message, send_to, receive = (
        socket.socket.sendmsg,
        socket.socket.sendto,
        socket.socket.recvmsg,
    )

    def sendmsg(
        self: socket.socket,
        buffers: list[bytes],
        ancillary: list[tuple[int, int, bytes]],
        *rest: object,
    ) -> int:
        segments = [
            value for level, kind, value in ancillary if (level, kind) == (SOL_UDP, UDP_SEGMENT)
        ]
        made.note(len(buffers[0]), int.from_bytes(segments[0], "little") if segments else 0)
        return send_message(self, buffers, ancillary, *rest)  # type: ignore[arg-type]

    def sendto(self: socket.socket, data: bytes, *rest: object) -> int:
        made.note(len(data), 0)
        return send_to(self, data, *rest)  # type: ignore[call-overload]

    def recvmsg(self: socket.socket, *rest: int) -> object:
        got = receive(self, *rest)
        if len(got[0]) >= SMALLEST:
            made.arrivals.append(len(got[0]))
        return got

    monkeypatch.setattr(socket.socket, "sendmsg", sendmsg)
    monkeypatch.setattr(socket.socket, "sendto", sendto)
    monkeypatch.setattr(socket.socket, "recvmsg", recvmsg)
    return made


async def carry(core: CoreName) -> None:
    """Send some MiB over loopback, to a reader that counts them."""
    done = trio.Event()
    total = 0

    async def count(stream: Stream) -> None:
        nonlocal total
        async for chunk in stream:
            total += len(chunk)
        done.set()

    quic = QUIC(core=core)
    serving = presets.minimal(listen=[LISTEN], transports=[quic])
    with trio.fail_after(60):
        async with (
            open_host(serving) as there,
            open_host(presets.minimal(transports=[quic])) as here,
        ):
            there.handle(PROTOCOL, count)
            connection = await here.connect(f"{there.addresses.value[0]}")
            async with await connection.open_stream(PROTOCOL) as stream:
                await stream.send_all(bytes(SIZE))
                await stream.send_eof()
                await done.wait()
    assert total == SIZE


@pytest.mark.skipif(not IS_LINUX, reason="only Linux has trains of datagrams")
@both
async def test_many_datagrams_go_and_come_in_one_call(core: CoreName, calls: Calls) -> None:
    await carry(core)
    assert calls.datagrams > SIZE / 1452
    assert calls.datagrams / calls.calls > 4
    assert calls.datagrams / len(calls.arrivals) > 2


@both
async def test_neither_threads_nor_asyncio_are_needed(
    core: CoreName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("trio alone is to drive QUIC")

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
    await carry(core)
    assert threading.active_count() == before
