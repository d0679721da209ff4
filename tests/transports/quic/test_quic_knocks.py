"""Rule Q32: who knocks has a dial to it begin anew, and nothing else; not without end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import pytest
import trio

from p2pnet.core.addresses import Endpoint, quic_address
from p2pnet.core.env import DatagramSocket
from p2pnet.errors import P2PError
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.aioquic_core import AioquicCore
from p2pnet.transports.quic.connection import MAX_KNOCKS, QuicConnection
from p2pnet.transports.quic.endpoint import QuicSocket
from p2pnet.transports.quic.packets import MIN_INITIAL_BYTES, Unreadable, read_header
from p2pnet.transports.quic.terms import Way
from tests.transports.quic.quic_scene import Peer, meeting

NO_PACKET = bytes(64)
SHORT_HEADER = b"\x40" + bytes(range(63))
LONG_HEADER = b"\xc0\xaa\xaa\xaa\xaa\x08" + bytes(58)
KNOCKS = (NO_PACKET, SHORT_HEADER, LONG_HEADER)
PATIENCE = 0.15
"""Seconds in which no timeout of the library sends a dial again."""


def is_initial(data: bytes) -> bool:
    try:
        return len(data) >= MIN_INITIAL_BYTES and read_header(data).is_initial
    except Unreadable:
        return False


async def initials(socket: DatagramSocket, seconds: float) -> int:
    """Count what begins a connection, until that time is over."""
    count = 0
    with trio.move_on_after(seconds):
        while True:
            count += sum(is_initial(arrival.data) for arrival in await socket.receive_many())
    return count


@asynccontextmanager
async def dialling(
    world: World, part: QUIC | None = None
) -> AsyncGenerator[tuple[DatagramSocket, Endpoint, int]]:
    """Dial somebody who does not answer: their socket, who dials, and how much the dial is."""
    peer, nobody = Peer(world.machine("m").env, part), world.machine("nobody")
    where = Endpoint(nobody.addresses[0], 4001)
    socket = await nobody.env.network.bind_udp(where)
    other = Peer(nobody.env)

    async def dial() -> None:
        with suppress(P2PError, OSError):
            await peer.dial(quic_address(where), other)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        (arrival, *rest) = await socket.receive_many()
        first = 1 + len(rest) + await initials(socket, 0.01)
        yield socket, arrival.remote, first
        nursery.cancel_scope.cancel()
    await socket.aclose()


@pytest.mark.parametrize("core", ["aioquic", "qh3"])
@pytest.mark.parametrize("knock", KNOCKS, ids=["no packet", "short header", "long header"])
async def test_whatever_comes_from_there_begins_the_dial_anew(
    knock: bytes, core: Literal["aioquic", "qh3"], world: World
) -> None:
    """Q32: by random bytes, no matter what they look like."""
    async with dialling(world, QUIC(core=core)) as (socket, dialer, first):
        assert await initials(socket, 0.05) == 0
        await socket.send(knock, dialer)
        assert await initials(socket, 0.05) == first


async def test_nobody_has_a_dial_begun_anew_more_than_twice(world: World) -> None:
    """Q32: what is sent is bounded, however often somebody knocks."""
    async with dialling(world) as (socket, dialer, first):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                delay = number * PATIENCE / 40
                nursery.start_soon(partial(send_later, socket, dialer, delay))
            assert await initials(socket, PATIENCE) == first * MAX_KNOCKS


async def send_later(socket: DatagramSocket, dialer: Endpoint, delay: float) -> None:
    await trio.sleep(delay)
    await socket.send(NO_PACKET, dialer)


async def test_who_knocks_does_not_put_the_next_timeout_off(world: World) -> None:
    """Q32: the library doubles it each time; a knock is no reason for that."""
    async with dialling(world) as (socket, dialer, first):
        await socket.send(NO_PACKET, dialer)
        assert await initials(socket, PATIENCE) == first
        assert await initials(socket, 0.1) == first


async def test_only_where_the_dial_goes_one_may_knock(world: World) -> None:
    """Q32: another port or another host says nothing of that NAT."""
    stranger = world.machine("stranger")
    async with dialling(world) as (socket, dialer, _):
        nobody = world.machines["nobody"]
        for machine in (nobody, stranger):
            elsewhere = await machine.env.network.bind_udp(Endpoint(machine.addresses[0], 4002))
            for data in KNOCKS:
                await elsewhere.send(data, dialer)
            await elsewhere.aclose()
        assert await initials(socket, PATIENCE) == 0


@pytest.mark.parametrize("knocking", [0, 1], ids=["listener is told", "dialer is told"])
async def test_a_connection_that_stands_is_not_begun_anew(
    knocking: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q32: neither one that was dialled nor one that came in, though it awaits an answer."""
    machines = world.machine("a"), world.machine("b")
    dialer, listener = (Peer(machine.env) for machine in machines)
    async with meeting(dialer, listener, machines[1].addresses[0]) as met:
        ends = await met.connect()
        await trio.sleep(1)
        one, other = ends[knocking].capable, ends[1 - knocking].capable
        assert isinstance(one, QuicConnection)
        assert isinstance(other, QuicConnection)
        owed: list[bool] = []
        sent: list[int] = []
        send, knocked = QuicSocket.send, other.knocked

        def hear(now: float) -> None:
            owed.append(other._core.is_owed)
            sent.clear()
            knocked(now)

        async def count(
            socket: QuicSocket, datagrams: Sequence[bytes], remote: Endpoint, source: str
        ) -> None:
            if socket is other._socket:
                sent.extend(map(len, datagrams))
            await send(socket, datagrams, remote, source)

        monkeypatch.setattr(other, "knocked", hear)
        monkeypatch.setattr(QuicSocket, "send", count)
        stream = await other.open_stream()
        await stream.send_all(b"on its way")
        await send(one._socket, [NO_PACKET], one.remote, one._way.local.host)
        await trio.sleep(0.015)  # It takes 0.01 s to the other, and so does the answer back.
        assert owed == [True]
        assert sent == []


async def test_what_has_not_left_or_is_over_is_not_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q32: there is nothing to be sent again."""
    peer, nobody = Peer(world.machine("m").env), Peer(world.machine("nobody").env)
    remote = Endpoint(world.machines["nobody"].addresses[0], 4001)
    asked: list[float] = []
    monkeypatch.setattr(AioquicCore, "resend", lambda core, now: asked.append(now))
    transport = peer.transport
    async with transport._leaving_for(remote, any_port=False) as socket:
        way = Way(socket, socket.source_for(remote), remote, is_dialed=True)
        core = transport._admission.cores.dial(remote, trio.current_time())
        terms = transport._admission.terms
        connection = QuicConnection(core, way, terms, expected=nobody.peer_id)
        connection.knocked(1.0)
        await connection._send()
        connection.knocked(2.0)
        connection._end(None)
        connection.knocked(3.0)
        await connection.refuse()
    assert asked == [2.0]
