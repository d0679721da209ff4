"""Trials of silence between two hosts. Rules KA7 to KA9."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
import trio

from p2pnet import presets
from p2pnet.errors import StreamReset
from p2pnet.interfaces import Connection, Part, Transport
from p2pnet.protocols.hold import Hold
from p2pnet.protocols.hold.dialogue import PROTOCOL_ID
from p2pnet.protocols.hold.service import survives
from p2pnet.protocols.ping import Ping
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP

NEAR = Quality(latency=0.02)
LISTEN = ("/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001")


async def put(world: World, name: str, hold: Hold, *, has_quic: bool = True) -> Machine:
    transports: list[Part[Transport]] = [QUIC(), TCP()] if has_quic else [TCP()]
    minimal = presets.minimal(listen=LISTEN if has_quic else (), transports=transports)
    return await world.host(replace(minimal, services=[*minimal.services, hold]), name, link=NEAR)


async def put_both(world: World, hold: Hold | None = None) -> tuple[Machine, Machine, Connection]:
    asker = await put(world, "asker", Hold())
    server = await put(world, "server", hold or Hold())
    address = next(each for each in server.host.addresses.value if "quic" in str(each))
    connection = await asker.host.connect(address)
    await trio.sleep(3)
    return asker, server, connection


@asynccontextmanager
async def meanwhile(connection: Connection, seconds: int) -> AsyncGenerator[list[bool | None]]:
    """Have a silence tried while the block runs; give the verdict once that is over."""
    verdicts: list[bool | None] = []

    async def run() -> None:
        verdicts.append(await survives(connection, seconds))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield verdicts


async def test_where_there_is_no_nat_each_silence_is_survived(world: World) -> None:
    """KA7."""
    _, _, connection = await put_both(world)
    for seconds in (6, 72):
        began = trio.current_time()
        assert await survives(connection, seconds) is True
        assert seconds + 1 <= trio.current_time() - began < seconds + 2


@pytest.mark.parametrize("talker", ["asker", "server"])
async def test_nothing_is_learned_from_a_silence_that_was_none(world: World, talker: str) -> None:
    """KA8."""
    asker, server, connection = await put_both(world)
    async with meanwhile(connection, 18) as verdicts:
        await trio.sleep(10)
        one, other = (asker, server) if talker == "asker" else (server, asker)
        await one.host.service(Ping).ping(other.host.peer_id)
    assert verdicts == [None]


@pytest.mark.parametrize(("until", "verdict"), [(23.0, False), (60.0, None)])
async def test_a_mapping_was_lost_only_if_the_server_is_there_still(
    world: World, until: float, verdict: bool | None
) -> None:
    """KA8: the word comes once the asker has said something; or does not, and who knows why."""
    _, server, connection = await put_both(world)
    async with meanwhile(connection, 18) as verdicts:
        await trio.sleep(5)
        server.plug.link.is_cut = True
        await trio.sleep(until - 5)
        server.plug.link.is_cut = False
    assert verdicts == [verdict]


async def test_without_quic_nothing_can_be_tried(world: World) -> None:
    _, server, _ = await put_both(world)
    address = next(each for each in server.host.addresses.value if "tcp" in str(each))
    third = await put(world, "third", Hold(), has_quic=False)
    connection = await third.host.connect(address)
    assert await survives(connection, 6) is None


@pytest.mark.parametrize(
    ("hold", "served"), [(Hold(max_served=2), 2), (Hold(max_served_per_prefix=1), 1), (Hold(), 3)]
)
async def test_no_more_silences_are_kept_than_the_config_allows(
    world: World, hold: Hold, served: int
) -> None:
    """KA9: at once; afterwards there is room again."""
    asker, server, _ = await put_both(world, hold)
    verdicts: list[bool | None] = []

    async def run() -> None:
        async with asker.host.apart(stranger=True) as apart:
            address = next(each for each in server.host.addresses.value if "quic" in str(each))
            own = await apart.dial(server.host.peer_id, address)
            await trio.sleep(3)
            verdicts.append(await survives(own, 18))

    for _ in range(2):
        verdicts.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run)
        assert sorted(map(str, verdicts)) == sorted(
            map(str, [True] * served + [None] * (3 - served))
        )


@pytest.mark.parametrize("request_", [b"", b"\x00", b"\x00\x00", b"\x00\x5b"])
async def test_who_asks_for_nonsense_is_reset(world: World, request_: bytes) -> None:
    """KA7."""
    _, _, connection = await put_both(world)
    stream = await connection.open_stream(PROTOCOL_ID)
    await stream.send_all(request_)
    if len(request_) < 2:
        await stream.send_eof()
    with pytest.raises(StreamReset):
        await stream.receive_some()


def test_the_part_refuses_what_makes_no_sense() -> None:
    for name in ("settle_seconds", "interval", "retry_seconds", "max_served_per_prefix"):
        with pytest.raises(ValueError, match=name):
            partial(Hold, **{name: 0})()
