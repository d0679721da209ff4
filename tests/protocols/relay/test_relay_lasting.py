"""A relay that is fit to be left running: specs/relay.md R29, R30, R31, R32, R33."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.framing import encode_frame
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import StreamReset
from p2pnet.events import RelayRefusedRequest
from p2pnet.protocols.relay.channels import hop_channel
from p2pnet.protocols.relay.messages import HOP
from p2pnet.protocols.relay.server import RelayServer
from p2pnet.protocols.relay.tally import Refused, RelayStatistics
from tests.protocols.memory_streams import receive_exactly
from tests.protocols.memory_world import MemoryConnection
from tests.protocols.relay.fakes import FakeNet
from tests.protocols.relay.test_relay_server import Relay, refusal, relay_with, settle


async def ask_often(relay: Relay, link: MemoryConnection, times: int) -> list[str]:
    return [await refusal(relay, link) for _ in range(times)]


async def test_r29_a_peer_may_ask_so_often_and_no_more(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, requests_per_minute_per_peer=3)
    link = relay.peer(1)
    assert await ask_often(relay, link, 5) == ["OK"] * 3 + ["RESOURCE_LIMIT_EXCEEDED"] * 2
    assert await refusal(relay, relay.peer(2)) == "OK"
    await trio.sleep(20)
    assert await ask_often(relay, link, 2) == ["OK", "RESOURCE_LIMIT_EXCEEDED"]


async def test_r29_peers_of_one_network_share_what_it_may_ask(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, requests_per_minute_per_prefix=3)
    place = parse("/ip4/5.6.7.8/tcp/1")
    links = [net.connect(net.host(n), relay.host, dialer_place=place) for n in range(1, 6)]
    answers = [await refusal(relay, link) for link in links]
    assert answers == ["OK"] * 3 + ["RESOURCE_LIMIT_EXCEEDED"] * 2
    assert await refusal(relay, relay.peer(9)) == "OK"


async def test_r29_requests_that_cannot_be_read_count_as_well(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, requests_per_minute_per_peer=3)
    link = relay.peer(1)
    for _ in range(3):
        stream = await link.open_stream(HOP)
        await stream.send_all(encode_frame(b"\xff"))
        await hop_channel(stream).receive()
    assert await refusal(relay, link) == "RESOURCE_LIMIT_EXCEEDED"


async def test_r30_circuits_are_limited_per_network(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_circuits_per_prefix=2)
    first, second = await relay.target(1), await relay.target(2)
    place = parse("/ip4/5.6.7.8/tcp/1")
    links = [net.connect(net.host(n), relay.host, dialer_place=place) for n in range(3, 6)]
    streams = [await relay.connect(link, first.owner.peer_id) for link in links[:2]]
    status = await refusal(relay, links[2], second.owner.peer_id)
    assert status == "RESOURCE_LIMIT_EXCEEDED"
    await relay.connect(relay.peer(7), second.owner.peer_id)
    streams[0].reset()
    await settle()
    await relay.connect(links[2], second.owner.peer_id)


async def test_r31_the_owner_says_who_may_reserve(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = Relay(net)
    friend, stranger = relay.peer(1), relay.peer(2)
    asked = []

    def may_reserve(peer_id: PeerId, address: Multiaddr) -> bool:
        asked.append(str(address))
        return peer_id == friend.owner.peer_id

    relay.service = RelayServer(may_reserve=may_reserve).build(relay.host.kit)
    await relay.start()
    assert await refusal(relay, friend) == "OK"
    assert await refusal(relay, stranger) == "PERMISSION_DENIED"
    assert asked == [str(friend.owner.place), str(stranger.owner.place)]
    assert relay.service.reservations == 1


async def test_r31_the_owner_says_who_may_be_connected_with_whom(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = Relay(net)
    forbidden: set[tuple[PeerId, PeerId]] = set()

    def may_connect(source: PeerId, address: Multiaddr, target: PeerId) -> bool:
        return (source, target) not in forbidden

    relay.service = RelayServer(may_connect=may_connect).build(relay.host.kit)
    await relay.start()
    target, source = await relay.target(1), relay.peer(2)
    await relay.connect(source, target.owner.peer_id)
    forbidden.add((source.owner.peer_id, target.owner.peer_id))
    assert await refusal(relay, source, target.owner.peer_id) == "PERMISSION_DENIED"
    # Whether the target is there is nobody's business who may not call it.
    forbidden.add((source.owner.peer_id, net.host(3).peer_id))
    assert await refusal(relay, source, net.host(3).peer_id) == "PERMISSION_DENIED"
    await relay.connect(relay.peer(4), target.owner.peer_id)


async def test_r31_an_owner_who_fails_to_answer_lets_nobody_in(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = Relay(net)

    def may_reserve(peer_id: PeerId, address: Multiaddr) -> bool:
        raise OSError("the list cannot be read")

    relay.service = RelayServer(may_reserve=may_reserve).build(relay.host.kit)
    await relay.start()
    with pytest.raises(StreamReset):
        await relay.reserve(relay.peer(1))
    assert relay.service.reservations == 0


async def test_r32_circuits_are_no_faster_than_the_relay_allows(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    limits = {"circuit_seconds": None, "circuit_bytes": None}
    relay = await relay_with(
        net, **limits, circuit_bytes_per_second=10_000, bytes_per_second=15_000
    )
    target, source = await relay.target(1), relay.peer(2)
    streams = [await relay.connect(source, target.owner.peer_id) for _ in range(2)]
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for stream, end in zip(streams, relay.served, strict=True):
            nursery.start_soon(stream.send_all, bytes(75_000))
            nursery.start_soon(receive_exactly, end, 75_000)
    # Ten seconds, but for bursts and for the last chunks, which nobody waits behind.
    assert 8.4 <= trio.current_time() - started <= 10


async def test_r33_a_refusal_names_its_limit_and_all_are_counted(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_circuits_per_peer=1, circuit_bytes=10, max_reservations=2)
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    await refusal(relay, source, target.owner.peer_id)
    await relay.reserve(target)
    await relay.target(3)
    await refusal(relay, relay.peer(4))
    await stream.send_all(b"x" * 11)
    await settle()
    named = [event.limit for event in relay.events if isinstance(event, RelayRefusedRequest)]
    assert named == ["max_circuits_per_peer", "max_reservations"]
    found = relay.service.statistics()
    assert found == RelayStatistics(
        reservations=2,
        circuits=0,
        buffered_bytes=0,
        most_buffered_bytes=10,
        reservations_granted=2,
        reservations_renewed=1,
        reservations_ended={},
        refused={
            Refused("CONNECT", "RESOURCE_LIMIT_EXCEEDED", "max_circuits_per_peer"): 1,
            Refused("RESERVE", "RESERVATION_REFUSED", "max_reservations"): 1,
        },
        circuits_opened=1,
        circuits_closed={"circuit_bytes": 1},
        bytes_forward=10,
        bytes_backward=0,
    )
    target.cut()
    await settle()
    assert relay.service.statistics().reservations_ended == {"disconnected": 1}
