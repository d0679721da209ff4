"""Who takes part in birthday punching, with whom, and how often."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import describe
from p2pnet.interfaces import Spread
from p2pnet.protocols.dcutr import Birthday
from p2pnet.protocols.dcutr.birthday import MAX_RESTING, REST_SECONDS, Birthdays
from p2pnet.protocols.dcutr.messages import Side
from p2pnet.protocols.dcutr.prediction import Forecast
from tests.protocols.memory_world import MemoryHost, MemoryWorld

PLACE = parse("/ip4/11.0.0.2/udp/2/quic-v1")
TCP = parse("/ip4/11.0.0.2/tcp/2")


class Wide(MemoryHost):
    """A host that notes what it would do, for as long as it takes."""

    def __init__(self, world: MemoryWorld) -> None:
        super().__init__(world, 1, "/ip4/11.0.0.1/udp/1/quic-v1")
        self.wide: list[tuple[str, str, int]] = []

    async def dial_from_many(self, peer_id: PeerId, address: Multiaddr, spread: Spread) -> None:
        self.wide.append(("sockets", str(address), spread.count))
        with trio.fail_after(spread.seconds):
            await trio.sleep_forever()

    async def knock_at_many(self, address: Multiaddr, spread: Spread) -> None:
        self.wide.append(("probes", str(address), spread.count))
        await trio.sleep(spread.seconds)


@pytest.fixture
async def wide(world: MemoryWorld) -> Wide:
    return Wide(world)


def test_the_bounds_cannot_be_exceeded() -> None:
    """D22 D23."""
    for wrong in ({"sockets": 257}, {"probes": 2049}, {"probes": 0}):
        with pytest.raises(ValueError, match="at most"):
            Birthday(**wrong)
    with pytest.raises(ValueError, match="at most"):
        Birthday(seconds=20.5)


async def test_only_who_allows_it_and_knows_its_nat_says_so(wide: Wide) -> None:
    """D21."""
    willing, unwilling = Birthdays(wide, Birthday()), Birthdays(wide, None)
    assert willing.side(()) is None
    wide.moving["udp"] = True
    assert willing.side(()) is Side.HARD
    assert willing.side([Forecast("tcp", "11.0.0.1", 1, 1)]) is Side.HARD
    assert willing.side([Forecast("udp", "11.0.0.1", 1, 1)]) is None
    assert unwilling.side(()) is None
    wide.moving["udp"] = False
    assert willing.side(()) is Side.EASY
    assert unwilling.side(()) is None


async def test_one_peer_at_a_time(autojump_clock: MockClock, wide: Wide) -> None:
    """D24."""
    wide.moving["udp"] = True
    birthdays, causes = Birthdays(wide, Birthday(sockets=8)), list[BaseException]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(birthdays.run, wide.peer_id, Side.HARD, [TCP, PLACE], causes)
        await trio.sleep(1)
        assert birthdays.side(()) is None
        await birthdays.run(wide.peer_id, Side.HARD, [PLACE], causes)
    assert wide.wide == [("sockets", str(PLACE), 8)]
    assert [describe(cause) for cause in causes] == [
        "birthday punching: not now, or not there",
        "birthday punching: none of 8 sockets got through",
    ]
    assert birthdays.side(()) is Side.HARD


async def test_an_address_is_probed_once_in_a_while_whoever_names_it(
    autojump_clock: MockClock, wide: Wide
) -> None:
    """D24."""
    birthdays, causes = Birthdays(wide, Birthday(probes=16)), list[BaseException]()
    other_port = parse("/ip4/11.0.0.2/udp/3/quic-v1")
    for place in (PLACE, other_port):
        await birthdays.run(wide.peer_id, Side.EASY, [place], causes)
    assert wide.wide == [("probes", str(PLACE), 16)]
    assert "a short time ago" in describe(causes[-1])
    await trio.sleep(REST_SECONDS)
    await birthdays.run(wide.peer_id, Side.EASY, [other_port], causes)
    assert len(wide.wide) == 2


async def test_an_address_at_which_the_peer_was_found_is_probed_again(
    autojump_clock: MockClock, wide: Wide
) -> None:
    """D24."""
    birthdays, causes = Birthdays(wide, Birthday(probes=16)), list[BaseException]()
    for found in ("/ip4/11.0.0.3/udp/9/quic-v1", "/ip4/11.0.0.2/udp/9/quic-v1"):
        await birthdays.run(wide.peer_id, Side.EASY, [PLACE], causes)
        assert len(wide.wide) == 1
        birthdays.found_at(parse(found))
    await birthdays.run(wide.peer_id, Side.EASY, [PLACE], causes)
    assert len(wide.wide) == 2


async def test_nobody_is_probed_while_too_many_were(autojump_clock: MockClock, wide: Wide) -> None:
    """D24."""
    birthdays, causes = Birthdays(wide, Birthday(seconds=0.001)), list[BaseException]()
    for number in range(MAX_RESTING + 1):
        place = parse(f"/ip4/11.1.{number // 256}.{number % 256}/udp/3/quic-v1")
        await birthdays.run(wide.peer_id, Side.EASY, [place], causes)
    assert len(wide.wide) == MAX_RESTING
