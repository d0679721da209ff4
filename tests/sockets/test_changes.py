"""What the kernel tells of changes of the network, in network namespaces. Rule V26."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, closing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.changes import (
    GROUPS,
    Changes,
    KernelChanges,
    NoChanges,
    Weight,
    open_changes,
    weigh,
)
from p2pnet.core.env import SystemNetwork
from p2pnet.demo.network_namespace import entered, new_network_namespace
from p2pnet.demo.private_world import LaboratoryError

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of changes"),
]

QUIET = 0.05
"""Seconds in which nothing runs: what the kernel said has been read by then."""


class Place:
    """A network namespace, with one interface that is up and has an address and a gateway."""

    def __init__(self) -> None:
        self._namespace = new_network_namespace()
        self.ip("link add eth0 type veth peer name cable")
        for end in ("eth0", "cable"):  # Without addresses of its own, IPv6 has nothing to settle.
            self.ip(f"link set {end} addrgenmode none up")
        while self.ip("-o link").count("state UP") < 2:
            pass  # The kernel says so a moment later, and tells of it.
        self.ip("addr add 192.168.1.2/24 dev eth0")
        self.ip("route add default via 192.168.1.1")

    def entered(self) -> AbstractContextManager[None]:
        return entered(self._namespace)

    def ip(self, words: str) -> str:
        with self.entered():
            return subprocess.check_output(["ip", *words.split()], text=True)

    def changes(self) -> Changes:
        with self.entered():
            return SystemNetwork().changes()

    def close(self) -> None:
        os.close(self._namespace)


@pytest.fixture
def place() -> Generator[Place]:
    try:
        made = Place()
    except LaboratoryError as error:
        pytest.skip(f"not permitted here: {error}")
    yield made
    made.close()


class Ear:
    """Counts how often it was told of a change."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._heard = 0
        self.is_set = False
        """What was heard last was that an address or a route was set."""

    async def run(self) -> None:
        while True:
            is_set = await self._changes.wait()
            self.is_set = is_set or (self.is_set and self._heard > 0)
            self._heard += 1

    async def heard(self) -> bool:
        """Tell if there was anything to hear since the last time."""
        await wait_all_tasks_blocked(QUIET)
        heard, self._heard = self._heard, 0
        return heard > 0

    async def rest(self) -> None:
        """Wait until all has been said."""
        while await self.heard():
            pass


@asynccontextmanager
async def listening(changes: Changes) -> AsyncGenerator[Ear]:
    """Give an ear, once there is nothing more to hear."""
    ear = Ear(changes)
    with closing(changes):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.run)
            await ear.rest()
            yield ear
            nursery.cancel_scope.cancel()


async def test_v26_the_kernel_tells_of_links_addresses_and_default_routes(place: Place) -> None:
    async with listening(place.changes()) as ear:
        assert not await ear.heard(), "nothing happens"
        for words, is_set in (
            ("addr add 192.168.7.7/24 dev eth0", True),
            ("addr del 192.168.7.7/24 dev eth0", False),
            ("addr add fd00::7/64 dev eth0 nodad", False),
            ("addr del fd00::7/64 dev eth0", False),
            ("route replace default via 192.168.1.254", True),
            ("route del default", False),
            ("link set eth0 down", False),
            ("link set eth0 up", False),
        ):
            place.ip(words)
            with trio.fail_after(5):
                while not await ear.heard():
                    pass
            assert ear.is_set is is_set, words
            await ear.rest()


async def test_v26_that_a_part_of_the_world_is_reached_elsewhere_is_not_told(place: Place) -> None:
    async with listening(place.changes()) as ear:
        place.ip("route add 10.7.0.0/16 via 192.168.1.1")
        assert not await ear.heard()


async def test_v26_what_happens_while_nobody_waits_is_told_to_who_waits_next(place: Place) -> None:
    async with listening(place.changes()):
        with closing(place.changes()) as changes:
            place.ip("addr add 192.168.7.7/24 dev eth0")
            await changes.wait()


async def test_v26_that_more_was_said_than_there_was_room_for_is_told(place: Place) -> None:
    async with listening(place.changes()):
        with closing(place.changes()) as changes:
            assert isinstance(changes, KernelChanges)
            changes._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            for number in range(2, 40):
                place.ip(f"route add 10.{number}.0.0/16 via 192.168.1.1")
            await changes.wait()


async def test_v26_what_others_say_is_not_taken_for_the_kernels_word(place: Place) -> None:
    changes = place.changes()
    assert isinstance(changes, KernelChanges)
    async with listening(changes) as ear:
        with place.entered():
            liar = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        with liar:
            port, _ = changes._sock.getsockname()
            liar.sendto(bytes(64), (port, 0))
            liar.sendto(bytes(64), (port, GROUPS))
        assert not await ear.heard()


@pytest.mark.parametrize("head", [b"", bytes(17)])
def test_what_is_cut_short_says_nothing(head: bytes) -> None:
    assert weigh(head) is Weight.NONE


async def test_where_the_system_tells_nobody_nothing_is_ever_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """V26."""

    def refuse(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("p2pnet.core.changes.socket.socket", refuse)
    changes = open_changes()
    assert isinstance(changes, NoChanges)
    async with listening(changes) as ear:
        assert not await ear.heard()
