"""Reservations that are kept for ever: specs/relay.md R7, R8, R9, R10, R11, R12, R13, R38."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.watch import Watch
from p2pnet.errors import DialError
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    NetworkChanged,
    ReservationAccepted,
    ReservationEnded,
    ReservationFailed,
    ReservationLost,
)
from p2pnet.interfaces import Stream
from p2pnet.protocols.relay.channels import hop_channel
from p2pnet.protocols.relay.client import RelayClient, RelayClientService
from p2pnet.protocols.relay.keeper import PROTECTED_AS
from p2pnet.protocols.relay.messages import HOP, HopStatus, Reservation, Status
from p2pnet.protocols.relay.server import RelayServer
from p2pnet.protocols.relay.vigil import ONLY_SILENCE
from p2pnet.protocols.relay.voucher import Voucher, seal
from tests.protocols.relay.fakes import CIRCUIT, FakeHost, FakeNet

Answer = Callable[[Stream], HopStatus | None]
"""What a relay of the test answers; nothing at all if None."""


@dataclass
class Diary:
    """The events of a client, with the time since the start of the test."""

    host: FakeHost
    accepted: list[tuple[float, ReservationAccepted]] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    count: Watch[int] = field(default_factory=lambda: Watch(0))
    """How many were accepted."""

    async def keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.host.bus.subscribe(ReservationAccepted, ReservationLost) as events:
            task_status.started()
            async for event in events:
                at = trio.current_time() - self.host.world.started
                if isinstance(event, ReservationAccepted):
                    self.accepted.append((at, event))
                    self.count.set(len(self.accepted))
                elif isinstance(event, ReservationLost):
                    self.lost.append((at, event.reason))


@dataclass
class Client:
    host: FakeHost
    service: RelayClientService
    diary: Diary


async def client_of(*relays: FakeHost, **config: float) -> Client:
    net = relays[0].world
    host = net.host(1)
    diary = Diary(host)
    await net.nursery.start(diary.keep)
    addresses = [relay.address for relay in relays]
    service = RelayClient(relays=addresses, **config).build(host.kit)  # type: ignore[arg-type]
    await host.start(service)
    return Client(host, service, diary)


async def honest_relay(net: FakeNet, seed: int = 100, **config: float) -> FakeHost:
    relay = net.host(seed)
    await relay.start(RelayServer(**config).build(relay.kit))  # type: ignore[arg-type]
    return relay


class OddRelay:
    """A relay that answers as a test tells it, and counts the requests."""

    def __init__(self, net: FakeNet, answer: Answer) -> None:
        self.host = net.host(100)
        self.answer = answer
        self.asked: list[float] = []
        self.streams: list[Stream] = []
        self.host.handle(HOP, self._serve)

    async def _serve(self, stream: Stream) -> None:
        self.asked.append(trio.current_time() - self.host.world.started)
        self.streams.append(stream)
        channel = hop_channel(stream)
        await channel.receive()
        answer = self.answer(stream)
        if answer is None:
            await trio.sleep_forever()
        else:
            await channel.send(answer)

    def grant(
        self, seconds: float = 3600, *, voucher: bytes | None = None, addresses: str = ""
    ) -> HopStatus:
        expire = int(self.host.world.env.wall_clock() + seconds)
        places = tuple(parse(text) for text in addresses.split())
        return HopStatus(Status.OK, Reservation(expire, places, voucher))


# ---- having one --------------------------------------------------------------------------


async def test_r7_a_client_reserves_at_once(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await honest_relay(net)
    client = await client_of(relay)
    await trio.sleep(1)
    ((at, event),) = client.diary.accepted
    assert at < 0.1
    circuit = parse(f"{relay.address}/p2p-circuit")
    assert event == ReservationAccepted(relay.peer_id, (circuit,), event.seconds, renewal=False)
    assert event.seconds == pytest.approx(3600, abs=1)
    assert client.service.relays == (relay.peer_id,)
    assert (relay.peer_id, PROTECTED_AS) in client.host.protected


async def test_r10_the_public_address_of_the_relay_is_advertised(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    public = parse(f"/ip4/1.2.3.4/tcp/4001/p2p/{relay.peer_id}")
    relay.addresses.set((public, *relay.addresses.value))
    client = await client_of(relay)
    await trio.sleep(1)
    assert client.diary.accepted[0][1].addresses == (parse(f"{public}/p2p-circuit"),)


async def test_r10_a_relay_that_gives_no_address_is_advertised_where_it_was_dialled(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    client = await client_of(odd.host)
    await trio.sleep(1)
    expected = (parse(f"{odd.host.address}/p2p-circuit"),)
    assert client.diary.accepted[0][1].addresses == expected


async def test_r10_over_a_connection_that_the_relay_opened_it_is_what_we_were_told(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    client = await client_of(odd.host)
    await trio.sleep(1)
    back = net.connect(odd.host, client.host, dialer_place=parse("/ip4/10.0.100.1/tcp/55555"))
    client.host.connections(odd.host.peer_id)[0].cut()
    await trio.sleep(1)
    assert client.host.connections(odd.host.peer_id) == (back.other_end,)
    addresses = [event.addresses for _, event in client.diary.accepted]
    assert addresses == [(parse(f"{odd.host.address}/p2p-circuit"),)] * 2


async def test_r11_it_is_renewed_before_it_expires(net: FakeNet, autojump_clock: MockClock) -> None:
    relay = await honest_relay(net, reservation_seconds=1000)
    client = await client_of(relay)
    await trio.sleep(5000)
    times = [at for at, _ in client.diary.accepted]
    renewals = [event.renewal for _, event in client.diary.accepted]
    assert renewals == [False] + [True] * (len(times) - 1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(650 <= gap <= 751 for gap in gaps)
    assert client.diary.lost == []
    assert len(relay.dials) == 0
    assert len(client.host.dials) == 1


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 650), (0.5, 700), (1.0, 750)])
async def test_r11_when_it_is_renewed_is_left_to_chance(
    net: FakeNet, autojump_clock: MockClock, share: float, seconds: float
) -> None:
    """All clients of a relay that was started anew reserve at once; they shall not stay in step."""
    net.env = replace(net.env, jitter=lambda low, high: low + share * (high - low))
    relay = await honest_relay(net, reservation_seconds=1000)
    client = await client_of(relay)
    await trio.sleep(5000)
    times = [at for at, _ in client.diary.accepted]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([seconds] * len(gaps), abs=1.5)
    assert len(gaps) == 5000 // seconds


async def test_r11_a_short_reservation_is_renewed_in_time_as_well(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net, reservation_seconds=20)
    client = await client_of(relay)
    ended = []
    with relay.bus.subscribe(ReservationEnded) as endings:
        await trio.sleep(600)
        with trio.move_on_after(1):
            ended.append(await anext(endings))
    assert not ended
    assert client.diary.lost == []


async def test_two_relays_are_kept_side_by_side(net: FakeNet, autojump_clock: MockClock) -> None:
    dead = net.host(50)
    dead.offline = True
    first, second = await honest_relay(net), await honest_relay(net, 101)
    client = await client_of(dead, first, second)
    await trio.sleep(1)
    assert set(client.service.relays) == {first.peer_id, second.peer_id}


# ---- losing it ---------------------------------------------------------------------------


async def test_r12_a_relay_that_disconnects_is_asked_again_at_once(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    client = await client_of(relay)
    await trio.sleep(500)
    client.host.connections(relay.peer_id)[0].cut()
    await trio.sleep(0.001)
    assert client.diary.lost == [(500, "the relay disconnected")]
    assert client.host.protected == set()
    assert not client.service.relays
    await trio.sleep(1)
    assert client.service.relays == (relay.peer_id,)
    assert client.diary.accepted[-1][1].renewal is False


async def test_r12_a_closing_that_was_missed_is_noticed(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    client = await client_of(relay)
    await trio.sleep(500)
    passing = net.connect(net.host(3), client.host).other_end
    for _ in range(2000):
        client.host.publish(ConnectionClosed(passing.ref, "noise"))
    await trio.sleep(1)
    assert client.diary.lost == []
    for _ in range(2000):
        client.host.publish(ConnectionClosed(passing.ref, "noise"))
    client.host.connections(relay.peer_id)[0].cut()
    await trio.sleep(0.001)
    assert client.diary.lost == [(501, "the relay disconnected")]


async def test_r38_a_relay_that_is_gone_is_tried_for_ever_and_its_return_is_noticed_soon(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    relay.offline = True
    client = await client_of(relay, min_backoff=1, max_redial=5)
    await trio.sleep(3600)
    # About 1, 2, 4 seconds, then every five (jitter takes a quarter off).
    assert 720 < len(client.host.dials) < 1440
    early = len(client.host.dials)
    await trio.sleep(36_000)
    assert 7200 < len(client.host.dials) - early < 14_400
    relay.offline = False
    await trio.sleep(5.1)
    assert client.service.relays == (relay.peer_id,)


async def test_r11_a_relay_that_refuses_is_asked_for_ever_less_and_less_often(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: HopStatus(Status.RESERVATION_REFUSED))
    client = await client_of(odd.host, min_backoff=1, max_backoff=60)
    await trio.sleep(3600)
    # About 1, 2, 4, 8, 16, 32 seconds, then every minute (jitter takes a quarter off).
    assert 60 < len(odd.asked) < 100
    early = len(odd.asked)
    await trio.sleep(36_000)
    assert 600 < len(odd.asked) - early < 1000
    odd.answer = lambda _: odd.grant()
    await trio.sleep(60)
    assert client.service.relays == (odd.host.peer_id,)


async def test_r38_a_dial_that_nobody_answers_is_given_up_for_a_fresh_one(
    net: FakeNet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await honest_relay(net)
    dialled = []

    async def hang(*args: object, **options: object) -> None:
        dialled.append(trio.current_time() - net.started)
        await trio.sleep_forever()

    monkeypatch.setattr(FakeHost, "dial", hang)
    client = await client_of(relay)
    with client.host.bus.subscribe(ReservationFailed) as failures:
        await trio.sleep(100)
        failure = await anext(failures)
    assert isinstance(failure.error, DialError)
    assert "timed out" in failure.reason
    gaps = [later - earlier for earlier, later in itertools.pairwise(dialled)]
    assert all(11 <= gap <= 16.1 for gap in gaps)


async def test_r38_a_relay_that_connects_is_asked_without_waiting(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: HopStatus(Status.RESERVATION_REFUSED))
    client = await client_of(odd.host)
    await trio.sleep(3600)
    stranger = net.host(3)
    asked = len(odd.asked)
    await trio.sleep(25)
    net.connect(stranger, client.host)
    await trio.sleep(0.9)
    assert len(odd.asked) - asked <= 1
    asked = len(odd.asked)
    odd.answer = lambda _: odd.grant()
    for connection in client.host.connections(odd.host.peer_id):
        connection.cut()
    net.connect(odd.host, client.host)
    await trio.sleep(0.9)
    assert client.service.relays == (odd.host.peer_id,)
    assert client.diary.accepted


async def test_r38_a_relay_that_connects_again_and_again_is_not_asked_in_a_loop(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: HopStatus(Status.RESERVATION_REFUSED))
    client = await client_of(odd.host, min_backoff=1)
    await trio.sleep(1)

    async def knock() -> None:
        (connection,) = client.host.connections(odd.host.peer_id)
        while True:
            await trio.sleep(0.01)
            client.host.publish(ConnectionOpened(connection.ref))

    net.nursery.start_soon(knock)
    await trio.sleep(100)
    assert len(odd.asked) < 220


async def test_r38_after_a_move_the_relay_is_asked_whether_it_is_still_there(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    client = await client_of(odd.host)
    await trio.sleep(500)
    client.host.publish(NetworkChanged("moved"))
    await trio.sleep(1)
    assert [event.renewal for _, event in client.diary.accepted] == [False, True]
    assert len(client.host.dials) == 1
    # Somewhere else the old connection leads nowhere, and a new one does.
    (old,) = client.host.connections(odd.host.peer_id)
    odd.answer = lambda stream: None if stream.connection.ref == old.other_end.ref else odd.grant()
    client.host.publish(NetworkChanged("moved"))
    await trio.sleep(8)
    assert old.is_closed
    assert [event.renewal for _, event in client.diary.accepted] == [False, True, False]
    assert client.service.relays == (odd.host.peer_id,)


async def test_r38_after_a_move_nobody_waits_for_the_next_attempt(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: HopStatus(Status.RESERVATION_REFUSED))
    client = await client_of(odd.host)
    await trio.sleep(3600)
    odd.answer = lambda _: odd.grant()
    await trio.sleep(1)
    client.host.publish(NetworkChanged("moved"))
    await trio.sleep(1)
    assert client.service.relays == (odd.host.peer_id,)


async def test_r11_each_failure_is_told_with_the_time_of_the_next_try(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    relay.offline = True
    client = await client_of(relay)
    told: list[tuple[float, ReservationFailed]] = []
    with client.host.bus.subscribe(ReservationFailed) as failures:
        while len(told) < 3:
            event = await anext(failures)
            told.append((trio.current_time(), event))
    assert all(event.relay == relay.peer_id and event.reason for _, event in told)
    for (at, event), (later, _) in itertools.pairwise(told):
        assert later - at == pytest.approx(event.retry_seconds, abs=0.5)
    relay.offline = False
    await trio.sleep(60)
    assert len(client.diary.accepted) == 1
    assert client.diary.lost == []


async def test_r38_after_a_failure_every_address_of_the_relay_is_tried(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    elsewhere = f"/ip4/9.9.9.9/tcp/1/p2p/{relay.peer_id}"
    host = net.host(1)
    service = RelayClient(relays=[elsewhere, relay.address]).build(host.kit)
    await host.start(service)
    await trio.sleep(5)
    assert service.relays == (relay.peer_id,)


async def test_r12_a_refused_renewal_is_a_loss(net: FakeNet, autojump_clock: MockClock) -> None:
    odd = OddRelay(net, lambda _: odd.grant(1000))
    client = await client_of(odd.host)
    await trio.sleep(1)
    odd.answer = lambda _: HopStatus(Status.RESERVATION_REFUSED)
    await trio.sleep(800)
    ((at, reason),) = client.diary.lost
    assert at < 751
    assert "RESERVATION_REFUSED" in reason
    assert not client.service.relays
    odd.answer = lambda _: odd.grant(1000)
    await trio.sleep(60)
    assert client.service.relays == (odd.host.peer_id,)


async def test_ka11_a_connection_is_watched_as_long_as_a_reservation_hangs_on_it(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant(1000))
    client = await client_of(odd.host)
    await trio.sleep(1)
    (first,) = client.host.connections(odd.host.peer_id)
    assert first.alert == ONLY_SILENCE
    second = net.connect(client.host, odd.host)
    first.cut()
    await trio.sleep(1)
    assert [each.alert for each in (first, second)] == [None, ONLY_SILENCE]
    odd.answer = lambda _: HopStatus(Status.RESERVATION_REFUSED)
    await trio.sleep(800)
    assert not client.service.relays
    assert second.alert is None


async def test_r12_without_an_answer_it_is_held_until_it_expires(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant(1000))
    client = await client_of(odd.host, reserve_timeout=10)
    await trio.sleep(1)
    odd.answer = lambda _: None
    await trio.sleep(950)
    assert client.service.relays == (odd.host.peer_id,)
    assert len(odd.asked) > 3
    await trio.sleep(100)
    ((at, reason),) = client.diary.lost
    assert reason == "expired"
    assert 1000 <= at <= 1011


async def test_a_request_that_is_given_up_leaves_no_stream(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: None)
    await client_of(odd.host, reserve_timeout=10)
    await trio.sleep(11)
    with pytest.raises(trio.BrokenResourceError):
        await odd.streams[0].receive_some()


async def test_r11_a_renewal_makes_up_for_earlier_failures(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: HopStatus(Status.RESERVATION_REFUSED))
    client = await client_of(odd.host)
    await trio.sleep(100)
    odd.answer = lambda _: odd.grant(1000)
    await client.diary.count.wait_for(lambda count: count == 2)
    odd.answer = lambda _: HopStatus(Status.OK)  # which is no reservation, and no refusal
    await trio.sleep(800)
    assert not client.diary.lost
    first, second, third = next_three(client, odd)
    assert second - first < 1.1
    assert third - second < 2.1


def next_three(client: Client, odd: OddRelay) -> list[float]:
    """Return when the relay was asked, from the first failing renewal on."""
    last = client.diary.accepted[-1][0]
    return [at for at in odd.asked if at > last][:3]


async def test_r11_a_reservation_that_was_renewed_is_steady_from_its_beginning(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net, reservation_seconds=100)
    client = await client_of(relay)
    await client.diary.count.wait_for(lambda count: count == 3)
    client.host.connections(relay.peer_id)[0].cut()
    await trio.sleep(0.1)
    assert client.service.relays == (relay.peer_id,)
    assert len(client.diary.accepted) == 4


async def test_r12_a_client_that_stops_protects_nobody_any_more(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    host = net.host(1)
    service = RelayClient(relays=[relay.address]).build(host.kit)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: service.run(host, task_status=task_status))
        await trio.sleep(1)
        assert host.protected
        nursery.cancel_scope.cancel()
    assert not host.protected


async def test_r12_with_a_second_connection_it_is_renewed_there_and_not_lost(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    client = await client_of(relay)
    await trio.sleep(1)
    net.connect(client.host, relay)
    client.host.connections(relay.peer_id)[0].cut()
    await trio.sleep(1)
    assert client.diary.lost == []
    assert [event.renewal for _, event in client.diary.accepted] == [False, True]


async def test_r12_if_the_second_connection_does_not_do_it_is_lost(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    client = await client_of(odd.host, reserve_timeout=10)
    await trio.sleep(100)
    odd.answer = lambda _: None
    net.connect(client.host, odd.host)
    client.host.connections(odd.host.peer_id)[0].cut()
    await trio.sleep(20)
    assert [reason for _, reason in client.diary.lost] == ["the relay disconnected"]


async def test_r11_a_relay_that_grants_and_hangs_up_is_not_asked_in_a_loop(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    client = await client_of(odd.host, min_backoff=1, max_backoff=60)

    async def hang_up() -> None:
        while True:
            await trio.sleep(0.5)
            for connection in odd.host.connections():
                connection.cut()

    net.nursery.start_soon(hang_up)
    await trio.sleep(3600)
    assert 40 < len(odd.asked) < 120
    assert len(client.diary.lost) == len(client.diary.accepted)


# ---- what is wrong with it ---------------------------------------------------------------


async def no_reservation(client: Client, caplog: pytest.LogCaptureFixture) -> str:
    """Expect that the client takes nothing, and return what it logged."""
    with caplog.at_level(logging.INFO, "p2pnet.relay"):
        await trio.sleep(100)
    assert client.diary.accepted == []
    assert not client.service.relays
    assert client.host.protected == set()
    return caplog.text


@pytest.mark.parametrize("seconds", [-301, -10_000])
async def test_r8_a_reservation_of_the_past_is_not_taken(
    net: FakeNet, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    odd = OddRelay(net, lambda _: odd.grant(seconds))
    assert "is a clock wrong?" in await no_reservation(await client_of(odd.host), caplog)


@pytest.mark.parametrize(("seconds", "held"), [(10**9, 86_400), (30, 30), (2, 10), (-200, 60)])
async def test_r8_the_time_a_relay_promises_is_clamped(
    net: FakeNet, autojump_clock: MockClock, seconds: float, held: float
) -> None:
    odd = OddRelay(net, lambda _: odd.grant(seconds))
    client = await client_of(odd.host)
    await trio.sleep(1)
    assert client.diary.accepted[0][1].seconds == pytest.approx(held, abs=0.1)


async def test_r8_a_clock_that_is_wrong_by_minutes_does_no_harm(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net, reservation_seconds=1000)
    net.wall += 600
    client = await client_of(relay)
    await trio.sleep(5000)
    assert client.diary.lost == []


OTHER = PrivateKey.from_seed(b"o" * 32)
OTHER_ID = PeerId.from_public_key(OTHER.public_key)


async def test_r9_a_voucher_that_does_not_fit_spoils_the_reservation(
    net: FakeNet, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    odd = OddRelay(net, lambda _: odd.grant())
    relay, key = odd.host.peer_id, odd.host.key
    client = await client_of(odd.host)
    us = client.host.peer_id
    soon = int(net.env.wall_clock()) + 1000
    for voucher in (
        b"",
        b"garbage",
        seal(Voucher(relay, OTHER_ID, soon), key),
        seal(Voucher(OTHER_ID, us, soon), OTHER),
        seal(Voucher(relay, us, soon), OTHER),
        seal(Voucher(relay, us, soon - 2000), key),
    ):
        odd.answer = lambda _, voucher=voucher: odd.grant(voucher=voucher)  # type: ignore[misc]
        caplog.clear()
        client.diary.accepted.clear()
        assert "misbehaving peer" in await no_reservation(client, caplog)
    odd.answer = lambda _: odd.grant(voucher=seal(Voucher(relay, us, soon), key))
    await trio.sleep(60)
    assert client.service.relays == (relay,)


@pytest.mark.parametrize(
    "answer",
    [HopStatus(Status.OK), HopStatus(Status.RESERVATION_REFUSED), HopStatus(Status.UNUSED)],
)
async def test_r7_no_reservation_is_none(
    net: FakeNet, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, answer: HopStatus
) -> None:
    odd = OddRelay(net, lambda _: answer)
    client = await client_of(odd.host)
    assert "reserving at" in await no_reservation(client, caplog)
    assert len(odd.asked) > 3


async def test_a_host_that_is_no_relay_is_asked_again_later(
    net: FakeNet, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = await client_of(net.host(100))
    assert "speaks none of" in await no_reservation(client, caplog)


async def test_r13_a_relay_behind_a_relay_is_dialled_directly_or_not_used(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relay = await honest_relay(net)
    host = net.host(1)
    net.connect(host, relay, relay=CIRCUIT)
    service = RelayClient(relays=[relay.address]).build(host.kit)
    await host.start(service)
    await trio.sleep(1)
    assert service.relays == (relay.peer_id,)
    assert [dial.addresses for dial in host.dials] == [(str(relay.place),)]
