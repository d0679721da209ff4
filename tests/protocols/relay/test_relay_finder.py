"""Relays that are found among peers: specs/relay.md R34, R35, R36, R37."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.events import (
    PeerIdentified,
    Reachability,
    ReservationAccepted,
    ReservationLost,
)
from p2pnet.interfaces import Role, Stream, Target
from p2pnet.protocols.relay.client import RelayClient, RelayClientService
from p2pnet.protocols.relay.finder import MAX_RESTING, PING, REST_SECONDS, SPARE, PeerSource
from p2pnet.protocols.relay.messages import HOP
from p2pnet.protocols.relay.server import RelayServer
from tests.protocols.memory_world import MemoryConnection
from tests.protocols.relay.fakes import CIRCUIT, FakeHost, FakeNet

NETWORKS = itertools.count(20)


@dataclass
class Seeker:
    """A host that looks for relays, and what it has been told."""

    host: FakeHost
    service: RelayClientService

    @property
    def held(self) -> set[FakeHost]:
        return {host for host in self.host.world.hosts if host.peer_id in self.service.relays}

    @property
    def events(self) -> list[object]:
        kinds = (ReservationAccepted, ReservationLost)
        return [event for event in self.host.published if isinstance(event, kinds)]

    def meet(self, relay: FakeHost, *, inbound: bool = False) -> MemoryConnection:
        """Connect to a relay, and let it tell what it serves."""
        if inbound:
            connection = self.host.world.connect(relay, self.host).other_end
        else:
            connection = self.host.world.connect(self.host, relay)
        self.identify(connection)
        return connection

    def identify(self, connection: MemoryConnection) -> None:
        protocols = tuple(connection.remote.handlers)
        self.host.peers.set_protocols(connection.peer_id, protocols)
        told = PeerIdentified(connection.ref, "", "", protocols, (), None, pushed=False)
        self.host.publish(told)


async def seeker(
    net: FakeNet, *relays: FakeHost, source: PeerSource | None = None, **config: float | None
) -> Seeker:
    host = net.host(1)
    named = [relay.address for relay in relays]
    part = RelayClient(relays=named, peer_source=source, **config)  # type: ignore[arg-type]
    seeking = Seeker(host, part.build(host.kit))
    await host.start(seeking.service)
    return seeking


async def relay_of(
    net: FakeNet, seed: int, *, away: float | None = 0.02, address: str = "", **limits: float
) -> FakeHost:
    """Put a relay somewhere of its own; ``away`` is its round trip, None if it serves no ping."""
    place = address or f"/ip4/7.{seed}.0.1/tcp/4001"
    relay = net.host(seed, place)
    await relay.start(RelayServer(**limits).build(relay.kit))  # type: ignore[arg-type]

    async def answer(stream: Stream) -> None:
        async for data in stream:
            await trio.sleep(away or 0)
            await stream.send_all(data)

    if away is not None:
        relay.handle(PING, answer)
    return relay


# ---- among connected peers ---------------------------------------------------------------


async def test_r34_connected_relays_are_reserved_at_within_a_second(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    relays = [await relay_of(net, 50), await relay_of(net, 51)]
    await trio.sleep(100)
    for relay in relays:
        seeking.meet(relay)
    await trio.sleep(1.0)
    assert seeking.held == set(relays)
    for event in seeking.events:
        assert isinstance(event, ReservationAccepted)
        (address,) = event.addresses
        assert "p2p-circuit" in str(address)


async def test_r34_as_many_are_kept_as_wanted(net: FakeNet, autojump_clock: MockClock) -> None:
    seeking = await seeker(net, wanted_relays=3)
    for seed in range(50, 60):
        seeking.meet(await relay_of(net, seed))
    await trio.sleep(1000)
    assert len(seeking.held) == 3
    assert len(seeking.events) == 3


async def test_r36_the_two_nearest_in_different_networks_are_kept(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    near = await relay_of(net, 50, away=0.01, address="/ip4/7.1.0.1/tcp/1")
    beside = await relay_of(net, 51, away=0.02, address="/ip4/7.1.9.9/tcp/1")
    far = await relay_of(net, 52, away=0.2, address="/ip4/7.2.0.1/tcp/1")
    silent = await relay_of(net, 53, away=None, address="/ip4/7.3.0.1/tcp/1")
    for relay in (silent, far, beside, near):
        seeking.meet(relay)
    await trio.sleep(10)
    assert seeking.held == {near, far}


async def test_r36_a_relay_that_never_answers_a_ping_is_better_than_none(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    async def hang(stream: Stream) -> None:
        await trio.sleep_forever()

    seeking = await seeker(net)
    deaf, mute = await relay_of(net, 50), await relay_of(net, 51, away=None)
    deaf.handle(PING, hang)
    seeking.meet(deaf)
    seeking.meet(mute)
    await trio.sleep(3)
    assert seeking.held == {deaf, mute}


async def test_r34_whom_strangers_can_dial_needs_no_found_relay(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    named, met = await relay_of(net, 50), await relay_of(net, 51)
    seeking = await seeker(net, named, find_relays=True)
    seeking.host.reachability.set(Reachability.PUBLIC)
    seeking.meet(met)
    await trio.sleep(10)
    assert seeking.held == {named}
    seeking.host.reachability.set(Reachability.PRIVATE)
    await trio.sleep(1)
    assert seeking.held == {named, met}
    seeking.host.reachability.set(Reachability.PUBLIC)
    await trio.sleep(1)
    assert seeking.held == {named}
    assert "no relay is needed" in seeking.host.of_kind(ReservationLost)[0].reason
    assert not any(peer == met.peer_id for peer, _ in seeking.host.protected)
    await trio.sleep(10_000)
    assert seeking.held == {named}


async def test_r34_named_relays_are_enough_unless_more_are_asked_for(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    named, met = await relay_of(net, 50), await relay_of(net, 51)
    seeking = await seeker(net, named)
    seeking.meet(met)
    await trio.sleep(100)
    assert seeking.held == {named}


async def test_r34_found_ones_make_up_for_named_ones_that_are_gone(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    named, other, met = [await relay_of(net, seed) for seed in (50, 51, 52)]
    seeking = await seeker(net, named, other, find_relays=True)
    seeking.meet(met)
    await trio.sleep(10)
    assert seeking.held == {named, other}
    named.offline = True
    seeking.host.connections(named.peer_id)[0].cut()
    await trio.sleep(5)
    assert seeking.held == {other, met}
    # And it is not forgotten.
    await trio.sleep(10_000)
    named.offline = False
    await trio.sleep(6)
    assert {named, other} <= seeking.held


async def test_r35_a_peer_that_serves_no_hop_is_not_asked(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    seeking.meet(net.host(50))
    relay = await relay_of(net, 51)
    seeking.identify(net.connect(seeking.host, relay, relay=CIRCUIT))
    await trio.sleep(100)
    assert not seeking.held
    # It may begin to, and tell so.
    seeking.meet(relay)
    await trio.sleep(1)
    assert seeking.held == {relay}


async def test_r35_a_peer_that_came_to_us_needs_an_address_that_it_told(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    relay = await relay_of(net, 50)
    seeking.meet(relay, inbound=True)
    await trio.sleep(100)
    assert not seeking.held
    seeking.host.peers.add_addresses(relay.peer_id, [relay.place], seconds=1000)
    seeking.identify(seeking.host.connections(relay.peer_id)[0])
    await trio.sleep(1)
    assert seeking.held == {relay}
    (accepted,) = seeking.events
    assert isinstance(accepted, ReservationAccepted)
    assert accepted.addresses == (parse(f"{relay.address}/p2p-circuit"),)


# ---- what becomes of them ----------------------------------------------------------------


async def test_r37_another_takes_the_place_of_one_that_died(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    relays = [await relay_of(net, 50 + n, away=0.01 * (n + 1)) for n in range(3)]
    links = [seeking.meet(relay) for relay in relays]
    await trio.sleep(10)
    assert seeking.held == set(relays[:2])
    relays[0].offline = True
    links[0].cut()
    await trio.sleep(5)
    assert seeking.held == set(relays[1:])
    dials = len(seeking.host.dials)
    await trio.sleep(REST_SECONDS - 100)
    assert len(seeking.host.dials) == dials, "the dead one is left alone"


async def test_r37_when_all_are_gone_they_are_asked_until_one_is_back(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    seeking = await seeker(net)
    relays = [await relay_of(net, seed) for seed in (50, 51)]
    links = [seeking.meet(relay) for relay in relays]
    await trio.sleep(10)
    for relay, link in zip(relays, links, strict=True):
        relay.offline = True
        link.cut()
    await trio.sleep(10_000)
    assert not seeking.held
    relays[1].offline = False
    await trio.sleep(6)
    assert seeking.held == {relays[1]}


async def test_r37_a_relay_that_refuses_is_passed_over(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    def nobody(*_: object) -> bool:
        return False

    seeking = await seeker(net, wanted_relays=1)
    full = await relay_of(net, 50, away=0.01, may_reserve=nobody)  # type: ignore[arg-type]
    free = await relay_of(net, 51, away=0.3)
    for relay in (full, free):
        seeking.meet(relay)
    await trio.sleep(3)
    assert seeking.held == {free}
    assert [type(event) for event in seeking.events] == [ReservationAccepted]


async def test_r37_a_crowd_of_relays_that_refuse_is_asked_a_few_at_a_time(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    def nobody(*_: object) -> bool:
        return False

    seeking = await seeker(net, max_candidates=5)
    for seed in range(50, 90):
        seeking.meet(await relay_of(net, seed, may_reserve=nobody))  # type: ignore[arg-type]
    for _ in range(600):
        await trio.sleep(1)
        assert len(seeking.service._keepers) <= 2 + SPARE
    good = await relay_of(net, 99)
    seeking.meet(good)
    await trio.sleep(60)
    assert seeking.held == {good}


async def test_r37_those_that_were_given_up_are_remembered_within_bounds(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    assert MAX_RESTING <= 4096
    seeking = await seeker(net, wanted_relays=1)
    bad, good = await relay_of(net, 50, away=0.01), await relay_of(net, 51, away=0.2)
    seeking.meet(bad)
    await trio.sleep(1)
    bad.offline = True
    for connection in seeking.host.connections(bad.peer_id):
        connection.cut()
    seeking.meet(good)
    await trio.sleep(5)
    assert seeking.held == {good}
    # After its rest it is a candidate again.
    bad.offline = False
    await trio.sleep(REST_SECONDS)
    seeking.meet(bad)
    good.offline = True
    for connection in seeking.host.connections(good.peer_id):
        connection.cut()
    await trio.sleep(5)
    assert seeking.held == {bad}


# ---- the peer source ---------------------------------------------------------------------


class Book:
    """A peer source that names what a test put in."""

    def __init__(self, *targets: Target) -> None:
        self.targets = list(targets)
        self.asked: list[float] = []
        self.open = 0

    async def __call__(self) -> AsyncIterator[Target]:
        self.asked.append(trio.current_time())
        self.open += 1
        try:
            for target in self.targets:
                await trio.sleep(0.01)
                yield target
        finally:
            self.open -= 1


def identifying(seeking: Seeker) -> None:
    """Let every peer that is dialled tell what it serves."""
    reach = seeking.host.reach

    async def reach_and_hear(
        peer_id: PeerId, addresses: Sequence[Multiaddr], role: Role
    ) -> MemoryConnection:
        connection = await reach(peer_id, addresses, role)
        seeking.identify(connection)
        return connection

    seeking.host.reach = reach_and_hear  # type: ignore[method-assign]


async def test_r35_the_peer_source_is_asked_when_no_peer_relays(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    relays = [await relay_of(net, seed) for seed in (50, 51)]
    plain = net.host(52)
    book = Book(plain.address, parse(relays[0].address), relays[1].address)
    seeking = await seeker(net, source=book)
    identifying(seeking)
    await trio.sleep(2)
    assert seeking.held == set(relays)
    await trio.sleep(1000)
    assert len(book.asked) == 1, "two are enough"
    assert book.open == 0


async def test_r35_the_peer_source_is_asked_again_but_not_too_often(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    book = Book()
    seeking = await seeker(net, source=book, source_interval=30)
    identifying(seeking)
    for _ in range(300):
        await trio.sleep(1)
        seeking.meet(net.host(60))
    assert 8 <= len(book.asked) <= 11
    assert all(later - earlier > 29.99 for earlier, later in itertools.pairwise(book.asked))
    relay = await relay_of(net, 50)
    book.targets.append(relay.address)
    await trio.sleep(65)
    assert seeking.held == {relay}


async def test_r35_of_a_source_without_end_a_few_are_taken(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    async def endless() -> AsyncIterator[Target]:
        for number in itertools.count():
            yield f"/ip4/9.9.{number // 250 % 250}.{number % 250}/tcp/1/p2p/{absent.peer_id}"

    absent = net.host(50)
    seeking = await seeker(net, source=endless, max_candidates=7)
    await trio.sleep(29)
    assert 0 < len(seeking.host.dials) <= 7


async def test_r35_a_source_that_hangs_is_left_after_its_time(
    net: FakeNet, autojump_clock: MockClock
) -> None:
    ended = []

    async def hanging() -> AsyncIterator[Target]:
        try:
            await trio.sleep_forever()
            yield ""
        finally:
            ended.append(trio.current_time())

    await seeker(net, source=hanging, source_interval=30)
    await trio.sleep(100)
    assert 2 <= len(ended) <= 4


async def test_r35_a_source_that_fails_is_told_and_asked_again(
    net: FakeNet, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    async def broken() -> AsyncIterator[Target]:
        asked.append(trio.current_time())
        yield "nonsense"
        raise RuntimeError("out of peers")

    with caplog.at_level(logging.ERROR, "p2pnet.relay"):
        seeking = await seeker(net, source=broken)
        await trio.sleep(100)
    assert len(asked) >= 3
    assert "the peer source of RelayClient failed" in caplog.text
    caplog.clear()
    relay = await relay_of(net, 50)
    seeking.meet(relay)
    await trio.sleep(1)
    assert seeking.held == {relay}


def test_a_source_is_reason_enough_to_look() -> None:
    assert RelayClient().finds_relays
    assert not RelayClient(find_relays=False).finds_relays
    named = ["/ip4/1.2.3.4/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"]
    assert not RelayClient(relays=named).finds_relays
    assert RelayClient(relays=named, peer_source=Book()).finds_relays
    for name in ("wanted_relays", "max_candidates", "source_interval", "reach_timeout"):
        with pytest.raises(ValueError, match=name):
            RelayClient(**{name: 0})  # type: ignore[arg-type]
    assert HOP.endswith("/hop")
