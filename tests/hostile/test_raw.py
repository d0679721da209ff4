"""Attacks by whoever can open a TCP connection: silence, haste, noise, and other protocols."""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
import trio
import trio.lowlevel

from p2pnet.host.opening import open_host
from p2pnet.negotiation.machine import HEADER
from p2pnet.swarm.config import SwarmConfig
from tests.hostile.attacker import (
    GONE,
    PATIENCE,
    attacked,
    dial,
    dial_at_once,
    drain,
    lines,
    resident_bytes,
    shout,
    still_serves,
    victim,
    warnings,
)

pytestmark = pytest.mark.sockets

BANNERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 506,
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "zeros": bytes(100_000),
    "giant varint": b"\xff" * 100_000,
    "line of 2**62 bytes": lines(HEADER) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x3f",
    "line of a MiB": lines(HEADER) + b"\x80\x80\x40" + bytes(1_048_576),
    "line that is longer than it has to be": lines(HEADER) + b"\x80\x00",
    "line without an end": lines(HEADER) + b"\x04/abc",
    "line that is no text": lines(HEADER) + b"\x03\xff\xfe\n",
    "header twice": lines(HEADER, HEADER),
    "ten thousand proposals": lines(HEADER) + lines("/tls/1.0.0") * 10_000,
    "ten thousand refusals": lines(HEADER) + lines("na") * 10_000,
    "control characters": lines(HEADER) + lines("/\x1b[2J\r\n\x00") * 200,
}


@pytest.mark.parametrize("kind", BANNERS)
async def test_what_is_no_negotiation_ends_its_own_connection_and_is_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host:
        await shout(host, BANNERS[kind])
    (warning,) = warnings(caplog)
    assert "/ip4/127.0.0.1/tcp/" in warning
    assert len(warning) < 500
    assert warning.isprintable()


async def test_ten_thousand_half_open_connections_cost_little() -> None:
    with trio.fail_after(PATIENCE), raised_limit(4096):
        async with open_host(victim()) as host:
            await still_serves(host)
            before = resident_bytes()
            silent: list[socket.socket] = []
            for _ in range(10_000):
                silent.append(dial_at_once(host))
                await trio.lowlevel.checkpoint()
                if len(silent) == 1000:
                    close_all(silent[:500])
                    del silent[:500]
            await still_serves(host)
            assert resident_bytes() - before < 32_000_000
            assert len(host._swarm._pending) <= SwarmConfig().max_pending_inbound
            close_all(silent)


async def test_a_storm_of_resets_is_weathered(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host:
            for number in range(2000):
                sock = dial_at_once(host)
                if number % 2:
                    sock.send(lines(HEADER, "/noise"))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                await trio.lowlevel.checkpoint()
            await still_serves(host)
            assert not host._swarm._pending
    assert not warnings(caplog)


async def test_a_byte_now_and_then_does_not_keep_a_connection_open() -> None:
    async with attacked(victim(SwarmConfig(upgrade_timeout=0.5))) as host:
        async with await dial(host) as stream, trio.open_nursery() as nursery:

            async def drip() -> None:
                with suppress(*GONE):
                    for byte in lines(HEADER, "/tls/1.0.0") * 100:
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.05)

            nursery.start_soon(drip)
            await drain(stream)
            nursery.cancel_scope.cancel()


async def test_a_host_outlives_the_want_of_descriptors() -> None:
    async with attacked(victim(SwarmConfig(upgrade_timeout=60))) as host:
        taken: list[socket.socket] = []
        with lowered_limit():
            with suppress(OSError):
                while True:
                    taken.append(dial_at_once(host))
                    await trio.lowlevel.checkpoint()
            host._advertising._next_look = 0.0  # it is time to look at the interfaces
            host._advertising.refresh()
            await trio.sleep(0.2)
        close_all(taken)


def close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


@contextmanager
def raised_limit(wanted: int) -> Generator[None, None, None]:
    """Allow more descriptors than the default, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def lowered_limit() -> Generator[None, None, None]:
    """Let no more than a few descriptors be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        highest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
