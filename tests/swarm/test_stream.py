"""The live stream is a trio stream, lazy or not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from p2pnet.core.addresses import parse
from p2pnet.core.bus import EventBus
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.events import ConnectionRef
from p2pnet.interfaces import Role, Stream, StreamHandler
from p2pnet.muxers.yamux.driver import YamuxMuxer
from p2pnet.muxers.yamux.limits import Limits
from p2pnet.muxers.yamux.messages import ACK, DATA, FIN, SYN, WINDOW_UPDATE, encode
from p2pnet.negotiation.machine import HEADER_LINE, encode_line
from p2pnet.negotiation.upgrader import UpgradedConnection
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.swarm import Swarm

PROTOCOL = "/test/1"
ADDRESS = parse("/ip4/127.0.0.1/tcp/1")
ANSWER = HEADER_LINE + encode_line(PROTOCOL)


def make_connection(stream: trio.abc.Stream, role: Role, swarm: Swarm) -> LiveConnection:
    peer_id = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    muxed = YamuxMuxer(Limits()).start(stream, role)
    capable = UpgradedConnection(peer_id, ADDRESS, ADDRESS, "/test", "/test", None, muxed)
    ref = ConnectionRef(1, peer_id, ADDRESS, ADDRESS, role is Role.LISTENER, False)
    return LiveConnection(
        capable, ref, config=SwarmConfig(), handlers=swarm.handlers, peers=swarm.peers
    )


def make_swarm() -> Swarm:
    peer_id = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    return Swarm(SwarmConfig(), Env.system(), peer_id=peer_id, bus=EventBus())


@pytest.mark.parametrize("lazy", [False, True])
async def test_a_live_stream_passes_the_check_for_half_closeable_streams(lazy: bool) -> None:
    raw = trio.testing.memory_stream_pair()
    swarm = make_swarm()
    dialer = make_connection(raw[0], Role.DIALER, swarm)
    listener = make_connection(raw[1], Role.LISTENER, swarm)
    if lazy:
        swarm.peers.set_protocols(dialer.peer_id, [PROTOCOL])
    arrivals, arrived = trio.open_memory_channel[Stream](1)

    async def handle(stream: Stream) -> None:
        await arrivals.send(stream)
        await trio.sleep_forever()

    swarm.handlers[PROTOCOL] = handle

    async def make_pair() -> tuple[Stream, Stream]:
        # Nothing is sent: to propose, or as who has waited (for the negotiation) has a free turn.
        ours = await dialer.open_stream(PROTOCOL)
        await ours.send_all(b"")
        theirs = await arrived.receive()
        await theirs.send_all(b"")
        return ours, theirs

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        await trio.testing.check_half_closeable_stream(make_pair, None)
        nursery.cancel_scope.cancel()


async def test_streams_are_counted_until_they_are_closed_or_reset() -> None:
    raw = trio.testing.memory_stream_pair()
    swarm = make_swarm()
    dialer = make_connection(raw[0], Role.DIALER, swarm)
    listener = make_connection(raw[1], Role.LISTENER, swarm)

    async def handle(stream: Stream) -> None:
        await trio.sleep_forever()

    swarm.handlers[PROTOCOL] = handle
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.run)
        nursery.start_soon(listener.run)
        closed = await dialer.open_stream(PROTOCOL)
        reset = await dialer.open_stream(PROTOCOL)
        assert (dialer.streams, listener.streams) == (2, 2)
        await closed.aclose()
        reset.reset()
        assert dialer.streams == 0
        nursery.cancel_scope.cancel()


# ---- M13 of specs/multistream.md -------------------------------------------------------------


async def hear(handler: StreamHandler, said: bytes) -> bytes:
    """Open a stream by hand and say something; return what comes back first."""
    raw, below = trio.testing.memory_stream_pair()
    swarm = make_swarm()
    swarm.handlers[PROTOCOL] = handler
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_connection(below, Role.LISTENER, swarm).run)
        await raw.send_all(encode(DATA, SYN, 1, len(said)) + said)
        heard = await raw.receive_some()
        await raw.aclose()
        nursery.cancel_scope.cancel()
    return bytes(heard)


def data(payload: bytes) -> bytes:
    return encode(DATA, 0, 1, len(payload)) + payload


async def echo(stream: Stream) -> None:
    while received := await stream.receive_some():
        await stream.send_all(received)


async def read_on(stream: Stream) -> None:
    while await stream.receive_some():
        pass


async def think(stream: Stream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "behind", "answered"),
    [(echo, b"hi", b"hi"), (read_on, b"hi", b""), (think, b"", b""), (think, b"hi", b"")],
)
async def test_m13_the_answer_goes_with_the_first_data_or_when_more_is_waited_for(
    handler: StreamHandler, behind: bytes, answered: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    heard = await hear(handler, ANSWER + behind)
    expected = encode(WINDOW_UPDATE, ACK, 1, 0) + data(ANSWER)
    assert heard == expected + (data(answered) if answered else b"")


async def say_goodbye(stream: Stream) -> None:
    await stream.send_last(b"bye")


async def test_the_last_words_and_the_end_go_together() -> None:
    heard = await hear(say_goodbye, ANSWER)
    expected = encode(WINDOW_UPDATE, ACK, 1, 0) + data(ANSWER)
    assert heard == expected + data(b"bye") + encode(WINDOW_UPDATE, FIN, 1, 0)
