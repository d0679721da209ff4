"""Many datagrams in one system call (GSO, GRO), counted on real sockets, and doing without."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.udp import (
    IS_LINUX,
    MAX_TRAIN_BYTES,
    SOL_UDP,
    UDP_SEGMENT,
    Arrival,
    UdpSocket,
)

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(not IS_LINUX, reason="only Linux has trains of datagrams"),
]

Ancillary = list[tuple[int, int, bytes]]
LOOPBACK = ("127.0.0.1", 0)
SIZE = 1200


class Counting(socket.socket):
    """Counts system calls, and may refuse trains as an older kernel or an odd driver does."""

    def __init__(self, *, ipv6: bool = False) -> None:
        super().__init__(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        self.sent: list[int] = []
        self.received: list[int] = []
        self.refusal = 0
        self.refused_above = 0

    def sendmsg(  # type: ignore[override]
        self, buffers: list[bytes], ancillary: Ancillary, flags: int, address: tuple[str, int]
    ) -> int:
        (data,) = buffers
        segment = [value for level, kind, value in ancillary if (level, kind) == TRAIN]
        if self.refusal and segment and int.from_bytes(segment[0], "little") > self.refused_above:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.sent.append(len(data))
        return super().sendmsg(buffers, ancillary, flags, address)

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:  # type: ignore[override]
        self.sent.append(len(data))
        return super().sendto(data, address)

    def recvmsg(self, size: int, ancillary: int) -> tuple[bytes, Ancillary, int, object]:  # type: ignore[override]
        got = super().recvmsg(size, ancillary)
        self.received.append(len(got[0]))
        return got


TRAIN = (SOL_UDP, UDP_SEGMENT)


@dataclass
class Ends:
    here: UdpSocket
    there: UdpSocket
    here_calls: Counting
    there_calls: Counting
    arrived: list[Arrival] = field(default_factory=list)

    async def carry(self, datagrams: list[bytes], *, source: str = "") -> list[bytes]:
        await self.here.send_many(datagrams, self.there.local, source=source)
        with trio.fail_after(5):
            while len(self.arrived) < len(datagrams):
                self.arrived += await self.there.receive_many()
        return [arrival.data for arrival in self.arrived]


@asynccontextmanager
async def ends(*, host: str = "127.0.0.1") -> AsyncGenerator[Ends]:
    calls = [Counting(ipv6=":" in host) for _ in range(2)]
    for each in calls:
        each.bind((host, 0))
    here, there = (UdpSocket(each) for each in calls)
    there._bulk()  # The kernel is asked for trains before any comes.
    try:
        yield Ends(here, there, calls[0], calls[1])
    finally:
        await here.aclose()
        await there.aclose()


def numbered(count: int, size: int = SIZE) -> list[bytes]:
    return [number.to_bytes(2).ljust(size, b".") for number in range(count)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_equal_datagrams_go_and_come_in_few_calls(host: str) -> None:
    async with ends(host=host) as made:
        datagrams = [*numbered(100), b"the last one may be shorter"]
        assert await made.carry(datagrams) == datagrams
        assert len(made.here_calls.sent) == 2
        assert max(made.here_calls.sent) <= MAX_TRAIN_BYTES
        assert len(made.there_calls.received) <= 4
        assert {arrival.remote for arrival in made.arrived} == {made.here.local}
        assert {arrival.local_host for arrival in made.arrived} == {host}


async def test_a_train_ends_with_the_first_shorter_one() -> None:
    async with ends() as made:
        datagrams = [bytes(900), bytes(800), bytes(900), bytes(900), bytes(1000), b"x"]
        assert await made.carry(datagrams) == datagrams
        assert made.here_calls.sent == [1700, 1800, 1001]


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP])
async def test_without_trains_each_goes_by_itself(refusal: int) -> None:
    async with ends() as made:
        made.here_calls.refusal = refusal
        datagrams = numbered(20)
        assert await made.carry(datagrams) == datagrams
        assert made.here_calls.sent == [SIZE] * 20
        await made.here.send_many(datagrams, made.there.local)
        assert made.here_calls.sent == [SIZE] * 40


async def test_what_is_too_large_for_a_train_here_leaves_trains_of_smaller_ones() -> None:
    """An older kernel says EINVAL of segments that are larger than the interface takes."""
    async with ends() as made:
        made.here_calls.refusal = errno.EINVAL
        made.here_calls.refused_above = 1400
        large, small = numbered(10, 1452), numbered(10)
        await made.carry(large)
        made.here_calls.sent.clear()
        await made.carry([*large, *small])
        # A train ends with the first shorter one, so that one is in the first train.
        assert made.here_calls.sent == [1452] * 10 + [SIZE, SIZE * 9]


@pytest.mark.parametrize("lost", [errno.EMSGSIZE, errno.ECONNREFUSED, errno.EPERM])
async def test_what_the_network_does_not_carry_is_lost_and_no_error(lost: int) -> None:
    async with ends() as made:
        made.here_calls.refusal = lost
        await made.here.send_many(numbered(20), made.there.local)
        made.here_calls.refusal = 0
        assert await made.carry([b"goes"]) == [b"goes"]


async def test_the_address_that_was_reached_answers() -> None:
    """As on a machine with several: 127.0.0.2 is one, too."""
    async with ends(host="0.0.0.0") as made:
        reached = Endpoint("127.0.0.2", made.there.local.port)
        await made.here.send_many([b"hello"], reached)
        with trio.fail_after(5):
            (arrival,) = await made.there.receive_many()
        assert arrival.local_host == "127.0.0.2"
        await made.there.send_many([b"a", b"b"], arrival.remote, source=arrival.local_host)
        with trio.fail_after(5):
            (one, *_) = await made.here.receive_many()
        assert one.remote == reached
