"""Circuits, from both ends and through a relay that means well or not.

specs/relay.md R6, R22, R24, R25, R26, R27, R28.
"""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.foreword import Foreword
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    AddressUnsupported,
    DialError,
    PeerIdMismatch,
    ProtocolError,
    RelayRefused,
)
from p2pnet.events import CircuitOffered
from p2pnet.interfaces import CapableConnection, CircuitLimit, Role, Stream
from p2pnet.protocols.relay.channels import hop_channel, stop_channel
from p2pnet.protocols.relay.client import RelayClient, RelayClientService
from p2pnet.protocols.relay.messages import (
    HOP,
    STOP,
    HopConnect,
    HopStatus,
    Limit,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
)
from p2pnet.protocols.relay.server import RelayServer
from p2pnet.protocols.relay.transport import MAX_PLACES, CircuitTransport
from tests.protocols.memory_streams import MemoryStream, receive_exactly
from tests.protocols.memory_world import MemoryConnection
from tests.protocols.relay.fakes import CIRCUIT, FakeCapable, FakeHost, FakeNet


class Trio:
    """A relay, a listener with a reservation there, and a dialer."""

    def __init__(self, net: FakeNet) -> None:
        self.net = net
        self.relay, self.listener, self.dialer = net.host(100), net.host(1), net.host(2)

    async def start(self, *, server: RelayServer | None, **config: float) -> None:
        if server is not None:
            await self.relay.start(server.build(self.relay.kit))
        part = RelayClient(relays=[self.relay.address], **config)  # type: ignore[arg-type]
        self.service: RelayClientService = part.build(self.listener.kit)
        await self.listener.start(self.service)
        await self.dialer.start(RelayClient().build(self.dialer.kit))
        await trio.sleep(0.1)

    @property
    def address(self) -> Multiaddr:
        return parse(f"{self.relay.address}/p2p-circuit")

    async def dial(self, *, role: Role = Role.DIALER) -> FakeCapable:
        (transport,) = self.dialer.transports
        assert transport.can_dial(self.address)
        dialled = await transport.dial(self.address, peer_id=self.listener.peer_id, role=role)
        return fake(dialled)


def fake(connection: CapableConnection) -> FakeCapable:
    assert isinstance(connection, FakeCapable)
    return connection


async def relayed(net: FakeNet, server: RelayServer | None = None, **config: float) -> Trio:
    three = Trio(net)
    await three.start(server=server or RelayServer(), **config)
    assert three.service.relays == (three.relay.peer_id,)
    return three


async def settle() -> None:
    await trio.sleep(0.1)


# ---- both ends ---------------------------------------------------------------------------


