"""A host that is moved knows at once, where the system tells. Rules V12 and V26."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.bus import Subscription
from p2pnet.core.changes import Changes
from p2pnet.events import NetworkChanged, NetworkRenewed
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.muxers.yamux import Yamux
from p2pnet.security.noise import Noise
from tests.host.test_host import Part
from tests.swarm.fakes import NoNetwork, Wires, env

EVERYWHERE = "/ip4/0.0.0.0/tcp/4001"
HOME, OTHER = "10.0.0.254", "10.0.0.253"


class Word:
    """What the system tells, when a test has it so."""

    def __init__(self) -> None:
        self._told = trio.Event()
        self._error: OSError | None = None
        self._is_set = False
        self.is_closed = False

    def tell(self, error: OSError | None = None, *, is_set: bool = False) -> None:
        self._error, self._is_set = error, is_set
        self._told.set()

    async def wait(self) -> bool:
        await self._told.wait()
        self._told = trio.Event()
        if self._error is not None:
            raise self._error
        return self._is_set

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Telling(NoNetwork):
    """A network of which the system tells."""

    routers: tuple[str, ...] = (HOME,)
    word: Word = field(default_factory=Word)
    looks: int = 0
    is_exhausted: bool = False

    def interface_addresses(self) -> tuple[str, ...]:
        self.looks += 1
        return self.interfaces

    def gateways(self) -> tuple[str, ...]:
        if self.is_exhausted:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.routers

    def changes(self) -> Changes:
        return self.word


@asynccontextmanager
async def moving(
    network: Telling, *listen: str
) -> AsyncGenerator[tuple[Host, Subscription[NetworkChanged]]]:
    config = HostConfig(
        listen=listen,
        transports=[Part(Wires())],
        security=[Noise()],
        muxers=[Yamux()],
        env=replace(env(network), wall_clock=trio.current_time),
    )
    async with open_host(config) as host:
        await trio.sleep(10)
        network.looks = 0
        with host.subscribe(NetworkChanged) as moves:
            yield host, moves


async def test_v26_another_address_is_noticed_when_the_system_tells(
    autojump_clock: MockClock,
) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE) as (host, moves):
        network.interfaces = ("127.0.0.1", "192.168.7.7")
        network.word.tell()
        await trio.sleep(0.5)
        assert len(moves.take_waiting()) == 1
        assert "/ip4/192.168.7.7/tcp/4001" in str(host.addresses.value[0])
    assert network.word.is_closed


@pytest.mark.parametrize("listen", [[EVERYWHERE], ["/ip4/10.0.0.1/tcp/4001"], []])
async def test_v26_another_router_is_another_network(
    autojump_clock: MockClock, listen: list[str]
) -> None:
    network = Telling()
    async with moving(network, *listen) as (_, moves):
        network.routers = (OTHER,)
        network.word.tell()
        await trio.sleep(0.5)
        (moved,) = moves.take_waiting()
        assert "router" in moved.reason


async def test_v26_an_address_and_a_router_are_one_move(autojump_clock: MockClock) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE) as (_, moves):
        network.interfaces, network.routers = ("127.0.0.1", "192.168.7.7"), ()
        network.word.tell()
        await trio.sleep(0.5)
        network.routers = ("192.168.7.1",)
        network.word.tell()
        await trio.sleep(5)
        assert len(moves.take_waiting()) == 1


async def test_v26_who_listens_on_loopback_only_does_not_care_for_routers(
    autojump_clock: MockClock,
) -> None:
    network = Telling()
    async with moving(network, "/ip4/127.0.0.1/tcp/4001") as (_, moves):
        network.routers = (OTHER,)
        network.word.tell()
        await trio.sleep(60)
        assert moves.take_waiting() == ()


async def test_v26_word_of_nothing_new_is_no_move(autojump_clock: MockClock) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE) as (_, moves):
        network.word.tell()
        await trio.sleep(60)
        assert moves.take_waiting() == ()


@pytest.mark.parametrize("is_set", [True, False])
async def test_v26_that_all_was_set_to_what_it_was_is_told(
    autojump_clock: MockClock, is_set: bool
) -> None:
    """And that it is another network is not told twice."""
    network = Telling()
    async with moving(network, EVERYWHERE) as (host, moves):
        with host.subscribe(NetworkRenewed) as renewals:
            network.word.tell(is_set=is_set)
            await trio.sleep(60)
            assert len(renewals.take_waiting()) == is_set
            assert moves.take_waiting() == ()
            network.routers = (OTHER,)
            network.word.tell(is_set=is_set)
            await trio.sleep(60)
            assert len(moves.take_waiting()) == 1
            assert renewals.take_waiting() == ()


async def test_v26_a_burst_costs_two_looks_and_a_flapping_network_one_a_second(
    autojump_clock: MockClock,
) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE):
        for _ in range(100):
            network.word.tell()
            await trio.sleep(0.001)
        await trio.sleep(5)
        assert network.looks == 2
        for _ in range(200):
            network.word.tell()
            await trio.sleep(0.1)
        assert 20 <= network.looks - 2 <= 22


async def test_v26_without_descriptors_the_last_look_at_the_routes_counts(
    autojump_clock: MockClock,
) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE) as (_, moves):
        network.is_exhausted = True
        network.word.tell()
        await trio.sleep(5)
        network.is_exhausted = False
        network.word.tell()
        await trio.sleep(5)
        assert moves.take_waiting() == ()


async def test_v26_a_system_that_tells_no_more_leaves_the_clock(autojump_clock: MockClock) -> None:
    network = Telling()
    async with moving(network, EVERYWHERE) as (_, moves):
        network.word.tell(OSError(errno.ENOTCONN, "gone"))
        await trio.sleep(1)
        network.interfaces = ("127.0.0.1", "192.168.7.7")
        await trio.sleep(31)
        assert len(moves.take_waiting()) == 1
