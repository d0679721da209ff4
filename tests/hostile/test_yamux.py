"""Attacks on yamux, by peers whose handshake was genuine and whose frames are their own."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from p2pnet.core.complaints import BURST
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Stream
from p2pnet.muxers.yamux.messages import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    encode,
)
from p2pnet.negotiation.machine import HEADER
from tests.hostile.attacker import (
    GONE,
    PATIENCE,
    RawYamux,
    attacked,
    lines,
    muxed,
    resident_bytes,
    still_serves,
    victim,
    warnings,
)

pytestmark = pytest.mark.sockets

PING_ID = "/ipfs/ping/1.0.0"
ECHO = "/test/echo/1.0.0"
OPEN = encode(WINDOW_UPDATE, SYN, 1, 0)

VIOLATIONS = {
    "version": b"\x01" + bytes(11),
    "kind": b"\x00\x04" + bytes(10),
    "data on stream 0": encode(DATA, 0, 0, 0),
    "a window update on stream 0": encode(WINDOW_UPDATE, SYN, 0, 1),
    "an even stream": encode(WINDOW_UPDATE, SYN, 2, 0),
    "an existing stream": OPEN + OPEN,
    "more data than the window": OPEN + encode(DATA, 0, 1, 262_145),
    "4 GiB": OPEN + encode(DATA, 0, 1, 0xFFFF_FFFF),
    "4 GiB for nobody": encode(DATA, 0, 99, 0xFFFF_FFFF),
    "data after the end": OPEN + encode(DATA, FIN, 1, 0) + encode(DATA, 0, 1, 1) + b"x",
    "credit over 32 bits": OPEN + encode(WINDOW_UPDATE, 0, 1, 0xFFFF_FFFF) * 2,
    "pings without end": encode(PING, SYN, 0, 7) * 10_000,
}


@pytest.mark.parametrize("kind", VIOLATIONS)
async def test_a_broken_rule_ends_the_connection_and_is_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host:
        async with muxed(host) as yamux:
            with suppress(*GONE):
                await yamux.stream.send_all(VIOLATIONS[kind])
            goodbye, _ = await yamux.wait_for(GO_AWAY, 0)
        assert goodbye.length == 1
    (warning,) = warnings(caplog)
    assert "/ip4/127.0.0.1/tcp/" in warning
    assert "12D3KooW" in warning


ODDITIES = {
    "unknown flags": encode(WINDOW_UPDATE, 0xFFF0, 77, 0),
    "all flags": encode(WINDOW_UPDATE, SYN | ACK | FIN | RST, 79, 0xFFFF_FFFF),
    "frames of forgotten streams": encode(DATA, 0, 81, 3) + b"abc" + encode(DATA, FIN, 81, 0),
    "resets of streams never opened": encode(WINDOW_UPDATE, RST, 83, 0xDEAD) * 5000,
    "acknowledgements of nothing": encode(WINDOW_UPDATE, ACK, 85, 0) * 5000,
    "answers to pings never sent": encode(PING, ACK, 0, 0xFFFF_FFFF) * 5000,
    "a ping with no flag": encode(PING, 0, 0, 1) * 5000,
    "empty data": encode(WINDOW_UPDATE, SYN, 87, 0) + encode(DATA, 0, 87, 0) * 5000,
    "a stream reset with an odd code": encode(WINDOW_UPDATE, SYN, 89, 0)
    + encode(WINDOW_UPDATE, RST, 89, 0xFFFF_FFFF),
    "data that ends and resets": encode(DATA, SYN | FIN | RST, 91, 3) + b"abc",
}


@pytest.mark.parametrize("kind", ODDITIES)
async def test_what_is_odd_but_harmless_leaves_the_connection(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            async with muxed(host) as yamux:
                await yamux.stream.send_all(ODDITIES[kind])
                await pings_through(yamux, 101)
    assert not warnings(caplog)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 0xFFFF_FFFF])
async def test_a_goodbye_with_any_code_is_a_goodbye(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host, muxed(host) as yamux:
        await yamux.open(1, PING_ID)
        await yamux.stream.send_all(
            encode(GO_AWAY, 0xFFFF, 0xFFFF_FFFF, code) + encode(DATA, 0, 1, 9)
        )
        await yamux.rest()
    assert not warnings(caplog)


async def test_a_hundred_thousand_streams_opened_and_reset_are_outlived() -> None:
    async with open_host(victim()) as host, muxed(host) as yamux:
        await yamux.open(1, PING_ID)
        with trio.fail_after(PATIENCE):
            before = resident_bytes()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(yamux.rest)
                with suppress(*GONE):
                    for first in range(3, 200_003, 4000):
                        burst = [
                            encode(WINDOW_UPDATE, SYN, n, 0) + encode(WINDOW_UPDATE, RST, n, 0)
                            for n in range(first, first + 4000, 2)
                        ]
                        await yamux.stream.send_all(b"".join(burst))
                await still_serves(host)
                nursery.cancel_scope.cancel()
            assert resident_bytes() - before < 32_000_000


async def test_streams_opened_and_reset_leave_the_others_alone() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, muxed(host) as yamux:
            for first in range(3, 10_003, 200):
                burst = [
                    encode(WINDOW_UPDATE, SYN, n, 0) + encode(WINDOW_UPDATE, RST, n, 0)
                    for n in range(first, first + 200, 2)
                ]
                await yamux.stream.send_all(b"".join(burst))
                await trio.lowlevel.checkpoint()
            await pings_through(yamux, 10_003)
            (connection,) = host.connections()
            while connection.streams > 2:
                await trio.lowlevel.checkpoint()


async def test_ten_thousand_streams_that_negotiate_nothing_are_bounded() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, muxed(host) as yamux:
            refused = 0
            for first in range(1, 20_001, 1000):
                burst = [encode(WINDOW_UPDATE, SYN, n, 0) for n in range(first, first + 1000, 2)]
                await yamux.stream.send_all(b"".join(burst))
                while refused < (first + 999) // 2 - 512:
                    frame = await yamux.receive()
                    assert frame is not None
                    refused += bool(frame[0].flags & RST)
            (connection,) = host.connections()
            assert connection.streams <= 256
            await still_serves(host)


async def test_echoes_that_are_never_read_are_bounded_in_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            host.handle(ECHO, echo)
            async with muxed(host) as yamux:
                before = resident_bytes()
                streams = range(1, 513, 2)
                for number in streams:
                    await yamux.open(number, ECHO)
                for _ in range(3):  # as much as the windows allow without an answer
                    for number in streams:
                        await yamux.data(number, bytes(65_536))
                await still_serves(host)
                assert len(host.connections()) == 1
                assert resident_bytes() - before < 96_000_000
    assert not warnings(caplog)


async def test_a_stream_that_breaks_a_rule_is_reset_alone(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            async with muxed(host) as yamux:
                await yamux.stream.send_all(OPEN)
                await yamux.data(1, b"GET / HTTP/1.1\r\n\r\n")
                await wait_reset(yamux, 1)
                await pings_through(yamux, 3)
    (warning,) = warnings(caplog)
    assert "/ip4/127.0.0.1/tcp/" in warning


async def test_thousands_of_streams_that_break_rules_do_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            async with muxed(host) as yamux:
                for number in range(1, 4001, 2):
                    await yamux.stream.send_all(encode(WINDOW_UPDATE, SYN, number, 0))
                    await yamux.data(number, b"garbage")
                    await wait_reset(yamux, number)
                await pings_through(yamux, 4001)
    assert 1 <= len(warnings(caplog)) <= BURST + 10


async def wait_reset(yamux: RawYamux, stream_id: int) -> None:
    while not (await yamux.wait_for(WINDOW_UPDATE, stream_id))[0].flags & RST:
        pass


async def pings_through(yamux: RawYamux, stream_id: int) -> None:
    """Make sure that the connection works: a ping is echoed on it."""
    await yamux.open(stream_id, PING_ID)
    payload = bytes(range(32))
    await yamux.data(stream_id, payload)
    expected = lines(HEADER, PING_ID) + payload
    received = b""
    while len(received) < len(expected):
        received += (await yamux.wait_for(DATA, stream_id))[1]
    assert received == expected