async def test_r25_r27_r28_a_circuit_is_a_connection_on_both_ends(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    here = await three.dial()
    await settle()
    (there,) = map(fake, three.listener.accepted)
    assert (here.peer_id, there.peer_id) == (three.listener.peer_id, three.dialer.peer_id)
    assert (here.role, there.role) == (Role.DIALER, Role.LISTENER)
    assert here.remote_address == there.remote_address == three.address
    assert here.limit == there.limit == CircuitLimit(120, 131_072)
    await there.stream.wait_send_all_might_not_block()
    await here.stream.send_all(b"hello")
    assert await receive_exactly(there.stream, 5) == b"hello"
    await there.stream.send_eof()
    assert await here.stream.receive_some() == b""
    assert three.service.inbound_circuits == 1
    await there.aclose()
    await here.aclose()
    await settle()
    assert three.service.inbound_circuits == 0
    assert three.listener.accepted == [there]


async def test_r25_the_role_of_the_dial_is_that_of_the_upgrade(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    assert (await three.dial(role=Role.LISTENER)).role is Role.LISTENER


async def test_r6_a_circuit_without_limits_is_not_limited(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net, RelayServer(circuit_seconds=None, circuit_bytes=None))
    assert (await three.dial()).limit is None
    await settle()
    assert three.listener.accepted[0].limit is None


async def test_r27_the_circuit_that_its_relay_resets_is_over(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net, RelayServer(circuit_seconds=60))
    await three.dial()
    await trio.sleep(61)
    (there,) = map(fake, three.listener.accepted)
    with pytest.raises(trio.BrokenResourceError):
        await there.stream.receive_some()
    await there.aclose()
    await settle()
    assert three.service.inbound_circuits == 0


async def test_r26_the_place_of_a_closed_circuit_is_free_again(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net, max_inbound_circuits=1)
    first = await three.dial()
    with pytest.raises(RelayRefused) as raised:
        await three.dial()
    assert raised.value.status == "CONNECTION_FAILED"
    await first.aclose()
    await three.listener.accepted[0].aclose()
    await settle()
    await three.dial()


# ---- the dialling end --------------------------------------------------------------------


async def test_r25_a_peer_without_reservation_is_refused_with_advice(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    stranger = net.host(3).peer_id
    with pytest.raises(RelayRefused, match="is it running with --relay") as raised:
        await three.dialer.transports[0].dial(three.address, peer_id=stranger)
    assert raised.value.status == "NO_RESERVATION"


async def test_r25_a_host_that_is_no_relay_cannot_be_dialled_through(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = Trio(net)
    await three.start(server=None)
    with pytest.raises(AddressUnsupported, match="serves no hop"):
        await three.dial()


async def test_r25_a_relay_that_cannot_be_reached_is_a_dial_error(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    three.relay.offline = True
    with pytest.raises(DialError):
        await three.dial()


async def test_r25_the_connection_to_the_relay_that_is_there_is_used(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    await three.dial()
    await three.dial()
    assert len(three.dialer.dials) == 1
    (transport,) = three.dialer.transports
    short = parse(f"/p2p/{three.relay.peer_id}/p2p-circuit")
    await transport.dial(short, peer_id=three.listener.peer_id)
    assert len(three.dialer.dials) == 1


async def test_r25_a_relay_known_by_name_only_is_looked_up(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    three.dialer.peers.add_addresses(three.relay.peer_id, [three.relay.place], seconds=1)
    short = parse(f"/p2p/{three.relay.peer_id}/p2p-circuit")
    await three.dialer.transports[0].dial(short, peer_id=three.listener.peer_id)


async def test_r25_a_relay_is_looked_for_where_its_peer_says_at_so_many_places(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    relay, known = three.relay.peer_id, three.dialer.peers
    told = [parse(f"/ip4/11.9.9.{n}/tcp/1") for n in range(1, MAX_PLACES + 3)]
    others = [f"/ip4/11.8.8.8/tcp/1/p2p/{three.listener.peer_id}/p2p-circuit", "/p2p-circuit"]
    circuits = [f"{place}/p2p/{relay}/p2p-circuit" for place in told]
    addresses = [parse(text) for text in (*others, *circuits, "/ip4/11.7.7.7/tcp/1")]
    known.add_addresses(three.listener.peer_id, addresses, seconds=9)
    await three.dial()
    assert known.addresses(relay) == (three.relay.place, *told[: MAX_PLACES - 1])


async def test_r25_no_circuit_runs_over_another_circuit(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    net.connect(three.dialer, three.relay, relay=CIRCUIT)
    short = parse(f"/p2p/{three.relay.peer_id}/p2p-circuit")
    with pytest.raises(AddressUnsupported, match="behind a relay"):
        await three.dialer.transports[0].dial(short, peer_id=three.listener.peer_id)
    await three.dial()
    assert [dial.addresses for dial in three.dialer.dials] == [(str(three.relay.place),)]


class HostileRelay:
    """Grants reservations, and does with circuits as a test tells it."""

    def __init__(self, net: FakeNet) -> None:
        self.three = Trio(net)
        self.three.relay.handle(HOP, self._serve)

    async def _serve(self, stream: Stream) -> None:
        channel = hop_channel(stream)
        if isinstance(await channel.receive(), Reserve):
            expire = int(self.three.net.env.wall_clock()) + 3600
            await channel.send(HopStatus(Status.OK, Reservation(expire)))
        else:
            await self.on_connect(stream)

    async def on_connect(self, stream: Stream) -> None:
        raise NotImplementedError

    async def offer(self, *messages: StopMessage) -> tuple[StopMessage, MemoryStream]:
        """Offer the listener a circuit, on the connection that it made."""
        link = self.three.relay.connections(self.three.listener.peer_id)[0]
        return await offer_on(link, *messages)


async def offer_on(
    link: MemoryConnection, *messages: StopMessage
) -> tuple[StopMessage, MemoryStream]:
    stream = await link.open_stream(STOP)
    channel = stop_channel(stream)
    for message in messages:
        await channel.send(message)
    return await channel.receive(), stream


async def hostile(net: FakeNet, **config: float) -> HostileRelay:
    relay = HostileRelay(net)
    await relay.three.start(server=None, **config)
    assert relay.three.service.relays == (relay.three.relay.peer_id,)
    return relay


async def test_r25_a_relay_that_passes_another_peer_off_is_found_out(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)

    async def pose(stream: Stream) -> None:
        await hop_channel(stream).send(HopStatus(Status.OK))
        mine = relay.three.relay.peer_id.to_bytes()
        await stream.send_all(bytes([len(mine)]) + mine)
        await trio.sleep_forever()

    relay.on_connect = pose  # type: ignore[method-assign]
    with pytest.raises(PeerIdMismatch):
        await relay.three.dial()


async def answers_connect(stream: Stream) -> None:
    await hop_channel(stream).send(HopConnect(stream.peer_id))


async def answers_garbage(stream: Stream) -> None:
    await stream.send_all(b"\xff" * 100)


async def answers_nothing(stream: Stream) -> None:
    await stream.aclose()


@pytest.mark.parametrize("does", [answers_connect, answers_garbage, answers_nothing])
async def test_r25_an_answer_that_is_none_breaks_the_rules(
    net: FakeNet, autojump_clock: MockClock, does: Awaitable[None]
) -> None:
    relay = await hostile(net)
    relay.on_connect = does  # type: ignore[assignment]
    with pytest.raises(ProtocolError):
        await relay.three.dial()


async def test_a_dial_that_is_given_up_leaves_no_stream(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)
    streams = []

    async def wait(stream: Stream) -> None:
        streams.append(stream)
        await trio.sleep_forever()

    relay.on_connect = wait  # type: ignore[method-assign]
    with trio.move_on_after(5):
        await relay.three.dial()
    with pytest.raises(trio.BrokenResourceError):
        await streams[0].receive_some()


@pytest.mark.parametrize(
    ("text", "dialable"),
    [
        ("/ip4/1.2.3.4/tcp/1/p2p/{0}/p2p-circuit", True),
        ("/dns4/relay.example/tcp/1/p2p/{0}/p2p-circuit", True),
        ("/p2p/{0}/p2p-circuit", True),
        ("/ip4/1.2.3.4/tcp/1/p2p/{0}/p2p-circuit/p2p/{0}", False),
        ("/ip4/1.2.3.4/tcp/1/p2p/{0}", False),
        ("/ip4/1.2.3.4/tcp/1/p2p-circuit", False),
        ("/ip4/1.2.3.4/tcp/1/p2p/{0}/p2p-circuit/p2p/{0}/p2p-circuit", False),
    ],
)
def test_r25_one_relay_is_named_and_the_way_to_it(text: str, dialable: bool) -> None:
    peer_id = PeerId(b"\x12\x20" + bytes(32))
    host = FakeHost.__new__(FakeHost)
    transport = CircuitTransport(host, None, None, Foreword())  # type: ignore[arg-type]
    assert transport.can_dial(parse(text.format(peer_id))) is dialable


async def test_a_circuit_address_cannot_be_listened_on(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    (transport,) = three.dialer.transports
    assert not transport.can_listen(three.address)
    with pytest.raises(AddressUnsupported, match="RelayClient"):
        await transport.listen(three.address)
    with pytest.raises(AddressUnsupported):
        await transport.dial(three.relay.place, peer_id=three.relay.peer_id)


# ---- the called end ----------------------------------------------------------------------


async def test_r27_a_caller_has_to_be_the_one_the_relay_named(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)
    three = relay.three
    answer, stream = await relay.offer(StopConnect(three.dialer.peer_id))
    assert answer == StopStatus(Status.OK)
    mine = three.relay.peer_id.to_bytes()
    await stream.send_all(bytes([len(mine)]) + mine)
    await settle()
    assert [type(error) for error in three.listener.refused] == [PeerIdMismatch]
    assert three.listener.accepted == []
    assert three.listener.pending == [three.address]
    assert three.service.inbound_circuits == 0


async def test_r6_the_limit_of_an_offer_is_the_limit_of_the_connection(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)
    caller = relay.three.dialer.peer_id
    _, stream = await relay.offer(StopConnect(caller, Limit(120_000, 5)))
    await stream.send_all(bytes([len(caller.to_bytes())]) + caller.to_bytes())
    await settle()
    assert relay.three.listener.accepted[0].limit == CircuitLimit(120, 5)


async def test_r26_only_a_relay_that_we_asked_may_offer_circuits(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = await relayed(net)
    stranger = net.connect(net.host(5), three.listener)
    answer, _ = await offer_on(stranger, StopConnect(three.dialer.peer_id))
    assert answer == StopStatus(Status.NO_RESERVATION)
    assert three.listener.accepted == []


async def test_r26_a_relay_whose_reservation_is_over_may_not_either(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)
    three = relay.three
    three.relay.offline = True
    three.listener.connections(three.relay.peer_id)[0].cut()
    await trio.sleep(0.02)
    back = net.connect(three.relay, three.listener)
    answer, _ = await offer_on(back, StopConnect(three.dialer.peer_id))
    assert answer == StopStatus(Status.NO_RESERVATION)


async def test_r26_a_circuit_may_come_before_the_answer_to_our_request(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    three = Trio(net)
    answers = []

    async def offer_first(stream: Stream) -> None:
        await hop_channel(stream).receive()
        link = three.relay.connections(three.listener.peer_id)[0]
        answers.append((await offer_on(link, StopConnect(three.dialer.peer_id)))[0])
        await trio.sleep_forever()

    three.relay.handle(HOP, offer_first)
    await three.start(server=None)
    assert answers == [StopStatus(Status.OK)]


async def test_r26_no_circuit_comes_over_a_circuit(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await hostile(net)
    link = net.connect(relay.three.relay, relay.three.listener, relay=CIRCUIT)
    answer, _ = await offer_on(link, StopConnect(relay.three.dialer.peer_id))
    assert answer == StopStatus(Status.PERMISSION_DENIED)


async def test_r27_that_somebody_calls_is_told_once_the_offer_is_taken(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net, max_inbound_circuits=1)
    three = relay.three
    call = StopConnect(three.dialer.peer_id)
    with three.listener.subscribe(CircuitOffered) as told:
        for _ in range(2):
            await relay.offer(call)
        waiting = list(told.take_waiting())
    assert waiting == [CircuitOffered(three.dialer.peer_id, three.relay.peer_id)]


async def test_r26_nobody_is_called_by_itself(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await hostile(net)
    answer, _ = await relay.offer(StopConnect(relay.three.listener.peer_id))
    assert answer == StopStatus(Status.PERMISSION_DENIED)


async def test_r26_offers_are_limited_while_nobody_has_proved_anything(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net, max_inbound_circuits=2)
    call = StopConnect(relay.three.dialer.peer_id)
    answers = [(await relay.offer(call))[0] for _ in range(3)]
    assert answers == [
        StopStatus(Status.OK),
        StopStatus(Status.OK),
        StopStatus(Status.RESOURCE_LIMIT_EXCEEDED),
    ]


async def test_r26_one_relay_does_not_take_the_circuits_of_another(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net, max_inbound_circuits=4, find_relays=True, wanted_relays=2)
    call = StopConnect(relay.three.dialer.peer_id)
    answers = [(await relay.offer(call))[0] for _ in range(4)]
    taken, refused = StopStatus(Status.OK), StopStatus(Status.RESOURCE_LIMIT_EXCEEDED)
    assert answers == [taken, taken, refused, refused]
    assert relay.three.service.inbound_circuits == 2


async def test_r22_an_offer_that_makes_no_sense_is_answered(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await hostile(net)
    answer, stream = await relay.offer(StopStatus(Status.OK))
    assert answer == StopStatus(Status.UNEXPECTED_MESSAGE)
    assert await stream.receive_some() == b""
    link = relay.three.relay.connections(relay.three.listener.peer_id)[0]
    stream = await link.open_stream(STOP)
    await stream.send_all(b"\x02\x08\x09")
    assert await stop_channel(stream).receive() == StopStatus(Status.MALFORMED_MESSAGE)


async def test_r24_an_offer_that_stalls_is_let_go(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await hostile(net, stop_timeout=15)
    link = relay.three.relay.connections(relay.three.listener.peer_id)[0]
    stream = await link.open_stream(STOP)
    await stream.send_all(b"\x26\x08")
    await trio.sleep(16)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


# ---- looking for peers, and the configuration --------------------------------------------


async def test_an_unknown_peer_is_looked_for_behind_our_relays(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay, dead, host = net.host(100), net.host(101), net.host(1)
    dead.offline = True
    await relay.start(RelayServer().build(relay.kit))
    await host.start(RelayClient(relays=[dead.address, relay.address]).build(host.kit))
    await trio.sleep(1)
    (find,) = host.finders
    stranger = PeerId(b"\x12\x20" + bytes(32))
    expected = [parse(f"{place.address}/p2p-circuit") for place in (relay, dead)]
    assert list(find(stranger)) == expected
    assert list(find(relay.peer_id)) == []


@pytest.mark.parametrize(
    ("relay", "reason"),
    [
        ("/ip4/1.2.3.4/tcp/1", "must end in /p2p"),
        ("/p2p/{0}", "where to dial"),
        ("/ip4/1.2.3.4/tcp/1/p2p/{0}/p2p-circuit/p2p/{0}", "directly"),
        ("nonsense", "not a multiaddr"),
    ],
)
def test_a_relay_that_cannot_be_dialled_is_refused_early(relay: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RelayClient(relays=[relay.format(PeerId(b"\x12\x20" + bytes(32)))])


@pytest.mark.parametrize(
    "wrong",
    [
        {"reserve_timeout": 0},
        {"max_addresses": 0},
        {"max_inbound_circuits": -1},
        {"min_backoff": 61},
        {"relays": "/ip4/1.2.3.4/tcp/1"},
    ],
)
def test_a_client_without_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RelayClient(**wrong)  # type: ignore[arg-type]


async def test_a_host_cannot_be_its_own_relay(net: FakeNet, autojump_clock: MockClock) -> None:
    host = net.host(1)
    with pytest.raises(ValueError, match="its own relay"):
        RelayClient(relays=[host.address]).build(host.kit)
