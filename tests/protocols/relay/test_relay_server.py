"""The relay, asked by honest and other peers.

specs/relay.md R1, R13, R14, R15, R16, R17, R18, R19, R20, R22, R23, R24, R43.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.core.framing import encode_frame
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import RelayRefused
from p2pnet.events import (
    CircuitClosed,
    CircuitOpened,
    ConnectionClosed,
    RelayRefusedRequest,
    ReservationEnded,
    ReservationGranted,
)
from p2pnet.interfaces import Stream, StreamHandler
from p2pnet.protocols.relay.channels import hop_channel, stop_channel
from p2pnet.protocols.relay.dialogue import connect, reserve
from p2pnet.protocols.relay.messages import (
    HOP,
    STOP,
    HopConnect,
    HopStatus,
    Limit,
    Reservation,
    Status,
    StopConnect,
    StopStatus,
    encode_hop,
    encode_stop,
)
from p2pnet.protocols.relay.server import (
    IN_CIRCUIT,
    PROTECTED_AS,
    RelayServer,
    RelayServerService,
)
from p2pnet.protocols.relay.voucher import Voucher, decode_untrusted
from tests.protocols.memory_streams import MemoryStream, receive_exactly
from tests.protocols.memory_world import WALL, MemoryConnection
from tests.protocols.relay.fakes import CIRCUIT, FakeNet

EVENTS = (
    ReservationGranted,
    ReservationEnded,
    RelayRefusedRequest,
    CircuitOpened,
    CircuitClosed,
)


class Relay:
    """A relay, and peers around it."""

    def __init__(self, net: FakeNet, **limits: float | None) -> None:
        self.net = net
        self.host = net.host(100)
        self.host.addresses.set((parse(f"/ip4/1.2.3.4/tcp/4001/p2p/{self.host.peer_id}"),))
        self.service: RelayServerService = RelayServer(**limits).build(self.host.kit)  # type: ignore[arg-type]
        self.served: list[Stream] = []
        """The target's ends of circuits."""

    async def start(self) -> None:
        await self.host.start(self.service)

    @property
    def events(self) -> list[object]:
        return [event for event in self.host.published if isinstance(event, EVENTS)]

    async def reserve(self, link: MemoryConnection) -> tuple[Reservation, Limit | None]:
        async with await link.open_stream(HOP) as stream:
            return await reserve(hop_channel(stream), link.peer_id)

    async def connect(self, link: MemoryConnection, target: PeerId) -> MemoryStream:
        stream = await link.open_stream(HOP)
        self.limit = await connect(hop_channel(stream), link.peer_id, target)
        return stream

    async def target(self, seed: int, *, status: int = Status.OK) -> MemoryConnection:
        """Add a peer that has a reservation and answers offers of circuits."""
        host = self.net.host(seed)

        async def accept(stream: Stream) -> None:
            channel = stop_channel(stream)
            self.offered = await channel.receive()
            await channel.send(StopStatus(status))
            self.served.append(stream)
            await trio.sleep_forever()

        host.handle(STOP, accept)
        link = self.net.connect(host, self.host)
        await self.reserve(link)
        return link

    def peer(self, seed: int) -> MemoryConnection:
        return self.net.connect(self.net.host(seed), self.host)


async def relay_with(net: FakeNet, **limits: float | None) -> Relay:
    relay = Relay(net, **limits)
    await relay.start()
    return relay


async def refusal(relay: Relay, link: MemoryConnection, target: PeerId | None = None) -> str:
    """Ask for a reservation, or a circuit; return the status of the refusal."""
    try:
        if target is None:
            await relay.reserve(link)
        else:
            await relay.connect(link, target)
    except RelayRefused as error:
        return error.status
    return "OK"


async def settle() -> None:
    await trio.sleep(0.1)


# ---- reservations ------------------------------------------------------------------------


async def test_r17_a_reservation_says_where_until_when_and_how_much(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    link = relay.peer(1)
    reservation, limit = await relay.reserve(link)
    assert reservation.expire == WALL + 3600
    assert reservation.addresses == relay.host.addresses.value
    assert limit == Limit(120, 131_072)
    assert reservation.voucher is not None
    expected = Voucher(relay.host.peer_id, link.owner.peer_id, reservation.expire)
    assert decode_untrusted(reservation.voucher) == expected
    assert relay.service.reservations == 1
    assert (link.owner.peer_id, PROTECTED_AS) in relay.host.protected
    await settle()
    assert relay.events == [ReservationGranted(link.owner.peer_id, 3600, renewal=False)]


async def test_r17_a_relay_that_advertises_nothing_offers_where_it_was_reached(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    relay.host.addresses.set(())
    reservation, _ = await relay.reserve(relay.peer(1))
    assert reservation.addresses == (parse(relay.host.address),)


async def test_r14_a_renewal_is_the_same_reservation(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_reservations=1)
    link = relay.peer(1)
    await relay.reserve(link)
    await trio.sleep(3000)
    await relay.reserve(link)
    await trio.sleep(3000)
    assert relay.service.reservations == 1
    assert [event for event in relay.events if isinstance(event, ReservationGranted)] == [
        ReservationGranted(link.owner.peer_id, 3600, renewal=False),
        ReservationGranted(link.owner.peer_id, 3600, renewal=True),
    ]


async def test_r15_a_second_peer_does_not_fit_into_a_relay_for_one(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_reservations=1)
    await relay.reserve(relay.peer(1))
    late = relay.peer(2)
    assert await refusal(relay, late) == "RESERVATION_REFUSED"
    await settle()
    assert relay.events[-1] == RelayRefusedRequest(
        late.owner.peer_id,
        "RESERVE",
        "RESERVATION_REFUSED",
        "max_reservations = 1 reached",
        "max_reservations",
    )


async def test_r15_one_network_does_not_take_all_places(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_reservations_per_prefix=2)
    place = parse("/ip6/2600:1:2:3::4/tcp/1")
    links = [net.connect(net.host(n), relay.host, dialer_place=place) for n in range(1, 4)]
    for link in links[:2]:
        await relay.reserve(link)
    assert await refusal(relay, links[2]) == "RESERVATION_REFUSED"


async def test_r13_a_relayed_peer_gets_neither_reservation_nor_circuit(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target = await relay.target(1)
    link = net.connect(net.host(2), relay.host, relay=CIRCUIT)
    assert await refusal(relay, link) == "PERMISSION_DENIED"
    assert await refusal(relay, link, target.owner.peer_id) == "PERMISSION_DENIED"
    assert relay.service.reservations == 1


async def test_r16_a_reservation_ends_at_once_with_the_last_direct_connection(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    first = await relay.target(1)
    peer_id = first.owner.peer_id
    second = net.connect(first.owner, relay.host)
    net.connect(first.owner, relay.host, relay=CIRCUIT)
    first.cut()
    await settle()
    assert relay.service.reservations == 1
    await relay.connect(relay.peer(2), peer_id)
    second.cut()
    await settle()
    assert relay.service.reservations == 0
    assert relay.events.count(ReservationEnded(peer_id, "disconnected")) == 1
    assert (peer_id, PROTECTED_AS) not in relay.host.protected
    assert await refusal(relay, relay.peer(3), peer_id) == "NO_RESERVATION"


async def test_r16_a_reservation_that_is_not_renewed_expires(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, reservation_seconds=100)
    early = await relay.target(1)
    await trio.sleep(60)
    late = await relay.target(2)
    await trio.sleep(40.5)
    assert await refusal(relay, relay.peer(3), early.owner.peer_id) == "NO_RESERVATION"
    assert relay.service.reservations == 1
    assert ReservationEnded(early.owner.peer_id, "expired") in relay.events
    await relay.connect(relay.peer(4), late.owner.peer_id)
    await trio.sleep(100)
    assert relay.service.reservations == 0
    await relay.target(5)
    await trio.sleep(101)
    assert relay.service.reservations == 0


async def test_r16_closings_that_were_missed_are_made_up_for(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    gone, staying = await relay.target(1), await relay.target(2)
    passing = relay.peer(3)
    for _ in range(2000):
        relay.host.publish(ConnectionClosed(passing.ref, "noise"))
    gone.cut()
    await settle()
    assert relay.service.reservations == 1
    await relay.connect(passing, staying.owner.peer_id)


async def test_r16_a_connection_that_ended_meanwhile_gets_no_reservation(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    link = relay.peer(1)
    stream = await link.open_stream(HOP)
    link.other_end.is_closed = True
    with pytest.raises(RelayRefused):
        await reserve(hop_channel(stream), relay.host.peer_id)
    assert relay.service.reservations == 0


# ---- requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x02\x08\x09", "MALFORMED_MESSAGE"),
        (b"\x02\x08\x01", "MALFORMED_MESSAGE"),
        (b"\x00", "MALFORMED_MESSAGE"),
        (b"\xff\xff\xff\xff\x0f", "MALFORMED_MESSAGE"),
        (b"\x81\x20", "MALFORMED_MESSAGE"),
        (encode_frame(encode_hop(HopStatus(Status.OK))), "UNEXPECTED_MESSAGE"),
    ],
)
async def test_r22_nonsense_is_answered_and_forgotten(
    net: FakeNet, autojump_clock: MockClock, request_: bytes, status: str
) -> None:
    relay = await relay_with(net)
    link = relay.peer(1)
    for _ in range(20):
        stream = await link.open_stream(HOP)
        await stream.send_all(request_)
        answer = await hop_channel(stream).receive()
        assert answer == HopStatus(Status[status])
        assert await stream.receive_some() == b""
    await relay.reserve(link)


async def test_r24_whoever_stalls_is_let_go_and_holds_nobody_else_up(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_pending_per_peer=3, request_timeout=15)
    link, other = relay.peer(1), relay.peer(2)
    stalled = [await link.open_stream(HOP) for _ in range(3)]
    for stream in stalled:
        await stream.send_all(b"\x02\x08")
    await settle()
    assert await refusal(relay, link) == "RESOURCE_LIMIT_EXCEEDED"
    await relay.reserve(other)
    await trio.sleep(16)
    for stream in stalled:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    await relay.reserve(link)


async def test_r24_a_client_that_does_not_read_its_answer_is_let_go(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_pending_per_peer=1, request_timeout=15)
    relay.host.window = link_window = 4
    link = relay.peer(1)
    link.owner.window = link_window
    stream = await link.open_stream(HOP)
    await stream.send_all(b"\x02\x08\x00")
    await trio.sleep(16)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    link.owner.window = 65_536
    await relay.reserve(link)


async def test_r24_refusals_that_nobody_takes_are_not_heaped_up(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_pending_per_peer=2, request_timeout=15)
    relay.host.window = 4
    link = relay.peer(1)
    link.owner.window = 4
    stalled = [await link.open_stream(HOP) for _ in range(2)]
    for stream in stalled:
        await stream.send_all(b"\x02\x08")
    await settle()
    flood = [await link.open_stream(HOP) for _ in range(5)]
    await settle()
    began = trio.current_time()
    for stream in flood[2:]:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert trio.current_time() == began
    link.owner.window = relay.host.window = 65_536
    await trio.sleep(16)
    await relay.reserve(link)


# ---- circuits ----------------------------------------------------------------------------


async def test_r19_r20_a_circuit_joins_two_peers(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    assert relay.offered == StopConnect(source.owner.peer_id, Limit(120, 131_072))
    assert relay.limit == Limit(120, 131_072)
    (served,) = relay.served
    assert relay.service.circuits == 1
    await stream.send_all(b"question")
    await stream.send_eof()
    assert await receive_exactly(served, 8) == b"question"
    assert await served.receive_some() == b""
    await served.send_all(b"the answer")
    await served.send_eof()
    assert await receive_exactly(stream, 10) == b"the answer"
    assert await stream.receive_some() == b""
    await settle()
    assert relay.service.circuits == 0
    assert all(stream.is_closed for stream in target.other_end.begun)
    assert not any(stream.was_reset for stream in target.other_end.begun)
    ends = (source.owner.peer_id, target.owner.peer_id)
    assert relay.events[-2:] == [
        CircuitOpened(*ends),
        CircuitClosed(*ends, 8, 10, "both sides finished"),
    ]


async def test_r1_bytes_behind_the_messages_belong_to_the_circuit(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)
    received = []

    async def accept(stream: Stream) -> None:
        await stop_channel(stream).receive()
        await stream.send_all(encode_frame(encode_stop(StopStatus(Status.OK))) + b"from target")
        received.append(await receive_exactly(stream, 11))
        await trio.sleep_forever()

    target.owner.handlers[STOP] = accept
    stream = await source.open_stream(HOP)
    request = encode_frame(encode_hop(HopConnect(target.owner.peer_id)))
    await stream.send_all(request + b"from source")
    answer = await hop_channel(stream).receive()
    assert answer == HopStatus(Status.OK, limit=Limit(120, 131_072))
    assert await receive_exactly(stream, 11) == b"from target"
    await settle()
    assert received == [b"from source"]


async def test_r20_the_source_hears_nothing_before_the_target_agreed(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)

    async def hesitate(stream: Stream) -> None:
        channel = stop_channel(stream)
        await channel.receive()
        await trio.sleep(20)
        await channel.send(StopStatus(Status.OK))
        await trio.sleep_forever()

    target.owner.handlers[STOP] = hesitate
    started = trio.current_time()
    await relay.connect(source, target.owner.peer_id)
    assert trio.current_time() - started >= 20


async def test_r18_no_reservation_no_circuit(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await relay_with(net)
    connected, source = relay.peer(1), relay.peer(2)
    absent = net.host(3).peer_id
    for target in (connected.owner.peer_id, absent, relay.host.peer_id):
        assert await refusal(relay, source, target) == "NO_RESERVATION"
    assert relay.host.dials == []


async def test_r18_a_reservation_without_a_direct_connection_is_none(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target = await relay.target(1)
    target.other_end.is_closed = True  # and nobody has been told yet
    assert await refusal(relay, relay.peer(2), target.owner.peer_id) == "NO_RESERVATION"


async def test_r18_nobody_gets_a_circuit_to_itself(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await relay_with(net)
    target = await relay.target(1)
    assert await refusal(relay, target, target.owner.peer_id) == "PERMISSION_DENIED"


async def test_r18_circuits_are_limited_per_peer_and_the_place_of_a_closed_one_is_free(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_circuits_per_peer=2)
    target, source = await relay.target(1), relay.peer(2)
    streams = [await relay.connect(source, target.owner.peer_id) for _ in range(2)]
    for asking in (source, relay.peer(3)):
        status = await refusal(relay, asking, target.owner.peer_id)
        assert status == "RESOURCE_LIMIT_EXCEEDED"
    streams[0].reset()
    await settle()
    await relay.connect(source, target.owner.peer_id)


async def test_r18_circuits_are_limited_in_all(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await relay_with(net, max_circuits=1)
    targets = [await relay.target(1), await relay.target(2)]
    await relay.connect(relay.peer(3), targets[0].owner.peer_id)
    status = await refusal(relay, relay.peer(4), targets[1].owner.peer_id)
    assert status == "RESOURCE_LIMIT_EXCEEDED"


async def test_r18_a_circuit_counts_while_its_target_makes_up_its_mind(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_circuits=1)
    target = await relay.target(1)
    target.owner.handlers[STOP] = silent
    net.nursery.start_soon(refusal, relay, relay.peer(2), target.owner.peer_id)
    await settle()
    status = await refusal(relay, relay.peer(3), target.owner.peer_id)
    assert status == "RESOURCE_LIMIT_EXCEEDED"


async def test_r43_both_ends_are_protected_until_the_last_of_their_circuits_ends(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    links = [await relay.target(1), await relay.target(2), relay.peer(3)]
    first, second, source = [link.owner.peer_id for link in links]
    streams = [await relay.connect(links[2], target) for target in (first, second)]
    assert in_circuit(relay) == {first, second, source}
    streams[0].reset()
    await settle()
    assert in_circuit(relay) == {second, source}
    streams[1].reset()
    await settle()
    assert in_circuit(relay) == set()
    assert (first, PROTECTED_AS) in relay.host.protected


async def test_r43_ends_are_protected_while_a_circuit_is_being_opened(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, max_circuits=1, stop_timeout=10)
    target, source = await relay.target(1), relay.peer(2)
    target.owner.handlers[STOP] = silent
    net.nursery.start_soon(refusal, relay, source, target.owner.peer_id)
    await settle()
    ends = {source.owner.peer_id, target.owner.peer_id}
    assert in_circuit(relay) == ends
    assert await refusal(relay, relay.peer(3), target.owner.peer_id) == "RESOURCE_LIMIT_EXCEEDED"
    assert in_circuit(relay) == ends
    await trio.sleep(11)
    assert in_circuit(relay) == set()


def in_circuit(relay: Relay) -> set[PeerId]:
    return {peer_id for peer_id, tag in relay.host.protected if tag == IN_CIRCUIT}


async def silent(stream: Stream) -> None:
    await trio.sleep_forever()


async def garbled(stream: Stream) -> None:
    await stream.send_all(b"\xff" * 20)
    await trio.sleep_forever()


async def asking_back(stream: Stream) -> None:
    await stop_channel(stream).send(StopConnect(stream.peer_id))
    await trio.sleep_forever()


async def hanging_up(stream: Stream) -> None:
    await stream.aclose()


async def test_r19_an_offer_goes_out_on_the_connection_that_the_reservation_came_by(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    first = await relay.target(1)
    second = net.connect(first.owner, relay.host)
    await relay.reserve(second)
    source = relay.peer(2)
    await relay.connect(source, first.owner.peer_id)
    assert relay.served[-1].connection is second
    second.cut()
    await relay.connect(source, first.owner.peer_id)
    assert relay.served[-1].connection is first


async def test_r20_a_source_that_leaves_meanwhile_leaves_nothing_behind(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)
    offers = []

    async def hesitate(stream: Stream) -> None:
        channel = stop_channel(stream)
        await channel.receive()
        await trio.sleep(20)
        await channel.send(StopStatus(Status.OK))
        offers.append(stream)
        await trio.sleep_forever()

    target.owner.handlers[STOP] = hesitate
    stream = await source.open_stream(HOP)
    await hop_channel(stream).send(HopConnect(target.owner.peer_id))
    await trio.sleep(10)
    stream.reset()
    await trio.sleep(20)
    assert relay.service.circuits == 0
    with pytest.raises(trio.BrokenResourceError):
        await offers[0].receive_some()


@pytest.mark.parametrize("target_does", [silent, garbled, asking_back, hanging_up, None])
async def test_r19_a_target_that_does_not_agree_is_a_failed_connection(
    net: FakeNet, autojump_clock: MockClock, target_does: StreamHandler | None
) -> None:
    relay = await relay_with(net, stop_timeout=30)
    target, source = await relay.target(1), relay.peer(2)
    if target_does is None:
        del target.owner.handlers[STOP]
    else:
        target.owner.handlers[STOP] = target_does
    started = trio.current_time()
    for _ in range(20):
        assert await refusal(relay, source, target.owner.peer_id) == "CONNECTION_FAILED"
    assert trio.current_time() - started <= 20 * 30 + 1
    assert relay.service.circuits == 0
    assert all(stream.was_reset for stream in target.other_end.begun if stream.protocol_id == STOP)


async def test_r19_a_target_that_declines_is_a_failed_connection(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target = await relay.target(1, status=Status.RESOURCE_LIMIT_EXCEEDED)
    assert await refusal(relay, relay.peer(2), target.owner.peer_id) == "CONNECTION_FAILED"
    await settle()
    event = relay.events[-1]
    assert isinstance(event, RelayRefusedRequest)
    assert event.reason == "the target said RESOURCE_LIMIT_EXCEEDED"
    assert relay.service.circuits == 0


async def test_r23_both_streams_of_a_circuit_are_reset_at_its_limit(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, circuit_bytes=1000, circuit_seconds=None)
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    assert relay.limit == Limit(0, 1000)
    await stream.send_all(bytes(1001))
    await settle()
    for end in (stream, relay.served[0]):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
    closed = relay.events[-1]
    assert isinstance(closed, CircuitClosed)
    assert (closed.bytes_forward, closed.reason) == (1000, "forward: limit of 1000 bytes")
    assert relay.service.circuits == 0


async def test_r23_time_is_up_for_a_circuit(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await relay_with(net, circuit_seconds=60, circuit_bytes=0)
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    assert relay.limit == Limit(60, 0)
    await trio.sleep(59)
    assert relay.service.circuits == 1
    await trio.sleep(2)
    assert relay.service.circuits == 0
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_r23_an_unlimited_circuit_says_so_and_stays(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net, circuit_seconds=0, circuit_bytes=None)
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    assert relay.limit is None
    assert relay.offered == StopConnect(source.owner.peer_id, None)
    await trio.sleep(80_000)
    net.nursery.start_soon(stream.send_all, bytes(1_000_000))
    assert await receive_exactly(relay.served[0], 1_000_000) == bytes(1_000_000)


@pytest.mark.parametrize("who", ["source", "target"])
async def test_a_circuit_ends_with_either_connection(
    net: FakeNet, autojump_clock: MockClock, who: str
) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)
    await relay.connect(source, target.owner.peer_id)
    (source if who == "source" else target).cut()
    await settle()
    assert relay.service.circuits == 0
    assert sum(isinstance(event, CircuitClosed) for event in relay.events) == 1


# ---- configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_reservations": 0},
        {"reservation_seconds": -1},
        {"reservation_seconds": float("inf")},
        {"request_timeout": float("nan")},
        {"buffer_bytes": 0},
        {"circuit_seconds": -1},
        {"circuit_seconds": 2**32},
        {"circuit_bytes": -1},
    ],
)
def test_a_relay_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RelayServer(**wrong)  # type: ignore[arg-type]


async def test_a_relay_cancelled_in_a_circuit_closes_it(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await relay_with(net)
    target, source = await relay.target(1), relay.peer(2)
    handler = relay.host.handlers[HOP]
    stream, far = source.stream_pair(HOP)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler, far)
            await connect(hop_channel(stream), relay.host.peer_id, target.owner.peer_id)
            scope.cancel()
    await settle()
    assert relay.service.circuits == 0
    closed = relay.events[-1]
    assert isinstance(closed, CircuitClosed)
    with pytest.raises(trio.BrokenResourceError):
        await relay.served[0].receive_some()
